/** A server that says whatever it likes: the client stays usable, bounded, and tells its user. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";

import * as packed from "../msgpack.js";
import { DisconnectedError, MessageTooLargeError, QueueFullError, RemoteError } from "../symphony.js";
import { FakeSocket, joinFake } from "./fake.js";
import { Implementation, join, PackagedWebSocket, pair, quiet, reach, serve, stopTime } from "./server.js";

/** A server and a client whose console is quiet. An unhandled rejection fails the test. */
async function under(t, options) {
  const lines = ["warn", "error"].map((level) => quiet(t, level));
  const all = await pair(t, options);
  return { ...all, warnings: lines[0], errors: lines[1] };
}

/** Our own codecs would refuse some of it. */
const raw = (peer, frame) => peer.message(JSON.stringify(frame));

/** The client is whole: it asks, is answered, and answers. What it said before is skipped. */
async function works({ client, peer }) {
  client.on("ping?", () => "pong!");
  const asked = client.request("sum", [1]);
  let frame;
  do frame = await peer.next();
  while (frame.event !== "sum");
  peer.frame({ reply: frame.id, data: 6 });
  assert.equal(await asked, 6);
  peer.frame({ event: "ping?", id: 4321 });
  do frame = await peer.next();
  while (frame.reply !== 4321);
  assert.equal(frame.data, "pong!");
  assert.equal(client.state, "open");
}

const DEEP = 100_000;
const WEIRD = [
  ["a number", "7"],
  ["text", '"event"'],
  ["a list", '[{"event":"said"}]'],
  ["null", "null"],
  ["nothing", ""],
  ["half of it", '{"event":"said","data":'],
  ["deep data", `{"event":"said","data":${"[".repeat(DEEP)}${"]".repeat(DEEP)}}`],
  ["a deep envelope", `${'{"event":'.repeat(DEEP)}1${"}".repeat(DEEP)}`],
  ["deep lists that do not end", "[".repeat(DEEP)],
  ["a long name", JSON.stringify({ event: "x".repeat(5_000_000) })],
  ["a long name of a request", JSON.stringify({ event: "x".repeat(5_000_000), id: 1 })],
  ["an empty name", '{"event":"","id":1}'],
  ["many fields", JSON.stringify({ event: "said", ...Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`f${i}`, i])) })],
  ["much data", JSON.stringify({ event: "other", data: "x".repeat(20_000_000) })],
  ["a list of much", `{"event":"other","data":[${"0,".repeat(1_000_000)}0]}`],
  ["all kinds at once", '{"event":"other","reply":1,"error":1,"item":1,"end":1,"cancel":1,"pong":1,"retry":null,"limits":{}}'],
  ["what only clients send", '{"grant":1,"credit":1}'],
  ["no kind", '{"data":1}'],
];
for (const [what, message] of WEIRD) {
  test(`JSON: ${what} leaves the client whole`, async (t) => {
    const all = await under(t);
    all.client.on("said", () => {});
    all.peer.message(message);
    await works(all);
  });
}

const NUMBERS = ["-1", "0.5", "1e308", "1e400", "-0.1", "9007199254740993", "1152921504606846976", '"1"', '"\\ud800"', "true", "{}", "[]", "[[1]]"];
for (const id of NUMBERS) {
  test(`ids and numbers that are ${id}`, async (t) => {
    const all = await under(t);
    const { client, peer, warnings } = all;
    client.on("name", () => "Ada");
    client.on("slow", (_, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)));
    const waiting = client.request("wait", null, { timeout: 60 });
    const { id: own } = await peer.next();
    for (const event of ["name", "slow", "absent", "error"]) peer.message(`{"event":"${event}","id":${id}}`);
    for (const kind of ["reply", "error", "item", "end", "cancel", "pong"]) peer.message(`{"${kind}":${id},"data":{"code":"invalid"}}`);
    peer.message(`{"limits":{"max_message_bytes":${id === "9007199254740993" ? -1 : id}}}`);
    peer.message(`{"limits":${id}}`);
    if (id !== "0.5" && id !== "1e308" && !/^9|^11/.test(id)) peer.message(`{"retry":${id}}`);
    await works(all);
    assert.ok(warnings().some((line) => line.includes("is not valid")));
    peer.frame({ reply: own, data: "still" });
    assert.equal(await waiting, "still");
  });
}

