/** A client that was connected does not end because something else answers for a while. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";

import { FakeSocket, handshake, joinFake } from "./fake.js";
import { Implementation, join, PackagedWebSocket, pair, quiet, reach, serve, stopTime } from "./server.js";

const answer = (line, rest = "Content-Length: 0\r\n") => `HTTP/1.1 ${line}\r\n${rest}\r\n`;
const NONSENSE = {
  "404": answer("404 Not Found"),
  "200": answer("200 OK", "Content-Length: 2\r\n") + "ok",
  "302": answer("302 Found", "Location: /login\r\nContent-Length: 0\r\n"),
  "403": answer("403 Forbidden"),
  "400": answer("400 Bad Request"),
  "401": answer("401 Unauthorized"),
  "no HTTP": "SSH-2.0-OpenSSH_9.6\r\n",
  "a TLS alert": "\u0015\u0003\u0001\u0000\u0002\u0002\u0028",
  "nothing": "",
  "101 without a key": answer("101 Switching Protocols", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
  "half of an answer": "HTTP/1.1 200 OK\r\nContent-Le",
};

/** Something else on the port, that says this to all. */
async function nonsense(t, port, text) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.end(text, "latin1"));
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    if (server.listening) {
      server.close();
      await once(server, "close");
    }
  };
  t.after(stop);
  return { met: (times) => new Promise((resolve) => server.on("connection", () => --times || resolve())), stop };
}

for (const [what, text] of Object.entries(NONSENSE)) {
  test(`${what} during a restart does not end the client, which comes back with what was said`, async (t) => {
    quiet(t, "warn");
    const { server, client } = await pair(t, { backoff: 0.01, maxBackoff: 0.02 });
    const { port } = server;
    await server.stop();
    await reach(client, "waiting");
    client.emit("say", what);
    const between = await nonsense(t, port, text);
    await between.met(4);
    assert.equal(client.closed, null);
    await between.stop();
    const after = await serve(t, { port });
    const peer = await after.peer();
    assert.equal((await peer.next()).data, what);
  });
}

test("what answers is logged once, and again if it changes", { skip: Implementation !== PackagedWebSocket }, async (t) => {
  const warnings = quiet(t, "warn");
  const { server, client } = await pair(t, { backoff: 0.001, maxBackoff: 0.001 });
  const { port } = server;
  await server.stop();
  for (const text of [NONSENSE["404"], NONSENSE["302"]]) {
    const between = await nonsense(t, port, text);
    await between.met(4);
    await between.stop();
  }
  const strange = warnings().filter((line) => line.includes("answers with"));
  assert.equal(strange.length, 2);
  assert.match(strange[0], /ws:\/\/127.0.0.1:\d+\/ answers with HTTP 404 Not Found; trying again for 300 s/);
  assert.match(strange[1], /HTTP 302/);
  assert.equal(client.closed, null);
});

for (const [giveUpAfter, ends] of [
  [60, true],
  [0, true],
  [null, false],
]) {
  // within: giveUpAfter
  // beyond: giveUpAfter
  test(`giveUpAfter ${giveUpAfter}`, { skip: Implementation !== PackagedWebSocket }, async (t) => {
    quiet(t, "warn");
    const tick = stopTime(t);
    t.mock.method(Math, "random", () => 1);
    const { server, client } = await pair(t, { backoff: 25, maxBackoff: 25, giveUpAfter });
    const { port } = server;
    await server.stop();
    await nonsense(t, port, NONSENSE["404"]);
    let attempts = 0;
    while (!client.closed && attempts < 8) {
      await reach(client, "waiting");
      tick(26);
      attempts++;
      await new Promise((resolve) => {
        const off = client.onState((state) => (state === "waiting" || state === "closed") && (off(), resolve()));
      });
    }
    assert.equal(client.state, ends ? "closed" : "waiting");
    if (ends) {
      assert.equal(client.closed.code, 4404);
      assert.equal(client.closed.reason, "HTTP 404 Not Found");
      // At 26, 52, 78 and 104 s: the first one that is 60 s after the first answer.
      assert.equal(attempts, giveUpAfter ? 4 : 1);
    }
  });
}

test("a server that is only away is waited for without a limit", async (t) => {
  quiet(t, "warn");
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const client = await joinFake(t, { backoff: 30, maxBackoff: 30, giveUpAfter: 1 });
  FakeSocket.last.open();
  for (let i = 0; i < 50; i++) {
    FakeSocket.last.end(1006);
    tick(31);
    await handshake();
  }
  assert.equal(client.closed, null);
});

test("a client that cannot connect says what could be wrong, once, and again after it was connected", async (t) => {
  const warnings = quiet(t, "warn");
  const client = await joinFake(t, { backoff: 0 });
  const fail = async (times) => {
    for (let i = 0; i < times; i++) {
      FakeSocket.last.end(1006, i ? "no route" : "");
      await reach(client, "connecting");
      await handshake();
    }
  };
  // At once, because a page sees nothing else of a wrong path.
  await fail(1);
  assert.match(
    warnings()[0],
    /could not connect to ws:\/\/localhost\/: .*server runs.*path.*mount path.*origins/,
  );
  await fail(7);
  assert.equal(warnings().length, 1);
  FakeSocket.last.open();
  // It was there, so it is probably back soon.
  await fail(3);
  assert.equal(warnings().length, 1);
  await fail(4);
  assert.equal(warnings().length, 2);
  assert.match(warnings()[1], /could not connect to ws:\/\/localhost\/: /);
});

test("a server that closes each connection at once is told once, and the waits grow", async (t) => {
  const warnings = quiet(t, "warn");
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const client = await joinFake(t, { backoff: 1 });
  const waits = [];
  for (let i = 0; i < 12; i++) {
    FakeSocket.last.open();
    // Whether it says when to come back, or not.
    if (i % 2) FakeSocket.last.onmessage({ data: '{"retry":0}' });
    FakeSocket.last.end(1012, "restart");
    let wait = 0;
    for (; client.state === "waiting"; wait += 0.5) tick(0.5, 500);
    waits.push(wait);
    await handshake();
  }
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0], /3 connections in a row to ws:\/\/localhost\/ were lost within 5 s: 1012 restart/);
  assert.ok(waits.at(-1) >= 20, `${waits}`);
});

test("a server that refuses for now is named as such", async (t) => {
  const warnings = quiet(t, "warn");
  const server = await serve(t);
  const client = join(t, server.url);
  for (let i = 0; i < 4; i++) await server.refuse(4503, "full");
  server.accept();
  await client.opened;
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0], /4503 full. The server refuses it for now/);
});
