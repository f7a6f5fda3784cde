/** A server whose handshakes wait for the test, and a client as its user: they play the conversations of the vectors. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

import * as symphony from "../symphony.js";
import { Implementation, Incoming, Peer, reach } from "./server.js";

const { connect, json, Reject } = symphony;

/** Values as the vectors write them, made into those of JavaScript. */
export function value(written) {
  if (Array.isArray(written)) return written.map(value);
  if (written === null || typeof written !== "object") return written;
  if ("$bytes" in written) return new Uint8Array(Buffer.from(written.$bytes, "hex"));
  if ("$time" in written) return new Date(written.$time);
  if ("$int" in written) return BigInt(written.$int);
  if ("$repeat" in written) return written.$repeat.repeat(written.times);
  if ("$float" in written) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[written.$float];
  return Object.fromEntries(Object.entries(written).map(([key, item]) => [key, value(item)]));
}

/** `from_python` as JavaScript writes it. */
const camel = (options = {}) =>
  Object.fromEntries(
    Object.entries(options).map(([name, option]) => [
      name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()),
      option,
    ]),
  );

const FIELDS = [
  ...["event", "reply", "error", "item", "end", "grant", "cancel", "ping", "pong", "retry", "dropped"],
  ...["join", "leave", "joined", "left", "lost", "presence", "count", "publish", "history"],
];
export const kindOf = (frame) => FIELDS.find((field) => (frame?.[field] ?? null) !== null);

/** One conversation. */
export class Stage {
  #conversation;
  #spoken;
  #WebSocket;
  /** Moves the time on, if it stands still. */
  #tick;
  #server = createServer();
  #sockets = new WebSocketServer({ noServer: true });
  #handshakes = new Incoming();
  #connections = new Set();
  #peer;
  #endedAt = 0;
  #ids = new Map();
  #client;
  #handled = new Incoming();
  #messages;
  #gone = new Map();
  #results = new Map();
  #streams = new Map();
  /** What was asked for on a stream and not yet looked at. */
  #asked = new Map();
  /** Handles of rooms that have their recording handlers. */
  #recording = new Set();

