/** Rooms that the program joins, beyond what the vectors say: handlers, iterations, positions, and what does not fit. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, RemoteError, RequestTimeoutError, Room, WrongRouteError } from "../symphony.js";
import { FakeSocket, joinFake } from "./fake.js";
import { Incoming, join, pair, quiet, reach, serve, stopTime } from "./server.js";

const at = (offset, epoch = "e") => ({ epoch, offset });
const said = (offset, data = offset, room = "r") => ({ event: "said", data, room, offset });

/** Answer a join that comes next. */
async function admit(peer, { position = at(0), recovered, name = "r" } = {}) {
  const asked = await peer.next();
  assert.equal(asked.join, name);
  peer.frame({ joined: name, position, ...(recovered !== undefined && { recovered }) });
  peer.frame({ reply: asked.id, data: null });
  return asked;
}

/** A client that has joined a room. */
async function member(t, options, name = "r") {
  const all = await pair(t, options);
  const joining = all.client.join(name);
  await admit(all.peer, { name });
  const room = await joining;
  // The client has noticed that the program has the room.
  await synced(all);
  return { ...all, room };
}

/** Everything before it was received. */
async function synced({ client, peer }) {
  const asked = client.request("sync");
  let frame;
  do frame = await peer.next();
  while (frame.event !== "sync");
  peer.frame({ reply: frame.id });
  await asked;
}

/** What a handler was called with, in order. */
function recorded(room, event = "said") {
  const came = new Incoming();
  room.on(event, (data) => came.push(data));
  return came;
}

/** Once a condition holds. */
async function until(holds) {
  while (!holds()) await new Promise(setImmediate);
}

// -- positions

test("the position is that before the first publication whose handler still runs", async (t) => {
  const all = await member(t);
  const { server, client, peer, room } = all;
  const ends = [];
  room.on("said", (data) => new Promise((resolve) => (ends[data] = resolve)));
  for (const offset of [1, 2, 3]) peer.frame(said(offset));
  await synced(all);
  assert.deepEqual(room.position, at(0));
  ends[2]();
  await new Promise(setImmediate);
  assert.deepEqual(room.position, at(0));
  ends[1]();
  await until(() => room.position.offset === 2);
  // What is handled is not asked for again, and what still runs is not called again.
  peer.cut();
  const next = await server.peer();
  const asked = await admit(next, { position: at(2), recovered: true });
  assert.deepEqual(asked.since, at(2));
  const calls = ends.length;
  for (const offset of [3, 4]) next.frame(said(offset));
  await until(() => ends.length > calls);
  ends[3]();
  ends[4]();
  await until(() => room.position.offset === 4);
  assert.equal(client.state, "open");
});

for (const [what, fail] of [
  ["throws", () => { throw new Error("own"); }],
  ["rejects", async () => { throw new Error("own"); }],
  ["rejects late", () => new Promise((_, reject) => setImmediate(() => reject(new Error("own"))))],
]) {
  test(`a handler that ${what} is logged, and has handled it`, async (t) => {
    const errors = quiet(t, "error");
    const { peer, room } = await member(t);
    room.on("said", fail);
    peer.frame(said(1));
    await until(() => room.position.offset === 1);
    assert.ok(errors()[0].includes('the handler of "said" failed'));
  });
}

test("the position cannot be changed from outside", async (t) => {
  const { peer, room } = await member(t);
  room.position.offset = 50;
  const came = recorded(room);
  peer.frame(said(1));
  assert.equal(await came.next(), 1);
  await until(() => room.position.offset === 1);
});

test("a position goes on in another client", async (t) => {
  const first = await member(t);
  recorded(first.room);
  first.peer.frame(said(1));
  await until(() => first.room.position.offset === 1);
  const since = JSON.parse(JSON.stringify(first.room.position));
  const second = join(t, first.server.url);
  const joining = second.join("r", { since });
  const peer = await first.server.peer();
  const asked = await admit(peer, { position: since, recovered: true });
  assert.deepEqual(asked.since, since);
  const room = await joining;
  const came = recorded(room);
  assert.equal(room.recovered, true);
  // The server was ahead of it, and sends one again.
  for (const offset of [1, 2]) peer.frame(said(offset));
  assert.equal(await came.next(), 2);
  assert.equal(came.size, 0);
});

