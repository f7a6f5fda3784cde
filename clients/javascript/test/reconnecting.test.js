import assert from "node:assert/strict";
import { test } from "node:test";

import { join, pair, reach, serve, stopTime } from "./server.js";

/** Check that the client waits so long, and no longer. */
async function waits(client, tick, seconds) {
  await reach(client, "waiting");
  tick(seconds - 0.01);
  assert.equal(client.state, "waiting");
  tick(0.02);
  assert.equal(client.state, "connecting");
}

// within: maxBackoff
// beyond: maxBackoff
test("the first wait is a random part of a bound, later ones are in the upper half of one that grows", async (t) => {
  const tick = stopTime(t);
  const server = await serve(t);
  const client = join(t, server.url, { backoff: 0.5, maxBackoff: 5 });
  const random = t.mock.method(Math, "random", () => 1);
  for (const bound of [0.5, 0.75, 1.125, 1.6875, 2.53, 3.79, 5, 5]) {
    (await server.peer()).cut();
    await waits(client, tick, bound);
  }
  random.mock.mockImplementation(() => 0.1);
  (await server.peer()).cut();
  await waits(client, tick, 2.75);
});

test("the wait may be none at all", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 0);
  const { server, client, peer } = await pair(t, { backoff: 30 });
  peer.cut();
  await reach(client, "waiting");
  tick(0.01);
  await server.peer();
});

test("a connection that lasted begins the bound anew, a short one does not", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const server = await serve(t);
  const client = join(t, server.url, { backoff: 1 });
  for (const [lasted, bound] of [
    [0, 1],
    [4.9, 1.5],
    [0, 2.25],
    [5, 1],
    [1, 1.5],
  ]) {
    const peer = await server.peer();
    await reach(client, "open");
    tick(lasted);
    peer.cut();
    await waits(client, tick, bound);
  }
});

test("the server's `retry` comes before the random wait, for that one time", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 0.5);
  const { server, client, peer } = await pair(t, { backoff: 2 });
  peer.frame({ retry: 7.5 });
  peer.close(1012, "restart");
  // Half of as long as it asked for, after that.
  await waits(client, tick, 11.25);
  (await server.peer()).cut();
  await waits(client, tick, 2.25);
});

test("a server that says when to come back begins the waits anew, once in a row", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const server = await serve(t);
  const client = join(t, server.url, { backoff: 1 });
  for (const wait of [1, 1.5, 2.25]) {
    (await server.peer()).cut();
    await waits(client, tick, wait);
  }
  server.choose = () => "symphony.refuse";
  for (const wait of [1.5, 2, 2.75]) {
    const peer = await server.peer();
    peer.message('{"retry":0.5}');
    peer.close(4503, "full");
    await waits(client, tick, wait);
  }
});

// within: MAX_RETRY
// beyond: MAX_RETRY
test("a wait that is absurd is cut to a day", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 0);
  const { client, peer } = await pair(t);
  peer.frame({ retry: 1e9 });
  peer.close(1012);
  await reach(client, "waiting");
  tick(24 * 3600 - 1, 1_000_000);
  assert.equal(client.state, "waiting");
  tick(2, 1000);
  assert.equal(client.state, "connecting");
});

for (const protocol of ["json", "msgpack"]) {
  test(`a refusal may say when to come back, always in JSON, also to ${protocol}`, async (t) => {
    const tick = stopTime(t);
    t.mock.method(Math, "random", () => 0.5);
    const server = await serve(t);
    server.choose = () => "symphony.refuse";
    const client = join(t, server.url, { backoff: 2, protocol });
    const peer = await server.peer();
    peer.message('{"retry":7.5}');
    peer.close(4503, "full");
    await waits(client, tick, 11.25);
    assert.equal(client.protocol, null);
  });
}

/** Send a client elsewhere before its connection is open. */
async function sendElsewhere(server) {
  const peer = await server.peer();
  const data = { code: "elsewhere", message: "it is on another node", retryable: true, details: null };
  peer.message(JSON.stringify({ event: "error", data }));
  peer.close(4421, "elsewhere");
}