for (const retry of [1e308, Number.MAX_SAFE_INTEGER, 1e10]) {
  test(`a server that asks to wait for ${retry} s is believed for a day`, async (t) => {
    const tick = stopTime(t);
    const client = await joinFake(t, { backoff: 1, maxBackoff: 1 });
    FakeSocket.last.open();
    FakeSocket.last.onmessage({ data: `{"retry":${retry}}` });
    FakeSocket.last.end(1012);
    tick(24 * 3600 - 1, 600_000);
    assert.equal(client.state, "waiting");
    tick(10, 1000);
    assert.equal(client.state, "connecting");
  });
}

// within: STOP_TIMEOUT
// beyond: STOP_TIMEOUT
test("a server that says retry and does not close is left after five minutes", async (t) => {
  const tick = stopTime(t);
  const client = await joinFake(t, { heartbeat: null });
  FakeSocket.last.open();
  FakeSocket.last.onmessage({ data: '{"retry":0}' });
  client.emit("say", "waits");
  // Saying it again changes nothing.
  tick(200, 1000);
  FakeSocket.last.onmessage({ data: '{"retry":0}' });
  tick(99, 1000);
  assert.equal(client.state, "open");
  tick(2, 1000);
  await reach(client, "connecting");
  while (FakeSocket.made.length < 2) await null;
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent, ['{"event":"say","data":"waits"}']);
});

for (const most of [1, 2, 30]) {
  test(`with a limit of ${most} bytes, requests fail, and everything else goes on`, async (t) => {
    const { client, peer } = await under(t, { heartbeat: null });
    const stream = client.stream("count", 9, { credit: 2 });
    const first = stream.next();
    const { id } = await peer.next();
    const waiting = client.request("wait", "x".repeat(100), { timeout: 0.05 });
    const late = (await peer.next()).id;
    peer.frame({ limits: { max_message_bytes: most } });
    peer.frame({ item: id, data: 1 });
    assert.equal((await first).value, 1);
    assert.throws(() => client.emit("say", "x".repeat(40)), MessageTooLargeError);
    await assert.rejects(client.request("sum", "x".repeat(40)), MessageTooLargeError);
    // It times out, and cancels.
    await assert.rejects(waiting, { name: "RequestTimeoutError" });
    let frame;
    do frame = await peer.next();
    while (!("cancel" in frame));
    assert.equal(frame.cancel, late);
    await stream.return();
    assert.deepEqual(await peer.next(), { cancel: id });
    client.on("big", () => "x".repeat(10_000));
    client.on("bye", () => {
      throw new Error("own");
    });
    for (const [number, event] of ["big", "bye", "absent"].entries()) {
      peer.frame({ event, id: number });
      const answer = await peer.next();
      assert.deepEqual([answer.error, answer.data.code], [number, event === "absent" ? "not_found" : "internal"]);
    }
    assert.equal(client.state, "open");
  });
}

test("names of the language are names like any other", async (t) => {
  const all = await under(t);
  const { client, peer } = all;
  const heard = [];
  const NAMES = ["__proto__", "constructor", "toString", "hasOwnProperty", "prototype", "then", "*", "__defineGetter__"];
  for (const name of NAMES) {
    // Without a handler, and as a request.
    raw(peer, { event: name, data: { a: 1 } });
    raw(peer, { event: name, id: 1 });
    const answer = await peer.next();
    assert.equal(answer.data.code, "not_found");
  }
  for (const name of NAMES.filter((name) => name !== "*")) client.on(name, (data) => heard.push([name, data]));
  for (const name of NAMES) raw(peer, { event: name, data: name });
  await works(all);
  assert.deepEqual(heard, NAMES.filter((name) => name !== "*").map((name) => [name, name]));
});

