import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError, QueueFullError, SymphonyError } from "../symphony.js";
import { FakeSocket, handshake, joinFake } from "./fake.js";
import { join, pair, quiet, reach, serve } from "./server.js";

test("an event is sent at once, and its data may be left out", async (t) => {
  const { client, peer } = await pair(t);
  client.emit("say", { text: "hi" });
  client.emit("bye");
  assert.deepEqual(await peer.next(), { event: "say", data: { text: "hi" } });
  assert.deepEqual(await peer.next(), { event: "bye", data: null });
});

test("a plain message is the event `message` where there are events", async (t) => {
  const { client, peer } = await pair(t);
  client.send([1]);
  assert.deepEqual(await peer.next(), { event: "message", data: [1] });
});

test("what is sent without a connection goes out in order, before anything later, as it was then", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.onState((state) => state === "open" && client.emit("open"));
  const data = { n: 1 };
  client.emit("first", data);
  data.n = 2;
  client.send("second");
  client.request("third").catch(() => {});
  const peer = await server.peer();
  await client.opened;
  client.emit("later");
  const frames = [];
  for (let i = 0; i < 5; i++) frames.push(await peer.next());
  assert.deepEqual(
    frames.map((frame) => frame.event),
    ["first", "message", "third", "open", "later"],
  );
  assert.deepEqual(frames[0].data, { n: 1 });
});

test("the queue survives attempts that fail", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  client.emit("say", 1);
  await server.refuse(4503);
  await server.refuse(4429);
  server.accept();
  assert.equal((await (await server.peer()).next()).data, 1);
});

// within: maxQueue
// beyond: maxQueue
test("a full queue refuses what comes and keeps what it has", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url, { maxQueue: 2 });
  client.emit("a");
  client.send("b");
  assert.throws(
    () => client.emit("c"),
    (error) => error instanceof QueueFullError && error instanceof SymphonyError,
  );
  assert.throws(() => client.send("d"), QueueFullError);
  const peer = await server.peer();
  assert.deepEqual(
    [await peer.next(), await peer.next()],
    [
      { event: "a", data: null },
      { event: "message", data: "b" },
    ],
  );
  client.emit("e");
  assert.deepEqual(await peer.next(), { event: "e", data: null });
});

test("what is sent into a connection that is closing waits for the next one", async (t) => {
  const client = await joinFake(t);
  const closing = FakeSocket.last;
  closing.open();
  closing.readyState = 2;
  client.emit("say");
  closing.end(1012);
  await reach(client, "connecting");
  await handshake();
  FakeSocket.last.open();
  assert.deepEqual(closing.sent, []);
  assert.deepEqual(FakeSocket.last.sent, ['{"event":"say","data":null}']);
});

test("a connection that takes nothing more refuses what comes", async (t) => {
  const client = await joinFake(t);
  FakeSocket.last.open();
  FakeSocket.last.bufferedAmount = 16 * 1024 * 1024 + 1;
  assert.throws(() => client.emit("say"), QueueFullError);
  await assert.rejects(client.request("sum"), QueueFullError);
  FakeSocket.last.bufferedAmount = 0;
  client.emit("say");
  assert.equal(FakeSocket.last.sent.length, 1);
});

test("data that cannot be sent is refused at once, connection or not", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const circle = {};
  circle.circle = circle;
  assert.throws(() => client.emit("say", circle), TypeError);
  await client.opened;
  assert.throws(() => client.emit("say", 2n ** 60n), RangeError);
  assert.throws(() => client.emit("", 1), RangeError);
  assert.throws(() => client.emit("error", 1), RangeError);
});

test("sending after the end raises, with the code of the end", async (t) => {
  const { client, peer } = await pair(t);
  peer.close(4403, "out");
  await reach(client, "closed");
  const gone = (error) => error instanceof DisconnectedError && error.code === 4403 && error.reason === "out";
  assert.throws(() => client.emit("say"), gone);
  assert.throws(() => client.send("say"), gone);
});

test("messages that could never be sent are told on the console", async (t) => {
  const warnings = quiet(t, "warn");
  const server = await serve(t);
  const client = join(t, server.url);
  client.emit("say");
  client.send("say");
  client.request("sum").catch(() => {});
  client.close();
  assert.deepEqual(warnings().length, 1);
  assert.match(warnings()[0], /2 messages were never sent/);
});
