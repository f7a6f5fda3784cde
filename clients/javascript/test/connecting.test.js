import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";

import { connect, DisconnectedError, RefusedError } from "../symphony.js";
import { FakeSocket, handshake } from "./fake.js";
import { Implementation, join, pair, quiet, reach, serve, stopTime } from "./server.js";

test("handlers registered in the same turn miss nothing", async (t) => {
  const server = await serve(t);
  server.choose = (offered) => {
    setImmediate(async () => (await server.peer()).frame({ event: "first", data: 1 }));
    return offered[0];
  };
  const client = join(t, server.url);
  const first = new Promise((resolve) => client.on("first", resolve));
  assert.equal(client.state, "connecting");
  assert.equal(await first, 1);
});

test("the frames' encoding, the ways to say no, what else is wanted and the token are offered", async (t) => {
  const server = await serve(t);
  join(t, server.url, { token: "sésame?>~", subprotocols: ["chat.v2"] });
  const { offered } = await server.peer();
  assert.deepEqual(offered, [
    "symphony.v1.json",
    "chat.v2",
    "symphony.raw",
    "symphony.refuse",
    "symphony.limits",
    "symphony.token.c8Opc2FtZT8-fg",
  ]);
});

test("MessagePack is spoken where it is asked for", async (t) => {
  const { client, peer } = await pair(t, { protocol: "msgpack" });
  assert.equal(client.protocol, "symphony.v1.msgpack");
  const echo = client.request("echo", { bytes: new Uint8Array([1]), at: new Date(5) });
  const { id, data } = await peer.next();
  assert.deepEqual(data, { bytes: new Uint8Array([1]), at: new Date(5) });
  peer.frame({ reply: id, data });
  assert.deepEqual(await echo, data);
});

test("a token function is asked at every attempt, and may be asynchronous", async (t) => {
  const server = await serve(t);
  let asked = 0;
  join(t, server.url, { token: async () => `t${++asked}` });
  const first = await server.peer();
  first.cut();
  const second = await server.peer();
  assert.deepEqual(
    [first, second].map((peer) => peer.offered.at(-1)),
    ["symphony.token.dDE", "symphony.token.dDI"],
  );
});

test("without a token none is offered", async (t) => {
  const server = await serve(t);
  join(t, server.url, { token: () => null });
  assert.equal((await server.peer()).offered.at(-1), "symphony.limits");
});

test("a token function that fails is told on the console and asked again", async (t) => {
  const errors = quiet(t, "error");
  const server = await serve(t);
  let asked = 0;
  const client = join(t, server.url, {
    token: () => {
      if (++asked < 3) throw new Error("the shop is closed");
      return "x";
    },
  });
  await client.opened;
  assert.equal(errors().length, 2);
  assert.match(errors()[0], /token function.*the shop is closed/);
});

test("a token function that closes the client has the last word", async (t) => {
  const client = connect("ws://localhost/", { WebSocket: FakeSocket, token: () => client.close() });
  FakeSocket.last = null;
  await assert.rejects(client.opened, DisconnectedError);
  assert.equal(FakeSocket.last, null);
});

test("states and protocol are as the connection is", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const states = [];
  client.onState((state) => states.push(state));
  assert.equal(client.protocol, null);
  assert.equal(client.closed, null);
  const peer = await server.peer();
  await client.opened;
  assert.deepEqual([client.state, client.protocol], ["open", "symphony.v1.json"]);
  peer.cut();
  await server.peer();
  await reach(client, "open");
  client.close(4000, "enough");
  assert.deepEqual(states, ["connecting", "open", "waiting", "connecting", "open", "closed"]);
  assert.deepEqual(client.closed, { code: 4000, reason: "enough", refusal: null });
});

test("a refusal that is final rejects `opened`, and the client was never open", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const states = [];
  client.onState((state) => states.push(state));
  await server.refuse(4403, "not you");
  await assert.rejects(client.opened, (error) => {
    assert.ok(error instanceof RefusedError && error instanceof DisconnectedError);
    assert.deepEqual([error.name, error.code, error.reason], ["RefusedError", 4403, "not you"]);
    return true;
  });
  assert.deepEqual(states, ["connecting", "closed"]);
  assert.deepEqual(client.closed, { code: 4403, reason: "not you", refusal: null });
  assert.equal(client.protocol, null);
});

