/** A page around a client: its window and its document. */

import { getEventListeners } from "node:events";

export function page(t) {
  const view = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  const before = Object.getOwnPropertyDescriptor(globalThis, "addEventListener");
  globalThis.addEventListener = view.addEventListener.bind(view);
  globalThis.document = document;
  t.after(() => {
    delete globalThis.document;
    if (before) Object.defineProperty(globalThis, "addEventListener", before);
    else delete globalThis.addEventListener;
  });
  return {
    fire: (name, fields) => view.dispatchEvent(Object.assign(new Event(name), fields)),
    fireDocument: (name) => document.dispatchEvent(new Event(name)),
    show(visibilityState) {
      document.visibilityState = visibilityState;
      document.dispatchEvent(new Event("visibilitychange"));
    },
    listeners: () =>
      ["online", "offline", "pagehide", "pageshow"].flatMap((name) => getEventListeners(view, name)).length +
      ["visibilitychange", "resume"].flatMap((name) => getEventListeners(document, name)).length,
  };
}
