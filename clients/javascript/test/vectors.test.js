/** The vectors of the protocol, as far as they concern a client: protocol/vectors/README.md says what they mean. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";

import * as packed from "../msgpack.js";
import { json as jsonCodec, RefusedError } from "../symphony.js";
import { FakeSocket, handshake, joinFake } from "./fake.js";
import { Implementation, join, PackagedWebSocket, pair, quiet, reach, serve, stopTime } from "./server.js";
import { kindOf, Stage, value } from "./stage.js";

const FOLDER = new URL("../../../protocol/vectors/", import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), "utf8"));
const HAS = new Set(["bytes", "time", "nan", "int64", "ping envelopes", "limits", "retryable", "rooms", "publishing", "clock"]);
// Only `ws` shows what a handshake was answered with.
const HTTP = new Set(["http status", "http headers"]);
// `ws` and browsers fail a connection for which the server chose no subprotocol.
const CANNOT = new Set(["no subprotocol chosen"]);

// -- all of them

/** What there is, and what each entry must have: a list or a field that is renamed must not go unnoticed. */
const SHAPES = {
  client: { conversations: ["name", "steps"] },
  closing: {
    close_codes: ["code", "then"],
    http_statuses: ["status", "then"],
    delays: ["backoff", "max_backoff", "failed", "retry", "from", "to"],
  },
  envelopes: { encode: ["name", "from", "envelope", "msgpack"], decode: ["name", "from", "envelope"] },
  handshake: {
    subprotocols: ["offers", "chosen", "speaks"],
    tokens: ["token", "subprotocol"],
    refusals: ["offers", "chosen", "sends", "code", "reason"],
  },
  // These two test servers. The messages that a server refuses are in hostile.test.js, as messages of a server.
  malformed: { refused: ["name"], refused_by_servers: ["name"], wrong_message: ["spoken"], closes: ["closes"] },
  server: { conversations: ["name", "steps"] },
};

test("every file, list and field is one that this runner knows", () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
  assert.deepEqual(files.sort(), Object.keys(SHAPES).map((name) => `${name}.json`).sort());
  for (const [name, lists] of Object.entries(SHAPES)) {
    const file = read(name);
    assert.deepEqual(Object.keys(file).sort(), Object.keys(lists).sort(), name);
    for (const [list, fields] of Object.entries(lists)) {
      assert.ok(file[list].length > 0, `${name}: ${list}`);
      for (const entry of file[list]) {
        const isHttp = name === "handshake" && list === "refusals" && "status" in entry;
        for (const field of isHttp ? ["offers", "status"] : fields) {
          assert.ok(field in entry, `${name}, ${list}: ${field} is missing in ${JSON.stringify(entry)}`);
        }
      }
    }
  }
});

// -- client.json

for (const conversation of read("client").conversations) {
  const { name, needs = [] } = conversation;
  const unknown = needs.filter((need) => !HAS.has(need) && !HTTP.has(need) && !CANNOT.has(need));
  assert.deepEqual(unknown, [], name);
  const WebSocket = needs.some((need) => HTTP.has(need)) ? PackagedWebSocket : Implementation;
  for (const spoken of ["json", "msgpack"]) {
    test(`${name}, in ${spoken}`, { skip: needs.some((need) => CANNOT.has(need)), timeout: 10_000 }, async (t) => {
      quiet(t, "error");
      quiet(t, "warn");
      const tick = conversation.clock ? stopTime(t) : null;
      await new Stage(conversation, spoken, WebSocket, tick).play();
    });
  }
}

// -- envelopes.json

const envelopes = read("envelopes");
const SENT = { encode: envelopes.encode, decode: [...envelopes.decode, ...envelopes.encode] };
const whole = (message) =>
  typeof message === "string"
    ? message
    : message.map((part) => (typeof part === "string" ? part : part.repeat.repeat(part.times))).join("");
const hex = (bytes) => Buffer.from(bytes).toString("hex");

const ROOM_KINDS = ["join", "leave", "history", "joined", "left", "lost", "presence", "count"];

