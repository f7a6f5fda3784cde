import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { DisconnectedError } from "../symphony.js";
import { FakeSocket, joinFake } from "./fake.js";
import { join, PackagedWebSocket, pair, quiet, reach, serve, stopTime } from "./server.js";

test("close ends all that is under way, tells the server, and is done when it has closed", async (t) => {
  const { client, peer } = await pair(t);
  const sum = client.request("sum");
  const item = client.stream("count").next();
  await peer.next();
  const closing = client.close(4001, "bye");
  assert.deepEqual([client.state, client.closed], ["closed", { code: 4001, reason: "bye", refusal: null }]);
  const gone = (error) => error instanceof DisconnectedError && error.code === 4001 && error.reason === "bye";
  await assert.rejects(sum, gone);
  await assert.rejects(item, gone);
  await closing;
  assert.deepEqual(await peer.closed, { code: 4001, reason: "bye" });
});

test("closing again changes nothing", async (t) => {
  const { client } = await pair(t);
  const first = client.close();
  await Promise.all([first, client.close(4000, "again")]);
  assert.deepEqual(client.closed, { code: 1000, reason: "", refusal: null });
});

test("closing after the server has ended it changes nothing", async (t) => {
  const { client, peer } = await pair(t);
  peer.close(4403, "out");
  await reach(client, "closed");
  await client.close();
  assert.deepEqual(client.closed, { code: 4403, reason: "out", refusal: null });
});

// beyond: MAX_REASON_BYTES
test("codes and reasons that may not be sent are refused", async (t) => {
  const { client } = await pair(t);
  for (const code of [0, 999, 1001, 1006, 2999, 5000, NaN])
    assert.throws(() => client.close(code), RangeError);
  assert.throws(() => client.close(1000, "é".repeat(62)), RangeError);
  assert.equal(client.state, "open");
});

// within: MAX_REASON_BYTES
test("a reason of 123 bytes is sent", async (t) => {
  const { client } = await pair(t);
  const reason = `x${"é".repeat(61)}`;
  await client.close(4000, reason);
  assert.equal(client.closed.reason, reason);
});

test("a client that is closed before it was open rejects `opened`", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  await client.close();
  await assert.rejects(client.opened, { name: "DisconnectedError", code: 1000 });
});

test("a client that is closed while it waits does not come back", async (t) => {
  const tick = stopTime(t);
  t.mock.method(Math, "random", () => 1);
  const { client, peer } = await pair(t, { backoff: 1 });
  peer.cut();
  await reach(client, "waiting");
  client.close();
  tick(100);
  assert.equal(client.state, "closed");
});

// within: CLOSE_TIMEOUT
// beyond: CLOSE_TIMEOUT
test("a server that does not answer the close is waited for five seconds", async (t) => {
  const tick = stopTime(t);
  const client = await joinFake(t);
  FakeSocket.last.open();
  let done = false;
  const closing = client.close().then(() => (done = true));
  tick(4.99);
  await null;
  assert.equal(done, false);
  tick(0.01);
  await closing;
});

test("nothing comes after close", async (t) => {
  const client = await joinFake(t);
  const socket = FakeSocket.last;
  socket.open();
  client.on("said", () => assert.fail("it is closed"));
  const { onmessage, onopen, onerror } = socket;
  client.close();
  onmessage({ data: '{"event":"said"}' });
  onopen({});
  onerror({});
  assert.equal(client.state, "closed");
});

test("a WebSocket that fails from within `close` is left alone", async (t) => {
  // Node 22: a handshake that failed fires `error`, `close()` in its handler fires it again, and so on.
  const client = await joinFake(t, { reconnect: false });
  const socket = FakeSocket.last;
  let closed = 0;
  socket.close = () => {
    closed++;
    socket.onerror({ message: "once more" });
  };
  socket.onerror({ message: "no route to the host" });
  assert.deepEqual(client.closed, { code: 1006, reason: "no route to the host", refusal: null });
  assert.equal(closed, 1);
});

test("a connection that opens twice or errs after it ended does no harm", async (t) => {
  const client = await joinFake(t, { reconnect: false });
  FakeSocket.last.open();
  FakeSocket.last.end(1006);
  FakeSocket.last.onerror({ message: "late" });
  FakeSocket.last.end(1000);
  assert.deepEqual(client.closed, { code: 1006, reason: "", refusal: null });
});