test("a server that says it has recovered, and skips some, has lost them", async (t) => {
  quiet(t, "warn");
  const { server, peer, room } = await member(t);
  const lost = new Incoming();
  room.onLost((position) => lost.push(position));
  peer.cut();
  const next = await server.peer();
  await admit(next, { position: at(5), recovered: true });
  assert.deepEqual(await lost.next(), at(5));
  assert.equal(room.recovered, false);
});

test("a loss that has no handler is logged", async (t) => {
  const warnings = quiet(t, "warn");
  const all = await member(t);
  all.peer.frame({ lost: "r", position: at(9) });
  await synced(all);
  assert.ok(warnings().some((line) => line.includes('"r" were lost') && line.includes("9")));
  const off = all.room.onLost(() => assert.fail("it was removed"));
  off();
  all.peer.frame({ lost: "r", position: at(12) });
  await synced(all);
  assert.deepEqual(all.room.position, at(12));
});

// -- handlers

test("an event goes to the handlers of the room, then to those of its '*', then to those of the client", async (t) => {
  const { client, peer, room } = await member(t);
  const came = new Incoming();
  client.on("*", (event, data) => came.push(["client *", event, data]));
  client.on("said", (data) => came.push(["client", data]));
  peer.frame(said(1));
  assert.deepEqual(await came.next(), ["client", 1]);
  const off = room.on("said", (data) => came.push(["room", data]));
  room.on("said", (data) => came.push(["room too", data]));
  peer.frame(said(2));
  assert.deepEqual([await came.next(), await came.next()], [["room", 2], ["room too", 2]]);
  peer.frame({ event: "other", room: "r", offset: 3 });
  assert.deepEqual(await came.next(), ["client *", "other", null]);
  room.on("*", (event, data) => came.push(["room *", event, data]));
  off();
  peer.frame({ event: "other", room: "r", offset: 4 });
  assert.deepEqual(await came.next(), ["room *", "other", null]);
  // Outside of the room.
  peer.frame({ event: "said", data: "plain" });
  assert.deepEqual(await came.next(), ["client", "plain"]);
  peer.frame({ event: "said", data: "elsewhere", room: "other", offset: 1 });
  assert.deepEqual(await came.next(), ["client", "elsewhere"]);
  assert.equal(came.size, 0);
});

test("handlers that are registered late get what came before, in order", async (t) => {
  const all = await member(t);
  for (const offset of [1, 2]) all.peer.frame(said(offset));
  await synced(all);
  assert.deepEqual(all.room.position, at(0));
  const came = recorded(all.room);
  all.peer.frame(said(3));
  assert.deepEqual([await came.next(), await came.next(), await came.next()], [1, 2, 3]);
  await until(() => all.room.position.offset === 3);
});

