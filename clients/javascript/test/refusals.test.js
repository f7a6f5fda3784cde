/** Who comes back after a refusal: the error of the server decides. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { connect, RefusedError } from "../symphony.js";
import { Implementation, join, PackagedWebSocket, pair, quiet, reach, serve, stopTime } from "./server.js";

/** The ways a server says no on a WebSocket: as the handshake, and later. */
const STAGES = {
  "before it is open": (server) => {
    server.choose = () => "symphony.refuse";
  },
  "after it was open": (server) => server.accept(),
};

async function refuse(peer, data, code) {
  peer.frame({ event: "error", data });
  peer.close(code, data.message);
}

for (const [stage, prepare] of Object.entries(STAGES)) {
  for (const [code, error] of [
    [4409, { code: "room_full", message: "no seat", retryable: true }],
    [4403, { code: "shop.busy", message: "later", retryable: true }],
    [4999, { code: "test.busy", message: "", retryable: true }],
    [1008, { code: "too_many", message: "slow down", retryable: true }],
  ]) {
    test(`${error.code} with ${code} ${stage} is retryable: the client comes back`, async (t) => {
      const server = await serve(t);
      prepare(server);
      const client = join(t, server.url);
      refuse(await server.peer(), error, code);
      const second = server.peer();
      server.accept();
      await second;
      await reach(client, "open");
      assert.equal(client.closed, null);
    });
  }

  for (const [code, error] of [
    [1011, { code: "shop.broken", message: "no", retryable: false }],
    [4503, { code: "shop.closed", message: "for good", retryable: false }],
    [4429, { code: "too_many", message: "banned", retryable: false }],
    [4408, { code: "shop.idle", message: "" }],
  ]) {
    test(`${error.code} with ${code} ${stage} is not: the client ends`, async (t) => {
      quiet(t, "warn");
      const server = await serve(t);
      prepare(server);
      const client = join(t, server.url);
      client.on("error", () => {});
      refuse(await server.peer(), error, code);
      const closed = await client.waitClosed();
      assert.deepEqual([closed.code, closed.refusal.code], [code, error.code]);
    });
  }
}

test("an error that was not the reason of the close decides nothing", async (t) => {
  const { server, client, peer } = await pair(t);
  client.on("error", () => {});
  // Another reason; no code; no close frame at all.
  for (const [message, end] of [
    ["no", (peer) => peer.close(1012, "restart")],
    ["", (peer) => peer.close()],
    ["", (peer) => peer.cut()],
  ]) {
    const now = message === "no" ? peer : await server.peer();
    await reach(client, "open");
    now.frame({ event: "error", data: { code: "invalid", message } });
    end(now);
    await reach(client, "waiting");
  }
  await server.peer();
  await reach(client, "open");
});

test("a refusal says when to come back, with or without a `retry` of its own", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 0);
  const server = await serve(t);
  server.choose = () => "symphony.refuse";
  const client = join(t, server.url);
  for (const seconds of [3, 0.5, 60]) {
    refuse(await server.peer(), { code: "room_full", message: "no seat", retryable: true, retry_after: seconds }, 4409);
    await reach(client, "waiting");
    tick(seconds - 0.01);
    assert.equal(client.state, "waiting");
    while (client.state === "waiting") tick(0.1);
  }
});

test("`unauthorized` asks for a new token once, whatever its close code", async (t) => {
  quiet(t, "warn");
  for (const code of [4401, 4999, 1008]) {
    const server = await serve(t);
    server.choose = () => "symphony.refuse";
    let asked = 0;
    const client = join(t, server.url, { token: () => `${++asked}` });
    for (let i = 0; i < 2; i++) refuse(await server.peer(), { code: "unauthorized", message: "who?" }, code);
    await client.waitClosed();
    assert.equal(asked, 2);
  }
});

// -- HTTP, which only `ws` shows

const http = { skip: Implementation !== PackagedWebSocket && "this WebSocket hides HTTP answers" };

/** A server that answers every handshake so. */
async function answering(t, answers) {
  const server = createServer();
  let met = 0;
  server.on("upgrade", (request, socket) => {
    const { status, headers = {}, body = "" } = answers[Math.min(met++, answers.length - 1)];
    const lines = Object.entries({ ...headers, "Content-Length": Buffer.byteLength(body) });
    socket.on("error", () => {});
    socket.end(`HTTP/1.1 ${status} Answer\r\n${lines.map((line) => `${line.join(": ")}\r\n`).join("")}\r\n${body}`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return { url: `ws://127.0.0.1:${server.address().port}/chat?token=secret`, count: () => met };
}

const marked = (status, error, headers = {}) => ({
  status,
  headers: { "Symphony-Refusal": error.code, ...headers },
  body: JSON.stringify(error),
});

for (const [status, error] of [
  [409, { code: "room_full", message: "no seat", retryable: true }],
  [403, { code: "shop.busy", message: "later", retryable: true }],
  [400, { code: "shop.odd", message: "later", retryable: true }],
]) {
  // within: MAX_ANSWER
  test(`HTTP ${status} with a retryable error of Symphony is tried again`, http, async (t) => {
    const server = await answering(t, [marked(status, error), marked(404, { code: "not_found", message: "gone" })]);
    quiet(t, "warn");
    const client = join(t, server.url, { WebSocket: PackagedWebSocket });
    await assert.rejects(client.opened, (failure) => {
      assert.ok(failure instanceof RefusedError);
      assert.deepEqual([failure.code, failure.status, failure.refusal.code], [4404, 404, "not_found"]);
      return true;
    });
    assert.equal(server.count(), 2);
  });
}

for (const answer of [
  { status: 404 },
  { status: 200, body: "<html>" },
  { status: 302, headers: { Location: "/login" } },
  marked(503, { code: "shop.closed", message: "for good", retryable: false }),
]) {
  test(`HTTP ${answer.status} before the first connection is final`, http, async (t) => {
    const warnings = quiet(t, "warn");
    const server = await answering(t, [answer]);
    const client = connect(server.url, { WebSocket: PackagedWebSocket });
    await assert.rejects(client.opened, { name: "RefusedError", status: answer.status, code: 4000 + answer.status });
    assert.equal(server.count(), 1);
    assert.equal(warnings().length, 1);
    assert.ok(!warnings()[0].includes("secret"));
  });
}
