import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, RemoteError, RequestTimeoutError } from "../symphony.js";
import { join, pair, reach, serve, stopTime } from "./server.js";

/** Take all that comes, and give it together with the error at its end. */
async function drain(stream) {
  const items = [];
  try {
    for await (const item of stream) items.push(item);
    return [items, null];
  } catch (error) {
    return [items, error];
  }
}

test("a stream gives its items in order and ends", async (t) => {
  const { client, peer } = await pair(t);
  const all = drain(client.stream("count", 2));
  assert.deepEqual(await peer.next(), { event: "count", data: 2, id: 1, credit: 64 });
  peer.frame({ item: 1, data: "a" });
  peer.frame({ item: 1 });
  peer.frame({ end: 1 });
  assert.deepEqual(await all, [["a", null], null]);
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("nothing is sent before the iteration begins", async (t) => {
  const { client, peer } = await pair(t);
  const stream = client.stream("count", 2);
  client.emit("before");
  await stream.return();
  client.emit("after");
  assert.equal((await peer.next()).event, "before");
  assert.equal((await peer.next()).event, "after");
});

test("more is granted whenever half of the credit is consumed, and not before", async (t) => {
  const { client, peer } = await pair(t);
  const stream = client.stream("count", 9, { credit: 4 });
  let next = stream.next();
  assert.equal((await peer.next()).credit, 4);
  for (let item = 1; item <= 4; item++) peer.frame({ item: 1, data: item });
  assert.equal((await next).value, 1);
  client.emit("one is taken");
  assert.equal((await peer.next()).event, "one is taken");
  assert.equal((await stream.next()).value, 2);
  assert.deepEqual(await peer.next(), { grant: 1, credit: 2 });
  assert.equal((await stream.next()).value, 3);
  assert.equal((await stream.next()).value, 4);
  assert.deepEqual(await peer.next(), { grant: 1, credit: 2 });
  next = stream.next();
  peer.frame({ end: 1 });
  assert.equal((await next).done, true);
});

test("a credit of one is granted one by one", async (t) => {
  const { client, peer } = await pair(t);
  const all = drain(client.stream("count", 2, { credit: 1 }));
  await peer.next();
  peer.frame({ item: 1, data: 1 });
  assert.deepEqual(await peer.next(), { grant: 1, credit: 1 });
  peer.frame({ item: 1, data: 2 });
  assert.deepEqual(await peer.next(), { grant: 1, credit: 1 });
  peer.frame({ end: 1 });
  assert.deepEqual(await all, [[1, 2], null]);
});

test("nothing is granted to a stream that has ended", async (t) => {
  const { client, peer } = await pair(t);
  const stream = client.stream("count", 2, { credit: 2 });
  const first = stream.next();
  await peer.next();
  const ended = new Promise((resolve) => client.on("ended", resolve));
  peer.frame({ item: 1, data: 1 });
  await first;
  assert.deepEqual(await peer.next(), { grant: 1, credit: 1 });
  peer.frame({ item: 1, data: 2 });
  peer.frame({ end: 1 });
  peer.frame({ event: "ended" });
  await ended;
  assert.deepEqual(await drain(stream), [[2], null]);
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("leaving a loop early tells the server to stop", async (t) => {
  const { client, peer } = await pair(t);
  const first = (async () => {
    for await (const item of client.stream("count", 9)) return item;
  })();
  const { id } = await peer.next();
  peer.frame({ item: id, data: "only" });
  assert.equal(await first, "only");
  assert.deepEqual(await peer.next(), { cancel: id });
  peer.frame({ item: id, data: "late" });
  peer.frame({ error: id, data: { code: "cancelled", message: "" } });
});

test("leaving does not wait for the item that was asked for", async (t) => {
  const { client, peer } = await pair(t);
  const stream = client.stream("count", 9);
  const next = stream.next();
  const { id } = await peer.next();
  await stream.return();
  assert.equal((await next).done, true);
  assert.deepEqual(await peer.next(), { cancel: id });
});

test("an exception in a loop tells the server to stop", async (t) => {
  const { client, peer } = await pair(t);
  const failed = (async () => {
    for await (const item of client.stream("count", 9)) throw new Error(item);
  })();
  const { id } = await peer.next();
  peer.frame({ item: id, data: "bad" });
  await assert.rejects(failed, { message: "bad" });
  assert.deepEqual(await peer.next(), { cancel: id });
});

test("an error is raised behind the items before it", async (t) => {
  const { client, peer } = await pair(t);
  const all = drain(client.stream("count", 9));
  const { id } = await peer.next();
  peer.frame({ item: id, data: 1 });
  peer.frame({ error: id, data: { code: "shop.empty", message: "no more", retryable: true, details: null } });
  const [items, error] = await all;
  assert.deepEqual(items, [1]);
  assert.ok(error instanceof RemoteError);
  assert.deepEqual([error.code, error.retryable], ["shop.empty", true]);
});

test("a lost connection is raised behind the items before it, and the stream is not asked for again", async (t) => {
  const { server, client, peer } = await pair(t);
  const all = drain(client.stream("count", 9));
  const { id } = await peer.next();
  peer.frame({ item: id, data: 1 });
  peer.close(1012, "restart");
  const [items, error] = await all;
  assert.deepEqual(items, [1]);
  assert.ok(error instanceof DisconnectedError && error.code === 1012);
  const again = await server.peer();
  await reach(client, "open");
  client.emit("after");
  assert.equal((await again.next()).event, "after");
});

test("a signal ends a stream at once, whatever has come already", async (t) => {
  const { client, peer } = await pair(t);
  const gone = new AbortController();
  const stream = client.stream("count", 9, { signal: gone.signal });
  const first = stream.next();
  const { id } = await peer.next();
  const seen = new Promise((resolve) => client.on("seen", resolve));
  peer.frame({ item: id, data: 1 });
  peer.frame({ item: id, data: 2 });
  peer.frame({ event: "seen" });
  assert.equal((await first).value, 1);
  await seen;
  gone.abort(new Error("enough"));
  assert.deepEqual(await peer.next(), { cancel: id });
  await assert.rejects(stream.next(), { message: "enough" });
  assert.equal((await stream.next()).done, true);
});

test("a signal that is aborted already asks for nothing", async (t) => {
  const { client, peer } = await pair(t);
  await assert.rejects(client.stream("count", 9, { signal: AbortSignal.abort(new Error("no")) }).next(), {
    message: "no",
  });
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("a stream that is answered with a reply fails", async (t) => {
  const { client, peer } = await pair(t);
  const all = drain(client.stream("sum", 9));
  peer.frame({ reply: (await peer.next()).id, data: 6 });
  const [items, error] = await all;
  assert.deepEqual(items, []);
  assert.match(error.message, /client\.request\(\)/);
});

test("a server that sends more than was granted is not heard further", async (t) => {
  const { client, peer } = await pair(t);
  const stream = client.stream("count", 9, { credit: 2 });
  const first = stream.next();
  const { id } = await peer.next();
  peer.frame({ item: id, data: 1 });
  assert.equal((await first).value, 1);
  assert.deepEqual(await peer.next(), { grant: id, credit: 1 });
  for (let item = 2; item <= 4; item++) peer.frame({ item: id, data: item });
  assert.deepEqual(await peer.next(), { cancel: id });
  const [, error] = await drain(stream);
  assert.deepEqual([error.name, error.code], ["RemoteError", "invalid"]);
  assert.match(error.message, /more than was granted/);
});

// within: requestTimeout
test("a stream waits for a connection, and once it is sent it may last", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const server = await serve(t);
  const client = join(t, server.url, { requestTimeout: 3, backoff: 2, heartbeat: null });
  (await server.peer()).cut();
  await reach(client, "waiting");
  const all = drain(client.stream("count", 1));
  tick(2);
  const peer = await server.peer();
  const { id } = await peer.next();
  tick(10);
  peer.frame({ item: id, data: "still" });
  peer.frame({ end: id });
  assert.deepEqual(await all, [["still"], null]);
});

// beyond: requestTimeout
test("a stream for which no connection comes in time fails", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const server = await serve(t);
  const client = join(t, server.url, { requestTimeout: 3, backoff: 20 });
  (await server.peer()).cut();
  await reach(client, "waiting");
  const never = drain(client.stream("count", 1));
  tick(3);
  assert.ok((await never)[1] instanceof RequestTimeoutError);
});

// within: MAX_CREDIT
// beyond: MAX_CREDIT
test("a credit that makes no sense is refused at once", async (t) => {
  const { client } = await pair(t);
  for (const credit of [0, -1, 1.5, NaN, 2 ** 31])
    assert.throws(() => client.stream("count", 1, { credit }), RangeError);
  assert.throws(() => client.stream("", 1), RangeError);
  client.stream("count", 1, { credit: 2 ** 31 - 1 });
});

test("data that cannot be sent is raised by the iteration", async (t) => {
  const { client } = await pair(t);
  await assert.rejects(client.stream("count", 2n ** 60n).next(), RangeError);
});

test("two streams do not mix", async (t) => {
  const { client, peer } = await pair(t);
  const both = Promise.all([drain(client.stream("a")), drain(client.stream("b"))]);
  const [a, b] = [await peer.next(), await peer.next()];
  peer.frame({ item: b.id, data: "b" });
  peer.frame({ item: a.id, data: "a" });
  peer.frame({ end: b.id });
  peer.frame({ end: a.id });
  assert.deepEqual(await both, [
    [["a"], null],
    [["b"], null],
  ]);
});
