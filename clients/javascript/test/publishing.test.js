/** What the program publishes to its rooms, and reads of their history. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, OutcomeUnknownError, QueueFullError, RemoteError } from "../symphony.js";
import { FakeSocket, joinFake } from "./fake.js";
import { pair, quiet, reach, stopTime } from "./server.js";

const at = (offset, epoch = "e") => ({ epoch, offset });
const TOKEN = /^[A-Za-z0-9_-]{16}$/;

/** Answer the join that comes next. */
async function admit(peer, { position = at(0), recovered } = {}) {
  const asked = await peer.next();
  assert.equal(asked.join, "r");
  peer.frame({ joined: "r", ...(position && { position }), ...(recovered !== undefined && { recovered }) });
  peer.frame({ reply: asked.id, data: null });
  return asked;
}

async function member(t, options, how) {
  const all = await pair(t, options);
  const joining = all.client.join("r");
  await admit(all.peer, how);
  return { ...all, room: await joining };
}

/** The next frame, which is a publication. */
async function published(peer) {
  const frame = await peer.next();
  assert.equal(typeof frame.publish, "string", JSON.stringify(frame));
  return frame;
}

/** How a promise ends. */
const ended = (promise) => promise.then((value) => ({ value })).catch((error) => ({ error }));

test("a publication is acknowledged with its position", async (t) => {
  const { peer, room } = await member(t);
  const first = room.emit("say", { text: "hi" });
  const second = room.emit("say");
  const [one, two] = [await published(peer), await published(peer)];
  assert.deepEqual({ ...one, id: 0, key: "", client: "" }, { publish: "say", data: { text: "hi" }, id: 0, room: "r", key: "", client: "" });
  assert.equal(two.data, null);
  for (const text of [one.key, two.key, one.client]) assert.match(text, TOKEN);
  assert.notEqual(one.key, two.key);
  assert.equal(one.client, two.client);
  peer.frame({ reply: two.id, data: at(2) });
  peer.frame({ reply: one.id, data: { ...at(1), more: true } });
  assert.deepEqual([await first, await second], [at(1), at(2)]);
});

test("what the server refuses rejects", async (t) => {
  const { peer, room } = await member(t);
  const refused = ended(room.emit("say", "rude", { key: "mine" }));
  const { id, key } = await published(peer);
  assert.equal(key, "mine");
  peer.frame({ error: id, data: { code: "conflict", message: "no", retryable: false, details: null } });
  const { error } = await refused;
  assert.ok(error instanceof RemoteError);
  assert.equal(error.code, "conflict");
});

test("after a lost connection it is sent again with its key, after the join", async (t) => {
  const { server, peer, room } = await member(t);
  const data = { n: 1 };
  const first = room.emit("say", data);
  const one = await published(peer);
  const second = room.emit("say", { n: 2 });
  const two = await published(peer);
  data.n = 100;
  peer.cut();
  const third = room.emit("say", { n: 3 });
  const again = await server.peer();
  assert.deepEqual((await admit(again, { recovered: true })).since, at(0));
  const came = [await published(again), await published(again), await published(again)];
  assert.deepEqual(came.map(({ data }) => data.n), [1, 2, 3]);
  assert.deepEqual(came.slice(0, 2).map(({ key }) => key), [one.key, two.key]);
  assert.equal(came[2].client, one.client);
  came.forEach(({ id }, index) => again.frame({ reply: id, data: at(index + 1) }));
  assert.deepEqual(await Promise.all([first, second, third]), [at(1), at(2), at(3)]);
});

test("in a room without a history it has no key, and is not sent again", async (t) => {
  const { peer, room } = await member(t, {}, { position: null });
  const first = room.emit("say", 1);
  const { id, ...frame } = await published(peer);
  assert.deepEqual(frame, { publish: "say", data: 1, room: "r" });
  peer.frame({ reply: id, data: null });
  assert.equal(await first, null);
  await assert.rejects(room.emit("say", 1, { key: "k" }), RangeError);
  const second = ended(room.emit("say", 2));
  await published(peer);
  peer.cut();
  assert.ok((await second).error instanceof OutcomeUnknownError);
});

