/** In a page: the codecs against envelopes.json, and the user of the conversations in client.json. */

import * as packed from "/msgpack.js";
import * as symphony from "/symphony.js";

const { connect, json: jsonCodec, Reject } = symphony;

/** Values as the vectors write them, made into those of JavaScript. */
export function value(written) {
  if (Array.isArray(written)) return written.map(value);
  if (written === null || typeof written !== "object") return written;
  if ("$bytes" in written) return unhex(written.$bytes);
  if ("$time" in written) return new Date(written.$time);
  if ("$int" in written) return BigInt(written.$int);
  if ("$float" in written) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[written.$float];
  return Object.fromEntries(Object.entries(written).map(([key, item]) => [key, value(item)]));
}

const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16));
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function equal(one, other) {
  if (one instanceof Date && other instanceof Date) return one.getTime() === other.getTime();
  if (one === null || other === null || typeof one !== "object" || typeof other !== "object") {
    return one === other || (Number.isNaN(one) && Number.isNaN(other));
  }
  const [keys, others] = [Object.keys(one), Object.keys(other)];
  return one.constructor === other.constructor && keys.length === others.length &&
    keys.every((key) => Object.hasOwn(other, key) && equal(one[key], other[key]));
}

function check(came, wanted, where) {
  if (!equal(came, wanted)) throw new Error(`${where}: ${shown(came)} came, not ${shown(wanted)}`);
}

const shown = (it) => JSON.stringify(it, (_, item) => (typeof item === "bigint" ? `${item}n` : item)) ?? String(it);

// -- envelopes.json

const ROOM_KINDS = ["join", "leave", "history", "joined", "left", "lost", "presence", "count"];
const REQUESTS = ["event", "reply", "error", "item", "end", "grant", "cancel"];
const FIELDS = [...REQUESTS, "ping", "pong", "retry", "dropped", ...ROOM_KINDS];

const whole = (message) =>
  typeof message === "string"
    ? message
    : message.map((part) => (typeof part === "string" ? part : part.repeat.repeat(part.times))).join("");

/** The map that a meaning is, as it goes over the wire. */
function map({ kind, id, number, seconds, event, credit, room, ...fields }) {
  const isRoom = ROOM_KINDS.includes(kind);
  const first = { event, publish: event, ping: number, pong: number, retry: seconds }[kind] ?? (isRoom ? room : id);
  const rest = ["event", "publish"].includes(kind) || isRoom ? { ...fields, id } : fields;
  const { data, since, timeout, position, recovered, members, diff, offset, epoch, after, replaces, key, client, limit, before } = rest;
  const last = { position, recovered, members, diff, room: isRoom ? undefined : room, offset, epoch, after, replaces };
  const asks = { key, client, limit, before };
  const order = { [kind]: first, data, id: rest.id, since, timeout, credit, ...last, ...asks };
  return value(Object.fromEntries(Object.entries(order).filter(([, item]) => item !== undefined)));
}

/** Check that a decoded map has the meaning: fields that are new, or null, say nothing. */
function means(envelope, meaning, where) {
  const wanted = map(meaning);
  const kind = FIELDS.find((field) => (envelope?.[field] ?? null) !== null);
  check(kind, meaning.kind, where);
  for (const [field, item] of Object.entries(wanted)) check(envelope[field] ?? null, item, `${where}, ${field}`);
}

/** What does not hold, and how many vectors were looked at. */
export function envelopes({ encode, decode }) {
  const problems = [];
  let checked = 0;
  const holds = (test) => {
    checked += 1;
    try {
      test();
    } catch (error) {
      problems.push(String(error));
    }
  };
  for (const { name, from, needs = [], envelope, json, msgpack } of encode.filter(({ from }) => from !== "server")) {
    holds(() => {
      // A Date is written with all its milliseconds; integers beyond 2^53 have no way into JSON.
      if (!needs.includes("time") && !needs.includes("int64")) check(jsonCodec.encode(map(envelope)), whole(json), name);
      check(hex(packed.encode(map(envelope))), whole(msgpack), name);
    });
  }
  for (const { name, from, needs = [], envelope, json, msgpack } of [...decode, ...encode]) {
    if (from === "client") continue;
    holds(() => {
      if (json && !needs.length) means(jsonCodec.decode(whole(json)), envelope, name);
      if (msgpack) means(packed.decode(unhex(whole(msgpack))), envelope, name);
    });
  }
  return { checked, problems };
}

