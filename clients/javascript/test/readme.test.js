/** The README is code: what it shows runs, and its tables are what the source says. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Implementation, quiet, serve } from "./server.js";

const README = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const SOURCE = readFileSync(new URL("../symphony.js", import.meta.url), "utf8");
const blocks = (language) =>
  [...README.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"))].map((match) => match[1]);

const MODULE = JSON.stringify(new URL("../symphony.js", import.meta.url).href);

/** What the example of rooms prints. */
const ROOM = ["Ada hi", "load it again: some messages are gone", "bye Bob"];

/** Answer whatever an example asks. */
async function answer(peer) {
  for (;;) {
    const message = await peer.nextMessage();
    if (peer.raw) {
      peer.message(message);
      continue;
    }
    const { event, data, id, join: room, leave } = JSON.parse(message);
    if (room) {
      const position = { epoch: "e", offset: 0 };
      peer.frame({ joined: room, position });
      peer.frame({ reply: id });
      peer.frame({ event: "said", data: { name: "Ada", text: "hi" }, room, offset: 1 });
      peer.frame({ lost: room, position: { epoch: "e", offset: 6 } });
      peer.frame({ event: "bye", data: "Bob", room, offset: 7 });
    }
    if (leave) peer.frame({ reply: id, data: true });
    if (event === "say") peer.frame({ event: "said", data: { name: "Ada", text: data.text } });
    if (event === "sign in") peer.frame({ reply: id });
    if (event === "sum") peer.frame({ reply: id, data: data.reduce((a, b) => a + b) });
    if (event === "buy")
      peer.frame({ error: id, data: { code: "shop.sold_out", message: "no lamp is left" } });
    if (event === "count") {
      for (let item = 1; item <= data; item++) peer.frame({ item: id, data: item });
      peer.frame({ end: id });
    }
  }
}

for (const [number, block] of blocks("js").entries()) {
  test(`example ${number + 1} runs`, { timeout: 10_000 }, async (t) => {
    const printed = quiet(t, "log");
    const server = await serve(t);
    const raw = block.includes("/echo");
    if (raw) server.raw();
    server.peer().then((peer) => answer(Object.assign(peer, { raw })));
    const own = globalThis.WebSocket;
    globalThis.WebSocket = Implementation;
    globalThis.location = { href: server.url.replace("ws", "http") };
    t.after(() => {
      globalThis.WebSocket = own;
      delete globalThis.location;
    });
    const source = block.replaceAll('"symphony-ws"', MODULE);
    await import(`data:text/javascript,${encodeURIComponent(source)}`);
    assert.deepEqual(
      printed(),
      { 0: ["Ada hi", "1", "2", "3"], 1: ["shop.sold_out no lamp is left false null"], 4: ROOM, 5: ["text"] }[
        number
      ] ?? [],
    );
  });
}

test("the example of types is the one that is checked", () => {
  const plain = (text) => text.replaceAll(/\s+/g, " ").trim();
  const checked = plain(readFileSync(new URL("types.ts", import.meta.url), "utf8"));
  const [example] = blocks("ts");
  const [, body] = example.split(/^import .*$/m);
  assert.ok(checked.includes(plain(body)), "test/types.ts has another one");
});

test("every option of connect is in the table, with its default", () => {
  const [, list] = SOURCE.match(/@typedef \{object\} Options\n(.*?)\*\//s);
  const options = [...list.matchAll(/@property \{.*\} \[(\w+)\]/g)].map((match) => match[1]);
  const [, table] = README.match(/\| option of `connect`.*?\n(.*?)\n\n/s);
  const named = [...table.matchAll(/^\| (.*?) \|/gm)]
    .flatMap((row) => [...row[1].matchAll(/`(\w+)`/g)])
    .map((match) => match[1]);
  assert.deepEqual(named.sort(), options.sort());
  const defaults = Object.fromEntries(
    [...SOURCE.match(/const DEFAULTS = \{(.*?)\n\};/s)[1].matchAll(/(\w+): (\d[\d.]*),/g)].map((match) => [
      match[1],
      match[2],
    ]),
  );
  for (const [name, value] of Object.entries(defaults)) {
    const row = table.split("\n").find((line) => line.includes(`\`${name}\``));
    assert.ok(row.split("|")[2].includes(value), `${name} is ${value}`);
  }
});