/** Run a script with a client in a process of its own, until it ends by itself. */
async function run(t, url, script) {
  const source = `
    import { WebSocket as Packaged } from "ws";
    import { connect } from "./symphony.js";
    const client = connect(${JSON.stringify(url)}, { WebSocket: globalThis.WebSocket ?? Packaged });
    ${script}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    // Never `inherit`: the runner reads what this process says there.
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill());
  let errors = "";
  child.stderr.on("data", (chunk) => (errors += chunk));
  const [code] = await once(child, "close");
  return { code, errors };
}

test("a process can end after close: no timer is left", { timeout: 20_000 }, async (t) => {
  const server = await serve(t);
  const { code, errors } = await run(
    t,
    server.url,
    `
    await client.opened;
    client.request("never").catch(() => {});
    client.stream("never").next().catch(() => {});
    await client.close();
    // Whatever holds the process now was left over; the test would run into its timeout.
  `,
  );
  assert.deepEqual([code, errors], [0, ""]);
});

test("no rejection is left unhandled, whatever nobody waits for", { timeout: 20_000 }, async (t) => {
  const server = await serve(t);
  const ended = run(
    t,
    server.url,
    `
    client.emit("waits");
    client.onState(async () => {});
    client.on("said", () => {});
  `,
  );
  await server.refuse(4403, "not you");
  const { code, errors } = await ended;
  assert.equal(code, 0);
  assert.match(errors, /1 messages were never sent/);
});

test("an end that the program did not ask for is logged once, with the code, the reason and what to do", async (t) => {
  const warnings = quiet(t, "warn");
  for (const [code, reason, advice] of [
    [1000, "done", /1000 done\. .*normally/],
    [4403, "not you", /4403 not you\. .*token/],
    [4777, "", /4777\. It is a code of the app/],
    [1009, "too big", /max_message_bytes/],
  ]) {
    const { client, peer } = await pair(t);
    const before = warnings().length;
    peer.close(code, reason);
    assert.deepEqual(await client.waitClosed(), { code, reason, refusal: null });
    assert.throws(() => client.emit("say"), DisconnectedError);
    assert.equal(warnings().length, before + 1);
    assert.match(warnings().at(-1), advice);
  }
});

test("an end that the program did ask for is not logged", async (t) => {
  const warnings = quiet(t, "warn");
  const { client } = await pair(t);
  await client.close(4001, "enough");
  assert.deepEqual(await client.waitClosed(), { code: 4001, reason: "enough", refusal: null });
  assert.equal(warnings().length, 0);
});

test("waiting for the end begins before it and after it, and never rejects", async (t) => {
  quiet(t, "warn");
  const server = await serve(t);
  const client = join(t, server.url);
  const early = client.waitClosed();
  await server.refuse(4403, "no");
  assert.equal((await early).code, 4403);
  assert.equal(await client.waitClosed(), client.closed);
});

/** A WebSocket of `ws` that takes messages of up to 1,000 bytes. */
class SmallWebSocket extends PackagedWebSocket {
  constructor(url, protocols) {
    super(url, protocols, { maxPayload: 1000 });
  }
}

const LARGE = "x".repeat(2000);
const AT = { epoch: "e", offset: 3 };
const SMALL = { WebSocket: SmallWebSocket, backoff: 0.01, maxBackoff: 0.01 };

async function admit(peer) {
  const { id, since } = await peer.next();
  peer.frame({ joined: "r", position: AT, recovered: since !== undefined });
  peer.frame({ reply: id, data: null });
}

/** What a server sends on each connection, and what the client waits for. */
const TOO_LARGE = {
  async snapshot(peer) {
    await peer.next();
    peer.frame({ joined: "r", position: AT, recovered: false, snapshot: LARGE });
  },
  async publication(peer) {
    await admit(peer);
    peer.frame({ event: "said", room: "r", offset: 4, data: LARGE });
  },
  async history(peer) {
    await admit(peer);
    const { id } = await peer.next();
    peer.frame({ reply: id, data: { publications: [{ event: "said", data: LARGE, position: AT }] } });
  },
  async event(peer) {
    peer.frame({ event: "said", data: LARGE });
  },
  async reply(peer) {
    const { id } = await peer.next();
    peer.frame({ reply: id, data: LARGE });
  },
};

// beyond: MAX_TOO_LARGE
test("what is too large each time ends the client, and says what to do", async (t) => {
  const warned = quiet(t, "warn");
  for (const protocol of ["json", "msgpack"]) {
    for (const [kind, send] of Object.entries(TOO_LARGE)) {
      const server = await serve(t);
      const client = join(t, server.url, { ...SMALL, protocol });
      let peer = await server.peer();
      await client.opened;
      let asking = null;
      if (["snapshot", "publication", "history"].includes(kind)) {
        const joining = client.join("r");
        if (kind === "snapshot") asking = joining;
        else {
          await admit(peer);
          const room = await joining;
          if (kind === "history") {
            asking = room.history();
            await peer.next();
          }
          peer.cut();
          peer = await server.peer();
        }
      } else if (kind === "reply") asking = client.request("all", null, { idempotent: true });
      const failed = asking?.catch((error) => error);
      for (let left = 3; left > 0; left--) {
        await send(peer);
        if (left > 1) peer = await server.peer();
      }
      const { code, reason } = await client.waitClosed();
      assert.deepEqual([code, /maxPayload/.test(reason)], [1009, true], kind);
      const error = failed ? await failed : await client.request("anything").catch((error) => error);
      assert.ok(error instanceof DisconnectedError, `${kind}: ${error}`);
      assert.match(error.message, /1009 a message .* `maxPayload`/);
      assert.match(warned().at(-1), /maxPayload.*does not reconnect/);
    }
  }
});

// within: MAX_TOO_LARGE
test("a few messages that are too large do not end the client", async (t) => {
  const warned = quiet(t, "warn");
  const { server, client, peer } = await pair(t, SMALL);
  let last = peer;
  for (let round = 0; round < 2; round++) {
    last.frame({ event: "said", data: LARGE });
    last = await server.peer();
    await reach(client, "open");
    const asking = client.request("number");
    last.frame({ reply: (await last.next()).id, data: round });
    assert.equal(await asking, round);
  }
  assert.match(warned()[0], /maxPayload.*Trying again/);
});

test("messages that are too large now and then do not end the client", async (t) => {
  quiet(t, "warn");
  const { mock } = t.mock.method(performance, "now", () => 0);
  const { server, client, peer } = await pair(t, { ...SMALL, heartbeat: null });
  let last = peer;
  for (let round = 1; round < 10; round++) {
    last.frame({ event: "said", data: LARGE });
    last = await server.peer();
    await reach(client, "open");
    mock.mockImplementation(() => round * 300_000);
  }
});
