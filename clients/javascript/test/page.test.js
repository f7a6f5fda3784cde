/** Pages that sleep, wake up, are left and come back; and clients behind a Proxy. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, connect } from "../symphony.js";
import { FakeSocket, handshake, joinFake } from "./fake.js";
import { page } from "./page.js";
import { join, pair, quiet, reach, serve, stopTime } from "./server.js";

for (const [what, wake] of [
  ["visible", (around) => around.show("visible")],
  ["back from a freeze", (around) => around.fireDocument("resume")],
  ["online", (around) => around.fire("online")],
  ["shown from the cache", (around) => around.fire("pageshow", { persisted: true })],
]) {
  test(`a page that is ${what} asks for a sign of life, and gives up a connection that is dead`, async (t) => {
    const tick = stopTime(t);
    const around = page(t);
    const { client, peer } = await pair(t);
    tick(1);
    wake(around);
    assert.deepEqual(await peer.next(), { ping: 1 });
    // Asking again does not give it more time.
    tick(5);
    wake(around);
    assert.equal(peer.unread, 0);
    tick(5);
    assert.notEqual(client.state, "open");
  });

  test(`a page that is ${what} keeps a connection that lives`, async (t) => {
    const tick = stopTime(t);
    const around = page(t);
    const { client, peer } = await pair(t, { heartbeat: null });
    for (let ping = 1; ping < 4; ping++) {
      wake(around);
      assert.deepEqual(await peer.next(), { ping });
      const heard = new Promise((resolve) => client.on("heard", resolve));
      // Its pong, or messages that come later: those that come at once may be old.
      if (ping === 2) tick(1.5);
      else peer.frame({ pong: ping });
      peer.frame({ event: "heard" });
      await heard;
      tick(10);
    }
    assert.equal(client.state, "open");
  });

  test(`a page that is ${what} does not take what came before it for a sign of life`, async (t) => {
    const tick = stopTime(t);
    const around = page(t);
    const { client, peer } = await pair(t);
    wake(around);
    await peer.next();
    const heard = new Promise((resolve) => client.on("heard", resolve));
    peer.frame({ pong: 0 });
    peer.frame({ event: "heard" });
    await heard;
    tick(10);
    assert.notEqual(client.state, "open");
  });
}

test("a computer that slept is noticed by the clock, though no event says so", async (t) => {
  const tick = stopTime(t);
  let clock = 0;
  t.mock.method(Date, "now", () => clock);
  const { client, peer } = await pair(t, { heartbeat: 20 });
  // The timers and the clock that never goes back stood still; the other one did not.
  clock += 3_600_000;
  tick(5);
  assert.deepEqual(await peer.next(), { ping: 1 });
  tick(10);
  assert.notEqual(client.state, "open");
});

test("a sleep while it waits for an answer does not count as silence", async (t) => {
  const tick = stopTime(t);
  let clock = 0;
  t.mock.method(Date, "now", () => clock);
  const { client, peer } = await pair(t, { heartbeat: 20 });
  tick(20);
  assert.deepEqual(await peer.next(), { ping: 1 });
  clock += 3_600_000;
  tick(10);
  assert.deepEqual(await peer.next(), { ping: 2 });
  assert.equal(client.state, "open");
  tick(10);
  assert.notEqual(client.state, "open");
});

test("a page that is left closes without a code, and connects again when it comes back from the cache", async (t) => {
  const around = page(t);
  const { server, client, peer } = await pair(t, { backoff: 60, maxBackoff: 60 });
  const failed = assert.rejects(client.request("sum"), { name: "DisconnectedError", code: 1005 });
  const again = client.request("echo", 1, { idempotent: true });
  await peer.next();
  await peer.next();
  around.show("hidden");
  around.fire("pagehide", { persisted: true });
  assert.equal((await peer.closed).code, 1005);
  await failed;
  assert.equal(client.state, "waiting");
  client.emit("said while away");
  t.mock.method(Math, "random", () => 0);
  around.fire("pageshow", { persisted: true });
  const next = await server.peer();
  const { event, id } = await next.next();
  assert.equal(event, "echo");
  next.frame({ reply: id, data: 1 });
  assert.equal(await again, 1);
  assert.equal((await next.next()).event, "said while away");
});

test("a page that is left does not connect while it is away, whatever it was doing", async (t) => {
  const tick = stopTime(t);
  const around = page(t);
  const waiting = await joinFake(t, { backoff: 1 });
  FakeSocket.last.end(1006);
  const connecting = await joinFake(t, { backoff: 1 });
  const made = FakeSocket.made.length;
  around.fire("pagehide", { persisted: true });
  tick(1000);
  await handshake();
  assert.deepEqual([waiting.state, connecting.state], ["waiting", "waiting"]);
  assert.equal(FakeSocket.made.length, made);
  around.fire("pageshow", { persisted: true });
  tick(1);
  assert.deepEqual([waiting.state, connecting.state], ["connecting", "connecting"]);
  await handshake();
});

test("the first showing of a page is nothing to act on", async (t) => {
  const around = page(t);
  const { client, peer } = await pair(t);
  around.fire("pageshow", { persisted: false });
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

// -- relative URLs

for (const [href, base, url] of [
  ["https://shop.example/cart/", undefined, "wss://shop.example/chat"],
  ["blob:http://127.0.0.1:8080/6e1c", undefined, "ws://127.0.0.1:8080/chat"],
  ["blob:https://shop.example/0b-1", undefined, "wss://shop.example/chat"],
  ["about:srcdoc", "https://shop.example/page", "wss://shop.example/chat"],
  ["about:blank", "http://shop.example/", "ws://shop.example/chat"],
]) {
  test(`a relative URL at ${href}`, async (t) => {
    globalThis.location = { href };
    if (base) globalThis.document = Object.assign(new EventTarget(), { baseURI: base });
    t.after(() => {
      delete globalThis.location;
      delete globalThis.document;
    });
    const client = connect("/chat", { WebSocket: FakeSocket });
    await handshake();
    assert.equal(FakeSocket.last.url, url);
    client.close();
  });
}

test("where a relative URL means nothing it is refused", (t) => {
  for (const href of ["data:text/javascript,1", "blob:null/1", undefined]) {
    globalThis.location = { href };
    t.after(() => delete globalThis.location);
    assert.throws(() => connect("/chat", { WebSocket: FakeSocket }), /relative/);
  }
});

// -- behind a Proxy

/** As the reactive objects of frameworks: objects that come out are behind one as well. */
const deep = (target) =>
  new Proxy(target, {
    get(object, key, receiver) {
      const value = Reflect.get(object, key, receiver);
      return typeof value === "object" && value !== null && !(value instanceof Promise) ? deep(value) : value;
    },
  });

