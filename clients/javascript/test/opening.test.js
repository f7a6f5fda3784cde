/** What comes before the queue on every connection: the handlers of `onOpen`, and the limits of the server. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";

import { connect, MessageTooLargeError } from "../symphony.js";
import { FakeSocket, handshake, joinFake } from "./fake.js";
import { join, pair, quiet, reach, serve, stopTime } from "./server.js";

/** Answer a request. */
async function grant(peer, event) {
  const asked = await peer.next();
  assert.equal(asked.event, event);
  peer.frame({ reply: asked.id, data: null });
}

test("on every connection, the handler is awaited before what was queued", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  let opened = 0;
  client.onOpen(async () => {
    opened++;
    await client.request("join", "lobby");
  });
  client.emit("say", "early");
  let peer = await server.peer();
  for (const said of ["early", "offline", "offline again"]) {
    const asked = await peer.next();
    assert.deepEqual([asked.event, client.state, peer.unread], ["join", "connecting", 0]);
    peer.frame({ reply: asked.id });
    assert.deepEqual(await peer.next(), { event: "say", data: said });
    await reach(client, "open");
    peer.cut();
    await reach(client, "waiting");
    client.emit("say", said === "early" ? "offline" : "offline again");
    peer = await server.peer();
  }
  assert.ok(opened >= 3);
});

test("several handlers run one after the other, and one that is removed does not", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.onOpen(() => client.request("first"));
  const off = client.onOpen(() => client.request("never"));
  client.onOpen(async ({ request }) => request("second"));
  client.onOpen(() => client.emit("third"));
  off();
  client.emit("queued");
  const peer = await server.peer();
  await grant(peer, "first");
  await grant(peer, "second");
  assert.equal((await peer.next()).event, "third");
  assert.equal((await peer.next()).event, "queued");
  await client.opened;
});

test("what others send meanwhile waits, in order, however they send it", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.onOpen(async () => {
    await client.request("join");
    await sleep(1);
    await client.request("subscribe");
  });
  client.emit("a");
  const peer = await server.peer();
  const joining = await peer.next();
  client.emit("b");
  client.request("c").catch(() => {});
  client.stream("d").next().catch(() => {});
  peer.frame({ reply: joining.id });
  const subscribing = await peer.next();
  assert.equal(subscribing.event, "subscribe");
  client.send("e");
  peer.frame({ reply: subscribing.id });
  const events = [];
  for (let i = 0; i < 5; i++) events.push((await peer.next()).event);
  assert.deepEqual(events, ["a", "b", "c", "d", "message"]);
});

/** As in a browser, which cannot follow a handler through what it awaits. */
async function withoutContext(run) {
  const { getBuiltinModule } = process;
  process.getBuiltinModule = undefined;
  try {
    return await run();
  } finally {
    process.getBuiltinModule = getBuiltinModule;
  }
}

test("in a browser too, for what the handler awaits of this client", async (t) => {
  const server = await serve(t);
  const client = await withoutContext(() => join(t, server.url));
  const helper = async () => {
    await client.request("join");
    return 1;
  };
  client.onOpen(async () => {
    client.emit("hello");
    await helper();
    await null;
    client.emit("between");
    await assert.rejects(client.request("refused"), { code: "test.no" });
    for await (const item of client.stream("items")) client.emit(item);
    client.emit("last");
  });
  client.emit("queued");
  const peer = await server.peer();
  assert.equal((await peer.next()).event, "hello");
  const joining = await peer.next();
  await new Promise(setImmediate);
  client.emit("others");
  peer.frame({ reply: joining.id });
  assert.equal((await peer.next()).event, "between");
  peer.frame({ error: (await peer.next()).id, data: { code: "test.no" } });
  const { id } = await peer.next();
  peer.frame({ item: id, data: "item" });
  assert.equal((await peer.next()).event, "item");
  peer.frame({ end: id });
  for (const event of ["last", "queued", "others"]) assert.equal((await peer.next()).event, event);
});