/** The map that a meaning is, as it goes over the wire. */
function map({ kind, id, number, seconds, event, credit, room, ...fields }) {
  const isRoom = ROOM_KINDS.includes(kind);
  const first = { event, publish: event, ping: number, pong: number, retry: seconds }[kind] ?? (isRoom ? room : id);
  const rest = ["event", "publish"].includes(kind) || isRoom ? { ...fields, id } : fields;
  const { data, since, timeout, position, recovered, snapshot, members, diff, offset, epoch, after, replaces, key, client, limit, before } = rest;
  const last = { position, recovered, snapshot, members, diff, room: isRoom ? undefined : room, offset, epoch, after, replaces };
  const asks = { key, client, limit, before };
  const order = { [kind]: first, data, id: rest.id, since, timeout, credit, ...last, ...asks };
  return value(Object.fromEntries(Object.entries(order).filter(([, item]) => item !== undefined)));
}

/** Whether a decoded map has the meaning: fields that are new, or null, say nothing. */
function means(envelope, meaning) {
  const wanted = map(meaning);
  const kind = kindOf(envelope);
  assert.equal(kind, meaning.kind);
  const came = { [kind]: envelope[kind] };
  const others = ["id", "since", "timeout", "credit", "position", "recovered", "snapshot", "members", "diff", "room", "offset", "epoch", "after", "replaces"];
  for (const field of ["data", ...others]) {
    if (field === "data" ? "data" in wanted : (envelope[field] ?? null) !== null && field in wanted)
      came[field] = envelope[field] ?? null;
  }
  assert.deepEqual(came, wanted);
}

for (const { name, from, needs = [], envelope, json, msgpack } of SENT.encode) {
  // Neither codec writes NaN: `fault` refuses it.
  if (from === "server" || needs.includes("nan")) continue;
  test(`it writes ${name}`, () => {
    // A Date is written with all its milliseconds; integers beyond 2^53 have no way into JSON.
    if (!needs.includes("time") && !needs.includes("int64"))
      assert.equal(jsonCodec.encode(map(envelope)), whole(json));
    assert.equal(hex(packed.encode(map(envelope))), whole(msgpack));
  });
}

for (const { name, from, needs = [], envelope, json, msgpack } of SENT.decode) {
  if (from === "client") continue;
  test(`it reads ${name}`, () => {
    const inJson = needs.length ? jsonCodec.decode(jsonCodec.encode(envelope.data ?? null)) : envelope.data;
    if (json && !needs.length) means(jsonCodec.decode(whole(json)), { ...envelope, data: inJson });
    if (msgpack) means(packed.decode(Buffer.from(whole(msgpack), "hex")), envelope);
  });
}

// -- closing.json

const closing = read("closing");

for (const { code, then, sent = true } of closing.close_codes) {
  // 1015 is never told to a client: what it sees is 1006.
  if (code === 1015) continue;
  const end = (peer) => (sent ? peer.close(code) : code === 1005 ? peer.close() : peer.cut());

  test(`after ${code} it ${then === "comes back" ? "comes back" : "stays away"}`, async (t) => {
    const { server, client, peer } = await pair(t);
    end(peer);
    if (then === "comes back") await server.peer();
    await reach(client, then === "comes back" ? "open" : "closed");
  });

  if (then === "new token") {
    test(`after ${code} it comes back once if it can ask for another token`, async (t) => {
      const { server, client, peer } = await pair(t, { token: () => "x" });
      end(peer);
      end(await server.peer());
      await reach(client, "closed");
      assert.equal(client.closed.code, code);
    });
  }
}

for (const { status, then } of closing.http_statuses) {
  test(`the first handshake is answered with ${status}: it ${then === "comes back" ? "comes back" : "stays away"}`, async (t) => {
    quiet(t, "warn");
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    });
    server.listen(0, "127.0.0.1");
    t.after(() => server.close());
    await once(server, "listening");
    const url = `ws://127.0.0.1:${server.address().port}/`;
    // After 401 it asks for another token, if it can.
    for (const [token, again] of [[null, 0], [() => "x", 1]]) {
      const client = join(t, url, { WebSocket: PackagedWebSocket, token, backoff: 0 });
      let attempts = 0;
      const ended = new Promise((resolve) => {
        client.onState((state) => {
          attempts += state === "connecting";
          if (state === "closed" || attempts === 3) resolve(state);
        });
      });
      if (then === "comes back") assert.equal(await ended, "connecting");
      else {
        assert.equal(await ended, "closed");
        assert.equal(client.closed.code, 4000 + status);
        assert.equal(attempts, 1 + (then === "new token" ? again : 0));
      }
      await client.close();
    }
  });
}