for (const protocol of ["json", "msgpack"]) {
  test(`${protocol}: data cannot change the prototype of anything`, async (t) => {
    const all = await under(t, { protocol });
    const { client, peer } = all;
    const text = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"a":{"__proto__":{"polluted":1}}}';
    // It keeps its fields as it keeps any others.
    const data = JSON.parse(text);
    const came = new Promise((resolve) => client.on("said", resolve));
    const say = protocol === "json" ? `{"event":"said","data":${text},"__proto__":{"id":1}}` : packed.encode({ event: "said", data });
    peer.message(say);
    const got = await came;
    assert.deepEqual(Object.keys(got), ["__proto__", "constructor", "a"]);
    assert.equal(Object.getPrototypeOf(got), Object.prototype);
    assert.equal({}.polluted, undefined);
    // And back, also through the queue and as an error.
    client.emit("echo", got);
    const back = (await peer.next()).data;
    assert.deepEqual(Object.keys(back), ["__proto__", "constructor", "a"]);
    const asked = client.request("fail");
    const { id } = await peer.next();
    peer.message(protocol === "json" ? `{"error":${id},"data":{"__proto__":{"code":"x"},"details":${text}}}` : packed.encode({ error: id, data: { details: data } }));
    await assert.rejects(asked, (error) => error instanceof RemoteError && error.code === "invalid");
    peer.cut();
    await reach(client, "waiting");
    client.emit("queued", got);
    const next = await all.server.peer();
    assert.deepEqual(Object.keys((await next.next()).data), ["__proto__", "constructor", "a"]);
    assert.equal({}.polluted, undefined);
  });
}

// -- MessagePack

const bytes = (...parts) => Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part, "hex") : Buffer.from(part))));
/** `{"event": "said", "data": …}` */
const said = (...data) => bytes("82a56576656e74a473616964a464617461", ...data);
const PACKED = [
  ["nothing", bytes("")],
  ["a code that is not used", said("c1")],
  ["a list of 4 billion items", said("ddffffffff")],
  ["a map of 4 billion fields", said("dfffffffff")],
  ["a text of 4 GB", said("dbffffffff", "61")],
  ["bytes of 4 GB", said("c6ffffffff", "61")],
  ["an extension of 4 GB", said("c9ffffffffff")],
  ["an extension of 4 GB of an unknown type", said("c9ffffffff05")],
  ["an unknown extension", said("d40500")],
  ["a timestamp of another length", said("d5ff0000")],
  ["a timestamp of no length", said("c700ff")],
  ["a timestamp with too many nanoseconds", said("d7ff", "ffffffffffffffff")],
  ["a timestamp beyond any date", said("c70cff", "00000000", "7fffffffffffffff")],
  ["lists in lists in lists", said(Buffer.alloc(200_000, 0x91), "c0")],
  ["maps in maps in maps", said(Buffer.alloc(200_000, Buffer.from("81a161", "hex")), "c0")],
  ["maps whose keys are maps", said(Buffer.alloc(200_000, 0x81), "c0")],
  ["a key that is a list", said("8190c0")],
  ["a key that is null", said("81c0c0")],
  ["a key that is NaN", said("81cb7ff8000000000000c0")],
  ["a key that is bytes", said("81c40161c0")],
  ["the same key again and again", said("84", "a95f5f70726f746f5f5f01", "a95f5f70726f746f5f5f02", "a16103", "a16104")],
  ["text that is not UTF-8", said("a2ff80")],
  ["half of a surrogate pair", said("a3eda080")],
  ["a message after the message", said("c0", "c0")],
  ["a huge map", said("de", "ffff", Buffer.concat(Array.from({ length: 65535 }, (_, i) => bytes("cd", [i >> 8, i & 255], "c0"))))],
  ["a list of a million", said("dd000f4240", Buffer.alloc(1_000_000, 0xc0))],
  ["an id that is a BigInt", bytes("82a56576656e74a473616964a26964", "cfffffffffffffffff")],
  ["an id that is NaN", bytes("82a56576656e74a473616964a26964", "cb7ff8000000000000")],
  ["an id that is a date", bytes("82a56576656e74a473616964a26964", "d6ff00000000")],
  ["an id that is bytes", bytes("82a56576656e74a473616964a26964", "c40100")],
  ["a name that is bytes", bytes("82a56576656e74c40161a2696401")],
  ["a name that is a BigInt", bytes("82a56576656e74cfffffffffffffffffa2696401")],
  ["a retry that is infinite", bytes("81a57265747279cb7ff0000000000000")],
  ["a retry that is NaN", bytes("81a57265747279cb7ff8000000000000")],
  ["a retry that is a BigInt", bytes("81a57265747279cfffffffffffffffff")],
  ["limits that are NaN", bytes("81a66c696d69747381", "b16d61785f6d6573736167655f6279746573", "cb7ff8000000000000")],
  ["limits that are a BigInt", bytes("81a66c696d69747381", "b16d61785f6d6573736167655f6279746573", "cfffffffffffffffff")],
  ["an error that is a BigInt", bytes("82a56576656e74a56572726f72a464617461", "cfffffffffffffffff")],
  ["a reply to a date", bytes("81a57265706c79", "d6ff00000000")],
  ["a map that has no kind", bytes("81a16101")],
];
for (const [what, message] of PACKED) {
  test(`MessagePack: ${what} leaves the client whole`, async (t) => {
    const all = await under(t, { protocol: "msgpack" });
    all.client.on("said", () => null);
    all.peer.message(message);
    all.peer.message(message.toString("latin1"));
    await works(all);
  });
}

