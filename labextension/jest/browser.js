// What a browser has and jsdom lacks, as far as JupyterLab's packages ask for it on import.
const { TextDecoder, TextEncoder } = require('util');

globalThis.TextDecoder ??= TextDecoder;
globalThis.TextEncoder ??= TextEncoder;
// Tests have no network: whoever sends a request is handed what sends it.
globalThis.fetch ??= () => Promise.reject(new TypeError('Failed to fetch'));
globalThis.Headers ??= class Headers {};
globalThis.Request ??= class Request {};
globalThis.Response ??= class Response {};
globalThis.DragEvent ??= class DragEvent extends Event {};
class Observer {
  observe() {}
  unobserve() {}
  disconnect() {}
}
globalThis.IntersectionObserver ??= Observer;
globalThis.ResizeObserver ??= Observer;
globalThis.matchMedia ??= () => ({
  matches: false,
  addListener() {},
  removeListener() {}
});
navigator.clipboard ??= { writeText: () => Promise.resolve() };

// Reading a cell before it is part of a notebook is JupyterLab's way, and yjs's reason for a page of warnings each time.
const warn = console.warn;
console.warn = (...args) => {
  if (!args.some(arg => /yjs/i.test(String(arg)))) {
    warn(...args);
  }
};
