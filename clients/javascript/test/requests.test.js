import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import { DisconnectedError, QueueFullError, RemoteError, RequestTimeoutError, SymphonyError } from "../symphony.js";
import { join, pair, quiet, reach, serve, stopTime } from "./server.js";

test("a request gets its reply", async (t) => {
  const { client, peer } = await pair(t);
  const sum = client.request("sum", [1, 2, 3]);
  const frame = await peer.next();
  assert.deepEqual(
    { ...frame, timeout: undefined },
    { event: "sum", data: [1, 2, 3], id: 1, timeout: undefined },
  );
  assert.ok(frame.timeout > 9 && frame.timeout <= 10);
  peer.frame({ reply: 1, data: 6 });
  assert.equal(await sum, 6);
});

test("replies find their requests in any order", async (t) => {
  const { client, peer } = await pair(t);
  const both = Promise.all([client.request("first"), client.request("second")]);
  const [first, second] = [await peer.next(), await peer.next()];
  peer.frame({ reply: second.id, data: 2 });
  peer.frame({ reply: first.id });
  assert.deepEqual(await both, [null, 2]);
});

test("an error of the server is a RemoteError with all that it says", async (t) => {
  const { client, peer } = await pair(t);
  const sum = client.request("sum", ["x"]);
  const { id } = await peer.next();
  peer.frame({
    error: id,
    data: { code: "invalid", message: "Expected int", retryable: false, details: { path: "$[0]" } },
  });
  await assert.rejects(sum, (error) => {
    assert.ok(error instanceof RemoteError && error instanceof SymphonyError);
    assert.deepEqual(
      [error.name, error.code, error.message, error.retryable, error.details],
      ["RemoteError", "invalid", "Expected int", false, { path: "$[0]" }],
    );
    return true;
  });
});

test("an error without any data is invalid", async (t) => {
  const { client, peer } = await pair(t);
  const sum = client.request("sum");
  peer.frame({ error: (await peer.next()).id });
  await assert.rejects(sum, { name: "RemoteError", code: "invalid", retryable: false, details: null });
});

test("a request without an answer in time fails and is cancelled", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t);
  const slow = client.request("sleep", 60, { timeout: 3 });
  const { id, timeout } = await peer.next();
  assert.equal(timeout, 3);
  tick(2.99);
  assert.equal(peer.unread, 0);
  tick(0.01);
  await assert.rejects(slow, RequestTimeoutError);
  assert.deepEqual(await peer.next(), { cancel: id });
});

test("a request that the server is first to give up fails in the same way", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t);
  const timeout = { code: "timeout", message: "too long", retryable: true, details: null };
  const slow = client.request("sleep", 60, { timeout: 3 });
  const early = client.request("fetch", 60, { timeout: 60 });
  const ids = [(await peer.next()).id, (await peer.next()).id];
  tick(2.99);
  for (const id of ids) peer.frame({ error: id, data: timeout });
  await assert.rejects(slow, RequestTimeoutError);
  await assert.rejects(early, { name: "RemoteError", code: "timeout" });
});

test("the answer to what was given up is ignored", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  const slow = client.request("sleep", 60, { signal: AbortSignal.abort("no") });
  await assert.rejects(slow, (reason) => reason === "no");
  const gone = new AbortController();
  const second = client.request("sleep", 60, { signal: gone.signal });
  const { id } = await peer.next();
  gone.abort();
  await assert.rejects(second, { name: "AbortError" });
  peer.frame({ reply: id, data: "late" });
  peer.frame({ error: id, data: { code: "cancelled" } });
  const next = client.request("next");
  assert.deepEqual(await peer.next(), { cancel: id });
  peer.frame({ reply: (await peer.next()).id, data: "here" });
  assert.equal(await next, "here");
  assert.equal(warnings().length, 0);
});