for (const protocol of ["json", "msgpack"]) {
  test(`nothing is lost between the join and the handlers, in ${protocol}`, async (t) => {
    const { client, peer } = await pair(t, { protocol });
    const log = [];
    client.on("said", (data) => log.push(["client", data]));
    const joining = client.join("r", { since: at(1) });
    const { id } = await peer.next();
    const members = { epoch: "k", version: 1, total: 1, list: [{ id: "ann", info: null }] };
    const changed = [{ id: "bob", info: null }];
    peer.together(() => {
      peer.frame({ joined: "r", position: at(3), recovered: false, snapshot: "drawn", members });
      peer.frame({ reply: id, data: null });
      peer.frame(said(4, "one"));
      peer.frame({ event: "typing", data: "not kept", room: "r" });
      peer.frame({ lost: "r", position: at(9), snapshot: "drawn again" });
      peer.frame(said(10, "ten"));
      peer.frame({ presence: "r", diff: { epoch: "k", from: 1, to: 2, total: 2, changed, gone: [] } });
      peer.frame({ left: "r", data: { code: "closed", message: "", retryable: false, details: null } });
    });
    const room = await joining;
    for (const event of ["snapshot", "said", "typing"]) room.on(event, (data) => log.push([event, data]));
    room.onLost(({ offset }) => log.push(["lost", offset]));
    const left = new Promise((resolve) => room.onLeft(({ code }) => resolve(log.push(["left", code]))));
    await left;
    assert.deepEqual(log, [
      ["lost", 3],
      ["snapshot", "drawn"],
      ["said", "one"],
      ["typing", "not kept"],
      ["lost", 9],
      ["snapshot", "drawn again"],
      ["said", "ten"],
      ["left", "closed"],
    ]);
    assert.deepEqual([...room.presence.keys()], ["ann", "bob"]);
  });
}

test("handlers of the client are there before it connects, and take what the room does not", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const log = [];
  client.on("said", (data) => log.push(["client", data]));
  const peer = await server.peer();
  peer.frame({ joined: "served", position: at(0) });
  peer.frame(said(1, "served", "served"));
  const joining = client.join("r");
  await admit(peer);
  const room = await joining;
  peer.frame(said(1, "joined"));
  await until(() => log.length === 2);
  room.on("said", (data) => log.push(["room", data]));
  peer.frame(said(2, "own"));
  await until(() => log.length === 3);
  assert.deepEqual(log, [["client", "served"], ["client", "joined"], ["room", "own"]]);
});

test("what waits for handlers that are never registered is limited, and the loss is logged", async (t) => {
  const warnings = quiet(t, "warn");
  const all = await member(t, { maxQueue: 5 });
  for (let offset = 1; offset <= 7; offset++) all.peer.frame(said(offset));
  await synced(all);
  assert.ok(warnings().some((line) => line.includes("5 publications") && line.includes("were dropped")));
  await until(() => all.room.position.offset === 7);
});

test("the room works behind a proxy, as those of Vue", async (t) => {
  const { peer, room } = await member(t);
  const proxy = new Proxy(room, {});
  const came = recorded(proxy);
  peer.frame(said(1));
  assert.equal(await came.next(), 1);
  assert.deepEqual([proxy.name, proxy.ended, proxy.recovered, proxy.dropped], ["r", null, null, 0]);
  assert.equal(Object.prototype.toString.call(proxy), "[object Room]");
  assert.ok(room instanceof Room);
  const leaving = proxy.leave();
  peer.frame({ reply: (await peer.next()).id, data: true });
  await leaving;
});

// -- iterating

test("an iteration is handled when it asks for the next one", async (t) => {
  const { peer, room } = await member(t);
  const items = room[Symbol.asyncIterator]();
  for (const offset of [1, 2]) peer.frame(said(offset));
  assert.deepEqual((await items.next()).value, { event: "said", data: 1, position: at(1), replaces: null });
  assert.deepEqual(room.position, at(0));
  assert.deepEqual((await items.next()).value, { event: "said", data: 2, position: at(2), replaces: null });
  assert.deepEqual(room.position, at(1));
  await items.return();
  assert.deepEqual(room.position, at(2));
});

test("an iteration that is left goes on in the next one", async (t) => {
  const { client, peer, room } = await member(t);
  client.on("said", () => assert.fail("the iteration takes it"));
  const came = [];
  for (let offset = 1; offset <= 4; offset++) peer.frame(said(offset));
  for (let round = 0; round < 4; round++) {
    for await (const { data } of room) {
      came.push(data);
      break;
    }
  }
  assert.deepEqual(came, [1, 2, 3, 4]);
});

test("an iteration that waits can be left", async (t) => {
  const { peer, room } = await member(t);
  const [one, two] = [room[Symbol.asyncIterator](), room[Symbol.asyncIterator]()];
  const waiting = [one.next(), two.next()];
  await one.return();
  assert.equal((await waiting[0]).done, true);
  peer.frame(said(1));
  assert.equal((await waiting[1]).value.data, 1);
});