test("in a browser, the argument sends before the queue after anything else was awaited", async (t) => {
  const server = await serve(t);
  const client = await withoutContext(() => join(t, server.url));
  client.onOpen(async ({ emit, request, send, stream }) => {
    await sleep(1);
    emit("one");
    send("two");
    await request("three");
    for await (const item of stream("four")) assert.equal(item, 4);
  });
  client.emit("queued");
  const peer = await server.peer();
  assert.equal((await peer.next()).event, "one");
  assert.equal((await peer.next()).event, "message");
  await grant(peer, "three");
  const { event, id } = await peer.next();
  assert.equal(event, "four");
  peer.frame({ item: id, data: 4 });
  peer.frame({ end: id });
  assert.equal((await peer.next()).event, "queued");
});

for (const [what, fail] of [
  ["throws", () => { throw new Error("own"); }],
  ["rejects", async () => { throw new TypeError("own"); }],
  ["is refused", async ({ request }) => request("join")],
]) {
  test(`a handler that ${what}: nothing queued is sent, and the client connects again`, async (t) => {
    const errors = quiet(t, "error");
    const server = await serve(t);
    const client = join(t, server.url);
    let runs = 0;
    client.onOpen((connection) => (++runs < 3 ? fail(connection) : null));
    client.emit("say");
    for (let i = 0; i < 2; i++) {
      const peer = await server.peer();
      if (what === "is refused") peer.frame({ error: (await peer.next()).id, data: { code: "test.no" } });
      assert.equal((await peer.closed).code, 4001);
      assert.equal(peer.unread, 0);
    }
    assert.equal((await (await server.peer()).next()).event, "say");
    await client.opened;
    assert.equal(errors().length, 2);
    assert.match(errors()[0], /onOpen failed/);
  });
}

test("a connection that is lost meanwhile fails what the handler awaits, and is no failure of it", async (t) => {
  const errors = quiet(t, "error");
  const server = await serve(t);
  const client = join(t, server.url);
  const failures = [];
  let done;
  const late = new Promise((resolve) => (done = resolve));
  client.onOpen(async () => {
    try {
      await client.request("join", null, { idempotent: true });
    } catch (error) {
      failures.push(error.code);
      await client.opened;
      // Too late: this handler belongs to a connection that has gone.
      try {
        client.emit("late");
      } catch (error) {
        failures.push(error.name);
      }
      done();
      throw error;
    }
  });
  const first = await server.peer();
  await first.next();
  first.cut();
  const peer = await server.peer();
  await grant(peer, "join");
  await client.opened;
  await late;
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
  assert.deepEqual(failures, [1006, "DisconnectedError"]);
  assert.deepEqual(errors(), []);
});

test("what a handler has started goes on as anything else, once it is open", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  let tick;
  client.onOpen(() => {
    tick ??= setInterval(() => client.emit("tick"), 1);
  });
  const peer = await server.peer();
  assert.equal((await peer.next()).event, "tick");
  peer.cut();
  const second = await server.peer();
  assert.equal((await second.next()).event, "tick");
  clearInterval(tick);
});

test("a handler that takes long is told about", async (t) => {
  const warnings = quiet(t, "warn");
  const tick = stopTime(t);
  const client = await joinFake(t, { connectTimeout: 3 });
  client.onOpen(() => new Promise(() => {}));
  FakeSocket.last.open();
  tick(2.9);
  assert.equal(warnings().length, 0);
  tick(0.2);
  assert.match(warnings()[0], /onOpen is not done after 3 s/);
});

test("closing in a handler is the end", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.onOpen(() => client.close());
  await assert.rejects(client.opened, { code: 1000 });
});

test("on a raw route it may send as well", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url);
  client.onOpen(({ send }) => send("hello"));
  client.send("queued");
  const peer = await server.peer();
  assert.equal(await peer.nextMessage(), "hello");
  assert.equal(await peer.nextMessage(), "queued");
});

// -- limits