  constructor(conversation, spoken, WebSocket = Implementation, tick = null) {
    this.#conversation = conversation;
    this.#spoken = spoken;
    this.#WebSocket = WebSocket;
    this.#tick = tick;
    this.#server.on("connection", (socket) => this.#connections.add(socket));
    this.#server.on("upgrade", (request, socket, head) => {
      socket.on("error", () => {});
      this.#handshakes.push({ request, socket, head });
    });
  }

  async play() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const { tokens, ...options } = this.#conversation.options ?? {};
    const left = [...(tokens ?? [])];
    this.#client = connect(`ws://127.0.0.1:${this.#server.address().port}/`, {
      WebSocket: this.#WebSocket,
      protocol: this.#spoken,
      backoff: 0.01,
      maxBackoff: 0.05,
      ...(tokens && { token: () => left.shift() }),
      ...camel(options),
    });
    try {
      const { steps } = this.#conversation;
      if (!steps.some((step) => step.accept?.subprotocol === "symphony.raw")) this.#register(this.#client);
      const calls = this.#conversation.on_open ?? [];
      if (calls.length) {
        this.#client.onOpen(async () => {
          for (const call of calls) {
            this.call(call.call, call);
            await this.#results.get(call.as);
          }
        });
      }
      for (const step of steps) await this.#step(step);
    } finally {
      const closing = this.#client.close();
      for (const socket of this.#connections) socket.destroy();
      this.#server.close();
      await closing;
    }
  }

  #register(client) {
    for (const event of ["said", "noticed", "message", "error"])
      client.on(event, (data) => this.#handled.push({ event, data }));
    client.on("name", () => "Ada");
    client.on("double", (data) => data * 2);
    client.on("nothing", () => {});
    client.on("refuse", (data) => {
      throw new Reject("test.refused", "no", { details: data });
    });
    client.on("crash", () => {
      throw new Error("crash");
    });
    client.on(
      "slow",
      (data, { signal }) => new Promise((resolve) => signal.addEventListener("abort", resolve)),
    );
    client.on("ask_back", (data) => client.request("echo", data));
  }

  async #step(step) {
    const what = STEPS.find((name) => name in step);
    assert.ok(what, `a step that this runner does not know: ${JSON.stringify(step)}`);
    try {
      await this[what](step[what], step);
    } catch (error) {
      error.message = `${JSON.stringify(step)}: ${error.message}`;
      throw error;
    }
  }

  // The server's steps

  async accept({ offers = [], subprotocol = "$spoken", not_before: seconds = 0 }) {
    const { request, socket, head } = await this.#handshakes.next();
    assert.ok(performance.now() - this.#endedAt >= seconds * 1000 - 1, "it came too early");
    const named = (name) => (name === "$spoken" ? `symphony.v1.${this.#spoken}` : name);
    const offered = request.headers["sec-websocket-protocol"].split(/, ?/);
    for (const offer of offers) assert.ok(offered.includes(named(offer)), `${offer} was not offered`);
    this.#sockets.options.handleProtocols = () => named(subprotocol) ?? false;
    this.#sockets.handleUpgrade(request, socket, head, (accepted) => {
      this.#peer = new Peer(accepted, request);
    });
  }

  async refuse({ status, headers = {}, body }) {
    const { socket } = await this.#handshakes.next();
    const text = body ? JSON.stringify(body) : "";
    const lines = Object.entries({ ...headers, "Content-Length": String(text.length) }).map(
      ([name, text]) => `${name}: ${text}\r\n`,
    );
    socket.end(`HTTP/1.1 ${status} No\r\n${lines.join("")}\r\n${text}`);
    this.#endedAt = performance.now();
  }

  send(frame) {
    this.#peer.frame(this.#filled(value(frame)));
  }

  send_text(text) {
    this.#peer.message(text);
  }

  send_binary(hex) {
    this.#peer.message(Buffer.from(hex, "hex"));
  }

  async receive(expected) {
    let frame;
    do frame = await this.#peer.next();
    while (frame.event === "error");
    this.#fits(expected, frame);
  }

  async receive_text(text) {
    assert.equal(await this.#peer.nextMessage(), text);
  }

  async receive_binary(hex) {
    assert.deepEqual(await this.#peer.nextMessage(), new Uint8Array(Buffer.from(hex, "hex")));
  }

  differ(names) {
    assert.equal(new Set(names.map((name) => this.#ids.get(name))).size, names.length);
  }

  close({ code, reason }) {
    // Not when it has closed here: the client knows of it before that.
    this.#endedAt = performance.now();
    this.#peer.close(code, reason);
  }

  drop() {
    this.#endedAt = performance.now();
    this.#peer.cut();
  }

  silence() {
    // This server says nothing by itself, and `ws` answers only pings that no client of ours sends.
  }

  async closed(expected) {
    contains(await this.#peer.closed, expected);
  }

  // The user's steps

  call(verb, { as, event, data, room, iterate, options, raises, code, reason }) {
    const given = value(data);
    if (verb === "publish") return void this.#results.set(as, settled(this.#published(room, event, given, options)));
    if (verb === "history") return void this.#results.set(as, settled(this.#history(room, options)));
    if (verb === "count") return void this.#results.set(as, settled(this.#counted(room)));
    if (verb === "leave") return void this.#results.set(as, settled(this.#left(room)));
    if (verb === "close") return void this.#client.close(code, reason);
    if (verb === "send") return this.#client.send(given);
    if (verb === "emit") {
      if (!raises) return this.#client.emit(event, given);
      return assert.throws(
        () => this.#client.emit(event, given),
        (error) => this.#is(error, raises),
      );
    }
    const abort = new AbortController();
    this.#gone.set(as, abort);
    const camelled = { ...camel(options), signal: abort.signal };
    if (verb === "request") this.#results.set(as, settled(this.#client.request(event, given, camelled)));
    else if (verb === "join") this.#results.set(as, settled(this.#joined(room, camelled, iterate)));
    else {
      this.#streams.set(as, this.#client.stream(event, given, camelled));
      this.ask(as);
    }
  }

  async #joined(name, options, iterate = false) {
    const room = await this.#client.join(name, options);
    if (this.#recording.has(room)) return room;
    this.#recording.add(room);
    if (iterate) {
      this.#streams.set(room, room[Symbol.asyncIterator]());
      this.ask(room);
      return room;
    }
    for (const event of ["said", "noticed", "snapshot"]) room.on(event, (data) => this.#handled.push({ event, data, room }));
    room.onLost((position) => this.#handled.push({ event: "lost", data: position, room }));
    return room;
  }

  /** The handle that a join has returned. */
  async #room(name) {
    const { value: room, error } = await this.#results.get(name);
    if (error) throw error;
    return room;
  }

  async #left(name) {
    // The membership ends in this turn.
    const { value: room } = await this.#results.get(name);
    // `leave` returns nothing.
    return (await room.leave()) ?? null;
  }

  async #published(name, event, data, options = {}) {
    const room = await this.#room(name);
    return room.emit(event, data, options);
  }

  async #history(name, options = {}) {
    const room = await this.#room(name);
    return room.history(options);
  }

  async #counted(name) {
    const room = await this.#room(name);
    return room.count();
  }

  async joined(name, expected) {
    const room = await this.#room(name);
    for (const field of ["position", "recovered"]) {
      if (field in expected) assert.deepEqual(room[field], expected[field], field);
    }
  }

  async same(names) {
    const rooms = await Promise.all(names.map((name) => this.#room(name)));
    assert.equal(new Set(rooms).size, 1);
  }

  async position_of(name, { value: expected }) {
    const room = await this.#room(name);
    while (JSON.stringify(room.position) !== JSON.stringify(expected)) await new Promise(setImmediate);
  }

  async members_of(name, { value: expected, total }) {
    const { presence } = await this.#room(name);
    const wanted = JSON.stringify([expected && Object.entries(expected), total]);
    const shown = () => JSON.stringify([presence.isKnown ? [...presence] : null, presence.total]);
    while (shown() !== wanted) await new Promise(setImmediate);
  }

  async ended(name, { error: expected }) {
    const room = await this.#room(name);
    while (room.ended === null) await new Promise(setImmediate);
    contains(room.ended, expected);
  }

  async lost(name, { position }) {
    const came = await this.#handled.next();
    assert.deepEqual(came, { event: "lost", data: position, room: await this.#room(name) });
  }

  async publication(name, { event, data, position, replaces = null }) {
    const room = await this.#room(name);
    const { value: came, error } = await this.#next(room);
    if (error) throw error;
    assert.equal(came.done, false);
    // Asking for the next one says that this one is handled.
    this.ask(room);
    const { data: has, ...rest } = came.value;
    assert.deepEqual(rest, { event, position, replaces });
    this.#equals(has, data);
  }

  async result(name, { value: expected }) {
    const { value: came, error } = await this.#results.get(name);
    if (error) throw error;
    this.#equals(came, expected);
  }

  ask(name) {
    this.#asked.set(name, settled(this.#streams.get(name).next()));
  }

  async #next(name) {
    if (!this.#asked.has(name)) this.ask(name);
    const outcome = await this.#asked.get(name);
    this.#asked.delete(name);
    return outcome;
  }

  async next(name, { value: expected }) {
    const { value: came, error } = await this.#next(name);
    if (error) throw error;
    assert.equal(came.done, false);
    this.#equals(came.value, expected);
  }

  async ends(name) {
    const { value: room } = (await this.#results.get(name)) ?? {};
    const { value: came, error } = await this.#next(room ?? name);
    if (error) throw error;
    assert.equal(came.done, true);
  }

  async raises(name, { error: expected }) {
    const { value: room, error: failed } = (await this.#results.get(name)) ?? {};
    const isIterated = this.#streams.has(room ?? name);
    const error = failed ?? (isIterated ? (await this.#next(room ?? name)).error : undefined);
    assert.ok(error, "nothing was raised");
    assert.ok(this.#is(error, expected), `${error}`);
  }

  abort(name) {
    this.#gone.get(name).abort();
  }

  async leave(name) {
    await this.#streams.get(name).return();
  }

  async handled(event, { data, room }) {
    const came = await this.#handled.next();
    assert.equal(came.event, event);
    assert.equal(came.room, room && (await this.#room(room)));
    this.#equals(came.data, data);
  }

  async message(expected) {
    this.#messages ??= this.#client[Symbol.asyncIterator]();
    assert.deepEqual((await this.#messages.next()).value, value(expected));
  }

  state(state) {
    return reach(this.#client, state);
  }

  protocol(expected) {
    assert.equal(this.#client.protocol, expected === "$spoken" ? `symphony.v1.${this.#spoken}` : expected);
  }

  async opened(expected) {
    await assert.rejects(this.#client.opened, (error) => this.#is(error, expected));
  }

  over(expected) {
    has(this.#client.closed, expected);
  }

  passes(seconds) {
    if (this.#tick) return this.#tick(seconds, 1000);
    return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }

  // Comparing

  /** A frame to send, with the ids that came. */
  #filled(frame) {
    return Object.fromEntries(
      Object.entries(frame).map(([field, item]) => [field, this.#ids.has(item) ? this.#ids.get(item) : item]),
    );
  }

  #fits(expected, frame) {
    const kind = kindOf(expected);
    assert.equal(kindOf(frame), kind);
    if (!("id" in expected)) assert.ok(!("id" in frame), "it has an id");
    for (const [field, wanted] of Object.entries(expected)) {
      const came = frame[field];
      if (typeof wanted === "string" && wanted.startsWith("$")) {
        if (!this.#ids.has(wanted)) this.#ids.set(wanted, came);
        assert.equal(came, this.#ids.get(wanted), field);
      } else if (wanted?.$at_least !== undefined) assert.ok(came >= wanted.$at_least, field);
      else if (wanted?.$at_most !== undefined) assert.ok(came > 0 && came <= wanted.$at_most, field);
      else if (field === "data" && kind === "error") this.#fitsError(wanted, came);
      else this.#equals(came, wanted);
    }
  }

  #fitsError({ details, ...fields }, came) {
    assert.equal(typeof came.message, "string");
    contains(came, fields);
    if (details === null) assert.equal(came.details, null);
    else if (details) contains(came.details, details);
  }

  /** In JSON bytes and instants are text. */
  #equals(came, expected) {
    const wanted = value(expected);
    assert.deepEqual(came, this.#spoken === "json" ? json.decode(json.encode(wanted)) : wanted);
  }

  #is(error, { type, ...fields }) {
    assert.ok(error instanceof symphony[type], `${error.name} is no ${type}`);
    has(error, value(fields));
    return true;
  }
}

const STEPS = [
  "call",
  "accept",
  "refuse",
  "send",
  "send_text",
  "send_binary",
  "receive",
  "receive_text",
  "receive_binary",
  "differ",
  "close",
  "drop",
  "silence",
  "closed",
  "result",
  "next",
  "ask",
  "ends",
  "raises",
  "joined",
  "same",
  "position_of",
  "members_of",
  "ended",
  "publication",
  "lost",
  "abort",
  "leave",
  "handled",
  "message",
  "state",
  "protocol",
  "opened",
  "over",
  "passes",
];

/** Never rejects, so that it may be looked at late. */
const settled = (promise) =>
  promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );

function contains(came, expected) {
  for (const [field, wanted] of Object.entries(expected)) assert.deepEqual(came[field], wanted, field);
}

/** Check the fields of an error, or of an end; a refusal is an error in one. */
function has(came, { refusal, ...fields }) {
  contains(came, camel(fields));
  if (refusal === null) assert.equal(came.refusal, null);
  else if (refusal) {
    assert.ok(came.refusal instanceof symphony.RemoteError, "there is no refusal");
    has(came.refusal, refusal);
  }
}