test("what a handler of the room takes does not come in the iteration", async (t) => {
  const { peer, room } = await member(t);
  const came = recorded(room, "typing");
  const items = room[Symbol.asyncIterator]();
  peer.frame({ event: "typing", data: "Ada", room: "r" });
  peer.frame(said(1));
  assert.equal((await items.next()).value.event, "said");
  assert.equal(await came.next(), "Ada");
});

test("a slow iteration gets what did not fit from the history, in order and once", async (t) => {
  const warnings = quiet(t, "warn");
  const all = await member(t, { maxQueue: 3 });
  const { peer, room } = all;
  const items = room[Symbol.asyncIterator]();
  peer.frame(said(1));
  assert.equal((await items.next()).value.data, 1);
  for (let offset = 2; offset <= 8; offset++) peer.frame(said(offset));
  peer.frame({ event: "typing", data: null, room: "r" });
  await synced(all);
  // One is being handled, and three wait.
  assert.equal(room.dropped, 1);
  for (const offset of [2, 3, 4]) assert.equal((await items.next()).value.data, offset);
  const next = items.next();
  const asked = await admit(peer, { position: at(4), recovered: true });
  assert.deepEqual(asked.since, at(4));
  for (let offset = 5; offset <= 7; offset++) peer.frame(said(offset));
  assert.equal((await next).value.data, 5);
  for (const offset of [6, 7]) assert.equal((await items.next()).value.data, offset);
  assert.ok(warnings().some((line) => line.includes("wait and are not taken")));
});

test("bytes that wait are limited as well", async (t) => {
  quiet(t, "warn");
  const all = await member(t, { maxQueueBytes: 1000 });
  const { peer, room } = all;
  const items = room[Symbol.asyncIterator]();
  for (let offset = 1; offset <= 4; offset++) peer.frame(said(offset, "x".repeat(400)));
  await synced(all);
  for (const offset of [1, 2]) assert.deepEqual((await items.next()).value.position, at(offset));
  const next = items.next();
  assert.deepEqual((await admit(peer, { position: at(2), recovered: true })).since, at(2));
  peer.frame(said(3, "x".repeat(400)));
  assert.deepEqual((await next).value.position, at(3));
});

test("what did not fit comes on the next connection too", async (t) => {
  quiet(t, "warn");
  const all = await member(t, { maxQueue: 2 });
  const { server, peer, room } = all;
  const items = room[Symbol.asyncIterator]();
  for (let offset = 1; offset <= 4; offset++) peer.frame(said(offset));
  await synced(all);
  peer.cut();
  const next = await server.peer();
  assert.equal((await items.next()).value.data, 1);
  assert.equal((await items.next()).value.data, 2);
  const asked = await next.next();
  assert.ok(asked.since.offset <= 2);
  next.frame({ joined: "r", position: asked.since, recovered: true });
  next.frame({ reply: asked.id });
  for (let offset = asked.since.offset + 1; offset <= 4; offset++) next.frame(said(offset));
  for (const offset of [3, 4]) assert.equal((await items.next()).value.data, offset);
});

test("losses come in order with the publications of an iteration", async (t) => {
  const { peer, room } = await member(t);
  const came = [];
  room.onLost(({ offset }) => came.push(`lost to ${offset}`));
  const items = room[Symbol.asyncIterator]();
  const first = items.next();
  peer.frame(said(1));
  peer.frame({ lost: "r", position: at(7) });
  peer.frame(said(8));
  came.push((await first).value.data);
  came.push((await items.next()).value.data);
  assert.deepEqual(came, [1, "lost to 7", 8]);
});