/** What servers must refuse, as messages of a server. */
const { refused, refused_by_servers: other } = JSON.parse(
  readFileSync(new URL("../../../protocol/vectors/malformed.json", import.meta.url), "utf8"),
);
const whole = (message) =>
  typeof message === "string" ? message : message.map((part) => (typeof part === "string" ? part : part.repeat.repeat(part.times))).join("");
for (const protocol of ["json", "msgpack"]) {
  test(`${protocol}: every malformed message of the vectors leaves the client whole`, async (t) => {
    const all = await under(t, { protocol });
    all.client.on("*", () => null);
    let sent = 0;
    for (const vector of [...refused, ...other]) {
      if (!vector[protocol]) continue;
      const message = whole(vector[protocol]);
      // Whoever reads `retry` as it should does not send anything new.
      all.peer.message(protocol === "json" ? message : Buffer.from(message, "hex"));
      sent++;
    }
    assert.ok(sent > 50);
    await works(all);
  });
}

// -- floods

test("a flood of nonsense is one warning a second, which says how many more there were", async (t) => {
  const tick = stopTime(t);
  const warnings = quiet(t, "warn");
  await joinFake(t, { heartbeat: null });
  const socket = FakeSocket.last;
  socket.open();
  const flood = () => {
    for (let i = 0; i < 1000; i++) {
      for (const data of ["{", '{"retry":-1}', '{"event":"error","data":{"code":"x.y"}}', '{"event":"name","id":-1}']) socket.onmessage({ data });
    }
  };
  flood();
  assert.equal(warnings().length, 3);
  tick(1.1, 100);
  flood();
  assert.equal(warnings().length, 6);
  assert.equal(warnings().filter((line) => /\((999|1999) more like this were not logged\)/.test(line)).length, 3);
});

// within: MAX_UNHEARD
// beyond: MAX_UNHEARD
test("names of events without a handler are looked at a limited number of times", async (t) => {
  const tick = stopTime(t);
  const warnings = quiet(t, "warn");
  const client = await joinFake(t, { heartbeat: null });
  client.on("message", () => {});
  const socket = FakeSocket.last;
  socket.open();
  for (let i = 0; i < 5000; i++) {
    socket.onmessage({ data: JSON.stringify({ event: `messag${i}` }) });
    tick(2, 2000);
  }
  // "messag0" to "messag99"; of those, 10 or 100 are near.
  assert.ok(warnings().length >= 10 && warnings().length <= 100, `${warnings().length}`);
});

