// Makes everything that the language brings unchangeable, so that a call can leave nothing there for the next one. The global
// object may still get new properties, as scripts that forget `var` give it; what comes back tells whether it did.
(function () {
  "use strict";
  const { freeze, defineProperty, getOwnPropertyDescriptor, getPrototypeOf } = Object;
  const { ownKeys } = Reflect;

  // These would be kept by the engine itself.
  for (const [name, value] of [["stackTraceLimit", 10], ["prepareStackTrace", undefined]]) {
    if (getOwnPropertyDescriptor(Error, name)) defineProperty(Error, name, { value, writable: false, configurable: false });
  }

  // What no name leads to.
  const roots = [
    function* () {}, async function () {}, async function* () {}, [][Symbol.iterator](), new Map().entries(),
    new Set().values(), ""[Symbol.iterator](), "".matchAll(/a/g), [].values().map((x) => x), Iterator.from({ next() {} }),
  ];
  const seen = new Set([globalThis]);
  const open = [...roots];
  const reach = (value) => {
    if ((typeof value === "object" && value !== null) || typeof value === "function") {
      if (!seen.has(value)) {
        seen.add(value);
        open.push(value);
      }
    }
  };
  const look = (object) => {
    reach(getPrototypeOf(object));
    for (const key of ownKeys(object)) {
      const property = getOwnPropertyDescriptor(object, key);
      reach(property.value);
      reach(property.get);
      reach(property.set);
    }
  };
  look(globalThis);
  while (open.length) {
    const object = open.pop();
    look(object);
    freeze(object);
  }
  for (const key of ownKeys(globalThis)) {
    const property = getOwnPropertyDescriptor(globalThis, key);
    if (property.configurable) {
      defineProperty(globalThis, key, "value" in property ? { writable: false, configurable: false } : { configurable: false });
    }
  }
  const keys = ownKeys(globalThis).length;
  const prototype = getPrototypeOf(globalThis);
  return () => ownKeys(globalThis).length === keys && getPrototypeOf(globalThis) === prototype;
})();