test("a signal that outlives its requests is not held on to", async (t) => {
  const { client, peer } = await pair(t);
  const { signal } = new AbortController();
  const sum = client.request("sum", 1, { signal });
  assert.equal(getEventListeners(signal, "abort").length, 1);
  peer.frame({ reply: (await peer.next()).id, data: 1 });
  await sum;
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

for (const timeout of [Infinity, 2 ** 31]) {
  test(`a timeout of ${timeout} is none`, async (t) => {
    const tick = stopTime(t);
    const { client, peer } = await pair(t, { heartbeat: null });
    const slow = client.request("sleep", 60, { timeout });
    const frame = await peer.next();
    assert.ok(!("timeout" in frame));
    tick(100);
    peer.frame({ reply: frame.id, data: "awake" });
    assert.equal(await slow, "awake");
  });
}

test("a lost connection fails the request at once, and it is never sent again", async (t) => {
  const { server, client, peer } = await pair(t);
  const pay = client.request("pay", 10);
  await peer.next();
  peer.cut();
  await assert.rejects(pay, { name: "DisconnectedError", code: 1006 });
  const again = await server.peer();
  client.emit("after");
  assert.deepEqual(await again.next(), { event: "after", data: null });
});

test("an idempotent request is sent again after a lost connection, before what waits, for the rest of its time", async (t) => {
  const tick = stopTime(t);
  const { server, client, peer } = await pair(t, { backoff: 4 });
  t.mock.method(Math, "random", () => 0.5);
  const data = [1];
  const sum = client.request("sum", data, { idempotent: true, timeout: 10 });
  data.push(2);
  const first = await peer.next();
  assert.deepEqual(first.data, [1]);
  peer.cut();
  await reach(client, "waiting");
  client.emit("later");
  tick(2);
  const again = await server.peer();
  const second = await again.next();
  assert.deepEqual({ ...second, id: 0 }, { event: "sum", data: [1], id: 0, timeout: 8 });
  assert.deepEqual(await again.next(), { event: "later", data: null });
  again.frame({ reply: second.id, data: 1 });
  assert.equal(await sum, 1);
});

test("an idempotent request is given up when its time is over, connection or not", async (t) => {
  const tick = stopTime(t);
  const { server, client, peer } = await pair(t, { backoff: 100, maxBackoff: 100 });
  t.mock.method(Math, "random", () => 1);
  const sum = client.request("sum", 1, { idempotent: true });
  await peer.next();
  peer.cut();
  await reach(client, "waiting");
  tick(10);
  await assert.rejects(sum, RequestTimeoutError);
  tick(90);
  client.emit("after");
  assert.equal((await (await server.peer()).next()).event, "after");
});

test("an idempotent request fails when the end is final", async (t) => {
  const { client, peer } = await pair(t);
  const sum = client.request("sum", 1, { idempotent: true });
  await peer.next();
  peer.close(4403, "forbidden");
  await assert.rejects(sum, { name: "DisconnectedError", code: 4403, reason: "forbidden" });
});

test("a request without a connection waits for one, with what is left of its time", async (t) => {
  const tick = stopTime(t);
  const server = await serve(t);
  t.mock.method(Math, "random", () => 1);
  const client = join(t, server.url, { backoff: 4 });
  (await server.peer()).cut();
  await reach(client, "waiting");
  const data = { n: 1 };
  const sum = client.request("sum", data, { timeout: 10 });
  data.n = 2;
  tick(4);
  const peer = await server.peer();
  const { id, timeout, data: sent } = await peer.next();
  assert.deepEqual([timeout, sent], [6, { n: 1 }]);
  peer.frame({ reply: id, data: "done" });
  assert.equal(await sum, "done");
});

test("a request that was given up while it waited is never sent", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const gone = new AbortController();
  const dropped = client.request("dropped", 1, { signal: gone.signal });
  gone.abort(new Error("changed my mind"));
  await assert.rejects(dropped, { message: "changed my mind" });
  client.emit("kept");
  assert.equal((await (await server.peer()).next()).event, "kept");
});

test("requests that wait count to the queue", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url, { maxQueue: 1 });
  const first = client.request("first");
  await assert.rejects(client.request("second"), QueueFullError);
  assert.throws(() => client.emit("third"), QueueFullError);
  const peer = await server.peer();
  peer.frame({ reply: (await peer.next()).id, data: 1 });
  assert.equal(await first, 1);
});

test("a request that is answered with a stream fails, and the stream is cancelled", async (t) => {
  const { client, peer } = await pair(t);
  const count = client.request("count", 3);
  const { id } = await peer.next();
  peer.frame({ item: id, data: 1 });
  await assert.rejects(count, /client\.stream\(\)/);
  assert.deepEqual(await peer.next(), { cancel: id });
});

test("data that cannot be sent fails its request only", async (t) => {
  const { client, peer } = await pair(t);
  const circle = {};
  circle.circle = circle;
  await assert.rejects(client.request("sum", circle), TypeError);
  await assert.rejects(client.request("sum", 2n ** 60n), RangeError);
  const sum = client.request("sum", 1);
  peer.frame({ reply: (await peer.next()).id, data: 1 });
  assert.equal(await sum, 1);
});

// beyond: MAX_NAME
test("names and times that make no sense are refused", async (t) => {
  const { client } = await pair(t);
  await assert.rejects(client.request("", 1), RangeError);
  await assert.rejects(client.request("x".repeat(257), 1), RangeError);
  await assert.rejects(client.request("error", 1), RangeError);
  await assert.rejects(client.request("sum", 1, { timeout: -1 }), RangeError);
  await assert.rejects(client.request("sum", 1, { timeout: NaN }), RangeError);
});

// within: MAX_NAME
test("the name of 256 characters is one, also where characters are pairs", async (t) => {
  const { client, peer } = await pair(t);
  client.emit("🎺".repeat(256));
  assert.equal((await peer.next()).event, "🎺".repeat(256));
});

test("a request to a client that is closed is refused", async (t) => {
  const { client } = await pair(t);
  client.close();
  await assert.rejects(client.request("sum", 1), DisconnectedError);
});