// within: MAX_AT_ONCE
// beyond: MAX_AT_ONCE
test("a client that is sent elsewhere waits after sixteen attempts at once", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const server = await serve(t);
  server.choose = () => "symphony.refuse";
  const client = join(t, server.url, { backoff: 1 });
  for (const wait of [1, 1.5]) {
    for (let count = 0; count < 16; count++) {
      await sendElsewhere(server);
      await waits(client, tick, 0.01);
    }
    await sendElsewhere(server);
    await waits(client, tick, wait);
  }
});

test("an open connection that ends with 4421 is made anew at once", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const { server, client, peer } = await pair(t, { backoff: 1 });
  peer.close(4421, "the room has moved");
  await waits(client, tick, 0.01);
  (await server.peer()).cut();
  await waits(client, tick, 1);
});

test("a `retry` that is no number of seconds is none", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const { client, peer } = await pair(t, { backoff: 1 });
  for (const retry of ["5", -1, null, { seconds: 5 }]) peer.frame({ retry });
  peer.close(1012);
  await waits(client, tick, 1);
});

test("4401 asks a token function once more, and a second one is final", async (t) => {
  const server = await serve(t);
  let asked = 0;
  const client = join(t, server.url, { token: () => `${++asked}` });
  await server.refuse(4401, "expired");
  await server.refuse(4401, "expired again");
  await assert.rejects(client.opened, { name: "RefusedError", code: 4401, reason: "expired again" });
  assert.equal(asked, 2);
});

test("a client that is refused when it comes back has lost its connection", async (t) => {
  const { server, client, peer } = await pair(t, { backoff: 0.01 });
  const refused = server.refuse(4403, "no more");
  peer.close(1012);
  await reach(client, "waiting");
  const asked = client.request("sum", 1);
  await refused;
  // Not `RefusedError`: that is what opening a client raises, and it was open.
  await assert.rejects(asked, { name: "DisconnectedError", code: 4403, reason: "no more" });
  await client.opened;
});

test("4401 of an open connection asks for a new token, each time that it has lasted", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 0);
  const server = await serve(t);
  let asked = 0;
  const client = join(t, server.url, { token: () => `${++asked}` });
  for (let i = 1; i <= 3; i++) {
    const peer = await server.peer();
    await reach(client, "open");
    assert.equal(asked, i);
    tick(5);
    peer.close(4401);
    await reach(client, "waiting");
    tick(0.01);
  }
  (await server.peer()).close(4401);
  await reach(client, "closed");
});

test("4401 with a token that is text is final", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url, { token: "old" });
  await server.refuse(4401);
  await assert.rejects(client.opened, { code: 4401 });
});

for (const closing of ["open", "waiting", "connecting"]) {
  test(`a handler that closes the client in the state ${closing} has the last word`, async (t) => {
    let asked = 0;
    const { server, client, peer } = await pair(t, { token: () => `${++asked}` });
    const states = [];
    client.onState((state) => {
      if (state === closing) client.close();
    });
    client.onState((state) => states.push(state));
    peer.cut();
    if (closing === "open") await server.peer();
    await reach(client, "closed");
    assert.equal(states.at(-1), "closed");
    assert.ok(!states.includes(closing));
    assert.equal(asked, closing === "open" ? 2 : 1);
  });
}

test("so has a handler of a request that closes the client when it is told of the loss", async (t) => {
  const { client, peer } = await pair(t);
  const states = [];
  client.onState((state) => states.push(state));
  const began = new Promise((resolve) => {
    client.on("name", (data, { signal }) => {
      resolve();
      return new Promise(() => signal.addEventListener("abort", () => client.close()));
    });
  });
  peer.frame({ event: "name", id: 1 });
  await began;
  peer.cut();
  await reach(client, "closed");
  await client.close();
  assert.deepEqual(states, ["closed"]);
});