test("volatile publications have no id, and are dropped without a connection", async (t) => {
  const { server, peer, room } = await member(t);
  assert.equal(await room.emit("moved", [1, 2], { volatile: true }), null);
  assert.deepEqual(await peer.next(), { publish: "moved", data: [1, 2], room: "r" });
  peer.cut();
  const waits = room.emit("say", "kept");
  assert.equal(await room.emit("moved", [3, 4], { volatile: true }), null);
  const again = await server.peer();
  await admit(again, { recovered: true });
  const { id, data } = await published(again);
  assert.equal(data, "kept");
  again.frame({ reply: id, data: at(1) });
  await waits;
  await assert.rejects(room.emit("moved", 1, { volatile: true, key: "k" }), RangeError);
});

// within: MAX_KEY
// beyond: MAX_KEY
test("a key has a greatest length", async (t) => {
  const { peer, room } = await member(t);
  const key = "🐎".repeat(128);
  const sent = room.emit("say", 1, { key });
  const frame = await published(peer);
  assert.equal(frame.key, key);
  peer.frame({ reply: frame.id, data: at(1) });
  await sent;
  for (const wrong of [`${key}k`, ""]) await assert.rejects(room.emit("say", 1, { key: wrong }), RangeError);
  await assert.rejects(room.emit("say", 1, { key: 7 }), TypeError);
});

// within: PUBLISH_TIMEOUT
// beyond: PUBLISH_TIMEOUT
test("after the window the outcome is unknown", async (t) => {
  const { peer, room } = await member(t, { heartbeat: null });
  const tick = stopTime(t);
  const sent = ended(room.emit("say", 1));
  const { id } = await published(peer);
  tick(239, 1000);
  assert.equal(await Promise.race([sent, new Promise((resolve) => setImmediate(resolve, "waits"))]), "waits");
  tick(2, 1000);
  const { error } = await sent;
  assert.ok(error instanceof OutcomeUnknownError, error);
  assert.deepEqual(await peer.next(), { cancel: id });
});

test("a server that does not know says so", async (t) => {
  const { peer, room } = await member(t);
  const sent = ended(room.emit("say", 1));
  const { id } = await published(peer);
  peer.frame({ error: id, data: { code: "timeout", message: "the broker", retryable: true, details: null } });
  assert.ok((await sent).error instanceof OutcomeUnknownError);
});

test("closing the client says what is known", async (t) => {
  const { client, peer, room } = await member(t);
  const sent = ended(room.emit("say", 1));
  await published(peer);
  client.close();
  assert.ok((await sent).error instanceof OutcomeUnknownError);
  await assert.rejects(room.emit("say", 2), DisconnectedError);
});

test("leaving comes after what was published", async (t) => {
  const { peer, room } = await member(t);
  const sent = room.emit("say", 1);
  const left = room.leave();
  await assert.rejects(room.emit("say", 2), RemoteError);
  const one = await published(peer);
  const leave = await peer.next();
  assert.equal(leave.leave, "r");
  peer.frame({ reply: one.id, data: at(1) });
  peer.frame({ left: "r", data: { code: "left", message: "", retryable: false, details: null } });
  peer.frame({ reply: leave.id, data: true });
  assert.deepEqual(await sent, at(1));
  await left;
});

test("what was not sent fails when the program leaves without a connection", async (t) => {
  const { client, peer, room } = await member(t, { backoff: 60, maxBackoff: 60 });
  const sent = ended(room.emit("say", 1));
  await published(peer);
  peer.cut();
  await reach(client, "waiting");
  const unsent = ended(room.emit("say", 2));
  await room.leave();
  assert.ok((await sent).error instanceof OutcomeUnknownError);
  const { error } = await unsent;
  assert.ok(error instanceof RemoteError);
  assert.equal(error.code, "left");
});

test("what was sent has an unknown outcome if the server puts the client out before it is sent again", async (t) => {
  quiet(t, "warn");
  const { server, client, peer, room } = await member(t);
  const sent = ended(room.emit("say", 1));
  await published(peer);
  let open = () => {};
  client.onOpen(() => new Promise((resolve) => (open = resolve)));
  peer.cut();
  await reach(client, "waiting");
  const unsent = ended(room.emit("say", 2));
  const again = await server.peer();
  again.frame({ left: "r", data: { code: "removed", message: "banned", retryable: false, details: null } });
  const { error } = await sent;
  assert.ok(error instanceof OutcomeUnknownError, `${error}`);
  assert.match(error.message, /banned/);
  assert.equal((await unsent).error.code, "removed");
  open();
});

