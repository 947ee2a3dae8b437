"use strict";
// A button beside every line to be copied. Browsers give scripts the clipboard only over https or on localhost;
// elsewhere the line is selected, ready for the keyboard.
for (const line of document.querySelectorAll(".command")) {
  const code = line.querySelector("code");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy: " + code.textContent);
  button.addEventListener("click", async () => {
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
  });
  line.append(button);
}
// The part that changes is fetched anew while somebody looks at it.
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("#now");
    if (fresh) document.querySelector("#now").replaceWith(fresh);
  } catch {
    const banner = document.querySelector("#now .banner");
    if (banner) {
      banner.className = "banner bad";
      banner.textContent = "This server does not answer. What follows is how it was before.";
    }
  }
}, 5000);