for (const [what, wrap] of [
  ["a plain Proxy", (client) => new Proxy(client, { get: (target, key, receiver) => Reflect.get(target, key, receiver) })],
  ["a deep one", deep],
  ["an object that inherits from it", (client) => Object.create(client)],
  ["a copy of its methods", (client) => {
    const { on, emit, request, stream, send, close, onState, onOpen, waitClosed } = client;
    return { on, emit, request, stream, send, close, onState, onOpen, waitClosed, get state() { return client.state; }, get opened() { return client.opened; }, get protocol() { return client.protocol; }, get subprotocol() { return client.subprotocol; }, get closed() { return client.closed; } };
  }],
]) {
  test(`everything works through ${what}`, async (t) => {
    quiet(t, "warn");
    const server = await serve(t);
    const client = wrap(join(t, server.url));
    const heard = new Promise((resolve) => client.on("said", resolve));
    client.onState(() => {});
    client.onOpen(() => client.emit("hello"));
    client.emit("say", 1);
    const peer = await server.peer();
    await client.opened;
    assert.deepEqual([client.state, client.protocol, client.subprotocol], ["open", "symphony.v1.json", "symphony.v1.json"]);
    assert.equal((await peer.next()).event, "hello");
    assert.equal((await peer.next()).event, "say");
    peer.frame({ event: "said", data: 5 });
    assert.equal(await heard, 5);
    const asked = client.request("sum");
    peer.frame({ reply: (await peer.next()).id, data: 6 });
    assert.equal(await asked, 6);
    const stream = client.stream("count");
    const item = stream.next();
    peer.frame({ item: (await peer.next()).id, data: 1 });
    assert.equal((await item).value, 1);
    client.send("plain");
    await client.close();
    assert.equal(client.closed.code, 1000);
    assert.equal((await client.waitClosed()).code, 1000);
  });
}

test("a raw route can be read through a Proxy", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = deep(join(t, server.url));
  (await server.peer()).message("hi");
  for await (const message of client) {
    assert.equal(message, "hi");
    break;
  }
});

test("a subclass may have its own methods, and frameworks see that it is no plain object", async (t) => {
  class Own extends Client {
    emit(event, data) {
      super.emit(`own.${event}`, data);
    }
  }
  const server = await serve(t);
  const client = new Own(server.url, { WebSocket: (await import("./server.js")).Implementation });
  t.after(() => client.close());
  new Proxy(client, {}).emit("say");
  assert.equal((await (await server.peer()).next()).event, "own.say");
  assert.equal(Object.prototype.toString.call(client), "[object Client]");
});

// -- debug

for (const protocol of ["json", "msgpack"]) {
  // within: MAX_DEBUG
  // beyond: MAX_DEBUG
  test(`${protocol}: debug shows what goes over the connection, without the token`, async (t) => {
    const lines = quiet(t, "log");
    const token = 'se"same\u2028x';
    const { client, peer } = await pair(t, { debug: true, protocol, token });
    client.emit("say", { text: "hi\nthere", token, bytes: new Uint8Array(3) });
    await peer.next();
    const heard = new Promise((resolve) => client.on("said", resolve));
    peer.frame({ event: "said", data: { token, long: "x".repeat(10_000) } });
    await heard;
    await client.close();
    const all = lines();
    assert.match(all.join("\n"), /connecting to ws:\/\/127.*\n.*open, with the subprotocol symphony\.v1.*\n.*> .*"say".*\n.*< .*"said"/);
    for (const line of all) {
      assert.ok(!line.includes("same") && !line.includes("symphony.token"), line);
      assert.ok(!line.includes("\n") && line.length < 2100);
    }
  });
}

test("debug shows raw messages: text as it is, bytes as their number", async (t) => {
  const lines = quiet(t, "log");
  const server = await serve(t);
  server.raw();
  const client = join(t, `${server.url}?key=hidden`, { debug: true });
  client.send("text");
  client.send(new Uint8Array(7));
  const peer = await server.peer();
  await peer.nextMessage();
  await peer.nextMessage();
  const all = lines().join("\n");
  assert.match(all, /> text\n.*> 7 bytes/);
  assert.ok(!all.includes("hidden"));
});

test("without debug nothing is logged", async (t) => {
  const lines = quiet(t, "log");
  const { client, peer } = await pair(t);
  client.emit("say");
  await peer.next();
  await reach(client, "open");
  assert.deepEqual(lines(), []);
});