// within: MAX_COMPARED
// beyond: MAX_COMPARED
test("a name that is too long is not compared with others", async (t) => {
  const warnings = quiet(t, "warn");
  const client = await joinFake(t, { heartbeat: null });
  client.on(`${"m".repeat(63)}x`, () => {});
  const socket = FakeSocket.last;
  socket.open();
  for (const event of ["m".repeat(65), "m".repeat(64)]) socket.onmessage({ data: JSON.stringify({ event }) });
  assert.equal(warnings().length, 1);
  assert.ok(warnings()[0].includes(`"${"m".repeat(64)}"`) && warnings()[0].includes("m".repeat(63)), warnings()[0]);
});

test("items of a stream without an end stop it, and everything after is ignored", async (t) => {
  const all = await under(t);
  const { client, peer } = all;
  const stream = client.stream("items", null, { credit: 4 });
  const first = stream.next();
  const { id } = await peer.next();
  for (let i = 0; i < 20_000; i++) peer.frame({ item: id, data: i });
  assert.equal((await first).value, 0);
  assert.deepEqual(await peer.next(), { cancel: id });
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, /more than was granted/);
  await works(all);
});

test("answers to nothing, twice, and of the wrong kind do no harm", async (t) => {
  const all = await under(t);
  const { client, peer } = all;
  const asked = client.request("sum");
  const { id } = await peer.next();
  for (const frame of [{ reply: id + 1 }, { item: id + 7 }, { reply: id, data: 1 }, { reply: id, data: 2 }, { error: id, data: { code: "internal" } }, { end: id }]) peer.frame(frame);
  assert.equal(await asked, 1);
  const wrong = client.request("sum");
  peer.frame({ item: (await peer.next()).id, data: 1 });
  await assert.rejects(wrong, /stream/);
  await works(all);
});

// within: MAX_ANSWERING
// beyond: MAX_ANSWERING
test("requests of the server without end are bounded, and answered", async (t) => {
  const all = await under(t);
  const { client, peer } = all;
  client.on("wait", (_, { signal }) => new Promise((resolve) => signal.addEventListener("abort", resolve)));
  const MANY = 3000;
  for (let id = 0; id < MANY; id++) peer.frame({ event: "wait", id });
  let refusals = 0;
  for (; refusals < MANY - 1000; refusals++) assert.equal((await peer.next()).data.code, "too_many");
  for (let id = 0; id < MANY; id++) peer.frame({ cancel: id });
  for (let id = 0; id < 1000; id++) assert.equal((await peer.next()).data.code, "cancelled");
  await works(all);
});

test("a server that asks and does not read loses the connection before refusals fill the memory", async (t) => {
  let socket;
  class Watched extends Implementation {
    constructor(...all) {
      super(...all);
      socket = this;
    }
  }
  const all = await under(t, { WebSocket: Watched, maxQueueBytes: 100_000 });
  const { client, server, peer } = all;
  const held = socket;
  peer.pause();
  let most = 0;
  for (let id = 0; client.state === "open" && id < 300_000; id++) {
    peer.frame({ event: "x".repeat(256), id });
    if (id % 500) continue;
    await new Promise(setImmediate);
    most = Math.max(most, held.bufferedAmount);
  }
  assert.notEqual(client.state, "open");
  assert.ok(most > 20_000 && most < 1_500_000, `${most}`);
  assert.equal(all.warnings().filter((line) => line.includes("does not read:")).length, 1);
  peer.cut();
  const next = await server.peer();
  await reach(client, "open");
  await works({ client, peer: next });
});

// -- refusals and ends

const TEXTS = ["\u001b[2J\r\nsymphony: fake\u0085\u009b31m\u202egnp\u2066", "x".repeat(100_000), "\ud800", "\u0000"];
for (const text of TEXTS) {
  test(`a refusal that says ${JSON.stringify(text.slice(0, 20))}… is one harmless line`, async (t) => {
    const warnings = quiet(t, "warn");
    const server = await serve(t);
    server.choose = () => "symphony.refuse";
    const client = join(t, server.url);
    const peer = await server.peer();
    for (let i = 0; i < 100; i++) raw(peer, { event: "said", data: text });
    raw(peer, { event: "error", data: { code: text, message: text, details: { text }, retry_after: "soon", retryable: "yes" } });
    peer.close(4403, text.slice(0, 20));
    await reach(client, "closed");
    assert.equal(warnings().length, 1);
    assert.ok(!/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(warnings()[0]), JSON.stringify(warnings()[0]));
    assert.ok(warnings()[0].length < 1000);
    await assert.rejects(client.opened, DisconnectedError);
  });
}

