// Many people edit one board that several workers serve, with the provider of Yjs, unchanged. After each line of
// standard input, all of them edit, and a line is printed when all have everything.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../clients/javascript/package.json", import.meta.url));
const Y = require("yjs");
const WebSocket = require("ws");
const { WebsocketProvider } = require("y-websocket");

const [url, count] = process.argv.slice(2);
setTimeout(() => assert.fail("what a board should show did not come"), 100_000);

const people = Array.from({ length: Number(count) }, (_, number) => {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(`${url}/boards`, "plan", doc, {
    WebSocketPolyfill: WebSocket,
    disableBc: true,
    maxBackoffTime: 300,
  });
  provider.on("closed", (end) => assert.fail(`the provider has given up: ${JSON.stringify(end)}`));
  return { name: `p${number}`, doc, provider, shapes: doc.getMap("shapes") };
});

function all(condition) {
  return new Promise((resolve) => {
    const look = () => {
      if (!people.every(condition)) return;
      for (const { doc, provider } of people) {
        doc.off("update", look);
        provider.off("sync", look);
      }
      resolve();
    };
    for (const { doc, provider } of people) {
      doc.on("update", look);
      provider.on("sync", look);
    }
    look();
  });
}

let round = 0;
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "end") break;
  round++;
  for (const { name, shapes } of people) shapes.set(`${name} in ${round}`, round);
  await all(({ provider, shapes }) => provider.synced && shapes.size === round * people.length);
  console.log(round);
}
process.exit(0);
