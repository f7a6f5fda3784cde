// Edits a board with the provider of Yjs, unchanged. Prints what it has seen, and fails if something is missing.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

const require = createRequire(new URL("../../clients/javascript/package.json", import.meta.url));
const Y = require("yjs");
const WebSocket = require("ws");
const { WebsocketProvider } = require("y-websocket");

const [url] = process.argv.slice(2);
setTimeout(() => assert.fail("what a board should show did not come"), 50_000);
const open = [];

function board(name, key) {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(`${url}/boards`, name, doc, {
    WebSocketPolyfill: WebSocket,
    disableBc: true,
    maxBackoffTime: 200,
  });
  provider.awareness.setLocalStateField("user", { name: key });
  const person = { doc, provider, shapes: doc.getMap("shapes"), text: doc.getText("title") };
  open.push(person);
  return person;
}

// Wait until a condition holds, and look again at each change.
function until({ doc, provider }, condition) {
  return new Promise((resolve) => {
    const look = () => {
      if (!condition()) return;
      doc.off("update", look);
      provider.off("sync", look);
      provider.off("status", look);
      provider.awareness.off("change", look);
      resolve();
    };
    doc.on("update", look);
    provider.on("sync", look);
    provider.on("status", look);
    provider.awareness.on("change", look);
    look();
  });
}

const names = ({ provider }) => [...provider.awareness.getStates().values()].map(({ user }) => user?.name).sort();
const sees = (person, ...wanted) => until(person, () => names(person).join() === wanted.join());
const synced = (person) => until(person, () => person.provider.synced);
const content = ({ shapes, text }) => [text.toString(), shapes.toJSON()];
// The order of keys may differ.
const same = (one, other) => isDeepStrictEqual(content(one), content(other));

// Changes reach the others, and those who come later.
const ann = board("plan", "ann");
await synced(ann);
ann.shapes.set("1", { type: "circle", x: 10, y: 20 });
ann.text.insert(0, "Plan für März 📐");
const ben = board("plan", "ben");
await until(ben, () => ben.shapes.size === 1 && ben.text.length > 0);
assert.equal(ben.text.toString(), "Plan für März 📐");
assert.deepEqual(ben.shapes.get("1"), { type: "circle", x: 10, y: 20 });

// Everybody sees the cursors, also those who come later, and until they go.
await Promise.all([ann, ben].map((person) => sees(person, "ann", "ben")));
const cleo = board("plan", "cleo");
await Promise.all([ann, ben, cleo].map((person) => sees(person, "ann", "ben", "cleo")));
cleo.provider.ws.terminate();
await sees(ann, "ann", "ben");
// Yjs shows a cursor again when it moves: what has the same number as before is not news.
await synced(cleo);
cleo.provider.awareness.setLocalStateField("user", { name: "cleo" });
await Promise.all([ann, ben].map((person) => sees(person, "ann", "ben", "cleo")));
cleo.provider.destroy();
await Promise.all([ann, ben].map((person) => sees(person, "ann", "ben")));

// What both do at the same time is merged in the same way for both.
for (let number = 0; number < 50; number++) {
  ann.text.insert(number % 3, "a");
  ben.text.insert(number % 2, "b");
  ann.shapes.set(`a${number}`, number);
  ben.shapes.set(`b${number}`, number);
}
await Promise.all([ann, ben].map((person) => until(person, () => person.shapes.size === 101)));
// Whoever has everything last sees it.
await Promise.race([ann, ben].map((person) => until(person, () => same(ann, ben))));

// Changes that were made offline reach the others when the connection is back.
ben.provider.disconnect();
ben.shapes.set("offline", true);
ann.shapes.delete("1");
ann.shapes.set("meanwhile", true);
ben.provider.connect();
await until(ann, () => ann.shapes.has("offline") && ann.shapes.size === 102);
await until(ben, () => ben.shapes.has("meanwhile") && !ben.shapes.has("1") && ben.shapes.size === 102);
assert.ok(same(ann, ben));

// Boards have nothing to do with each other, and keep what is on them when all have gone.
const other = board("other", "dan");
await synced(other);
assert.equal(other.shapes.size, 0);
assert.deepEqual(names(other), ["dan"]);
for (const { provider } of [ann, ben]) provider.destroy();
const eve = board("plan", "eve");
await synced(eve);
assert.equal(eve.shapes.size, 102);
assert.deepEqual(names(eve), ["eve"]);

for (const { provider } of open) provider.destroy();
console.log("done");
process.exit(0);