for (const retryAfter of ["NaN", -1, 1e308, "1", null, {}, true]) {
  test(`a refusal whose retry_after is ${JSON.stringify(retryAfter)}`, async (t) => {
    quiet(t, "warn");
    const { client, peer } = await pair(t);
    const asked = client.request("buy");
    raw(peer, { error: (await peer.next()).id, data: { code: "too_many", retryable: true, retry_after: retryAfter } });
    await assert.rejects(asked, { code: "too_many", retryAfter: retryAfter === 1e308 ? 1e308 : null });
    raw(peer, { event: "error", data: { code: "unavailable", message: "later", retryable: true, retry_after: retryAfter } });
    peer.close(4503, "later");
    await reach(client, "waiting");
    if (retryAfter !== 1e308) await reach(client, "open");
  });
}

test("a server that opens a connection for a refusal, and neither refuses nor closes, is left", async (t) => {
  quiet(t, "warn");
  const server = await serve(t);
  server.choose = () => "symphony.refuse";
  const client = join(t, server.url, { connectTimeout: 0.1 });
  const peer = await server.peer();
  for (let i = 0; i < 1000; i++) raw(peer, { event: "said", data: i });
  await reach(client, "waiting");
  server.accept();
  await client.opened;
});

for (const chosen of ["symphony.limits", "symphony.token.c2VjcmV0"]) {
  test(`a server that chooses ${chosen.slice(0, 15)} is not Symphony, and the token stays hidden`, async (t) => {
    const warnings = quiet(t, "warn");
    const logged = quiet(t, "log");
    const server = await serve(t);
    server.choose = () => chosen;
    const client = join(t, server.url, { token: "secret", debug: true });
    await client.opened;
    assert.equal(client.protocol, "raw");
    assert.match(warnings()[0], /is not a Symphony server/);
    await assert.rejects(client.request("sum"), { name: "WrongRouteError" });
    for (const line of [...warnings(), ...logged()]) assert.ok(!/secret|c2VjcmV0/.test(line), line);
  });
}

// -- at the handshake, on a plain socket

const OPEN = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const ANSWERS = [
  ["nothing, and the end", (socket) => socket.end()],
  ["a reset", (socket) => socket.resetAndDestroy()],
  ["another protocol", (socket) => socket.end("SSH-2.0-OpenSSH_9.6\r\n")],
  ["TLS", (socket) => socket.end(Buffer.from("15030300020228", "hex"))],
  ["a head without an end", (socket) => drip(socket, "HTTP/1.1 101 Switching Protocols\r\n", "X-A: b\r\n")],
  ["a header of 100 KB", (socket) => socket.end(`${OPEN}X-A: ${"b".repeat(100_000)}\r\n\r\n`)],
  ["informational answers without an end", (socket) => drip(socket, "", "HTTP/1.1 100 Continue\r\n\r\n")],
  ["a key that is wrong", (socket) => socket.write(`${OPEN}Sec-WebSocket-Accept: AAAA\r\n\r\n`)],
  ["no key", (socket) => socket.write(`${OPEN}\r\n`)],
  ["a body without an end", (socket) => drip(socket, "HTTP/1.1 503 No\r\nContent-Length: 100000000\r\n\r\n", "x")],
  ["a large body", (socket) => socket.end(`HTTP/1.1 503 No\r\nConnection: close\r\n\r\n${"x".repeat(1_000_000)}`)],
  ["a wait that is not a number", (socket) => socket.end("HTTP/1.1 503 No\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n")],
  ["an error that is not one", (socket) => refuse(socket, "[1]")],
  ["an error that is deep", (socket) => refuse(socket, `{"code":"x.y","retryable":true,"details":${"[".repeat(20_000)}${"]".repeat(20_000)}}`)],
  ["an error of the language", (socket) => refuse(socket, '{"__proto__":{"retryable":false},"code":"x.y","retryable":true}')],
];

