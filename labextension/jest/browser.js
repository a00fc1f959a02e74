// What a browser has and jsdom lacks, as far as JupyterLab's packages ask for it on import.
const { TextDecoder, TextEncoder } = require('util');

globalThis.TextDecoder ??= TextDecoder;
globalThis.TextEncoder ??= TextEncoder;
globalThis.fetch ??= fetch;
globalThis.DragEvent ??= class DragEvent extends Event {};
globalThis.ResizeObserver ??= class ResizeObserver {
  observe() {}
  unobserve() {}
  disconnect() {}
};
globalThis.matchMedia ??= () => ({
  matches: false,
  addListener() {},
  removeListener() {}
});