test("what waited for a refused connection fails, and is not sent into it", async (t) => {
  const warnings = quiet(t, "warn");
  const server = await serve(t);
  const client = join(t, server.url);
  client.emit("say", "hi");
  const sum = client.request("sum", 1);
  server.choose = () => "symphony.refuse";
  const peer = await server.peer();
  peer.close(4403, "no");
  await assert.rejects(sum, { name: "RefusedError", code: 4403 });
  assert.equal(peer.unread, 0);
  assert.match(warnings()[0], /1 messages were never sent.*4403 no/);
});

test("a refusal that will pass is waited out, and `opened` with it", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.emit("say", "hi");
  await server.refuse(4503, "full");
  server.accept();
  const peer = await server.peer();
  await client.opened;
  assert.equal((await peer.next()).data, "hi");
});

test("a server that comes later is waited for", async (t) => {
  const before = await serve(t);
  const { url, port } = before;
  await before.stop();
  const client = join(t, url);
  await reach(client, "waiting");
  await serve(t, { port });
  await client.opened;
});

// within: connectTimeout
// beyond: connectTimeout
test("a server that does not answer is given up after connectTimeout", async (t) => {
  const tick = stopTime(t);
  const silent = createServer().listen(0, "127.0.0.1");
  await once(silent, "listening");
  const sockets = [];
  silent.on("connection", (socket) => sockets.push(socket.on("error", () => {})));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const client = join(t, `ws://127.0.0.1:${silent.address().port}/`, { connectTimeout: 3, reconnect: false });
  await once(silent, "connection");
  tick(2.99);
  assert.equal(client.state, "connecting");
  tick(0.01);
  await assert.rejects(client.opened, {
    name: "DisconnectedError",
    code: 1006,
    reason: "no connection within 3 s",
  });
});

test("a token that does not come is given up after connectTimeout", async (t) => {
  const tick = stopTime(t);
  const client = connect("ws://localhost/", {
    WebSocket: FakeSocket,
    token: () => new Promise(() => {}),
    reconnect: false,
  });
  await null;
  tick(10);
  await assert.rejects(client.opened, { code: 1006 });
});

test("what no WebSocket takes is final", async (t) => {
  const client = connect("ws://localhost/", { WebSocket: Implementation, subprotocols: ["not a name"] });
  await assert.rejects(client.opened, { name: "RefusedError", code: 4400 });
});

test("without reconnect any end is final", async (t) => {
  const { client, peer } = await pair(t, { reconnect: false });
  peer.close(1012, "restart");
  await reach(client, "closed");
  assert.deepEqual(client.closed, { code: 1012, reason: "restart", refusal: null });
});

test("addresses are made into those of WebSockets", async (t) => {
  const opened = async (url) => {
    const client = connect(url, { WebSocket: FakeSocket });
    await handshake();
    client.close();
    return FakeSocket.last.url;
  };
  assert.equal(await opened("http://a:1/b?c=d#e"), "ws://a:1/b?c=d");
  assert.equal(await opened(new URL("https://a/")), "wss://a/");
  assert.equal(await opened("wss://a/b"), "wss://a/b");
  globalThis.location = { href: "https://shop.example/cart/?x=1" };
  t.after(() => delete globalThis.location);
  assert.equal(await opened("/chat"), "wss://shop.example/chat");
  assert.throws(() => connect("ftp://a/", { WebSocket: FakeSocket }), RangeError);
  assert.throws(() => connect("mailto:a@b", { WebSocket: FakeSocket }), RangeError);
});

test("options that make no sense are refused at once", () => {
  const fails = (options, error) =>
    assert.throws(() => connect("ws://a/", { WebSocket: FakeSocket, ...options }), error);
  fails({ protocol: "xml" }, RangeError);
  fails({ heartbeat: 0 }, /heartbeat must be above 0, or null to switch it off, not 0/);
  fails({ connectTimeout: 0 }, RangeError);
  fails({ requestTimeout: 0 }, RangeError);
  fails({ backoff: -1 }, RangeError);
  fails({ requestTimeout: "10" }, RangeError);
  fails({ maxQueue: 0 }, RangeError);
  fails({ token: Promise.resolve("x") }, TypeError);
  assert.throws(() => connect("/chat", { WebSocket: FakeSocket }), RangeError);
});

test("an option that is undefined is as if it were not there", async () => {
  const client = connect("ws://a/", { WebSocket: FakeSocket, backoff: undefined, protocol: undefined });
  client.close();
});

test("where there is no WebSocket the error says what to do", (t) => {
  const own = globalThis.WebSocket;
  globalThis.WebSocket = undefined;
  t.after(() => (globalThis.WebSocket = own));
  assert.throws(() => connect("ws://a/"), /connect\(url, \{ WebSocket \}\)/);
});
