/** The module of MessagePack is loaded when a client asks for it, and not before. */

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { FakeSocket, handshake } from "./fake.js";
import { Implementation, quiet, serve } from "./server.js";

let copies = 0;
/** The client again, as a module that has loaded nothing yet. */
const fresh = () => import(`../symphony.js?copy=${++copies}`);

test("what waits is copied as it was, before the module is there", async (t) => {
  const server = await serve(t);
  const own = await fresh();
  const client = own.connect(server.url, { WebSocket: Implementation, protocol: "msgpack" });
  t.after(() => client.close());
  const data = { bytes: new Uint8Array([1]), at: new Date(5), big: 2n ** 63n, small: 3n, list: [1, undefined], no: undefined };
  client.emit("say", { ...data, own: { toJSON: () => "mine" } });
  data.bytes[0] = 9;
  data.at.setTime(9);
  data.list.push(9);
  const peer = await server.peer();
  const { data: came } = await peer.next();
  assert.deepEqual(came, { bytes: new Uint8Array([1]), at: new Date(5), big: 2n ** 63n, small: 3, list: [1, null], own: "mine" });
});

test("what MessagePack cannot say is refused before the module is there", async (t) => {
  const own = await fresh();
  const client = own.connect("ws://127.0.0.1:1/", { WebSocket: FakeSocket, protocol: "msgpack" });
  t.after(() => client.close());
  const circle = [];
  circle.push(circle);
  for (const [value, error] of [
    [() => {}, TypeError],
    [Symbol("x"), TypeError],
    [{ deep: [new Float32Array(1)] }, TypeError],
    [2n ** 64n, RangeError],
    [-(2n ** 63n) - 1n, RangeError],
    [circle, RangeError],
  ]) {
    assert.throws(() => client.emit("say", value), error);
  }
});

test("a module that cannot be loaded is a failed attempt, and told on the console", async (t) => {
  const errors = quiet(t, "error");
  // As in a folder to which only the one file was copied.
  const folder = mkdtempSync(path(tmpdir(), "symphony-"));
  t.after(() => rmSync(folder, { recursive: true }));
  copyFileSync(new URL("../symphony.js", import.meta.url), path(folder, "symphony.mjs"));
  const own = await import(pathToFileURL(path(folder, "symphony.mjs")).href);
  const lone = own.connect("ws://127.0.0.1:1/", { WebSocket: FakeSocket, protocol: "msgpack", reconnect: false });
  await assert.rejects(lone.opened, {
    name: "DisconnectedError",
    code: 1006,
    reason: "the MessagePack module could not be loaded",
  });
  assert.match(errors()[0], /msgpack\.js could not be loaded/);
  const json = own.connect("ws://127.0.0.1:1/", { WebSocket: FakeSocket });
  t.after(() => json.close());
  await handshake();
  assert.equal(FakeSocket.last.url, "ws://127.0.0.1:1/");
});

test("a client that is closed while the module loads opens nothing", async () => {
  const own = await fresh();
  FakeSocket.last = null;
  const client = own.connect("ws://127.0.0.1:1/", { WebSocket: FakeSocket, protocol: "msgpack" });
  await handshake();
  await client.close();
  await import("../msgpack.js");
  await new Promise(setImmediate);
  assert.equal(FakeSocket.last, null);
});