// -- client.json

/** Never rejects, so that it may be looked at late. */
const settled = (promise) =>
  promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );

const camel = (options) =>
  Object.fromEntries(Object.entries(options).map(([name, option]) => [name.replace(/_(.)/g, (_, it) => it.toUpperCase()), option]));

/** Check the fields of an error, or of an end; a refusal is an error in one. */
function has(came, { refusal, ...fields }) {
  for (const [field, wanted] of Object.entries(camel(fields))) check(came[field], wanted, field);
  if (refusal === null) check(came.refusal, null, "refusal");
  else if (refusal) {
    if (!(came.refusal instanceof symphony.RemoteError)) throw new Error("there is no refusal");
    has(came.refusal, refusal);
  }
}

/** The user of one conversation: its steps, by name. */
export class User {
  #spoken;
  #client;
  #handled = [];
  #wake = () => {};
  #gone = new Map();
  #results = new Map();
  #streams = new Map();
  #asked = new Map();
  #messages;
  /** Handles of rooms that have their recording handlers. */
  #recording = new Set();

  constructor(url, spoken, { tokens, ...options }, raw, calls) {
    const left = [...(tokens ?? [])];
    const token = tokens && (() => left.shift());
    this.#spoken = spoken;
    this.#client = connect(url, { protocol: spoken, backoff: 0.01, maxBackoff: 0.05, token, ...camel(options) });
    if (!raw) this.#register(this.#client);
    if (!calls.length) return;
    // Only Node follows a handler through whatever it awaits.
    this.#client.onOpen(async (connection) => {
      for (const call of calls) {
        this.call(call.call, call, connection);
        await this.#results.get(call.as);
      }
    });
  }

  #register(client) {
    for (const event of ["said", "noticed", "message", "error"]) {
      client.on(event, (data) => this.#record({ event, data }));
    }
    client.on("name", () => "Ada");
    client.on("double", (data) => data * 2);
    client.on("nothing", () => {});
    client.on("refuse", (data) => {
      throw new Reject("test.refused", "no", { details: data });
    });
    client.on("crash", () => {
      throw new Error("crash");
    });
    client.on("slow", (data, { signal }) => new Promise((resolve) => signal.addEventListener("abort", resolve)));
    client.on("ask_back", (data) => client.request("echo", data));
  }

  #record(call) {
    this.#handled.push(call);
    this.#wake();
  }

  call(verb, { as, event, data = null, room, iterate, options = {}, raises, code, reason }, connection = this.#client) {
    const given = value(data);
    if (verb === "count") return void this.#results.set(as, settled(this.#counted(room)));
    if (verb === "leave") return void this.#results.set(as, settled(this.#left(room)));
    if (verb === "close") return void this.#client.close(code, reason);
    if (verb === "send") return this.#client.send(given);
    if (verb === "emit") {
      try {
        connection.emit(event, given);
      } catch (error) {
        if (!raises) throw error;
        return this.#is(error, raises);
      }
      if (raises) throw new Error("nothing was raised");
      return undefined;
    }
    const abort = new AbortController();
    this.#gone.set(as, abort);
    const camelled = { ...camel(options), signal: abort.signal };
    if (verb === "request") this.#results.set(as, settled(connection.request(event, given, camelled)));
    else if (verb === "join") this.#results.set(as, settled(this.#joined(connection.join(room, camelled), iterate)));
    else {
      this.#streams.set(as, this.#client.stream(event, given, camelled));
      this.ask(as);
    }
    return undefined;
  }

  async #joined(joining, iterate = false) {
    const room = await joining;
    if (this.#recording.has(room)) return room;
    this.#recording.add(room);
    if (iterate) {
      this.#streams.set(room, room[Symbol.asyncIterator]());
      this.ask(room);
      return room;
    }
    for (const event of ["said", "noticed"]) room.on(event, (data) => this.#record({ event, data, room }));
    room.onLost((position) => this.#record({ event: "lost", data: position, room }));
    return room;
  }

  /** The handle that a join has returned. */
  async #room(name) {
    const { value: room, error } = await this.#results.get(name);
    if (error) throw error;
    return room;
  }

  async #left(name) {
    const room = await this.#room(name);
    // `leave` returns nothing.
    return (await room.leave()) ?? null;
  }

  async #counted(name) {
    const room = await this.#room(name);
    return room.count();
  }

  async joined(name, expected) {
    const room = await this.#room(name);
    for (const field of ["position", "recovered"]) {
      if (field in expected) check(room[field], expected[field], field);
    }
  }

  async same(names) {
    const rooms = await Promise.all(names.map((name) => this.#room(name)));
    check(new Set(rooms).size, 1, "handles");
  }

  async position_of(name, { value: expected }) {
    const room = await this.#room(name);
    while (!equal(room.position, expected)) await new Promise((resolve) => setTimeout(resolve));
  }

  async members_of(name, { value: expected, total }) {
    const { presence } = await this.#room(name);
    const wanted = JSON.stringify([expected && Object.entries(expected), total]);
    const shown = () => JSON.stringify([presence.isKnown ? [...presence] : null, presence.total]);
    while (shown() !== wanted) await new Promise((resolve) => setTimeout(resolve));
  }

  async ended(name, { error: expected }) {
    const room = await this.#room(name);
    while (room.ended === null) await new Promise((resolve) => setTimeout(resolve));
    has(room.ended, expected);
  }

  async lost(name, { position }) {
    const { event, data, room } = await this.#nextHandled();
    check([event, data], ["lost", position], "lost");
    if (room !== (await this.#room(name))) throw new Error("another room has lost something");
  }

  async publication(name, { event, data, position, replaces = null }) {
    const handle = await this.#room(name);
    const { value: came, error } = await this.#next(handle);
    if (error) throw error;
    check(came.done, false, "done");
    // Asking for the next one says that this one is handled.
    this.ask(handle);
    check([came.value.event, came.value.position, came.value.replaces], [event, position, replaces], "publication");
    this.#equals(came.value.data, data);
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
    check(came.done, false, "done");
    this.#equals(came.value, expected);
  }

  async ends(name) {
    const { value: room } = (await this.#results.get(name)) ?? {};
    const { value: came, error } = await this.#next(room ?? name);
    if (error) throw error;
    check(came.done, true, "done");
  }

  async raises(name, { error: expected }) {
    const { value: room, error: failed } = (await this.#results.get(name)) ?? {};
    const isIterated = this.#streams.has(room ?? name);
    const error = failed ?? (isIterated ? (await this.#next(room ?? name)).error : undefined);
    if (!error) throw new Error("nothing was raised");
    this.#is(error, expected);
  }

  abort(name) {
    this.#gone.get(name).abort();
  }

  async leave(name) {
    await this.#streams.get(name).return();
  }

  async #nextHandled() {
    while (!this.#handled.length) await new Promise((resolve) => (this.#wake = resolve));
    return this.#handled.shift();
  }

  async handled(event, { data, room }) {
    const came = await this.#nextHandled();
    check(came.event, event, "event");
    if (came.room !== (room && (await this.#room(room)))) throw new Error("another handler was called");
    this.#equals(came.data, data);
  }

  async message(expected) {
    this.#messages ??= this.#client[Symbol.asyncIterator]();
    check((await this.#messages.next()).value, value(expected), "message");
  }

  async state(state) {
    if (this.#client.state === state) return;
    await new Promise((resolve) => this.#client.onState((now) => now === state && resolve()));
  }

  protocol(expected) {
    check(this.#client.protocol, expected === "$spoken" ? `symphony.v1.${this.#spoken}` : expected, "protocol");
  }

  async opened(expected) {
    const { error } = await settled(this.#client.opened);
    this.#is(error, expected);
  }

  over(expected) {
    has(this.#client.closed, expected);
  }

  /** In JSON bytes and instants are text. */
  #equals(came, expected) {
    const wanted = value(expected);
    check(came, this.#spoken === "json" ? jsonCodec.decode(jsonCodec.encode(wanted)) : wanted, "data");
  }

  #is(error, { type, ...fields }) {
    if (!(error instanceof symphony[type])) throw new Error(`${error} is no ${type}`);
    has(error, value(fields));
  }

  close() {
    return this.#client.close();
  }
}