function refuse(socket, body) {
  socket.end(`HTTP/1.1 503 No\r\nSymphony-Refusal: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
}

/** Says a bit more again and again. */
function drip(socket, head, more) {
  socket.write(head);
  const timer = setInterval(() => socket.write(more), 5);
  socket.on("close", () => clearInterval(timer));
}

for (const [what, answer] of ANSWERS) {
  // beyond: MAX_ANSWER
  test(`a handshake that is answered with ${what}: the client goes on, and connects`, async (t) => {
    const warnings = quiet(t, "warn");
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => answer(socket));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address();
    const client = join(t, `ws://127.0.0.1:${port}/chat`, { WebSocket: PackagedWebSocket, connectTimeout: 0.3, backoff: 0.01, maxBackoff: 0.05 });
    await reach(client, "waiting");
    assert.match(warnings()[0], new RegExp(`could not connect to ws://127.0.0.1:${port}/chat: `));
    server.close();
    const real = await serve(t, { port });
    await client.opened;
    await works({ client, peer: await real.peer() });
  });
}

for (const [what, frame] of [
  ["a frame with reserved bits", "f100"],
  ["an unknown opcode", "8300"],
  ["a masked frame", "8180000000006162"],
  ["a control frame that is too long", "897e00ff"],
  ["a fragment without a beginning", "800161"],
  ["a frame of 9 exabytes", "817f7fffffffffffffff"],
  ["text that is not UTF-8", "8101ff"],
  ["a close code that cannot be sent", "880203ed"],
  ["a close frame of one byte", "880103"],
]) {
  test(`after ${what} the client connects again`, async (t) => {
    quiet(t, "warn");
    const server = await serve(t);
    const client = join(t, server.url, { WebSocket: PackagedWebSocket });
    const first = await server.peer();
    await client.opened;
    first.bytes(Buffer.from(frame, "hex"));
    const peer = await server.peer();
    await reach(client, "open");
    await works({ client, peer });
  });
}

test("a queue that a stopping server fills is bounded, and told", async (t) => {
  const { client, peer } = await under(t, { maxQueue: 10 });
  const stopped = new Promise((resolve) => client.on("said", resolve));
  peer.frame({ retry: 0 });
  peer.frame({ event: "said" });
  await stopped;
  for (let i = 0; i < 10; i++) client.emit("say", i);
  assert.throws(() => client.emit("say", 11), QueueFullError);
});

const NAMES = ["5", "0.5", '""', "true", "{}", "[]", '["r"]', '"\\ud800"', JSON.stringify("x".repeat(5_000_000))];
const POSITIONS = [
  ...["5", '"start"', "[]", "{}", "true", '{"epoch":"e"}', '{"offset":1}', '{"epoch":"","offset":1}', '{"epoch":7,"offset":1}'],
  ...['{"epoch":"\\ud800","offset":1}', `{"epoch":"${"x".repeat(129)}","offset":1}`, '[{"epoch":"e","offset":1}]'],
  ...["-1", "0.5", "1e400", "9007199254740992", '"1"', "{}", "null"].map((offset) => `{"epoch":"e","offset":${offset}}`),
];
for (const [what, ...messages] of [
  ...NAMES.map((name) => [`a room called ${name.slice(0, 20)}`, `{"joined":${name}}`, `{"left":${name}}`, `{"lost":${name},"position":{"epoch":"e","offset":1}}`, `{"event":"said","room":${name},"offset":1}`]),
  ...POSITIONS.map((at) => [`a position ${at.slice(0, 40)}`, `{"joined":"r","position":${at}}`, `{"joined":"r","position":${at},"recovered":true}`, `{"lost":"r","position":${at}}`]),
  ...["-1", "0.5", "1e400", "9007199254740992", '"1"', "{}", "[]", "true"].map((offset) => [`an offset ${offset}`, `{"event":"said","room":"r","offset":${offset}}`]),
  ...["7", '""', "{}", "[]", "true", `"${"x".repeat(129)}"`, '"\\ud800"'].map((epoch) => [`an epoch ${epoch.slice(0, 20)}`, `{"event":"said","room":"r","offset":8,"epoch":${epoch}}`]),
  ...["1", '"true"', "{}", "[]"].map((value) => [`recovered ${value}`, `{"joined":"r","position":{"epoch":"e","offset":9},"recovered":${value}}`]),
  ["lost without a position", '{"lost":"r"}', '{"lost":"r","position":null}'],
]) {
  test(`rooms: ${what} is told, and changes nothing`, async (t) => {
    const all = await under(t);
    const { client, peer, warnings } = all;
    const joining = client.join("r");
    const { id } = await peer.next();
    raw(peer, { joined: "r", position: { epoch: "e", offset: 7 } });
    raw(peer, { reply: id });
    const room = await joining;
    room.on("said", () => assert.fail("it is not valid"));
    room.onLost(() => assert.fail("it is not valid"));
    for (const message of messages) peer.message(message);
    await works(all);
    assert.ok(warnings().some((line) => line.includes("is not valid")), `${warnings()}`);
    assert.deepEqual([room.position, room.ended], [{ epoch: "e", offset: 7 }, null]);
  });
}