test("volatile publications do not wait in a slow connection", async (t) => {
  const client = await joinFake(t);
  const socket = FakeSocket.last;
  socket.open();
  const joining = client.join("r");
  const { id } = JSON.parse(socket.sent.at(-1));
  for (const frame of [{ joined: "r" }, { reply: id, data: null }]) socket.onmessage({ data: JSON.stringify(frame) });
  const room = await joining;
  const count = socket.sent.length;
  socket.bufferedAmount = 1_000_000;
  await room.emit("moved", 1, { volatile: true });
  assert.equal(socket.sent.length, count);
  socket.bufferedAmount = 0;
  await room.emit("moved", 2, { volatile: true });
  assert.deepEqual(JSON.parse(socket.sent.at(-1)), { publish: "moved", data: 2, room: "r" });
});

for (const answer of [7, "e:1", { epoch: "e" }, { epoch: "e", offset: -1 }, []]) {
  test(`an answer that is not a position rejects: ${JSON.stringify(answer)}`, async (t) => {
    const { peer, room } = await member(t);
    const sent = ended(room.emit("say", 1));
    peer.frame({ reply: (await published(peer)).id, data: answer });
    const { error } = await sent;
    assert.ok(error instanceof RemoteError, `${error}`);
    assert.equal(error.code, "invalid");
  });
}

test("unacknowledged publications are bounded", async (t) => {
  const { peer, room } = await member(t, { maxQueue: 2 });
  const sent = [room.emit("say", 1), room.emit("say", 2)];
  await assert.rejects(room.emit("say", 3), QueueFullError);
  for (let offset = 1; offset <= 2; offset++) peer.frame({ reply: (await published(peer)).id, data: at(offset) });
  await Promise.all(sent);
  const fourth = room.emit("say", 4);
  peer.frame({ reply: (await published(peer)).id, data: at(3) });
  await fourth;
});

test("the history is read in pages", async (t) => {
  const { peer, room } = await member(t);
  const reading = room.history({ limit: 3, before: at(9) });
  const first = await peer.next();
  assert.deepEqual({ ...first, id: 0 }, { history: "r", id: 0, timeout: 10, limit: 3, before: at(9) });
  const page = (...offsets) => offsets.map((offset) => ({ event: "said", data: offset, position: at(offset) }));
  const edited = { event: "said", data: "new", position: at(8), replaces: at(2) };
  peer.frame({ reply: first.id, data: { publications: [...page(7), edited], more: true } });
  const second = await peer.next();
  assert.deepEqual([second.limit, second.before], [1, at(7)]);
  peer.frame({ reply: second.id, data: { publications: page(5), more: true } });
  assert.deepEqual(await reading, [
    { event: "said", data: 5, position: at(5), replaces: null },
    { event: "said", data: 7, position: at(7), replaces: null },
    edited,
  ]);
  for (const limit of [0, -1, NaN, "3"]) await assert.rejects(room.history({ limit }), RangeError);
  await assert.rejects(room.history({ before: 7 }), TypeError);
});

test("an answer that is no history rejects", async (t) => {
  const { peer, room } = await member(t);
  for (const data of [null, 7, { publications: 3 }, { publications: [{ event: "said", data: 1 }] }]) {
    const reading = ended(room.history());
    peer.frame({ reply: (await peer.next()).id, data });
    assert.ok((await reading).error instanceof RemoteError);
  }
});

test("a handler gets the publication, with what it replaces", async (t) => {
  const { peer, room } = await member(t);
  const came = [];
  const both = new Promise((resolve) => {
    room.on("said", (data, publication) => came.push([data, publication]) === 2 && resolve());
  });
  peer.frame({ event: "said", data: "one", room: "r", offset: 1 });
  peer.frame({ event: "said", data: "two", room: "r", offset: 4, after: 1, replaces: at(1) });
  await both;
  assert.deepEqual(came, [
    ["one", { event: "said", data: "one", position: at(1), replaces: null }],
    ["two", { event: "said", data: "two", position: at(4), replaces: at(1) }],
  ]);
});