for (const protocol of ["json", "msgpack"]) {
  test(`${protocol}: what is larger than the server allows fails before it is sent`, async (t) => {
    const errors = quiet(t, "error");
    const { client, peer } = await pair(t, { protocol });
    peer.frame({ limits: { max_message_bytes: 200, more: 1 } });
    const known = new Promise((resolve) => client.on("known", resolve));
    peer.frame({ event: "known" });
    await known;
    const limit = { name: "MessageTooLargeError", limit: 200, message: /^"say" has \d+ bytes, and the server takes at most 200$/ };
    for (const data of ["x".repeat(201), "é".repeat(100), ["x".repeat(100), { y: "y".repeat(100) }], "😀".repeat(50)]) {
      assert.throws(() => client.emit("say", data), limit);
      await assert.rejects(client.request("say", data), limit);
      await assert.rejects(client.stream("say", data).next(), limit);
    }
    assert.throws(() => client.send("x".repeat(201)), MessageTooLargeError);
    // An answer that is too large would close the connection too.
    client.on("name", () => "x".repeat(300));
    peer.frame({ event: "name", id: 1 });
    assert.equal((await peer.next()).data.code, "internal");
    assert.match(errors()[0], /the answer has \d+ bytes/);
    client.emit("say", "x".repeat(150));
    assert.equal((await peer.next()).data.length, 150);
    assert.equal(client.state, "open");
  });

  test(`${protocol}: what was queued is checked when the limit is known, and the rest is sent`, async (t) => {
    const errors = quiet(t, "error");
    const server = await serve(t);
    const client = join(t, server.url, { protocol });
    client.emit("small", 1);
    client.emit("large", "x".repeat(100_000));
    const asked = client.request("asked", "x".repeat(100_000));
    client.emit("last", 2);
    const failed = assert.rejects(asked, { name: "MessageTooLargeError", message: /"asked" has 100\d+ bytes/ });
    const peer = await server.peer();
    peer.frame({ limits: { max_message_bytes: 50_000 } });
    await failed;
    assert.deepEqual([(await peer.next()).event, (await peer.next()).event], ["small", "last"]);
    assert.equal(errors().length, 1);
    assert.match(errors()[0], /"large" was not sent.*takes at most 50000/);
    assert.equal(client.state, "open");
  });
}

// within: LIMITS_TIMEOUT
// beyond: LIMITS_TIMEOUT
test("a server without limits gets what was queued, and large messages a little later", async (t) => {
  const tick = stopTime(t);
  const client = await joinFake(t);
  client.emit("large", "x".repeat(100_000));
  FakeSocket.last.open();
  tick(0.9);
  await handshake();
  assert.equal(FakeSocket.last.sent.length, 0);
  tick(0.2);
  await handshake();
  await new Promise(setImmediate);
  assert.equal(FakeSocket.last.sent.length, 1);
  assert.equal(client.state, "open");
});

test("limits that are none are ignored, and raw routes have none", async (t) => {
  const client = await joinFake(t);
  FakeSocket.last.open();
  for (const limits of [0, {}, { max_message_bytes: "5" }, { max_message_bytes: -1 }, { max_message_bytes: null }, []]) {
    FakeSocket.last.onmessage({ data: JSON.stringify({ limits }) });
  }
  client.emit("say", "x".repeat(1000));
  assert.equal(FakeSocket.last.sent.length, 1);
});

test("it can be made where there is no WebSocket, and be started later", async (t) => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  delete globalThis.WebSocket;
  t.after(() => own && Object.defineProperty(globalThis, "WebSocket", own));
  const client = connect("/chat", { autoConnect: false, protocol: "msgpack" });
  const states = [];
  client.onState((state) => states.push(state));
  client.on("said", () => {});
  client.emit("early");
  assert.equal(client.state, "new");
  assert.deepEqual([client.protocol, client.subprotocol, client.closed], [null, null, null]);
  await new Promise(setImmediate);
  assert.deepEqual(states, []);
  // Not there yet either.
  assert.throws(() => client.connect(), /relative/);
  globalThis.location = { href: "http://localhost/page" };
  t.after(() => delete globalThis.location);
  assert.throws(() => client.connect(), /no global WebSocket/);
  globalThis.WebSocket = FakeSocket;
  t.after(() => delete globalThis.WebSocket);
  const opened = client.connect();
  assert.equal(client.connect(), opened);
  while (FakeSocket.last?.url !== "ws://localhost/chat") await new Promise(setImmediate);
  FakeSocket.last.open();
  await opened;
  assert.equal(FakeSocket.last.sent.length, 1);
  assert.deepEqual(states, ["connecting", "open"]);
  client.close();
  FakeSocket.last.end(1000);
  assert.throws(() => client.connect(), { name: "DisconnectedError" });
});

test("a client that was never started can be closed", async () => {
  const client = connect("ws://localhost/", { autoConnect: false, WebSocket: FakeSocket });
  const asked = client.request("sum");
  await client.close();
  assert.equal((await client.waitClosed()).code, 1000);
  await assert.rejects(asked, { name: "DisconnectedError" });
});