for (const [what, end, raises] of [
  ["the program closes the client", ({ client }) => client.close(), null],
  ["the server ends it normally", ({ peer }) => peer.close(1000, ""), null],
  ["the client ends for good", ({ peer }) => peer.close(4403, "expired"), DisconnectedError],
  ["the server puts the client out", ({ peer }) => peer.frame({ left: "r", data: { code: "removed", message: "no" } }), RemoteError],
]) {
  test(`an iteration when ${what}`, async (t) => {
    quiet(t, "warn");
    const all = await member(t);
    const { peer, room } = all;
    const left = [];
    room.onLeft((error) => left.push(error.code));
    const items = room[Symbol.asyncIterator]();
    peer.frame(said(1));
    await synced(all);
    end(all);
    assert.equal((await items.next()).value.data, 1);
    if (raises) await assert.rejects(items.next(), raises);
    else assert.equal((await items.next()).done, true);
    assert.ok(room.ended instanceof Error);
    assert.deepEqual(left, raises === RemoteError ? ["removed"] : []);
    // Another one ends in the same way.
    const again = room[Symbol.asyncIterator]();
    if (raises) await assert.rejects(again.next(), raises);
    else assert.equal((await again.next()).done, true);
  });
}

// -- joining

for (const name of ["", 5, null, undefined, {}, "x".repeat(5000), "half \ud800"]) {
  test(`it does not join ${JSON.stringify(name)?.slice(0, 20)}`, async (t) => {
    const { client, peer } = await pair(t);
    await assert.rejects(client.join(name), (error) => error instanceof TypeError || error instanceof RangeError);
    assert.equal(peer.unread, 0);
  });
}

for (const since of [5, "end", {}, [], at(-1), at(1.5), at(2 ** 53), at(1, ""), at(1, 7), at(1, "x".repeat(129)), { offset: 1 }, true]) {
  test(`it does not join since ${JSON.stringify(since).slice(0, 30)}`, async (t) => {
    const { client } = await pair(t);
    await assert.rejects(client.join("r", { since }), TypeError);
    await assert.rejects(client.join("r", { timeout: 0 }), RangeError);
  });
}

// within: MAX_ROOM_NAME, MAX_EPOCH
// beyond: MAX_ROOM_NAME, MAX_EPOCH
test("names of rooms and epochs have a limited length", async (t) => {
  const { client, peer } = await pair(t);
  const [name, epoch] = ["n".repeat(4096), "e".repeat(128)];
  const joining = client.join(name, { since: at(1, epoch) });
  const { id } = await peer.next();
  peer.frame({ joined: name, position: at(1, epoch), recovered: true });
  peer.frame({ reply: id });
  assert.deepEqual((await joining).position, at(1, epoch));
  await assert.rejects(client.join(`${name}n`), RangeError);
  await assert.rejects(client.join("r", { since: at(1, `${epoch}e`) }), TypeError);
});

test("a raw route has no rooms", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url);
  const early = assert.rejects(client.join("r"), WrongRouteError);
  let within;
  client.onOpen(async ({ join }) => {
    within = await join("q").catch((error) => error);
  });
  await client.opened;
  await early;
  assert.ok(within instanceof WrongRouteError);
  await assert.rejects(client.join("r"), /this route is raw and has no rooms/);
});

test("a client that has ended joins nothing", async (t) => {
  const { client } = await pair(t);
  await client.close();
  await assert.rejects(client.join("r"), DisconnectedError);
});

test("a join that was given up is left, in case the server has let the client in", async (t) => {
  const { client, peer } = await pair(t);
  const abort = new AbortController();
  const joining = client.join("r", { signal: abort.signal });
  const asked = await peer.next();
  peer.frame({ joined: "r", position: at(0) });
  abort.abort();
  await assert.rejects(joining, { name: "AbortError" });
  assert.deepEqual(await peer.next(), { cancel: asked.id });
  assert.equal((await peer.next()).leave, "r");
  peer.frame({ reply: asked.id });
  // It is not held: the next one is another join.
  const again = client.join("r");
  await admit(peer);
  await again;
});

