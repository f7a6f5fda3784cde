import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, joinFake } from "./fake.js";
import { page } from "./page.js";
import { join, pair, reach, serve, stopTime } from "./server.js";

// beyond: heartbeat
test("a server that goes silent is pinged, given up and reconnected to", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const { server, client, peer } = await pair(t, { heartbeat: 20, backoff: 1 });
  tick(19.9);
  assert.equal(peer.unread, 0);
  tick(0.1);
  assert.deepEqual(await peer.next(), { ping: 1 });
  tick(9.9);
  assert.equal(client.state, "open");
  const sum = client.request("sum");
  tick(0.1);
  await assert.rejects(sum, { name: "DisconnectedError", code: 1006, reason: "the server does not answer pings" });
  assert.equal(client.state, "waiting");
  tick(1);
  await server.peer();
  await reach(client, "open");
});

// within: heartbeat
test("a pong keeps the connection, and the next silence is asked about again", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t, { heartbeat: 20 });
  for (let ping = 1; ping <= 3; ping++) {
    tick(20);
    assert.deepEqual(await peer.next(), { ping });
    const heard = new Promise((resolve) => client.on("heard", resolve));
    peer.frame({ pong: ping });
    peer.frame({ event: "heard" });
    await heard;
  }
  assert.equal(client.state, "open");
});

test("any message is an answer to a ping", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t, { heartbeat: 20 });
  for (let i = 0; i < 5; i++) {
    tick(19);
    const heard = new Promise((resolve) => client.on("any", resolve));
    peer.frame({ event: "any" });
    await heard;
  }
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("a connection that begins to close and never does is given up as well", async (t) => {
  const tick = stopTime(t);
  const client = await joinFake(t, { heartbeat: 20, backoff: 10 });
  FakeSocket.last.open();
  FakeSocket.last.close();
  t.mock.method(Math, "random", () => 1);
  tick(29.9);
  assert.equal(client.state, "open");
  tick(0.2);
  assert.equal(client.state, "waiting");
});

test("half of a short heartbeat is still a second", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t, { heartbeat: 0.5 });
  tick(0.5);
  assert.deepEqual(await peer.next(), { ping: 1 });
  tick(0.99);
  assert.equal(client.state, "open");
  tick(0.01);
  assert.notEqual(client.state, "open");
});

test("a heartbeat of 0 is none", async (t) => {
  const tick = stopTime(t);
  const { client, peer } = await pair(t, { heartbeat: null });
  tick(1000);
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("a raw route has no heartbeat of frames", async (t) => {
  const tick = stopTime(t);
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url, { heartbeat: 1 });
  const peer = await server.peer();
  await client.opened;
  tick(1000);
  client.send("after");
  assert.equal(await peer.nextMessage(), "after");
});

for (const [what, happen] of [
  ["the network", (page) => page.fire("online")],
  ["the user", (page) => page.show("visible")],
]) {
  test(`when ${what} comes back a long wait is cut short, by a random second`, async (t) => {
    const tick = stopTime(t);
    t.mock.method(Math, "random", () => 0.5);
    const around = page(t);
    const { server, client, peer } = await pair(t, { backoff: 60, maxBackoff: 60 });
    peer.cut();
    await reach(client, "waiting");
    tick(10);
    around.show("hidden");
    tick(1);
    happen(around);
    tick(0.49);
    assert.equal(client.state, "waiting");
    tick(0.01);
    await server.peer();
    await reach(client, "open");
  });
}

test("a wait that is nearly over is not made longer by it", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const around = page(t);
  const { client, peer } = await pair(t, { backoff: 0.5 });
  peer.cut();
  await reach(client, "waiting");
  around.fire("online");
  tick(0.5);
  assert.equal(client.state, "connecting");
});

test("what the server has asked to wait is waited all the same", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const around = page(t);
  const { client, peer } = await pair(t, { backoff: 30 });
  peer.frame({ retry: 10 });
  peer.close(1012);
  await reach(client, "waiting");
  around.fire("online");
  tick(10.9);
  assert.equal(client.state, "waiting");
  tick(0.1);
  assert.equal(client.state, "connecting");
});

test("when the network goes the server is asked at once", async (t) => {
  const tick = stopTime(t);
  const around = page(t);
  const { client, peer } = await pair(t, { heartbeat: 20 });
  tick(1);
  around.fire("offline");
  assert.deepEqual(await peer.next(), { ping: 1 });
  tick(10);
  assert.notEqual(client.state, "open");
});

test("a client that is closed does not look around any more", async (t) => {
  const around = page(t);
  const { client } = await pair(t);
  assert.equal(around.listeners(), 6);
  client.close();
  assert.equal(around.listeners(), 0);
});
