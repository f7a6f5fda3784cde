/** Every queue of the client has a limit in bytes beside its count. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, QueueFullError } from "../symphony.js";
import { FakeSocket, handshake, joinFake } from "./fake.js";
import { join, pair, quiet, reach, serve } from "./server.js";

const KIB = "x".repeat(1024);

for (const protocol of ["json", "msgpack"]) {
  for (const [what, data] of [
    ["text", KIB],
    ["text of more bytes than characters", "é".repeat(512)],
    ["bytes", new Uint8Array(1024)],
    ["a list", Array.from({ length: 64 }, () => "x".repeat(16))],
    ["a large map", Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`field number ${i}`, i]))],
  ]) {
    // within: maxQueueBytes
    // beyond: maxQueueBytes
    test(`${protocol}: ${what} without a connection: what fits waits, and is sent`, async (t) => {
      const client = await joinFake(t, { protocol, maxQueueBytes: 10_000 });
      let waiting = 0;
      assert.throws(() => {
        for (; waiting < 100; waiting++) client.emit("say", data);
      }, QueueFullError);
      assert.ok(waiting >= 4 && waiting <= 10, `${waiting}`);
      await assert.rejects(client.request("say", data), QueueFullError);
      FakeSocket.last.open();
      assert.equal(FakeSocket.last.sent.length, waiting);
      // All is free again.
      FakeSocket.last.end(1006);
      for (let i = 0; i < waiting; i++) client.emit("say", data);
      assert.throws(() => client.emit("say", data), QueueFullError);
    });
  }
}

test("one message that is larger than the queue is refused, and smaller ones still fit", async (t) => {
  const client = await joinFake(t, { maxQueueBytes: 1000 });
  assert.throws(() => client.emit("say", KIB), /0 bytes wait for a connection, and 1000 may/);
  client.emit("say", "small");
});

test("a request that is given up or times out frees what it held", async (t) => {
  const client = await joinFake(t, { maxQueueBytes: 2000 });
  for (let i = 0; i < 10; i++) {
    const abort = new AbortController();
    const asked = client.request("sum", KIB, { signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(asked, /enough/);
  }
  client.emit("say", KIB);
});

test("requests that may be sent again are held, and counted, until they are answered", async (t) => {
  const { client, peer } = await pair(t, { maxQueueBytes: 3000 });
  const asked = [client.request("sum", KIB, { idempotent: true }), client.request("sum", KIB, { idempotent: true })];
  await assert.rejects(client.request("sum", KIB, { idempotent: true }), QueueFullError);
  // Others are not held.
  client.emit("say", KIB.repeat(4));
  for (let i = 0; i < 2; i++) peer.frame({ reply: (await peer.next()).id });
  await Promise.all(asked);
  client.request("sum", KIB, { idempotent: true }).catch(() => {});
  assert.equal((await peer.next()).event, "say");
  assert.equal((await peer.next()).event, "sum");
});

test("they are sent again whatever else waits", async (t) => {
  const { server, client, peer } = await pair(t, { maxQueueBytes: 3000 });
  const asked = client.request("sum", KIB, { idempotent: true });
  await peer.next();
  peer.cut();
  await reach(client, "waiting");
  client.emit("say", KIB);
  assert.throws(() => client.emit("say", KIB), QueueFullError);
  const next = await server.peer();
  const { id } = await next.next();
  next.frame({ reply: id, data: 1 });
  assert.equal(await asked, 1);
});

test("a slow connection takes up to maxQueueBytes", async (t) => {
  const client = await joinFake(t, { maxQueueBytes: 5000 });
  FakeSocket.last.open();
  FakeSocket.last.bufferedAmount = 5001;
  for (const idempotent of [false, true]) {
    await assert.rejects(client.request("sum", KIB, { idempotent }), QueueFullError);
  }
  assert.throws(() => client.emit("say"), QueueFullError);
  FakeSocket.last.bufferedAmount = 5000;
  client.emit("say");
  assert.equal(FakeSocket.last.sent.length, 1);
});

/** A socket that nobody reads: what is sent stays in its buffer. */
function clog(socket) {
  const send = socket.send.bind(socket);
  socket.send = (message) => {
    socket.bufferedAmount += message.length;
    send(message);
  };
}

// within: MAX_REFUSAL_BYTES
test("answers that do not fit are refused with too_many, and logged once", async (t) => {
  const warnings = quiet(t, "warn");
  const client = await joinFake(t, { maxQueueBytes: 100_000 });
  const socket = FakeSocket.last;
  clog(socket);
  socket.open();
  client.on("big", () => KIB.repeat(10));
  for (let id = 0; id < 200; id++) socket.onmessage({ data: JSON.stringify({ event: "big", id }) });
  await new Promise(setImmediate);
  const answers = socket.sent.map((text) => JSON.parse(text));
  const replies = answers.filter((answer) => "reply" in answer).length;
  assert.ok(replies >= 4 && replies <= 6, `${replies}`);
  assert.equal(answers.length, 200);
  for (const { data } of answers.slice(replies)) assert.equal(data.code, "too_many");
  assert.equal(warnings().length, 1);
  assert.ok(socket.bufferedAmount < 100_000);
  assert.equal(client.state, "open");
});