test("of two joins of a room, the second goes on if the first is given up", async (t) => {
  const { client, peer } = await pair(t);
  const abort = new AbortController();
  const first = client.join("r", { signal: abort.signal });
  const second = client.join("r");
  const third = assert.rejects(client.join("r", { timeout: 0.01 }), RequestTimeoutError);
  const stopped = assert.rejects(client.join("r", { signal: AbortSignal.timeout(5) }), { name: "TimeoutError" });
  await peer.next();
  await Promise.all([third, stopped]);
  abort.abort();
  await assert.rejects(first, { name: "AbortError" });
  let frame;
  do frame = await peer.next();
  while (!frame.join);
  peer.frame({ joined: "r", position: at(3) });
  peer.frame({ reply: frame.id });
  assert.deepEqual((await second).position, at(3));
});

test("a join in onOpen goes ahead of one that waits in the queue", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url, { requestTimeout: 5 });
  client.emit("queued");
  const early = client.join("r");
  let within;
  client.onOpen(async ({ join }) => {
    within = await join("r");
  });
  const peer = await server.peer();
  await admit(peer);
  assert.equal(await early, within ?? (await early));
  assert.equal((await peer.next()).event, "queued");
  await reach(client, "open");
  assert.equal(peer.unread, 0);
});

test("what the server says of a held room before the client joins it again is not the answer", async (t) => {
  const { server, client, peer, room } = await member(t);
  const came = recorded(room);
  let go;
  client.onOpen(() => new Promise((resolve) => (go = resolve)));
  peer.cut();
  const next = await server.peer();
  await until(() => go);
  next.frame({ joined: "r", position: at(4) });
  next.frame(said(5));
  next.frame({ event: "said", data: "not kept", room: "r" });
  assert.equal(await came.next(), "not kept");
  go();
  assert.deepEqual((await admit(next, { position: at(0), recovered: true })).since, at(0));
  for (let offset = 1; offset <= 5; offset++) next.frame(said(offset));
  for (let offset = 1; offset <= 5; offset++) assert.equal(await came.next(), offset);
});

for (const since of ["start", at(1)]) {
  test(`since ${JSON.stringify(since)} counts, even if the server has put the client into the room`, async (t) => {
    const { client, peer } = await pair(t);
    peer.frame({ joined: "r", position: at(3) });
    await synced({ client, peer });
    const joining = client.join("r", { since });
    const asked = await peer.next();
    assert.deepEqual(asked.since, since);
    const from = since === "start" ? at(0) : since;
    peer.frame({ joined: "r", position: from, recovered: true });
    peer.frame({ reply: asked.id });
    for (let offset = from.offset + 1; offset <= 3; offset++) peer.frame(said(offset));
    const came = recorded(await joining);
    for (let offset = from.offset + 1; offset <= 3; offset++) assert.equal(await came.next(), offset);
  });
}

test("a room that the server put the client into is joined with its position", async (t) => {
  const { client, peer } = await pair(t);
  const heard = new Incoming();
  client.on("said", (data) => heard.push(data));
  peer.frame({ joined: "r", position: at(3) });
  peer.frame(said(4));
  assert.equal(await heard.next(), 4);
  await new Promise(setImmediate);
  const joining = client.join("r");
  const asked = await peer.next();
  assert.deepEqual(asked.since, at(4));
  // It comes again.
  peer.frame(said(5));
  peer.frame({ joined: "r", position: at(4), recovered: true });
  peer.frame({ reply: asked.id });
  const came = recorded(await joining);
  for (const offset of [5, 6]) peer.frame(said(offset));
  assert.deepEqual([await came.next(), await came.next()], [5, 6]);
  assert.equal(heard.size, 0);
});

