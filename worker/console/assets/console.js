"use strict";
// What pages do beyond plain HTML, for all rooms. Without it everything still works, a page load at a time.
(() => {
  const ask = document.getElementById("ask");
  const silent = document.getElementById("silent");
  document.documentElement.classList.add("scripted");

  // Copying. Browsers give scripts the clipboard only over https or on localhost; elsewhere the old way is tried, and if
  // that fails too, the line is selected, ready for the keyboard.
  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let copied = false;
    try {
      if (navigator.clipboard) {
        await navigator.clipboard.writeText(code.textContent);
        copied = true;
      } else {
        copied = document.execCommand("copy");
      }
    } catch {
      copied = false;
    }
    button.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copy(button);
    const close = event.target.closest("[data-close]");
    if (close && ask.open) {
      event.preventDefault();
      ask.close();
    }
  });

  // Questions come into the dialog. A token that was shown in it does not stay behind.
  ask.addEventListener("close", () => ask.replaceChildren());
  ask.addEventListener("click", (event) => {
    // Beside the dialog's content: its backdrop.
    if (event.target === ask) ask.close();
  });
  document.body.addEventListener("limpet:done", () => { if (ask.open) ask.close(); });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === ask && !ask.open) ask.showModal();
  });

  // Parts that are fetched again and again: only while somebody looks, and swapped only if something changed, so that
  // a selection stays.
  const last = new WeakMap();
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden && event.detail.elt.hasAttribute("data-poll")) event.preventDefault();
  });
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const { target, serverResponse } = event.detail;
    if (!target.hasAttribute("data-poll")) return;
    if (last.get(target) === serverResponse) event.detail.shouldSwap = false;
    last.set(target, serverResponse);
  });

  // A server that is away is said, and what it said last stays.
  document.body.addEventListener("htmx:sendError", () => { silent.hidden = false; });
  document.body.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.xhr.status > 0) silent.hidden = true;
  });
})();