test("rooms: what says nothing, or comes at the wrong time, leaves the client whole", async (t) => {
  const all = await under(t);
  const { client, peer } = all;
  // Of rooms that the client does not have.
  for (const name of ["r", "__proto__", "constructor", "*"]) {
    raw(peer, { left: name, data: null });
    raw(peer, { left: name, data: { code: 7 } });
    raw(peer, { lost: name, position: { epoch: "e", offset: 1 } });
    raw(peer, { event: "said", room: name, offset: 5, epoch: "e" });
    raw(peer, { joined: name, position: null, recovered: false });
  }
  const joining = client.join("r");
  const { id } = await peer.next();
  raw(peer, { lost: "r", position: { epoch: "e", offset: 1 } });
  raw(peer, { event: "said", room: "r", offset: 5 });
  raw(peer, { joined: "r", recovered: true });
  raw(peer, { joined: "r" });
  raw(peer, { reply: id });
  const room = await joining;
  for (let i = 0; i < 100; i++) {
    raw(peer, { joined: "r", position: { epoch: `e${i}`, offset: i } });
    raw(peer, { joined: "r", position: { epoch: `e${i}`, offset: 0 }, recovered: i % 2 === 0 });
    raw(peer, { lost: "r", position: { epoch: "e", offset: i } });
    raw(peer, { event: "said", room: "r", offset: 2 ** 53 - 1, epoch: `e${i}` });
    raw(peer, { event: "said", room: "r", data: "x" });
  }
  await works(all);
  assert.equal(room.ended, null);
  // An answer to a join that is of another kind.
  const other = client.join("other");
  let frame;
  do frame = await peer.next();
  while (frame.join !== "other");
  raw(peer, { item: frame.id, data: 1 });
  await assert.rejects(other, { code: "invalid" });
  raw(peer, { left: "r", data: "no error" });
  await works(all);
  await client.close();
  assert.ok(room.ended instanceof DisconnectedError);
});

test("rooms: a flood of publications that are not taken is limited", async (t) => {
  const all = await under(t, { maxQueue: 10 });
  const { client, peer } = all;
  const joining = client.join("r");
  const { id } = await peer.next();
  raw(peer, { joined: "r" });
  raw(peer, { reply: id });
  const room = await joining;
  const items = room[Symbol.asyncIterator]();
  for (let i = 0; i < 5000; i++) raw(peer, { event: "said", room: "r", data: i });
  for (let i = 0; i < 5000; i++) raw(peer, { lost: "r", position: { epoch: "e", offset: i } });
  await works(all);
  assert.equal(room.dropped, 4990);
  let taken = 0;
  for (; taken < 10; taken++) await items.next();
  await items.return();
});