for (const { backoff, max_backoff: maxBackoff, failed, retry, from, to } of closing.delays) {
  for (const [random, wait] of [
    [0, from],
    [1, to],
  ]) {
    test(`of a wait from ${backoff} to ${maxBackoff} s, after ${failed} failures and retry ${retry}, ${random} is ${wait}`, async (t) => {
      const tick = stopTime(t);
      const { mock } = t.mock.method(Math, "random", () => 0);
      const client = await joinFake(t, { backoff, maxBackoff });
      // After 100, the waits do not grow any more.
      for (let i = 0; i < Math.min(failed, 150); i++) {
        FakeSocket.last.end(1006);
        while (client.state === "waiting") tick(1, 1000);
        await handshake();
      }
      if (retry !== null) {
        FakeSocket.last.open();
        FakeSocket.last.onmessage({ data: JSON.stringify({ retry }) });
      }
      mock.mockImplementation(() => random);
      FakeSocket.last.end(1012);
      tick(Math.max(wait - 0.01, 0));
      if (wait > 0) assert.equal(client.state, "waiting");
      tick(0.02);
      assert.equal(client.state, "connecting");
      await handshake();
    });
  }
}

// -- handshake.json

const hands = read("handshake");
const mine = (protocol) => [`symphony.v1.${protocol}`, "symphony.raw", "symphony.refuse", "symphony.limits"];
const isMine = (protocol, offers) => [mine(protocol), mine(protocol).slice(0, -1)].some((own) => own.join() === offers.join());

test("tokens are offered as they are for all clients", async (t) => {
  for (const { token, subprotocol } of hands.tokens) {
    await joinFake(t, { token });
    assert.equal(FakeSocket.last.offered.at(-1), subprotocol);
  }
});

test("what the server chooses of this client's offer is spoken", async (t) => {
  let met = 0;
  for (const { offers, chosen, speaks } of hands.subprotocols) {
    const protocol = ["json", "msgpack"].find((protocol) => isMine(protocol, offers));
    if (!protocol) continue;
    const client = await joinFake(t, { protocol });
    assert.deepEqual(FakeSocket.last.offered, mine(protocol));
    FakeSocket.last.open(chosen);
    assert.equal(client.protocol, speaks === "raw" ? "raw" : chosen);
    met++;
  }
  assert.ok(met >= 3);
});

test("a refusal of this client's offer is heard", async (t) => {
  const server = await serve(t);
  let met = 0;
  for (const { offers, chosen, sends, code, reason } of hands.refusals) {
    const protocol = ["json", "msgpack"].find((protocol) => isMine(protocol, offers));
    if (!protocol || chosen === "symphony.raw") continue;
    const client = join(t, server.url, { protocol, reconnect: false });
    client.on("error", () => {});
    server.choose = () => chosen;
    const peer = await server.peer();
    for (const sent of sends) peer.frame(sent);
    peer.close(code, reason);
    await reach(client, "closed");
    const { data } = sends.find(({ event }) => event === "error");
    assert.deepEqual([client.closed.code, client.closed.reason], [code, reason]);
    const { message, retryAfter, ...fields } = client.closed.refusal;
    const { name, ...told } = { ...fields, message, ...(retryAfter !== null && { retry_after: retryAfter }) };
    assert.deepEqual([name, told], ["RemoteError", data]);
    if (chosen === "symphony.refuse") {
      await assert.rejects(client.opened, (error) => {
        assert.ok(error instanceof RefusedError);
        assert.deepEqual([error.status, error.retryAfter], [null, data.retry_after ?? null]);
        return error.refusal.code === data.code;
      });
    }
    met++;
  }
  assert.ok(met >= 5);
});