for (const [what, answer] of [
  ["replies", () => 1],
  ["refusals", null],
  ["failures", () => { throw new Error("own"); }],
]) {
  // beyond: MAX_REFUSAL_BYTES
  test(`a server that asks on and on and reads no ${what} loses the connection, not this process its memory`, async (t) => {
    quiet(t, "warn");
    quiet(t, "error");
    const client = await joinFake(t, { maxQueueBytes: 10_000, backoff: 100 });
    const socket = FakeSocket.last;
    clog(socket);
    socket.open();
    if (answer) client.on("ask", answer);
    for (let id = 0; client.state === "open" && id < 100_000; id++) {
      socket.onmessage({ data: JSON.stringify({ event: "ask", id }) });
      await null;
      if (id % 500 === 0) await new Promise(setImmediate);
    }
    assert.equal(client.state, "waiting");
    assert.ok(socket.bufferedAmount < 1_100_000);
  });
}

for (const credit of [1, 2]) {
  test(`a server that does not read the grants of a stream with a credit of ${credit} loses the connection`, async (t) => {
    const warnings = quiet(t, "warn");
    const client = await joinFake(t, { maxQueueBytes: 10_000, backoff: 100 });
    const socket = FakeSocket.last;
    clog(socket);
    socket.open();
    const items = client.stream("items", null, { credit });
    const first = items.next();
    const { id } = JSON.parse(socket.sent.at(-1));
    const say = (data) => socket.onmessage({ data: JSON.stringify({ item: id, data }) });
    say(0);
    await first;
    let taken = 1;
    // It sends items as long as they are taken, and reads no grant.
    await assert.rejects(async () => {
      for (; taken < 200_000; taken++) {
        const next = items.next();
        // The grant leaves before the item is awaited.
        await null;
        say(taken);
        await next;
      }
    }, DisconnectedError);
    assert.equal(client.state, "waiting");
    assert.ok(socket.bufferedAmount < 1_100_000);
    assert.ok(warnings().some((line) => line.includes("does not read")));
  });
}

test("a stream whose items are not taken fails when they have too many bytes, after those that fit", async (t) => {
  const { client, peer } = await pair(t, { maxQueueBytes: 5000 });
  const stream = client.stream("items", null, { credit: 100 });
  const first = stream.next();
  const { id } = await peer.next();
  for (let i = 0; i < 10; i++) peer.frame({ item: id, data: KIB });
  assert.equal((await first).value, KIB);
  assert.deepEqual(await peer.next(), { cancel: id });
  let taken = 1;
  await assert.rejects(
    async () => {
      for await (const item of stream) taken += item === KIB;
    },
    { name: "QueueFullError", message: /smaller credit/ },
  );
  assert.ok(taken >= 4 && taken <= 5, `${taken}`);
  assert.equal(client.state, "open");
});

test("one item may be larger than the limit, if it is taken", async (t) => {
  const { client, peer } = await pair(t, { maxQueueBytes: 1000 });
  const stream = client.stream("items", null, { credit: 1 });
  for (let i = 0; i < 3; i++) {
    const next = stream.next();
    const frame = await peer.next();
    peer.frame({ item: frame.id ?? frame.grant, data: KIB.repeat(4) });
    assert.equal((await next).value.length, 4096);
  }
});

for (const [what, message] of [
  ["text", KIB],
  ["bytes", new Uint8Array(1024)],
  ["small text", "x".repeat(100)],
]) {
  test(`raw ${what} that is not taken closes the client by its bytes`, async (t) => {
    const errors = quiet(t, "error");
    quiet(t, "warn");
    const server = await serve(t);
    server.raw();
    const client = join(t, server.url, { maxQueueBytes: 4096 });
    const peer = await server.peer();
    for (let i = 0; i < 60; i++) peer.message(message);
    assert.equal((await client.waitClosed()).code, 1013);
    assert.match(errors()[0], /messages wait and are not read/);
    let bytes = 0;
    await assert.rejects(async () => {
      for await (const came of client) bytes += came.length;
    });
    assert.ok(bytes > 3000 && bytes <= 4096, `${bytes}`);
  });
}

test("raw messages that are taken are not counted any more", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url, { maxQueueBytes: 2048 });
  const peer = await server.peer();
  const messages = client[Symbol.asyncIterator]();
  for (let i = 0; i < 20; i++) {
    peer.message(KIB);
    assert.equal((await messages.next()).value, KIB);
  }
  await handshake();
  assert.equal(client.closed, null);
});
