/** Who is in a room: beyond what the vectors say. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, RemoteError, RequestTimeoutError, RoomPresence } from "../symphony.js";
import { join, pair, quiet, serve, stopTime } from "./server.js";

const state = (version, ids, epoch = "k") => ({ epoch, version, total: ids.length, list: ids.map((id) => ({ id, info: { name: id } })) });
const diff = (from, to, { changed = [], gone = [], total = 0, epoch = "k" } = {}) => ({
  presence: "r",
  diff: { epoch, from, to, total, changed: changed && changed.map((id) => ({ id, info: null })), gone },
});

async function admit(peer, members = state(7, ["ann"])) {
  const asked = await peer.next();
  assert.equal(asked.join, "r");
  peer.frame({ joined: "r", members });
  peer.frame({ reply: asked.id, data: null });
}

async function member(t, options, members) {
  const all = await pair(t, options);
  const joining = all.client.join("r");
  await admit(all.peer, members);
  return { ...all, room: await joining };
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

async function until(holds) {
  while (!holds()) await new Promise(setImmediate);
}

const ids = (room) => [...room.presence.keys()];

test("it is a map that cannot be changed", async (t) => {
  const { room } = await member(t, {}, state(7, ["ann", "bob"]));
  const { presence } = room;
  assert.ok(presence instanceof RoomPresence);
  assert.equal(room.presence, presence);
  assert.deepEqual([...presence], [["ann", { name: "ann" }], ["bob", { name: "bob" }]]);
  assert.deepEqual([...presence.entries()], [...presence]);
  assert.deepEqual([...presence.values()], [{ name: "ann" }, { name: "bob" }]);
  const seen = [];
  presence.forEach((info, id, map) => seen.push([info.name, id, map === presence]));
  assert.deepEqual(seen, [["ann", "ann", true], ["bob", "bob", true]]);
  assert.deepEqual([presence.size, presence.total, presence.isKnown], [2, 2, true]);
  assert.deepEqual([presence.has("ann"), presence.has("eve"), presence.get("bob"), presence.get("eve")], [true, false, { name: "bob" }, undefined]);
  for (const method of ["set", "delete", "clear"]) assert.equal(presence[method], undefined);
  assert.equal(String(presence), "[object RoomPresence]");
});

test("handlers are called when the members change, and only then", async (t) => {
  const all = await member(t);
  const { peer, room } = all;
  const seen = [];
  const off = room.onPresence((presence) => {
    assert.equal(presence, room.presence);
    seen.push([...presence.keys()]);
  });
  const errors = quiet(t, "error");
  room.onPresence(() => {
    throw new Error("own");
  });
  peer.frame(diff(7, 8, { changed: ["bob"], total: 2 }));
  peer.frame(diff(6, 7, { gone: ["ann"], total: 1 }));
  peer.frame({ presence: "r", members: state(8, ["eve"]) });
  peer.frame({ presence: "r" });
  peer.frame({ presence: "other", members: state(9, ["eve"]) });
  await synced(all);
  assert.deepEqual(seen, [["ann", "bob"]]);
  assert.ok(errors()[0].includes('"presence r"'));
  off();
  peer.frame(diff(8, 9, { gone: ["bob"], total: 1 }));
  await synced(all);
  assert.deepEqual([seen.length, ids(room)], [1, ["ann"]]);
});

test("after it has left, no handler is called, and nothing is read", async (t) => {
  const all = await member(t);
  const { peer, room } = all;
  room.onPresence(() => assert.fail("it was called"));
  const leaving = room.leave();
  const { id, leave } = await peer.next();
  assert.equal(leave, "r");
  peer.frame(diff(7, 8, { changed: ["bob"], total: 2 }));
  peer.frame(diff(20, 21, { gone: ["ann"] }));
  peer.frame({ left: "r", data: { code: "left", message: "", retryable: false, details: null } });
  peer.frame({ reply: id, data: true });
  await leaving;
  peer.frame(diff(8, 9, { gone: ["ann"] }));
  await synced(all);
  assert.equal(peer.unread, 0);
  await assert.rejects(room.count(), (error) => error instanceof RemoteError && error.code === "left");
});

test("several gaps at once are one question, and one that comes meanwhile is another", async (t) => {
  const all = await member(t);
  const { peer, room } = all;
  for (const from of [9, 10, 11]) peer.frame(diff(from, from + 1, { changed: ["bob"] }));
  const first = await peer.next();
  assert.deepEqual(first, { presence: "r", id: first.id });
  await synced(all);
  peer.frame(diff(12, 13, { changed: ["eve"] }));
  peer.frame({ reply: first.id, data: state(12, ["ann", "bob"]) });
  const second = await peer.next();
  assert.equal(second.presence, "r");
  assert.deepEqual(ids(room), ["ann", "bob"]);
  peer.frame({ reply: second.id, data: state(13, ["ann", "bob", "eve"]) });
  await until(() => room.presence.has("eve"));
  await synced(all);
  assert.equal(peer.unread, 0);
});

test("an answer that is older than what is missing is not asked for again at once", async (t) => {
  const all = await member(t);
  const { peer, room } = all;
  peer.frame(diff(9, 10, { changed: ["bob"] }));
  peer.frame({ reply: (await peer.next()).id, data: state(8, ["ann", "eve"]) });
  await until(() => room.presence.has("eve"));
  await synced(all);
  assert.equal(peer.unread, 0);
  peer.frame(diff(10, 11, { changed: ["bob"] }));
  peer.frame({ reply: (await peer.next()).id, data: state(11, ["bob"]) });
  await until(() => room.presence.has("bob"));
});

for (const [what, answer] of [
  ["is refused", { error: 0, data: { code: "unavailable", message: "not now", retryable: true, details: null } }],
  ["has another form", { reply: 0, data: { epoch: "k", version: "9", total: 1 } }],
  ["is null", { reply: 0, data: null }],
]) {
  test(`a question that ${what} is logged, and the next change asks again`, async (t) => {
    const lines = quiet(t, "warn");
    const all = await member(t);
    const { peer, room } = all;
    peer.frame(diff(9, 10, { changed: ["bob"] }));
    const { id } = await peer.next();
    peer.frame(Object.fromEntries(Object.entries(answer).map(([field, value]) => [field, value === 0 ? id : value])));
    await until(() => lines().length);
    assert.match(lines()[0], /a change of the members of "r" is missing, and they cannot be read: (unavailable: not now|invalid: )/);
    await synced(all);
    assert.deepEqual(ids(room), ["ann"]);
    peer.frame(diff(10, 11, { changed: ["bob"] }));
    peer.frame({ reply: (await peer.next()).id, data: state(11, ["ann", "bob"]) });
    await until(() => room.presence.has("bob"));
  });
}

test("a question whose connection is lost is asked on the next one, after the join", async (t) => {
  const { server, peer, room } = await member(t);
  peer.frame(diff(9, 10, { changed: ["bob"] }));
  assert.equal((await peer.next()).presence, "r");
  peer.cut();
  const again = await server.peer();
  await admit(again, state(9, ["ann"]));
  const { id, presence } = await again.next();
  assert.equal(presence, "r");
  assert.deepEqual(ids(room), ["ann"]);
  again.frame({ reply: id, data: state(10, ["bob"]) });
  await until(() => room.presence.has("bob"));
});

test("without a connection, the members are those of before; a node that knows less changes nothing", async (t) => {
  const all = await member(t, {}, state(7, ["ann", "bob"]));
  const { server, client, peer, room } = all;
  const seen = [];
  room.onPresence((presence) => seen.push([...presence.keys()]));
  peer.cut();
  const again = await server.peer();
  assert.deepEqual(ids(room), ["ann", "bob"]);
  await admit(again, state(5, ["ann"]));
  again.frame(diff(5, 7, { changed: ["bob"], total: 2 }));
  await synced({ client, peer: again });
  assert.deepEqual(seen, []);
  assert.equal(again.unread, 0);
  again.frame(diff(7, 8, { changed: ["eve"], total: 3 }));
  await synced({ client, peer: again });
  assert.deepEqual(seen, [["ann", "bob", "eve"]]);
});

test("a room that the server put the client into has its members when the program joins it", async (t) => {
  const all = await pair(t);
  const { client, peer } = all;
  peer.frame({ joined: "r", position: { epoch: "e", offset: 1 }, members: state(3, ["ann"]) });
  // Nothing is read for a program that does not look.
  peer.frame(diff(8, 9, { changed: ["bob"] }));
  await synced(all);
  assert.equal(peer.unread, 0);
  const joining = client.join("r");
  const { id } = await peer.next();
  peer.frame({ joined: "r", position: { epoch: "e", offset: 1 }, recovered: true, members: state(9, ["ann", "bob"]) });
  peer.frame({ reply: id, data: null });
  assert.deepEqual(ids(await joining), ["ann", "bob"]);
});

const broken = { epoch: "k", version: 1, total: 1, list: [] };
for (const [field, members] of [
  ["a list", []],
  ["text", "ann"],
  ["no epoch", { ...broken, epoch: null }],
  ["a version that is no integer", { ...broken, version: 1.5 }],
  ["a negative total", { ...broken, total: -1 }],
  ["a list that is none", { ...broken, list: { id: "ann" } }],
  ["a member without an id", { ...broken, list: [{ info: 1 }] }],
  ["a member that is null", { ...broken, list: [null] }],
]) {
  test(`a state that is not valid is ignored: ${field}`, async (t) => {
    const lines = quiet(t, "warn");
    const all = await member(t);
    all.peer.frame({ presence: "r", members });
    await synced(all);
    assert.match(lines()[0], /an envelope whose "members" is not valid/);
    assert.deepEqual(ids(all.room), ["ann"]);
    assert.equal(all.client.state, "open");
  });
}

const change = { epoch: "k", from: 7, to: 8, total: 1, changed: [], gone: [] };
for (const [field, diff] of [
  ["null in a list", [null]],
  ["a number", 7],
  ["no epoch", { ...change, epoch: undefined }],
  ["from is text", { ...change, from: "7" }],
  ["to is missing", { ...change, to: null }],
  ["total is missing", { ...change, total: undefined }],
  ["changed is a map", { ...change, changed: {} }],
  ["gone has a number", { ...change, gone: [1] }],
]) {
  test(`a diff that is not valid is ignored: ${field}`, async (t) => {
    const lines = quiet(t, "warn");
    const all = await member(t);
    all.peer.frame({ presence: "r", diff });
    await synced(all);
    assert.match(lines()[0], /an envelope whose "diff" is not valid/);
    assert.deepEqual([ids(all.room), all.room.presence.total], [["ann"], 1]);
    assert.equal(all.peer.unread, 0);
  });
}

test("the number of members times out, ends with the client, and must be a number", async (t) => {
  const { client, peer, room } = await member(t, { requestTimeout: 5 });
  const asked = room.count();
  const { id, count, timeout } = await peer.next();
  assert.deepEqual([count, timeout <= 5], ["r", true]);
  peer.frame({ reply: id, data: "many" });
  await assert.rejects(asked, (error) => error instanceof RemoteError && error.code === "invalid");
  const unanswered = room.count();
  await peer.next();
  client.close();
  await assert.rejects(unanswered, DisconnectedError);
  await assert.rejects(room.count(), DisconnectedError);
});

test("the number of members is asked again on the next connection", async (t) => {
  const { server, peer, room } = await member(t);
  const asked = room.count();
  await peer.next();
  peer.cut();
  const again = await server.peer();
  await admit(again);
  again.frame({ reply: (await again.next()).id, data: 3 });
  assert.equal(await asked, 3);
});

test("no answer in time", async (t) => {
  const { peer, room } = await member(t, { requestTimeout: 5 });
  const tick = stopTime(t);
  const asked = room.count();
  await peer.next();
  tick(6);
  await assert.rejects(asked, RequestTimeoutError);
});

test("without a connection it waits for one, as a request does", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const joining = client.join("r");
  await admit(await server.peer());
  assert.deepEqual(ids(await joining), ["ann"]);
});

for (const [what, members, warnings] of [
  ["the server does not tell who is there", null, 1],
  ["it tells", undefined, 0],
  ["there are too many to list", { epoch: "k", version: 7, total: 2000 }, 0],
]) {
  test(`a handler for changes is registered, and ${what}`, async (t) => {
    const said = quiet(t, "warn");
    const { room } = await member(t, {}, members);
    room.onPresence(() => {});
    room.onPresence(() => {});
    const found = said().filter((line) => line.includes('does not tell who is in "r"'));
    assert.equal(found.length > 0, warnings > 0);
    if (warnings) assert.match(found[0], /presence=True/);
  });
}