test("if that join is refused, the room goes on as before", async (t) => {
  quiet(t, "warn");
  const { client, peer } = await pair(t);
  const heard = new Incoming();
  client.on("said", (data) => heard.push(data));
  peer.frame({ joined: "r", position: at(3) });
  peer.frame(said(4));
  assert.equal(await heard.next(), 4);
  await new Promise(setImmediate);
  const joining = client.join("r");
  const { id } = await peer.next();
  peer.frame(said(5));
  peer.frame({ error: id, data: { code: "forbidden", message: "no" } });
  await assert.rejects(joining, { code: "forbidden" });
  // What was ignored meanwhile is asked for.
  peer.frame(said(6));
  assert.deepEqual((await admit(peer, { position: at(4), recovered: true })).since, at(4));
  for (const offset of [5, 6]) peer.frame(said(offset));
  assert.deepEqual([await heard.next(), await heard.next()], [5, 6]);
});

for (const [what, options] of [
  ["was given up before", { signal: AbortSignal.abort(new Error("before")) }],
  ["has no time", { timeout: 0.001 }],
]) {
  test(`a join that ${what} leaves a room of the server as it is`, async (t) => {
    const all = await pair(t);
    const { client, peer } = all;
    const heard = new Incoming();
    client.on("said", (data) => heard.push(data));
    peer.frame({ joined: "r", position: at(3) });
    await synced(all);
    await assert.rejects(client.join("r", options));
    peer.frame({ event: "said", data: "not kept", room: "r" });
    assert.equal(await heard.next(), "not kept");
    const joining = client.join("r");
    let frame;
    do frame = await peer.next();
    while (!frame.join || frame.timeout < 1);
    peer.frame({ joined: "r", position: at(3), recovered: true });
    peer.frame({ reply: frame.id });
    const came = recorded(await joining);
    peer.frame(said(4));
    assert.equal(await came.next(), 4);
  });
}

test("a room that has no history any more goes on, and says so", async (t) => {
  const warnings = quiet(t, "warn");
  const { server, peer, room } = await member(t);
  const came = recorded(room);
  peer.frame(said(1));
  assert.equal(await came.next(), 1);
  peer.cut();
  const next = await server.peer();
  await admit(next, { position: null, recovered: false });
  next.frame({ event: "said", data: "plain", room: "r" });
  assert.equal(await came.next(), "plain");
  assert.deepEqual([room.position, room.recovered], [null, false]);
  assert.ok(warnings().some((line) => line.includes("no history any more")));
});

// -- leaving

test("leaving is in order with what is sent, and ends the handlers at once", async (t) => {
  const { client, peer, room } = await member(t);
  recorded(room);
  client.on("said", () => assert.fail("it was left"));
  room.on("typing", () => assert.fail("it was left"));
  client.emit("before");
  const leaving = room.leave();
  const again = room.leave();
  client.emit("after");
  assert.equal((await peer.next()).event, "before");
  const { leave, id } = await peer.next();
  assert.equal(leave, "r");
  assert.equal((await peer.next()).event, "after");
  peer.frame({ event: "typing", data: null, room: "r" });
  peer.frame({ left: "r", data: { code: "left", message: "it left the room" } });
  peer.frame({ reply: id, data: true });
  await Promise.all([leaving, again, room.leave()]);
  assert.equal(room.ended.code, "left");
  assert.equal(peer.unread, 0);
});

for (const [what, answer, raises] of [
  ["is refused", (peer, id) => peer.frame({ error: id, data: { code: "internal", message: "no" } }), { code: "internal" }],
  ["has no answer", () => {}, { name: "RequestTimeoutError" }],
  ["loses its connection", (peer) => peer.cut(), null],
]) {
  test(`a leave that ${what} ends the room as well`, async (t) => {
    const { server, client, peer, room } = await member(t, { requestTimeout: 0.1 });
    const leaving = room.leave();
    const { id } = await peer.next();
    answer(peer, id);
    if (raises) await assert.rejects(leaving, raises);
    else await leaving;
    assert.equal(room.ended.code, "left");
    if (raises) peer.cut();
    // It is not joined again.
    const next = await server.peer();
    await reach(client, "open");
    client.emit("say");
    assert.equal((await next.next()).event, "say");
  });
}

test("a room that is left and joined at once is another one", async (t) => {
  const { client, peer, room } = await member(t);
  const leaving = room.leave();
  const joining = client.join("r");
  const { id } = await peer.next();
  peer.frame(said(1, "too late"));
  peer.frame({ left: "r", data: { code: "left", message: "it left the room" } });
  peer.frame({ reply: id, data: true });
  await leaving;
  await admit(peer, { position: at(1) });
  const other = await joining;
  assert.notEqual(other, room);
  const came = recorded(other);
  peer.frame(said(2));
  assert.equal(await came.next(), 2);
});

// -- servers that stop, jump, or flood

test("a server that stops refuses a join, and the next connection has it", async (t) => {
  const { server, client, peer } = await pair(t);
  const joining = client.join("r");
  const { id } = await peer.next();
  peer.frame({ retry: 0 });
  peer.frame({ error: id, data: { code: "unavailable", message: "stopping", retryable: true } });
  peer.close(1012, "");
  await admit(await server.peer());
  assert.deepEqual((await joining).position, at(0));
});

test("a room that jumps again and again is joined again with growing delays", async (t) => {
  quiet(t, "warn");
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const client = await joinFake(t, { backoff: 1, maxBackoff: 8, heartbeat: null });
  const socket = FakeSocket.last;
  const say = (frame) => socket.onmessage({ data: JSON.stringify(frame) });
  socket.open();
  client.join("r");
  await null;
  const joins = () => socket.sent.map((text) => JSON.parse(text)).filter((frame) => frame.join);
  say({ joined: "r", position: at(0) });
  say({ reply: joins()[0].id });
  const delays = [];
  for (let round = 1; round <= 5; round++) {
    const before = joins().length;
    say(said(100));
    let waited = 0;
    for (; joins().length === before; waited += 0.25) tick(0.25, 250);
    delays.push(waited);
    say({ joined: "r", position: at(0), recovered: true });
    say({ reply: joins().at(-1).id });
  }
  assert.equal(delays[0], 0);
  for (let i = 2; i < 5; i++) assert.ok(delays[i] > delays[i - 1], `${delays}`);
});

// within: MAX_REMEMBERED_ROOMS
// beyond: MAX_REMEMBERED_ROOMS
test("of rooms that the server puts the client into, it remembers a limited number", async (t) => {
  const warnings = quiet(t, "warn");
  const all = await pair(t);
  for (let i = 0; i < 3000; i++) all.peer.frame({ joined: `r${i}`, position: at(1) });
  await synced(all);
  assert.ok(warnings().some((line) => line.includes("more than 1000 rooms")));
  all.peer.cut();
  const next = await all.server.peer();
  await reach(all.client, "open");
  // The first is forgotten, and the last is known.
  next.frame({ joined: "r0", position: at(2) });
  next.frame({ joined: "r2999", position: at(2) });
  assert.deepEqual({ ...(await next.next()), id: 0, timeout: 0 }, { join: "r2999", id: 0, since: at(1), timeout: 0 });
});

test("rooms of earlier connections are forgotten first", async (t) => {
  quiet(t, "warn");
  const all = await pair(t);
  for (let i = 0; i < 999; i++) all.peer.frame({ joined: `old${i}`, position: at(1) });
  await synced(all);
  all.peer.cut();
  const next = await all.server.peer();
  await reach(all.client, "open");
  next.frame({ joined: "old0", position: at(1) });
  for (let i = 0; i < 999; i++) next.frame({ joined: `new${i}`, position: at(1) });
  await synced({ client: all.client, peer: next });
  next.cut();
  const last = await all.server.peer();
  await reach(all.client, "open");
  for (const name of ["new0", "old0", "old1", "old998"]) last.frame({ joined: name, position: at(2) });
  last.frame({ event: "absent", id: 1 });
  const came = [];
  for (let frame = await last.next(); frame.error !== 1; frame = await last.next()) came.push(frame.join);
  assert.deepEqual(came, ["new0", "old0"]);
});
