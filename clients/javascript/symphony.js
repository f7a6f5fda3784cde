/**
 * The JavaScript client of Symphony: events, requests and streams over one
 * WebSocket that reconnects automatically. It has no dependencies and runs in
 * browsers, Node, Deno and Bun. Every duration is in seconds.
 *
 *     import { connect } from "symphony-ws";
 *
 *     const client = connect("/chat");
 *     client.on("said", ({ name, text }) => console.log(name, text));
 *     client.emit("say", { text: "hi" });
 *     const sum = await client.request("sum", [1, 2, 3]);
 *     for await (const number of client.stream("count", 10)) console.log(number);
 *
 * docs/protocol.md of Symphony describes the protocol.
 */

// ---------------------------------------------------------------- limits

/** Requests of the server that handlers may work on at once. */
const MAX_ANSWERING = 1000;
/** Levels of nesting in MessagePack, as in msgpack.js. */
const MAX_DEPTH = 500;
/** Items of credit that a stream may have. */
const MAX_CREDIT = 2 ** 31 - 1;
/** Characters of an event's name. */
const MAX_NAME = 256;
/** Characters of a room's name that the client takes from a server. */
const MAX_ROOM_NAME = 4096;
/** Characters of the key of a publication. */
const MAX_KEY = 128;
/** After so many messages that are larger than the WebSocket takes, within 10 minutes, the client ends for good. */
const MAX_TOO_LARGE = 3;
/** Seconds. */
const TOO_LARGE_WINDOW = 600;
/** For how many seconds a publication is repeated. A server remembers its key for 300. */
const PUBLISH_TIMEOUT = 240;
/** Characters of an epoch. */
const MAX_EPOCH = 128;
/** Rooms that the server put the client into, of which the client remembers the position. */
const MAX_REMEMBERED_ROOMS = 1000;
/** Characters of a peer's text that an error or a log line shows. */
const MAX_SHOWN = 200;
/** Characters of a message that `debug` shows. */
const MAX_DEBUG = 2000;
/** Characters that are read of an HTTP answer to the handshake. */
const MAX_ANSWER = 64 * 1024;
/** How much of `maxQueueBytes` answers to the server may fill: they leave room for what the program sends. */
const ANSWER_SHARE = 0.5;
/** Bytes of refusals and grants that may wait beyond that before the connection counts as lost. */
const MAX_REFUSAL_BYTES = 1024 * 1024;
/** Seconds after a ping in which only its pong is a sign of life: other messages may have waited before it. */
const GRACE = 1;
/** Bytes of a queued message up to which it is sent before the limits of the server are known. */
const SMALL_BYTES = 16 * 1024;
/** Seconds that larger messages wait for the limits of a server that sends nothing. */
const LIMITS_TIMEOUT = 1;
/** After this many failed attempts, or brief connections, in a row, a warning says what could be wrong. */
const WARN_AFTER = 3;
/** Seconds between two warnings of a kind that the server can cause. */
const WARN_EVERY = 1;
/** Bytes that an envelope without data has at most: it is sent whatever the limits of the server are. */
const CONTROL_BYTES = 1024;
/** Seconds that the server may take to close after it has said that it stops. */
const STOP_TIMEOUT = 300;
/** Names of events without a handler for which a similar name is looked for. */
const MAX_UNHEARD = 100;
/** Characters of a name that is compared with others. */
const MAX_COMPARED = 64;
/** Seconds between looks at the clock: a longer gap means that the computer or the page slept. */
const NAP = 5;
/** UTF-8 bytes of a close reason (RFC 6455 §5.5). */
const MAX_REASON_BYTES = 123;
/** Seconds that a connection must last to reset the backoff. */
const LASTING = 5;
/** How much longer each wait may be than the one before. Measured by the Python client's load tests. */
const GROWTH = 1.5;
/** More would not be a finite number. */
const MAX_GROWTHS = 100;
/** Seconds: a server that asks for a longer wait by mistake must not keep a client away for good. */
const MAX_RETRY = 24 * 3600;
/** How often in a row a client that is sent elsewhere tries again at once. Then it waits, and begins anew. */
const MAX_AT_ONCE = 16;
/** Seconds within which the client tries again when the network or the user is back. */
const HURRY = 1;
/** Seconds that `close()` waits for the server's close frame. */
const CLOSE_TIMEOUT = 5;
/** How many seconds earlier than this client the server may report a timeout. */
const TIMER_SLACK = 0.05;
/** Milliseconds. `setTimeout` fires at once for more, so longer waits are shortened to this. */
const LONGEST_DELAY = 2 ** 31 - 1;

// ---------------------------------------------------------------- errors

/** The base class of this client's errors. */
export class SymphonyError extends Error {
  name = "SymphonyError";
}

/** The connection has ended: before the answer came, or before the call. */
export class DisconnectedError extends SymphonyError {
  name = "DisconnectedError";

  /**
   * @param {string} message
   * @param {number} [code] The close code; 1006 if the connection was lost.
   * @param {string} [reason] The reason that was sent with the code.
   * @param {{ refusal?: RemoteError | null }} [options] `refusal`: the error with which the server
   *   refused the client; null if there was none.
   */
  constructor(message, code = 1006, reason = "", { refusal = null } = {}) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.refusal = refusal;
  }
}

/** The server refused the connection before it was open; `code` says why, as a close code. */
export class RefusedError extends DisconnectedError {
  name = "RefusedError";

  /**
   * @param {string} message
   * @param {number} [code] The close code.
   * @param {string} [reason] The reason that was sent with the code.
   * @param {{ refusal?: RemoteError | null, status?: number | null, retryAfter?: number | null }} [options]
   *   `refusal`: the error with which the server refused; null if it was not a Symphony server. `status`:
   *   the HTTP status. Only the WebSocket of the package `ws` shows it; otherwise it is null. `retryAfter`:
   *   how many seconds to wait before trying again, or null.
   */
  constructor(message, code = 1006, reason = "", { refusal = null, status = null, retryAfter = null } = {}) {
    super(message, code, reason, { refusal });
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The route cannot do this. A raw route has no requests; you cannot iterate over an event route. */
export class WrongRouteError extends SymphonyError {
  name = "WrongRouteError";
}

/** A request was not answered in time. It may or may not have been handled. */
export class RequestTimeoutError extends SymphonyError {
  name = "RequestTimeoutError";
}

/** A publication may or may not have been published: the server did not acknowledge it. */
export class OutcomeUnknownError extends SymphonyError {
  name = "OutcomeUnknownError";
}

/** The queue of unsent messages is full. The message was not added. */
export class QueueFullError extends SymphonyError {
  name = "QueueFullError";
}

/** The message is larger than the server takes. Nothing was sent. */
export class MessageTooLargeError extends SymphonyError {
  name = "MessageTooLargeError";

  /**
   * @param {string} message
   * @param {number} size The bytes of the message.
   * @param {number} limit The bytes that the server takes.
   */
  constructor(message, size, limit) {
    super(message);
    this.size = size;
    this.limit = limit;
  }
}

/** The server answered a request with an error. */
export class RemoteError extends SymphonyError {
  name = "RemoteError";

  /**
   * @param {string} code One of Symphony's codes, or an app's own code with a namespace.
   * @param {string} [message] For people.
   * @param {boolean} [retryable] Whether the same request may succeed later.
   * @param {any} [details] Further information from the server, or null.
   * @param {number | null} [retryAfter] How many seconds to wait before trying again, or null.
   */
  constructor(code, message = "", retryable = false, details = null, retryAfter = null) {
    super(message || code);
    this.code = code;
    this.retryable = retryable;
    this.details = details;
    this.retryAfter = retryAfter;
  }
}

/** Symphony's own codes, and whether the same request may work later. */
const CODES = new Map([
  ["invalid", false],
  ["unauthorized", false],
  ["forbidden", false],
  ["not_found", false],
  ["request_required", false],
  ["cancelled", false],
  ["timeout", true],
  ["conflict", false],
  ["room_full", true],
  ["too_many", true],
  ["elsewhere", true],
  ["internal", true],
  ["unavailable", true],
]);

/** Thrown by a handler: the server's request is answered with this error. */
export class Reject extends SymphonyError {
  name = "Reject";

  /**
   * @param {string} code One of Symphony's codes, or your own with a namespace: "shop.sold_out".
   * @param {string} [message] For the peer to read. Never put secrets here.
   * @param {{ details?: any, retryable?: boolean, retryAfter?: number | null }} [options]
   *   `details`: anything that helps the peer. `retryable`: whether the same request may work later;
   *   without it, the code decides. `retryAfter`: how many seconds to wait before trying again.
   * @throws {RangeError} The code is neither Symphony's nor has a namespace, or `retryAfter` is negative
   *   or infinite.
   */
  constructor(code, message = "", { details = null, retryable, retryAfter = null } = {}) {
    super(message);
    if (!CODES.has(code) && !String(code).includes(".")) {
      throw new RangeError(`"${code}" is not one of Symphony's codes; give your own a namespace: "shop.sold_out"`);
    }
    if (retryAfter !== null && !isDelay(retryAfter)) {
      throw new RangeError(`retryAfter must be 0 or more seconds, not ${retryAfter}`);
    }
    this.code = code;
    this.details = details;
    this.retryable = retryable ?? CODES.get(code) ?? false;
    this.retryAfter = retryAfter;
  }
}

/** @param {Reject} error */
const payloadOf = ({ code, message, retryable, details, retryAfter }) =>
  retryAfter === null
    ? { code, message, retryable, details }
    : { code, message, retryable, details, retry_after: retryAfter };

/** @param {any} data The data of an envelope. @returns {RemoteError | null} Null if it is not an error. */
function errorIn(data) {
  const { code, message = "", retryable = false, details = null, retry_after: retryAfter } = data ?? {};
  if (typeof code !== "string") return null;
  const seconds = isDelay(retryAfter) ? retryAfter : null;
  return new RemoteError(printable(code), printable(message), retryable === true, details, seconds);
}

/** Lines of the log that the server can cause: at most one a second of each kind. */
class Complaints {
  /** @type {Map<string, { at: number, more: number }>} */
  #kinds = new Map();

  /** @param {string} kind One of a few. @param {string} line What is logged. */
  warn(kind, line) {
    const said = this.#kinds.get(kind) ?? { at: -Infinity, more: 0 };
    this.#kinds.set(kind, said);
    if (now() - said.at < WARN_EVERY) {
      said.more++;
      return;
    }
    const more = said.more ? ` (${said.more} more like this were not logged)` : "";
    said.at = now();
    said.more = 0;
    console.warn(line + more);
  }
}

/**
 * The name that was probably meant.
 *
 * @param {string} name
 * @param {Iterable<string>} names
 * @returns {string | null} Null if none is similar.
 */
function nearest(name, names) {
  if (name.length > MAX_COMPARED) return null;
  let best = null;
  // A quarter of the characters may be wrong.
  let most = Math.max(1, Math.floor(name.length / 4));
  for (const other of names) {
    if (Math.abs(other.length - name.length) > most) continue;
    const wrong = distance(name.toLowerCase(), other.toLowerCase());
    if (wrong > most || (best !== null && wrong === most)) continue;
    best = other;
    most = wrong;
  }
  return best;
}

/** @param {string} one @param {string} other @returns {number} How many typing mistakes are between them. */
function distance(one, other) {
  /** @type {number[]} */
  let before = [];
  let row = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      const changed = /** @type {number} */ (row[j - 1]) + Number(one[i - 1] !== other[j - 1]);
      const swapped = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
      next.push(
        Math.min(
          changed,
          /** @type {number} */ (row[j]) + 1,
          /** @type {number} */ (next[j - 1]) + 1,
          swapped ? /** @type {number} */ (before[j - 2]) + 1 : Infinity,
        ),
      );
    }
    before = row;
    row = next;
  }
  return /** @type {number} */ (row[other.length]);
}

/** @param {unknown} seconds */
const isDelay = (seconds) => typeof seconds === "number" && seconds >= 0 && seconds < Infinity;

// ------------------------------------------------------- text of the peer

/**
 * Characters that could change how a console or a log shows other text: control
 * characters, line breaks, invisible ones such as those that change the direction
 * of writing, and halves of surrogate pairs. The joiners of scripts and emoji stay.
 */
const UNPRINTABLE = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** @param {string} character */
const escaped = (character) => `\\u{${/** @type {number} */ (character.codePointAt(0)).toString(16)}}`;

/**
 * Text from the other side, or text that may contain some, for errors and logs.
 *
 * @param {unknown} value The other side may send anything instead of text.
 * @param {number} [most]
 */
function printable(value, most = MAX_SHOWN) {
  const shown = textOf(value).slice(0, most + 1).replace(UNPRINTABLE, escaped);
  // A pair of surrogates that was cut in two is not shown.
  return shown.length > most ? `${shown.slice(0, most - 1).replace(/[\ud800-\udbff]$/, "")}…` : shown;
}

/** @param {unknown} value A value that should be text. @returns {string} */
function textOf(value) {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null) return "";
  return String(value ?? "");
}

// ---------------------------------------------------------------- codecs

/** @typedef {{ encode(value: unknown): any, decode(message: any): any }} Codec */

const utf8 = new TextEncoder();

/** @param {unknown} value @returns {Uint8Array | null} The value as bytes, if that is what it is. */
function asBytes(value) {
  if (value instanceof Uint8Array) return value;
  return value instanceof ArrayBuffer ? new Uint8Array(value) : null;
}

/** @param {Uint8Array} bytes */
function base64(bytes) {
  let characters = "";
  for (const byte of bytes) characters += String.fromCharCode(byte);
  return btoa(characters);
}

/** Half of a surrogate pair: not text. It has no form in UTF-8. */
const LONE_SURROGATE = /\p{Cs}/u;
/** As `JSON.stringify` writes one, unless the backslash is part of the text. */
const WRITTEN_SURROGATE = /(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/;
const NOT_TEXT = "it contains half of a surrogate pair, such as half of an emoji";

/**
 * Why a value cannot be sent, apart from what it contains. No value is changed silently.
 *
 * @param {unknown} value
 * @param {"json" | "msgpack"} protocol
 * @returns {Error | null}
 */
function fault(value, protocol) {
  const inJson = protocol === "json";
  if (typeof value === "string") return LONE_SURROGATE.test(value) ? new RangeError(NOT_TEXT) : null;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) return new RangeError(`${value} is not a number that can be sent`);
    // From 1e21 on, it is written with an exponent, as other numbers that are not integers.
    const large = inJson && Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < 1e21;
    return large ? beyond(value) : null;
  }
  if (typeof value === "bigint") {
    if (inJson) return Number.isSafeInteger(Number(value)) ? null : beyond(value);
    const fits = BigInt.asUintN(64, value) === value || BigInt.asIntN(64, value) === value;
    return fits ? null : new RangeError(`${value} does not fit into 64 bits`);
  }
  if (typeof value === "function" || typeof value === "symbol") {
    return new TypeError(`a ${typeof value} cannot be sent`);
  }
  if (ArrayBuffer.isView(value) && !asBytes(value)) {
    return new TypeError("send bytes as a Uint8Array, numbers as an array");
  }
  if (value instanceof Date && Number.isNaN(value.getTime())) return new RangeError("the date is not valid");
  if (value instanceof Map) {
    const keys = [...value.keys()];
    const named = keys.every((key) => typeof key === "string" || Number.isSafeInteger(key));
    return named ? null : new TypeError("a key of the Map is neither text nor an integer");
  }
  return null;
}

/** @param {number | bigint} value */
const beyond = (value) =>
  new RangeError(`JSON is not exact for ${value}: send text, or a BigInt with protocol: "msgpack"`);

/** @param {any} value @returns {any} What is sent instead of a Set or a Map. */
function plain(value) {
  if (value instanceof Set) return [...value];
  return value instanceof Map ? Object.fromEntries(value) : value;
}

/**
 * Where in the data something cannot be sent. Only for data that has failed.
 *
 * @param {unknown} data
 * @param {"json" | "msgpack"} protocol
 * @param {string} [path]
 * @param {Set<unknown>} [seen] Objects that were looked at: data may be a circle.
 * @returns {Error | null} Null if it fails for another reason, such as a circle.
 */
function locate(data, protocol, path = "$", seen = new Set()) {
  const found = fault(data, protocol);
  if (found) {
    found.message = `${path}: ${found.message}`;
    return found;
  }
  if (typeof data !== "object" || data === null || seen.has(data)) return null;
  seen.add(data);
  if (asBytes(data) || data instanceof Date) return null;
  const { toJSON } = /** @type {any} */ (data);
  if (typeof toJSON === "function") return locate(toJSON.call(data), protocol, path, seen);
  const value = plain(data);
  for (const [key, item] of Object.entries(value)) {
    const step = Array.isArray(value) ? `[${key}]` : `.${printable(key)}`;
    if (LONE_SURROGATE.test(key)) return new RangeError(`${path}${step}: the name of this field: ${NOT_TEXT}`);
    const problem = locate(item, protocol, path + step, seen);
    if (problem) return problem;
  }
  return null;
}

/**
 * Encode, and say what cannot be sent and where.
 *
 * @template T
 * @param {() => T} encode
 * @param {string} what Names the message in the error; may be empty.
 * @param {unknown} data
 * @param {"json" | "msgpack"} protocol
 * @returns {T}
 */
function encoding(encode, what, data, protocol) {
  try {
    return encode();
  } catch (error) {
    const found = locate(data, protocol) ?? /** @type {Error} */ (error);
    if (what) found.message = `${what} cannot be sent: ${found.message}`;
    throw found;
  }
}

/**
 * Bytes are base64 in JSON. `this[key]`, not the value given: the toJSON method
 * of Node's Buffer and of dates has run by then.
 *
 * @this {any} @param {string} key @param {any} value
 */
function toJson(key, value) {
  if (typeof value === "string" && typeof this[key] === "string") return value;
  const bytes = asBytes(this[key]);
  if (bytes) return base64(bytes);
  const problem = fault(this[key] instanceof Date ? this[key] : value, "json");
  if (problem) throw problem;
  return typeof value === "bigint" ? Number(value) : plain(value);
}

/** @type {Codec} */
const jsonCodec = {
  encode(value) {
    const text = JSON.stringify(value, toJson) ?? "null";
    // `JSON.stringify` writes halves of surrogate pairs as escapes. The first test is quick.
    if (text.includes("\\ud") && WRITTEN_SURROGATE.test(text)) throw new RangeError(NOT_TEXT);
    return text;
  },
  decode: (message) => JSON.parse(message),
};

/** How a value becomes a JSON message, and back. `decode` throws for invalid JSON. */
export const json = {
  /**
   * @param {unknown} value
   * @returns {string}
   * @throws {TypeError | RangeError} JSON cannot express the value. The message says where.
   */
  encode: (value) => encoding(() => jsonCodec.encode(value), "", value, "json"),
  /** @param {string} message @returns {any} */
  decode: (message) => jsonCodec.decode(message),
};

/**
 * The codec of MessagePack, from a separate module, which is loaded only by clients
 * that use it. The literal path lets a bundler find the module and split it off.
 *
 * @type {Codec | null}
 */
let msgpack = null;
const loadMsgpack = async () => (msgpack ??= await import("./msgpack.js"));

/**
 * Copy data that waits to be sent, as MessagePack will see it: the codec may
 * not be loaded yet.
 *
 * @param {any} value
 * @param {{ bytes: number }} size Counts about how many bytes it will have.
 * @param {number} [depth]
 * @returns {any}
 * @throws {TypeError | RangeError} MessagePack cannot encode the value.
 */
function copyForMsgpack(value, size, depth = 0) {
  const problem = fault(value, "msgpack");
  if (problem) throw problem;
  size.bytes += 9;
  if (typeof value === "string") size.bytes += utf8.encode(value).length;
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  if (typeof value !== "object" || value === null) return value;
  const bytes = asBytes(value);
  if (bytes) {
    size.bytes += bytes.length;
    // Not by `slice`, which copies nothing for a Buffer of Node.
    return new Uint8Array(bytes);
  }
  if (value instanceof Date) return new Date(value);
  if (depth === MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels, or circular`);
  if (typeof value.toJSON === "function") return copyForMsgpack(value.toJSON(), size, depth + 1);
  const part = plain(value);
  if (Array.isArray(part)) return part.map((item) => copyForMsgpack(item, size, depth + 1));
  const fields = Object.entries(part).filter(([, item]) => item !== undefined);
  return Object.fromEntries(
    fields.map(([key, item]) => [copyForMsgpack(key, size), copyForMsgpack(item, size, depth + 1)]),
  );
}

// ------------------------------------------------------- types of events

/**
 * The events of one route, for TypeScript and editors. A part that you leave
 * out has no events.
 *
 *     interface Events {
 *       emits: { say: { text: string } };
 *       receives: { said: { name: string; text: string } };
 *       requests: { sum: { data: number[]; reply: number } };
 *       streams: { count: { data: number; item: number } };
 *       answers: { name: { reply: string } };
 *     }
 *     const client = connect<Events>("/chat");
 *
 * @typedef {object} EventMap
 * @property {object} [emits] Names and data of what this client emits.
 * @property {object} [receives] Names and data of what the server emits.
 * @property {object} [requests] Names, `data` and `reply` of requests to the server.
 * @property {object} [streams] Names, `data` and `item` of streams from the server.
 * @property {object} [answers] Names, `data` and `reply` of requests by the server.
 */

/**
 * Without a map of events, any name is allowed and nothing is checked.
 *
 * @typedef {object} Untyped
 * @property {Record<string, any>} emits
 * @property {Record<string, any>} receives
 * @property {Record<string, { data: any, reply: any }>} requests
 * @property {Record<string, { data: any, item: any }>} streams
 * @property {Record<string, { data: any, reply: any }>} answers
 */

/** @typedef {{ id: string, info?: any }} MemberInfo A member of a room, as the server tells it. */
/** @typedef {{ epoch: string, version: number, total: number, list?: MemberInfo[] | null }} MembersState */
/**
 * @typedef {object} MembersDiff
 * @property {string} epoch
 * @property {number} from
 * @property {number} to
 * @property {number} total
 * @property {MemberInfo[] | null} [changed]
 * @property {string[] | null} [gone]
 */
/** @template E @template {string} Part @typedef {E extends Record<Part, infer Names> ? Names : {}} Part */
/** @template E @template {string} P @typedef {Extract<keyof Part<E, P>, string>} Name */
/**
 * @template E @template {string} P @template {string} K
 * @typedef {K extends keyof Part<E, P> ? Part<E, P>[K] : never} Entry
 */
/** @template T @typedef {T extends { data: infer D } ? D : null} DataOf */
/** @template T @typedef {T extends { reply: infer R } ? R : void} ReplyOf */
/** @template T @typedef {T extends { item: infer I } ? I : unknown} ItemOf */
/**
 * Data that may be null may be left out.
 *
 * @template D @template O
 * @typedef {[null] extends [D] ? [data?: D, options?: O] : [data: D, options?: O]} Arguments
 */
/** @template D @typedef {[null] extends [D] ? [data?: D] : [data: D]} OnlyData */

/**
 * @template E @template {string} K
 * @typedef {K extends "*" ? Heard
 *   : K extends Name<E, "receives"> ? (data: Entry<E, "receives", K>) => unknown
 *   : K extends Name<E, "answers"> ? Answering<Entry<E, "answers", K>>
 *   : (data: ErrorData) => unknown} Handler
 */
/** @typedef {(event: string, data: any, context?: any) => unknown} Heard */
/**
 * Where a publication stands in the history of its room. Two epochs can only be compared for equality.
 *
 * @typedef {{ epoch: string, offset: number }} Position
 */
/**
 * What is published to a room. `position` is null if the room does not keep it. `replaces` is the position of
 * an earlier publication that this one replaces, such as an edited message. Of several edits, each names the
 * first publication.
 *
 * @template E
 * @typedef {{ [K in Name<E, "receives">]: Published<K, Entry<E, "receives", K>> }[Name<E, "receives">]} Publication
 */
/**
 * @template K @template D
 * @typedef {{ event: K, data: D, position: Position | null, replaces: Position | null }} Published
 */
/**
 * @template E @template {string} K
 * @typedef {K extends "*" ? (event: string, data: any, publication: Published<string, any>) => unknown
 *   : (data: Entry<E, "receives", K>, publication: Published<K, Entry<E, "receives", K>>) => unknown} RoomHandler
 */
/**
 * @template T
 * @typedef {(data: DataOf<T>, context: { signal: AbortSignal }) => ReplyOf<T> | Promise<ReplyOf<T>>} Answering
 */
/** @template E @typedef {"message" extends Name<E, "receives"> ? Entry<E, "receives", "message"> : any} MessageOf */

/** @typedef {{ code: string, message: string, retryable: boolean, details: any, retry_after?: number }} ErrorData */
/**
 * Sends on one connection, before the queue.
 *
 * @template {EventMap} E
 * @typedef {Pick<Client<E>, "emit" | "send" | "request" | "stream" | "join">} Connection
 */
/**
 * @typedef {object} EmitOptions
 * @property {string} [key] Makes your own repeats safe: for 5 minutes, the same key publishes nothing again. By
 *   default, each call has a random one.
 * @property {boolean} [volatile] Whether to send it only if that is possible at once, without an answer: false.
 */
/**
 * @typedef {object} HistoryOptions
 * @property {number} [limit] The most publications: 100.
 * @property {Position | null} [before] Only those before this position. By default the newest.
 */
/** @typedef {"new" | "connecting" | "open" | "waiting" | "closed"} State */
/** @typedef {{ code: number, reason: string, refusal: RemoteError | null }} Closed How a client has ended. */
/** @typedef {string | null | undefined} Token */

/**
 * @typedef {object} Options
 * @property {Token | (() => Token | Promise<Token>)} [token] Identifies the client. A function is called
 *   at every attempt, and once more after a refusal with 4401.
 * @property {"json" | "msgpack"} [protocol] How envelopes are encoded: "json". The module of
 *   MessagePack is loaded when it is needed.
 * @property {string[]} [subprotocols] Further subprotocols to offer, for raw routes.
 * @property {number} [connectTimeout] Seconds for each attempt: 10.
 * @property {number} [requestTimeout] Seconds that a request waits for its answer, and a stream for a connection: 10.
 * @property {number | null} [heartbeat] Seconds without a message before the client pings the server: 20.
 *   null: never.
 * @property {boolean} [autoConnect] Whether to connect at once: true. Otherwise call `client.connect()`, for
 *   example after a page was rendered on a server, where there is no WebSocket.
 * @property {boolean} [reconnect] Whether to reconnect when the connection is lost: true.
 * @property {number} [backoff] The longest first wait, in seconds: 0.5. It grows by half with each attempt.
 * @property {number} [maxBackoff] The longest of all waits, in seconds: 30.
 * @property {number | null} [giveUpAfter] Seconds that a client which was connected goes on while something other
 *   than Symphony answers with an HTTP status: 300. null: no limit. Only the WebSocket of the package `ws`
 *   shows these answers.
 * @property {number} [maxQueue] Messages that may wait for a connection and, on a raw route or in one room,
 *   for the program: 1000.
 * @property {number} [maxQueueBytes] Bytes that may wait for a connection, in the WebSocket, on a raw route for
 *   the program, as publications of one room, and as items of one stream: 16 MiB each.
 * @property {boolean} [debug] Whether to log every message to the console: false. Tokens are hidden.
 * @property {any} [WebSocket] The constructor, if there is no global one (Node 20).
 */

/**
 * @typedef {object} RequestOptions
 * @property {number} [timeout] Seconds to wait for the answer: `requestTimeout`. Infinity: no limit.
 * @property {boolean} [idempotent] Handling it twice does no harm, so it is sent again if the connection is lost.
 * @property {AbortSignal} [signal] Cancels the request, at the server as well.
 */

/**
 * @typedef {object} StreamOptions
 * @property {number} [credit] The most items that wait here; the server pauses until they are taken: 64.
 * @property {AbortSignal} [signal] Cancels the stream, at the server as well.
 */

/**
 * @typedef {object} JoinOptions
 * @property {Position | "start" | null} [since] The last publication that you have: those after it are sent first.
 *   "start": all that the history keeps.
 * @property {number} [timeout] Seconds to wait for the answer: `requestTimeout`. Infinity: no limit.
 * @property {AbortSignal} [signal] Cancels the join, at the server as well.
 */

// ------------------------------------------------------------------ time

const now = () => performance.now() / 1000;

/** @param {number} seconds May be negative: then at once. @param {() => void} action @returns {any} */
const after = (seconds, action) => setTimeout(action, Math.min(Math.max(seconds, 0) * 1000, LONGEST_DELAY));

/** @param {number} seconds Whether it is longer than any timer can wait, and so no limit. */
const isEndless = (seconds) => seconds * 1000 > LONGEST_DELAY;

// -------------------------------------------------------- one connection

/** The client reconnects after these close codes, and after no others. */
const RECONNECTS_AFTER = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4421, 4429, 4503]);
const NORMAL = 1000;
const GOING_AWAY = 1001;
const NO_CODE = 1005;
const LOST = 1006;
const TOO_LARGE = 1009;
const RESTART = 1012;
const UNREAD = 1013;
const INVALID = 4400;
const UNAUTHORIZED = 4401;
const ELSEWHERE = 4421;
/** Sent instead of 1013, which a page may not send. */
const OWN_UNREAD = 4000;
/** Sent if a handler of `onOpen` fails. */
const OWN_FAILED = 4001;

/**
 * A browser fails the connection if it offered subprotocols and the server chose
 * none. So the server needs a name to choose in these two cases, too: the route
 * is raw, or the connection is refused.
 */
const RAW = "symphony.raw";
const REFUSE = "symphony.refuse";
/** Asks for the limits of the server. It is never chosen. */
const LIMITS = "symphony.limits";

/** Comes before the token. It is never chosen either. */
const TOKEN = "symphony.token.";

/** What to do about a close code, for the log. */
const ADVICE = new Map([
  [NORMAL, "The server closed it normally. Call connect() again if you need a new one."],
  [1002, "The server could not read the messages. Something between may have changed them."],
  [1003, "The server does not take this type of message."],
  [1007, "The server could not read the messages. Something between may have changed them."],
  [1008, "It is against a rule of the server, or of something between."],
  [TOO_LARGE, "A message was larger than the server allows: see `max_message_bytes`."],
  [UNREAD, "The program did not read the messages."],
  [INVALID, "Check the URL and the options."],
  [UNAUTHORIZED, "The server needs another token. `token` may be a function that fetches a new one."],
  [4403, "Check the token, and whether the `origins` of the server allow this page."],
  [4404, "Check the path of the URL. The routes of a mounted app are below its mount path."],
  [4409, "Solve the conflict before you connect again."],
  [4410, "Another connection of the same user has replaced this one."],
]);

const LARGER =
  "a message of the server is larger than this WebSocket takes; pass one with a larger `maxPayload`, or send less at once";

/** The kinds of envelopes that a server sends. The first of these fields decides. */
const KINDS = /** @type {const} */ ([
  ...["event", "reply", "error", "item", "end", "cancel", "pong", "retry", "limits"],
  ...["joined", "left", "lost", "dropped", "presence"],
]);

/** @param {unknown} id */
const isId = (id) => Number.isSafeInteger(id) && /** @type {number} */ (id) >= 0;

/** @param {unknown} name @returns {boolean} Whether an event can have this name. */
const isName = (name) =>
  typeof name === "string" && name !== "" && name.length <= 2 * MAX_NAME && [...name].length <= MAX_NAME;

/** @param {unknown} value @param {number} most @returns {boolean} Whether it is text with 1 to `most` characters. */
const isText = (value, most) =>
  typeof value === "string" &&
  value !== "" &&
  value.length <= 2 * most &&
  [...value].length <= most &&
  !LONE_SURROGATE.test(value);

/** @param {any} value @returns {value is Position} */
const isPosition = (value) =>
  typeof value === "object" && value !== null && isText(value.epoch, MAX_EPOCH) && isId(value.offset);

/** @param {any} value @returns {boolean} Whether it is a list of members. */
const isMembers = (value) =>
  Array.isArray(value) && value.every((member) => typeof member === "object" && member !== null && typeof member.id === "string");

/** @param {any} value @returns {value is MembersState} */
const isMembersState = (value) =>
  typeof value === "object" &&
  value !== null &&
  typeof value.epoch === "string" &&
  isId(value.version) &&
  isId(value.total) &&
  ((value.list ?? null) === null || isMembers(value.list));

/** @param {any} value @returns {value is MembersDiff} */
const isMembersDiff = (value) =>
  typeof value === "object" &&
  value !== null &&
  typeof value.epoch === "string" &&
  isId(value.from) &&
  isId(value.to) &&
  isId(value.total) &&
  ((value.changed ?? null) === null || isMembers(value.changed)) &&
  ((value.gone ?? null) === null || (Array.isArray(value.gone) && value.gone.every((/** @type {any} */ id) => typeof id === "string")));

/**
 * What is wrong with the fields of a publication, or of an envelope about a room.
 *
 * @param {any} envelope
 * @param {"event" | "joined" | "left" | "lost" | "presence"} kind
 * @returns {string | null} As `invalidField`.
 */
function invalidRoomField(envelope, kind) {
  const { room, offset, epoch, after, replaces, position, recovered, members, diff } = envelope;
  if (kind === "event") {
    if (!isText(room, MAX_ROOM_NAME)) return "room";
    if ((offset ?? null) !== null && !isId(offset)) return "offset";
    if ((after ?? null) !== null && !isId(after)) return "after";
    if ((replaces ?? null) !== null && !isPosition(replaces)) return "replaces";
    return (epoch ?? null) === null || isText(epoch, MAX_EPOCH) ? null : "epoch";
  }
  if (!isText(envelope[kind], MAX_ROOM_NAME)) return kind;
  if (kind === "left") return null;
  if (kind !== "lost") {
    if ((members ?? null) !== null && !isMembersState(members)) return "members";
    if (kind === "presence") return (diff ?? null) === null || isMembersDiff(diff) ? null : "diff";
  }
  const needed = kind === "lost" || (position ?? null) !== null;
  if (needed && !isPosition(position)) return "position";
  return kind === "lost" || ["boolean", "undefined"].includes(typeof (recovered ?? undefined)) ? null : "recovered";
}

/**
 * What is wrong with an envelope of the server.
 *
 * @param {any} envelope
 * @param {string} kind The field that decides.
 * @returns {string | null} The name of the field that is not valid; null if there is none.
 */
function invalidField(envelope, kind) {
  const value = envelope[kind];
  if (kind === "event") {
    if ((envelope.id ?? null) !== null && !isId(envelope.id)) return "id";
    if (!isName(value)) return kind;
    return (envelope.room ?? null) === null ? null : invalidRoomField(envelope, kind);
  }
  if (kind === "joined" || kind === "left" || kind === "lost" || kind === "presence") return invalidRoomField(envelope, kind);
  if (kind === "retry") return isDelay(value) ? null : kind;
  if (kind !== "limits") return isId(value) ? null : kind;
  const most = typeof value === "object" && !Array.isArray(value) ? (value.max_message_bytes ?? 1) : 0;
  return Number.isSafeInteger(most) && most >= 1 ? null : kind;
}

/** @param {string | null} subprotocol @returns {boolean} Whether Symphony never chooses it. */
const isForeign = (subprotocol) => subprotocol === LIMITS || (subprotocol ?? "").startsWith(TOKEN);

/** One attempt to connect, and its connection. It ends once, even if its WebSocket fires more events. */
class Link {
  raw = false;
  /** JSON for raw routes and refusals, and until the server has chosen. @type {Codec} */
  codec = jsonCodec;
  openedAt = Infinity;
  /** How many seconds the client must wait before it reconnects; set by the server. @type {number | null} */
  retry = null;
  /** The last event `error`; null if anything but `retry` came after it. @type {RemoteError | null} */
  lastError = null;
  /** The reason that a close frame has if it closes because of that error. */
  lastReason = "";
  /** The HTTP status that the handshake was answered with, if it can be seen. @type {number | null} */
  status = null;
  /** Whether the answer is a decision of Symphony, and `lastError` what it says. */
  marked = false;
  /** Bytes of the largest message that the server takes; Infinity as long as it is not known. */
  maxMessageBytes = Infinity;
  /** Whether the limits of the server have come, or will not. */
  knowsLimits = false;
  /** Whether a message of the server was larger than this WebSocket takes. Only that of `ws` has a limit. */
  tooLarge = false;
  /** Whether the handlers of `onOpen` have run, and what was queued is sent. */
  prepared = false;
  /** Whether it was logged that answers did not fit. */
  toldFull = false;
  /** Whether the server will close soon: only replies, grants and cancels are sent. */
  stopping = false;
  #settings;
  #hears;
  /** @type {any} */
  #socket = null;
  #ended = false;
  #trouble = "";
  #heardAt = 0;
  #pings = 0;
  #asking = false;
  /** The last ping that was answered. */
  #ponged = 0;
  #token = "";
  /** @type {any} */
  #timer;
  /** @type {any} */
  #stopTimer;
  /** @type {() => void} */
  #firstCame = () => {};
  /** @type {Promise<void>} */
  #first;

  /**
   * @param {Settings} settings
   * @param {{ open(): void, message(data: any): void, end(code: number, reason: string): void }} hears
   */
  constructor(settings, hears) {
    this.#settings = settings;
    this.#hears = hears;
    this.#first = new Promise((resolve) => {
      this.#firstCame = resolve;
    });
  }

  /** Whether a message can be sent now: a closing WebSocket drops messages silently. */
  get ready() {
    return this.openedAt !== Infinity && !this.#ended && this.#socket.readyState === 1;
  }

  /** Whether the server takes new events and requests. */
  get takes() {
    return this.ready && !this.stopping;
  }

  /** Whether the server opened the WebSocket only to refuse the client. */
  get refused() {
    return this.#socket?.protocol === REFUSE;
  }

  get protocol() {
    return this.raw ? "raw" : this.#settings.events;
  }

  /** @returns {string | null} */
  get subprotocol() {
    return this.#socket.protocol || null;
  }

  /** Wait for the limits of the server, which come first. A server without them may send nothing. */
  async limitsKnown() {
    const timer = after(LIMITS_TIMEOUT, this.#firstCame);
    await this.#first;
    clearTimeout(timer);
    this.knowsLimits = true;
  }

  get unsentBytes() {
    return this.#socket.bufferedAmount;
  }

  /** The server will close soon. It must: until then, nothing new is sent. */
  awaitStop() {
    if (this.stopping) return;
    this.stopping = true;
    const reason = `the server has not closed the connection within ${STOP_TIMEOUT} s after its \`retry\``;
    this.#stopTimer = after(STOP_TIMEOUT, () => this.lose(reason));
  }

  /**
   * The error with which the server closes the connection, or has refused it; null if there was none.
   *
   * @param {number} code The close code.
   * @param {string} reason The reason of the close frame.
   */
  refusal(code, reason) {
    if (this.refused || this.status !== null) return this.lastError;
    // After the opening, the last error may be about something else.
    const closed = code !== LOST && code !== NO_CODE;
    return closed && this.lastReason === reason ? this.lastError : null;
  }

  async start() {
    const { token, offer, url, WebSocket, connectTimeout, protocol } = this.#settings;
    // While the token function runs.
    const loading = protocol === "msgpack" && !msgpack ? loadMsgpack() : null;
    loading?.catch(() => {});
    this.#timer = after(connectTimeout, () => this.lose(`no connection within ${connectTimeout} s`));
    let value;
    try {
      value = typeof token === "function" ? await token() : token;
    } catch (error) {
      console.error("symphony: the token function failed", error);
      this.lose("the token function failed");
      return;
    }
    try {
      if (loading) await loading;
    } catch (error) {
      console.error("symphony: msgpack.js could not be loaded; it must be in the same folder as symphony.js", error);
      this.lose("the MessagePack module could not be loaded");
      return;
    }
    if (this.#ended) return;
    this.#token = String(value ?? "");
    const credentials = (value ?? null) === null ? [] : [TOKEN + base64url(this.#token)];
    this.#log(`connecting to ${place(url)}, offering ${offer.join(", ")}${this.#token && " and a token"}`);
    try {
      this.#socket = new WebSocket(url, [...offer, ...credentials]);
    } catch (error) {
      // The URL or a subprotocol is invalid: another attempt cannot help.
      this.#end(INVALID, String(error));
      return;
    }
    this.#listen(this.#socket);
  }

  /** @param {any} socket */
  #listen(socket) {
    let answered = false;
    socket.binaryType = "arraybuffer";
    // Only `ws` shows HTTP answers. Its WebSocket is an event emitter.
    if (typeof socket.on === "function") {
      socket.on("unexpected-response", (/** @type {any} */ _, /** @type {any} */ response) => {
        answered = true;
        this.#answered(response);
      });
    }
    socket.onopen = () => {
      answered = true;
      this.#log(`open, with the subprotocol ${socket.protocol || "(none)"}`);
      if (this.#ended || this.refused) return;
      clearTimeout(this.#timer);
      this.raw = socket.protocol !== this.#settings.events;
      this.openedAt = this.#heardAt = now();
      if (!this.raw) {
        this.codec = (this.#settings.protocol === "msgpack" && msgpack) || jsonCodec;
        if (this.#settings.heartbeat) this.#awaitSilence();
      }
      this.#hears.open();
    };
    socket.onmessage = (/** @type {any} */ event) => {
      this.#heardAt = now();
      if (this.#settings.debug) this.#log(`< ${this.#readable(event.data)}`);
      if (!this.#ended) this.#hears.message(event.data);
      this.knowsLimits = true;
      this.#firstCame();
    };
    socket.onclose = (/** @type {any} */ event) => this.#end(event.code, event.reason || this.#trouble);
    // Keep this listener after the end: `ws` throws errors that have none.
    socket.onerror = (/** @type {any} */ event) => {
      this.#trouble = event.message ?? "";
      this.tooLarge = event.error?.code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH";
      // The WebSocket would wait for a close frame that it does not read any more.
      if (this.tooLarge) this.lose(LARGER);
      // Some versions of Node fire no `close` for an attempt that failed.
      if (!answered) this.lose(this.#trouble);
    };
  }

  /**
   * Read the HTTP answer to a handshake.
   *
   * @param {any} response An `IncomingMessage` of Node.
   */
  async #answered(response) {
    const { statusCode, statusMessage, headers } = response;
    this.status = statusCode;
    this.#trouble = `HTTP ${statusCode} ${statusMessage ?? ""}`.trim();
    let body = "";
    try {
      response.setEncoding("utf8");
      for await (const part of response) {
        body += part;
        if (body.length > MAX_ANSWER) break;
      }
      this.lastError = errorIn(JSON.parse(body));
    } catch {
      // Not an error of Symphony, or one that was cut off: the status decides.
    }
    this.marked = headers["symphony-refusal"] !== undefined && this.lastError !== null;
    const seconds = Number(headers["retry-after"] ?? NaN);
    if (isDelay(seconds)) this.retry = seconds;
    if (this.#ended) return;
    this.#stop();
    abandon(this.#socket);
    this.#hears.end(4000 + statusCode, this.lastError?.message ?? this.#trouble);
  }

  #awaitSilence() {
    const rest = this.#heardAt + (this.#settings.heartbeat ?? Infinity) - now();
    if (rest <= 0) return this.check();
    // In short steps: the clock of `now` may stand still while the computer sleeps.
    const step = Math.min(rest, NAP);
    const slept = watch(step);
    this.#timer = after(step, () => (slept() ? this.check() : this.#awaitSilence()));
  }

  /** @param {unknown} ping The number in a pong. */
  pong(ping) {
    if (ping === this.#pings) this.#ponged = this.#pings;
  }

  /** Ping the server. Without any message in time, the connection counts as lost. */
  check() {
    // A page cannot ping on a raw route. A closing connection sends no ping either, but it
    // still needs the timeout, or it might never end.
    if (this.#ended || this.openedAt === Infinity || this.raw || this.#asking) return;
    const heartbeat = this.#settings.heartbeat ?? DEFAULTS.heartbeat ?? 0;
    const asked = now();
    const patience = Math.max(heartbeat / 2, 1);
    const slept = watch(patience);
    clearTimeout(this.#timer);
    this.#asking = true;
    this.write({ ping: ++this.#pings });
    this.#timer = after(patience, () => {
      this.#asking = false;
      if (this.#ponged === this.#pings || this.#heardAt > asked + GRACE) {
        if (this.#settings.heartbeat) this.#awaitSilence();
      } else if (slept()) this.check();
      else this.lose("the server does not answer pings");
    });
  }

  /**
   * Send an envelope. Without a connection it is dropped: check `ready` first if
   * that matters.
   *
   * @param {object} envelope
   * @throws {TypeError | RangeError | MessageTooLargeError} It cannot be encoded, or is larger than the server allows.
   */
  write(envelope) {
    const { event, reply, join, leave, data } = /** @type {any} */ (envelope);
    const room = join ?? leave;
    const what = event !== undefined ? `"${event}"` : room !== undefined ? `the room "${room}"` : "the answer";
    const { protocol } = this.#settings;
    const message = encoding(() => this.codec.encode(envelope), what, data, protocol);
    // Without an error or a `cancel`, the other side would wait for nothing.
    const least = event === undefined && reply === undefined ? CONTROL_BYTES : 0;
    const most = Math.max(this.maxMessageBytes, least);
    // A character has at most 3 bytes for each unit of its string.
    const size = typeof message !== "string" ? message.length : message.length * 3 > most ? bytesOf(message) : 0;
    if (size > most) {
      throw new MessageTooLargeError(`${what} has ${size} bytes, and the server takes at most ${most}`, size, most);
    }
    this.send(message);
  }

  /** @param {any} message */
  send(message) {
    if (!this.ready) return;
    if (this.#settings.debug) this.#log(`> ${this.#readable(message)}`);
    this.#socket.send(message);
  }

  /** @param {string} line For people who debug: a message, or what the connection does. */
  #log(line) {
    if (!this.#settings.debug) return;
    let safe = line;
    // As it is, as it is written in JSON, and as it is offered.
    for (const secret of [this.#token, JSON.stringify(this.#token).slice(1, -1), base64url(this.#token)]) {
      if (secret) safe = safe.replaceAll(secret, "[token]");
    }
    console.log(`symphony: ${printable(safe, MAX_DEBUG)}`);
  }

  /** @param {any} message @returns {string} */
  #readable(message) {
    if (typeof message === "string") return message;
    const bytes = asBytes(message) ?? new Uint8Array();
    try {
      if (!this.raw && this.codec !== jsonCodec) return describe(this.codec.decode(bytes));
    } catch {
      // It is shown as bytes.
    }
    return `${bytes.length} bytes`;
  }

  /** @param {number} code @param {string} reason @returns {Promise<void>} When it has closed. */
  close(code, reason) {
    const socket = this.#socket;
    this.#stop();
    if (socket?.readyState !== 1) {
      abandon(socket);
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const timer = after(CLOSE_TIMEOUT, () => {
        abandon(socket);
        resolve();
      });
      socket.onclose = () => {
        clearTimeout(timer);
        resolve();
      };
      socket.close(code, reason);
    });
  }

  /**
   * Close a connection that cannot be used as it is. For the client, it is lost.
   *
   * @param {number | undefined} code Undefined: none, as of a page that is left.
   * @param {string} reason
   */
  leave(code, reason) {
    if (this.#ended) return;
    this.#stop();
    const socket = this.#socket;
    // Its close frame is not waited for.
    if (socket?.readyState === 1 && code !== undefined) socket.close(code, reason);
    else socket?.close();
    this.#hears.end(code === undefined ? NO_CODE : LOST, reason);
  }

  /** @param {string} reason */
  lose(reason) {
    if (this.#ended) return;
    // Before closing the WebSocket: in some versions of Node, `close` fires the events itself.
    this.#stop();
    abandon(this.#socket);
    this.#hears.end(LOST, reason);
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.#ended) return;
    this.#stop();
    this.#hears.end(code, reason);
  }

  #stop() {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#stopTimer);
    this.#firstCame();
    this.#log("the connection has ended");
  }
}

/** @param {string} text @returns {number} Its bytes in UTF-8. */
const bytesOf = (text) => utf8.encode(text).length;

/** @param {string} url @returns {string} The URL without what may be secret. */
function place(url) {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/** @param {unknown} value @returns {string} It as text for the log: JSON, with bytes as their number. */
const describe = (value) =>
  JSON.stringify(value, (_, item) => {
    const bytes = asBytes(item);
    return bytes ? `${bytes.length} bytes` : typeof item === "bigint" ? `${item}` : item;
  }) ?? "null";

/**
 * Watch the clock of the computer, which goes on while the computer sleeps.
 *
 * @param {number} seconds How long the wait should take.
 * @returns {() => boolean} Whether it took much longer.
 */
function watch(seconds) {
  const began = Date.now();
  return () => Date.now() - began > (seconds + NAP) * 1000;
}

/** @param {any} socket Its connection is dead: a close frame would not be answered. */
function abandon(socket) {
  // `ws` has `terminate`; its `close` would keep the process alive for 30 s.
  if (socket?.terminate) socket.terminate();
  else socket?.close();
}

/** @param {string} text */
const base64url = (text) =>
  base64(utf8.encode(text)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

// ------------------------------------------------ queues, requests, streams

/**
 * Items that have come and were not taken yet. The caller limits how many.
 *
 * @template T
 */
class Inbox {
  /** @type {{ item: T, bytes: number }[]} */
  #items = [];
  /** @type {(() => void)[]} */
  #waiting = [];
  /** @type {(() => void) | null} What ends an iteration, once all items are taken. */
  #last = null;
  bytes = 0;

  get size() {
    return this.#items.length;
  }

  /** @param {T} item @param {number} bytes */
  push(item, bytes) {
    this.#items.push({ item, bytes });
    this.bytes += bytes;
    this.wake();
  }

  end() {
    this.#last = () => {};
    this.wake();
  }

  /** @param {unknown} error */
  fail(error) {
    this.#last = () => {
      throw error;
    };
    this.wake();
  }


  /** The last item has changed. @param {number} bytes */
  resize(bytes) {
    const last = this.#items[this.#items.length - 1];
    if (!last) return;
    this.bytes += bytes - last.bytes;
    last.bytes = bytes;
  }

  /** @returns {{ item: T } | undefined} The next item; undefined if none waits. */
  take() {
    const next = this.#items.shift();
    if (next) this.bytes -= next.bytes;
    return next;
  }

  /** What ends an iteration; null as long as more may come. */
  get last() {
    return this.#last;
  }

  /** @returns {Promise<void>} When something has come, or may have. */
  changed() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Let those who wait look again. */
  wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Iterate over the items as they come. Several iterations share them. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      const next = this.take();
      if (next) yield next.item;
      else if (this.#last) return this.#last();
      else await this.changed();
    }
  }
}

/** @param {Call} call */
const late = ({ what }) => new RequestTimeoutError(`${what} was not answered in time`);

/** @param {string} event @param {string} what How the server answers instead. */
const misused = (event, what) => new RemoteError("invalid", `"${event}" ${what}`);

const FULL = "the connection is slow, and its buffer is full";

/** @param {string} event @param {number} bytes */
const unread = (event, bytes) =>
  new QueueFullError(`items of "${event}" with ${bytes} bytes wait and are not read: use a smaller credit`);

/** @param {Call} call @param {any} data The error that the server answers. */
function errorOf(call, data) {
  // Both sides have a timer, and either may run out first.
  const isLate = data?.code === "timeout" && now() > call.deadline - TIMER_SLACK;
  // An answer without a code is the server's mistake, not a code that it has.
  return isLate ? late(call) : (errorIn(data) ?? new RemoteError("invalid", "the server's error has no code"));
}

/** A message without an answer; `event` is null for a plain `send`. */
class Message {
  idempotent = false;
  waits = false;
  /** Bytes that it holds while it waits. */
  bytes = 0;

  /** @param {string | null} event @param {unknown} data @param {Link | null} within */
  constructor(event, data, within) {
    this.event = event;
    this.data = data;
    this.within = within;
  }
}

/** A request or a stream, from the call to its end. */
class Call {
  /** Whether it was sent, on some connection. */
  sent = false;
  /** Its id on the connection on which it was sent last. */
  id = 0;
  /** When it times out here, by `now()`. */
  deadline = Infinity;
  settled = false;
  /** Bytes that it holds while it waits, or while it may be sent again. */
  bytes = 0;
  /** The room that it publishes to. @type {Membership | null} */
  room = null;
  /** Whether it was sent on a connection that was lost before the answer. */
  repeats = false;
  /** Whether it waits until the client is in that room again. */
  waits = false;
  /** The error of a server that stops, until the request is sent again. @type {Error | null} */
  refusal = null;
  /** @type {any} */
  timer;
  /** Stop the timer and the listener that would cancel it. */
  release = () => {};

  /**
   * @param {string} event
   * @param {unknown} data
   * @param {object} kind What differs between requests and streams.
   * @param {Link | null} kind.within The connection, if a handler of `onOpen` makes the call.
   * @param {boolean} [kind.idempotent] Sent again if the connection is lost.
   * @param {"event" | "join" | "leave" | "publish" | "history" | "presence" | "count"} [kind.verb] The field of its
   *   envelope that has `event`: the name of an event, or of a room.
   * @param {() => object} kind.terms Further fields of its envelope, asked for when it is sent.
   * @param {(kind: "reply" | "item" | "end", data: any, bytes: number) => void} kind.heard
   * @param {(error: unknown) => void} kind.failed
   */
  constructor(event, data, { within, idempotent = false, verb = "event", terms, heard, failed }) {
    this.event = event;
    this.verb = verb;
    this.data = data;
    this.within = within;
    // A handler of `onOpen` runs again on the next connection, and makes its calls anew. A publication
    // is repeated all the same: the server knows by its key whether it was published.
    this.idempotent = idempotent && (verb === "publish" || !within);
    this.terms = terms;
    this.heard = heard;
    this.failed = failed;
  }

  /** For errors: what was not done. */
  get what() {
    return this.verb === "event" ? `"${this.event}"` : `the ${NOUNS[this.verb] ?? this.verb} of "${this.event}"`;
  }

  /** What is sent. */
  envelope() {
    const { verb, event, data, id } = this;
    return { [verb]: event, ...((verb === "event" || verb === "publish") && { data }), id, ...this.terms() };
  }
}

// ----------------------------------------------------------------- rooms

/** What a call is named after, if that is not its verb. @type {Record<string, string>} */
const NOUNS = { publish: "publication", count: "number of members" };

/** @returns {string} Text that nobody else chooses. */
function randomText() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/** @param {string | undefined} key @param {boolean} volatile */
function checkKey(key, volatile) {
  if (key === undefined) return;
  if (typeof key !== "string") throw new TypeError("a key must be a string");
  if (!isText(key, MAX_KEY)) throw new RangeError(`a key must have 1 to ${MAX_KEY} characters`);
  if (volatile) throw new RangeError("a key makes a repeat safe, and what is volatile is never repeated");
}

/** What the program is told of a publication that has failed. @param {Call} call @param {any} error @returns {any} */
function outcome(call, error) {
  const { code } = error ?? {};
  // `forbidden` is then about the client, which could not join again, and not about the first.
  const isRefused = code === "forbidden" && call.repeats && !call.room?.member;
  const isUnknown =
    isRefused || error instanceof RequestTimeoutError || error instanceof DisconnectedError || code === "timeout";
  return call.sent && isUnknown ? unknown(call, error) : error;
}

/** @param {Call} call @param {Error} error */
const unknown = ({ what }, { message }) => new OutcomeUnknownError(`${what} may or may not have been published: ${message}`);

/** A publication that a handler or an iteration works on. @typedef {{ before: Position | null, left: number }} Mark */

/**
 * @typedef {{ event: string, data: any, position: Position | null, replaces: Position | null, mark: Mark | null,
 *   bytes: number }} Arrival
 */
/**
 * A publication, or the news that some were lost, on its way to the program.
 *
 * @typedef {{ lost: Position | null, snapshot: Arrival | null }} Beginning A room begins, or begins anew after a loss.
 * @typedef {Arrival | Beginning} News
 */

/** @param {Position | null} one @param {Position | null} other */
const isSame = (one, other) => one?.epoch === other?.epoch && one?.offset === other?.offset;

/** @param {Pick<Arrival, "event" | "data" | "position" | "replaces">} arrival @returns {any} What the program gets. */
const published = ({ event, data, position, replaces }) => ({
  event,
  data,
  position: position && copied(position),
  replaces: replaces && copied(replaces),
});

/** @param {Position} position The peer's object has other fields too. @returns {Position} */
const copied = ({ epoch, offset }) => ({ epoch, offset });

/** @param {any} envelope @param {number} bytes @returns {Arrival | null} What the room begins with. */
const snapshotOf = ({ snapshot = null }, bytes) =>
  snapshot === null ? null : { event: "snapshot", data: snapshot, position: null, replaces: null, mark: null, bytes };

/** What the client knows about the members of a room. */
class Roster {
  /** @type {Map<string, any>} */
  infos = new Map();
  total = 0;
  isKnown = false;
  /** @type {string | null} */
  #epoch = null;
  #version = 0;
  /** Whether the server knew less when it told its state. */
  #isAhead = false;
  /** The last change that could not be applied. @type {{ epoch: string, to: number } | null} */
  #missed = null;

  /** The change that it should have, because one before it is missing; null if none is. */
  get missed() {
    const missed = this.#missed;
    return missed && (missed.epoch !== this.#epoch || missed.to > this.#version) ? missed : null;
  }

  /**
   * Begin anew with all members, unless the state is older: after a reconnect, another node may know less. So no
   * member disappears for a moment.
   *
   * @param {MembersState} state
   * @returns {boolean} Whether they may be others.
   */
  restart({ epoch, version, total, list = null }) {
    const isOlder = epoch === this.#epoch && version <= this.#version;
    this.#isAhead = isOlder && version < this.#version;
    if (isOlder) return false;
    // Its epoch is newer than that of the change.
    if (epoch !== this.#missed?.epoch && epoch !== this.#epoch) this.#missed = null;
    this.#epoch = epoch;
    this.#version = version;
    this.total = total;
    this.isKnown = list !== null;
    this.infos = new Map((list ?? []).map(({ id, info = null }) => [id, info]));
    return true;
  }

  /** Apply a change, unless one before it is missing. @param {MembersDiff} diff @returns {boolean} Whether it was applied. */
  take({ epoch, from, to, total, changed = null, gone = null }) {
    const isSame = epoch === this.#epoch;
    if (isSame && to <= this.#version) return false;
    // A server that knew less does not name those who came after its state, and have gone again.
    if (!isSame || from > this.#version || (this.#isAhead && from < this.#version)) {
      this.#missed = { epoch, to };
      return false;
    }
    this.#isAhead = false;
    this.#version = to;
    this.total = total;
    if (changed === null) {
      // There are too many to be listed.
      this.isKnown = false;
      this.infos.clear();
    } else if (this.isKnown) {
      for (const id of gone ?? []) this.infos.delete(id);
      for (const { id, info = null } of changed) this.infos.set(id, info);
    }
    return true;
  }
}

/**
 * The members of a room: a map of their ids to what the server says about them. It changes as members come and go.
 * While the client has no connection, it has the members of before.
 *
 * @implements {ReadonlyMap<string, any>}
 */
export class RoomPresence {
  #roster;

  /** @param {Roster} roster */
  constructor(roster) {
    this.#roster = roster;
  }

  /** As of `Client`. */
  get [Symbol.toStringTag]() {
    return "RoomPresence";
  }

  /** How many members there are. @returns {number} */
  get total() {
    return this.#roster.total;
  }

  /**
   * Whether it has all members. It has none if the server does not tell who is in the room, or if there are too many.
   *
   * @returns {boolean}
   */
  get isKnown() {
    return this.#roster.isKnown;
  }

  /** How many members it has. @returns {number} */
  get size() {
    return this.#roster.infos.size;
  }

  /** @param {string} id @returns {boolean} */
  has(id) {
    return this.#roster.infos.has(id);
  }

  /** @param {string} id @returns {any} What the server says about this member; undefined if it is not there. */
  get(id) {
    return this.#roster.infos.get(id);
  }

  /** @returns {MapIterator<string>} The ids, in the order of the arrivals. */
  keys() {
    return this.#roster.infos.keys();
  }

  /** @returns {MapIterator<any>} */
  values() {
    return this.#roster.infos.values();
  }

  /** @returns {MapIterator<[string, any]>} */
  entries() {
    return this.#roster.infos.entries();
  }

  /** @returns {MapIterator<[string, any]>} */
  [Symbol.iterator]() {
    return this.entries();
  }

  /** @param {(info: any, id: string, presence: RoomPresence) => void} action @param {any} [self] */
  forEach(action, self) {
    for (const [id, info] of this) action.call(self, info, id, this);
  }
}

/** What the client knows about a room, whether the program has joined it or the server has put the client into it. */
class Membership {
  /** What the program has; null if it has not joined, or not yet. @type {Room<any> | null} */
  room = null;
  /** The join of the program that is under way. @type {Promise<Room<any>> | null} */
  pending = null;
  /** The request of that join. @type {Call | null} */
  call = null;
  /** The answer to the last join that the client has sent without the program. @type {Promise<void> | null} */
  answered = null;
  /** The leave of the program that is under way. @type {Promise<void> | null} */
  leaving = null;
  /** Whether the server put the client into the room first. */
  served = false;
  /** Whether a join is on its way on this connection. */
  asked = false;
  /** From which position that join asks. @type {Position | "start" | null} */
  since = null;
  /** The position that the program has named in a join that is not answered. @type {Position | "start" | null} */
  wanted = null;
  /** Whether the server has said that the client is a member, on this connection. */
  member = false;
  /** Whether publications with an offset count. Otherwise they come again, after the answer to a join. */
  live = false;
  /** The error of a `left` that came while a join or a leave is under way. @type {RemoteError | null} */
  left = null;
  /** As the last answer to a join said it; null if the join had no position. @type {boolean | null} */
  recovered = null;
  /** Why the membership ended for good; null before. @type {Error | null} */
  ended = null;
  /** Whether iterations just end then. */
  quiet = false;

  /** The last publication that came on this connection. @type {Position | null} */
  last = null;
  /** The last publication that was taken for the program. @type {Position | null} */
  tip = null;
  /** Publications that the program still works on. @type {Set<Mark>} */
  running = new Set();

  /** @type {Map<string, Heard[]>} */
  handlers = new Map();
  /** @type {((position: Position) => unknown)[]} */
  lostHandlers = [];
  /** @type {((error: Error) => unknown)[]} */
  leftHandlers = [];
  /** What waits for the program. @type {Inbox<News>} */
  news = new Inbox();
  /** The news that waits last, if it is that of a beginning. @type {Beginning | null} */
  beginning = null;
  /** Whether everything waits: the program has not had its turn yet. */
  holding = false;
  /** Whether the program may still choose how it takes the publications. */
  fresh = false;
  /** Whether the program has begun to iterate. */
  iterated = false;
  /** Iterations that are under way. */
  iterations = 0;
  /** Whether publications did not fit: the client joins again when those that wait are taken. */
  behind = false;
  /** Publications that did not fit, and that the history does not have. */
  dropped = 0;

  /** Attempts in a row to join again. */
  failures = 0;
  joinedAt = -Infinity;
  /** @type {any} The next attempt to join again; null if there is none. */
  timer = null;

  /** Who is in the room. */
  roster = new Roster();
  /** The same for the program. */
  presence = new RoomPresence(this.roster);
  /** @type {((presence: RoomPresence) => unknown)[]} */
  presenceHandlers = [];
  /** Whether all members are being read again. */
  isReading = false;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** The last publication that the program has handled, after all those before it. @returns {Position | null} */
  get position() {
    for (const { before } of this.running) return before;
    return this.tip;
  }

  /** Go on after a position: what was taken comes again. @param {Position | null} position */
  restart(position) {
    this.last = this.tip = position;
    this.running.clear();
  }

  /** This connection's membership ends, or a join begins it anew. */
  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.live = this.asked = false;
    this.last = null;
  }

  /**
   * What to do with a publication that has an offset.
   *
   * @param {Position} position
   * @param {number | null} after The places between this offset and that of the position are empty.
   * @returns {"new" | "had" | "gap"}
   */
  follow(position, after) {
    const { last, tip } = this;
    if (last === null) return "new";
    if (position.epoch === last.epoch && position.offset <= last.offset) return "had";
    const isNext = after !== null && after <= last.offset && last.offset < position.offset;
    if (position.offset !== last.offset + 1 && !isNext) return "gap";
    this.last = position;
    return position.epoch === tip?.epoch && position.offset <= tip.offset ? "had" : "new";
  }

  /** It is for the program now. @param {Position} position @returns {Mark} */
  begin(position) {
    const mark = { before: this.tip, left: 0 };
    this.tip = position;
    this.running.add(mark);
    return mark;
  }

  /** There was no room for what has begun last: it comes again. @param {Mark} mark */
  giveBack(mark) {
    this.tip = mark.before;
    this.running.delete(mark);
  }

  /** @param {Arrival} arrival @returns {boolean} Whether it is still for the program: otherwise it comes again. */
  waits({ mark }) {
    return mark === null || this.running.has(mark);
  }

  /** One of those that work on it is done. @param {Mark | null} mark */
  done(mark) {
    if (mark && --mark.left <= 0) this.running.delete(mark);
  }

  /** @returns {News | undefined} The next that waits. */
  take() {
    const item = this.news.take()?.item;
    if (item === this.beginning) this.beginning = null;
    return item;
  }

  /** @param {string} event @returns {Heard[]} */
  heardBy(event) {
    return this.handlers.get(event) ?? this.handlers.get("*") ?? [];
  }
}

/**
 * @typedef {object} RoomActions
 * @property {() => Promise<void>} leave
 * @property {() => void} claim
 * @property {() => AsyncGenerator<any, void, undefined>} iterate
 * @property {(event: string, data: any, options: EmitOptions) => Promise<Position | null>} emit
 * @property {(options: HistoryOptions) => Promise<any[]>} history
 * @property {() => void} untold A handler is registered that will never be called.
 * @property {() => Promise<number>} count
 */

/**
 * A room that the program has joined. `client.join` makes one.
 *
 *     const room = await client.join("chat:lobby");
 *     room.on("said", ({ text }) => console.log(text));
 *
 * The client joins again on every connection. If the room has a history, it then gets the publications
 * that it has missed. A publication goes to the handlers of the room for its event. If there are none, it
 * goes to the iteration over the room, if the program has begun one; otherwise to the handlers of the
 * client. Handlers that you register before you await anything else miss nothing.
 *
 * @template {EventMap} [E=Untyped]
 */
export class Room {
  #membership;
  #actions;

  /**
   * @param {Membership} membership
   * @param {RoomActions} actions
   */
  constructor(membership, actions) {
    this.#membership = membership;
    this.#actions = actions;
    bind(this, Room.prototype);
  }

  /** As of `Client`. */
  get [Symbol.toStringTag]() {
    return "Room";
  }

  /** @returns {string} */
  get name() {
    return this.#membership.name;
  }

  /**
   * The position up to which all publications are handled; null if the room has no history. A publication
   * is handled when its handlers have returned and their promises have resolved, or when the loop of an
   * iteration asks for the next one. Pass it as `since` to `client.join`, for example after a page was
   * loaded again.
   *
   * @returns {Position | null}
   */
  get position() {
    const { position } = this.#membership;
    return position && copied(position);
  }

  /**
   * Whether the last join with a position has got everything after it; null if there was none.
   *
   * @returns {boolean | null}
   */
  get recovered() {
    return this.#membership.recovered;
  }

  /**
   * Why the client is no longer in the room; null while it is, or joins it again. A `RemoteError` from the
   * server, with the code `left` if the program has left it; otherwise the error with which the client ended.
   *
   * @returns {Error | null}
   */
  get ended() {
    return this.#membership.ended;
  }

  /**
   * How many publications were dropped, because the program iterates too slowly. These are publications
   * without a position. The client gets the others from the history when what waits is taken.
   *
   * @returns {number}
   */
  get dropped() {
    return this.#membership.dropped;
  }

  /**
   * Register a handler for an event that is published to this room. It gets the data and the publication.
   * `"*"` gets `(event, data, publication)` of events that have no other handler of this room.
   *
   * @template {Name<E, "receives"> | "*"} K
   * @param {K} event
   * @param {RoomHandler<E, K>} handler
   * @returns {() => void} Removes the handler.
   */
  on(event, handler) {
    const off = register(this.#membership.handlers, event, handler);
    this.#actions.claim();
    return off;
  }

  /**
   * Register a handler that is called when publications are lost: the history does not have them any
   * more. It is called once for each loss, with the position after which the room goes on. Without such a
   * handler, the client logs the loss.
   *
   * @param {(position: Position) => unknown} handler
   * @returns {() => void} Removes the handler.
   */
  onLost(handler) {
    const membership = this.#membership;
    const entry = (/** @type {Position} */ position) => handler(position);
    membership.lostHandlers = [...membership.lostHandlers, entry];
    return () => {
      membership.lostHandlers = membership.lostHandlers.filter((other) => other !== entry);
    };
  }

  /**
   * Register a handler that is called when the server ends the membership, or refuses that the client joins
   * again. It gets the error, as `ended` has it.
   *
   * @param {(error: Error) => unknown} handler
   * @returns {() => void} Removes the handler.
   */
  onLeft(handler) {
    const membership = this.#membership;
    const entry = (/** @type {Error} */ error) => handler(error);
    membership.leftHandlers = [...membership.leftHandlers, entry];
    return () => {
      membership.leftHandlers = membership.leftHandlers.filter((other) => other !== entry);
    };
  }

  /**
   * Who is in the room, if the server tells: a map of ids to infos, which changes as members come and go.
   *
   * @returns {RoomPresence}
   */
  get presence() {
    return this.#membership.presence;
  }

  /**
   * Register a handler that is called with `presence` when the members there have changed. It is not called for the
   * members that are there after the join.
   *
   * @param {(presence: RoomPresence) => unknown} handler
   * @returns {() => void} Removes the handler.
   */
  onPresence(handler) {
    const membership = this.#membership;
    const entry = (/** @type {RoomPresence} */ presence) => handler(presence);
    if (!membership.presence.isKnown && !membership.presence.total) this.#actions.untold();
    membership.presenceHandlers = [...membership.presenceHandlers, entry];
    return () => {
      membership.presenceHandlers = membership.presenceHandlers.filter((other) => other !== entry);
    };
  }

  /**
   * How many members the room has, on all nodes; also if clients are not told who they are. In a room without members,
   * it counts connections.
   *
   * @returns {Promise<number>} Rejects with `RemoteError`: `forbidden`: the client is not a member; and as
   *   `client.request`.
   */
  count() {
    return this.#actions.count();
  }

  /**
   * Publish an event to the room, if the app lets its clients do that.
   *
   * It is sent in the order of the calls. Without a connection it waits for one. In a room with a history, the
   * client repeats it after a lost connection, for up to 4 minutes, and the server publishes it once. You hear
   * it yourself, before its position is there.
   *
   * With `volatile`, it is only sent if that is possible at once, and there is no answer. It is not kept, and
   * members that are behind do not get it.
   *
   * @template {string} K
   * @param {K} event
   * @param {any} [data]
   * @param {EmitOptions} [options]
   * @returns {Promise<Position | null>} The position in the history; null if the room has none, or with `volatile`.
   *   Rejects with `RemoteError`: the server refuses it, such as `forbidden`, or `conflict` for a key that was used
   *   for other data, or the client is no longer in the room; `OutcomeUnknownError`: it may or may not have been
   *   published; `RequestTimeoutError`: there was no connection for 4 minutes; `DisconnectedError`: the client has
   *   ended, and it was not published; what `emit` of the client throws.
   */
  emit(event, data = null, options = {}) {
    return this.#actions.emit(event, data, options);
  }

  /**
   * Read the last publications that the room keeps, the oldest first.
   *
   * @param {HistoryOptions} [options]
   * @returns {Promise<Publication<E>[]>} Rejects with `RemoteError`: `invalid`: the room has no history, or not this
   *   position; `forbidden`: the client is not a member; and as `client.request`.
   */
  history(options = {}) {
    return this.#actions.history(options);
  }

  /**
   * Leave the room. Afterwards, no handler of it is called. If the client has left it already, or is not
   * connected, there is nothing to wait for.
   *
   * @returns {Promise<void>} Rejects with `RemoteError`: the server answers with an error; `RequestTimeoutError`: no
   *   answer in time. The client no longer holds the room even then.
   */
  leave() {
    return this.#actions.leave();
  }

  /**
   * Iterate over the publications, in order, that no handler of the room takes. Once you have begun an
   * iteration, they wait for the next one too. Several iterations share them.
   *
   * At most `maxQueue` publications or `maxQueueBytes` wait. When they are too many, the client gets the
   * rest from the history of the room after the program has taken those. Publications that are not kept
   * there are dropped, logged and counted in `dropped`.
   *
   * The iteration ends after `leave`, and when the program closes the client. If the server ends the
   * membership, or the client ends for good, it throws what `ended` is.
   *
   * @returns {AsyncGenerator<Publication<E>, void, undefined>}
   */
  [Symbol.asyncIterator]() {
    return this.#actions.iterate();
  }
}

/**
 * Add a handler to a map of them.
 *
 * @param {Map<string, Heard[]>} handlers
 * @param {string} event
 * @param {any} call
 * @returns {() => void} Removes the handler.
 */
function register(handlers, event, call) {
  const rest = event === "*";
  /** @type {Heard} */
  const entry = (name, data, context) => (rest ? call(name, data, context) : call(data, context));
  handlers.set(event, [...(handlers.get(event) ?? []), entry]);
  return () => {
    const others = (handlers.get(event) ?? []).filter((other) => other !== entry);
    if (others.length) handlers.set(event, others);
    else handlers.delete(event);
  };
}

/**
 * Knows for which connection a handler of `onOpen` runs: what it sends goes out
 * before the queue, and anything else waits.
 */
class Opening {
  /** @type {any} Follows a handler through whatever it awaits. Browsers have nothing like it. */
  #storage = null;
  /** @type {Link | null} */
  #link = null;

  constructor() {
    const hooks = /** @type {any} */ (globalThis).process?.getBuiltinModule?.("node:async_hooks");
    if (hooks?.AsyncLocalStorage) this.#storage = new hooks.AsyncLocalStorage();
  }

  /** The connection for which the running code was called, if it is known. @returns {Link | null} */
  get link() {
    return this.#storage ? (this.#storage.getStore() ?? null) : this.#link;
  }

  /** @template T @param {Link} link @param {() => T} run @returns {T} */
  run(link, run) {
    if (this.#storage) return this.#storage.run(link, run);
    const before = this.#link;
    this.#link = link;
    try {
      return run();
    } finally {
      this.#link = before;
    }
  }

  /** The code that awaits an answer continues in this turn of the event loop. @param {Link | null} link */
  resume(link) {
    if (!link || link.prepared || this.#storage) return;
    this.#link = link;
    later(() => {
      this.#link = null;
    });
  }
}

/**
 * Wait until a promise has settled.
 *
 * @param {Promise<unknown>} promise
 * @param {number} deadline By `now()`.
 * @param {AbortSignal} [signal]
 * @returns {Promise<boolean>} Whether it has resolved. Rejects with the reason of the signal.
 */
function settles(promise, deadline, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => reject(signal?.reason);
    signal?.addEventListener("abort", abort);
    const seconds = deadline - now();
    const timer = isEndless(seconds) ? undefined : after(seconds, () => resolve(false));
    const settled = (/** @type {boolean} */ has) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      resolve(has);
    };
    promise.then(
      () => settled(true),
      () => settled(false),
    );
  });
}

/** Run in the next turn of the event loop. @param {() => void} action */
function later(action) {
  // Not a timer: those may be slow in a page that is not visible.
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    action();
  };
  port2.postMessage(null);
}

// ---------------------------------------------------------------- settings

const DEFAULTS = {
  protocol: /** @type {"json" | "msgpack"} */ ("json"),
  subprotocols: /** @type {string[]} */ ([]),
  connectTimeout: 10,
  requestTimeout: 10,
  heartbeat: /** @type {number | null} */ (20),
  autoConnect: true,
  reconnect: true,
  backoff: 0.5,
  maxBackoff: 30,
  giveUpAfter: /** @type {number | null} */ (300),
  maxQueue: 1000,
  maxQueueBytes: 16777216,
  debug: false,
};

/** @typedef {ReturnType<typeof settings>} Settings */

/** @param {Options} options */
function settings(options) {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const { token } = options;
  const chosen = { ...DEFAULTS, ...given };
  const { protocol, connectTimeout, requestTimeout, heartbeat, backoff, maxBackoff } = chosen;
  const { giveUpAfter, maxQueue, maxQueueBytes } = chosen;
  if (!["json", "msgpack"].includes(protocol)) {
    throw new RangeError(`protocol must be "json" or "msgpack", not ${protocol}`);
  }
  if (!["undefined", "string", "function"].includes(typeof (token ?? undefined))) {
    throw new TypeError("token must be a string, or a function that returns one");
  }
  checkAbove0({ connectTimeout, requestTimeout });
  if (heartbeat !== null && !(typeof heartbeat === "number" && heartbeat > 0)) {
    throw new RangeError(`heartbeat must be above 0, or null to switch it off, not ${heartbeat}`);
  }
  if (giveUpAfter !== null) checkLeast(0, { giveUpAfter });
  checkLeast(0, { backoff, maxBackoff });
  checkLeast(1, { maxQueue, maxQueueBytes });
  const events = `symphony.v1.${protocol}`;
  const offer = [...new Set([events, ...chosen.subprotocols, RAW, REFUSE, LIMITS])];
  // The URL and the WebSocket are not needed, and perhaps not known, before it connects.
  return { ...chosen, url: "", WebSocket: options.WebSocket, token, events, offer };
}

/** @param {number} least @param {Record<string, unknown>} options */
function checkLeast(least, options) {
  for (const [name, value] of Object.entries(options)) {
    if (typeof value !== "number" || !(value >= least)) {
      throw new RangeError(`${name} must be a number of at least ${least}, not ${value}`);
    }
  }
}

/** @param {Record<string, unknown>} options */
function checkAbove0(options) {
  for (const [name, value] of Object.entries(options)) {
    if (typeof value !== "number" || !(value > 0)) throw new RangeError(`${name} must be above 0, not ${value}`);
  }
}

/** What a relative URL is relative to; undefined outside of pages and workers. @returns {string | undefined} */
function baseUrl() {
  const { location, document } = globalThis;
  const href = location?.href;
  // A worker from a Blob has the origin of its page, and a frame without a URL the base of its parent.
  if (href?.startsWith("blob:")) return new URL(href).origin;
  return href?.startsWith("about:") ? document?.baseURI : href;
}

/** @param {string | URL} url */
function webSocketUrl(url) {
  let absolute;
  try {
    absolute = new URL(url, baseUrl());
  } catch {
    throw new RangeError(`not a URL, or a relative one outside of a page: ${url}`);
  }
  absolute.protocol = absolute.protocol.replace("http", "ws");
  absolute.hash = "";
  if (!/^wss?:$/.test(absolute.protocol)) throw new RangeError(`not the URL of a WebSocket: ${url}`);
  return absolute.href;
}

/** @param {string} event */
function checkName(event) {
  if (typeof event !== "string") throw new TypeError("the name of an event must be a string");
  if (LONE_SURROGATE.test(event)) throw new RangeError(`the name of an event is not text: ${NOT_TEXT}`);
  // In code points. Counted only if it could be too long.
  const length = event.length > MAX_NAME ? [...event].length : event.length;
  if (length === 0 || length > MAX_NAME) {
    throw new RangeError(`the name of an event must have 1 to ${MAX_NAME} characters`);
  }
  if (event === "error") throw new RangeError('the event "error" belongs to Symphony; use another name');
}

/** @param {string} name */
function checkRoom(name) {
  if (typeof name !== "string") throw new TypeError("the name of a room must be a string");
  if (LONE_SURROGATE.test(name)) throw new RangeError(`the name of a room is not text: ${NOT_TEXT}`);
  if (!isText(name, MAX_ROOM_NAME)) {
    throw new RangeError(`the name of a room must have 1 to ${MAX_ROOM_NAME} characters`);
  }
}

/** @param {unknown} since */
function checkSince(since) {
  if (since === null || since === "start" || isPosition(since)) return;
  throw new TypeError('since must be "start", or a position: { epoch: text, offset: integer }');
}

// ---------------------------------------------------------------- client

/**
 * Open a connection that reconnects automatically. It begins at once. Handlers that
 * you register in the same turn of the event loop miss nothing.
 *
 * @template {EventMap} [E=Untyped]
 * @param {string | URL} url May be relative to the page; http and https become ws and wss.
 * @param {Options} [options]
 * @returns {Client<E>}
 * @throws {RangeError} The URL or an option has a value that is not allowed.
 * @throws {TypeError} `token` is of a wrong type, or there is no WebSocket. With `autoConnect: false`, the URL and
 *   the WebSocket are checked by `client.connect()`.
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}

/**
 * A connection to a server, which is opened again when it is lost. `connect` makes
 * one.
 *
 * Messages that you send without a connection wait in a queue. They are sent first,
 * in order, on the next connection. A message sent just before a connection was
 * lost may not have arrived. Use a request if you need to know.
 *
 * @template {EventMap} [E=Untyped]
 */
export class Client {
  #url;
  #settings;
  /** @type {State} */
  #state = "new";
  /** The state that handlers were told last. @type {State | null} */
  #toldState = null;
  /** @type {string | null} */
  #protocol = null;
  /** @type {string | null} */
  #subprotocol = null;
  /** @type {Closed | null} */
  #closed = null;
  /** @type {{ resolve(): void, reject(error: unknown): void }} */
  #openedOrNot = { resolve() {}, reject() {} };
  /** @type {Promise<void>} */
  #opened;
  /** @type {(closed: Closed) => void} */
  #hasEnded = () => {};
  /** @type {Promise<Closed>} */
  #ended;
  #closing = Promise.resolve();

  /** @type {Link | null} */
  #link = null;
  #attempts = 0;
  #refreshed = false;
  /** Whether the server said when to come back, and no attempt has failed without an answer since then. */
  #later = false;
  /** How often in a row it was sent elsewhere. */
  #elsewhere = 0;
  #notBefore = 0;
  #nextAt = 0;
  /** Attempts in a row that opened nothing. */
  #failures = 0;
  /** Connections in a row that were lost at once. */
  #brief = 0;
  /** When messages came that were larger than the WebSocket takes, by `now()`. @type {number[]} */
  #tooLarge = [];
  /** Since when something else than Symphony answers, by `now()`. @type {number | null} */
  #strangeSince = null;
  /** The strange answer that was logged last. */
  #strange = "";
  /** Whether the page is hidden in the cache of the browser: it must not connect. */
  #away = false;
  /** @type {any} */
  #timer;
  #surroundings = new AbortController();

  /** @type {(Message | Call)[]} */
  #queue = [];
  /** Bytes in the queue, and of requests that may be sent again. */
  #heldBytes = 0;
  /** Requests and streams that were sent on this connection. @type {Map<unknown, Call>} */
  #calls = new Map();
  #lastId = 0;

  /** @type {Map<string, Heard[]>} */
  #handlers = new Map();
  /** Whether it has logged that they are not called. */
  #warnedOfHandlers = false;
  /** @type {((state: State) => unknown)[]} */
  #stateHandlers = [];
  /** @type {((connection: any) => unknown)[]} */
  #openHandlers = [];
  #opening = new Opening();
  /** Requests of the server that handlers here work on. @type {Map<number, AbortController>} */
  #answering = new Map();
  /** @type {Inbox<any>} */
  #inbox = new Inbox();
  #complaints = new Complaints();
  /**
   * The rooms that the program has joined, or joins, and those that the server put the client into.
   *
   * @type {Map<string, Membership>}
   */
  #rooms = new Map();
  /** How many of them the server put the client into first. */
  #served = 0;
  /** Whether there may be some of an earlier connection among those. */
  #hasOld = false;
  /** What the client names itself with, next to the keys of what it publishes. @type {string | null} */
  #name = null;
  /** Publications that are not acknowledged. */
  #publishing = 0;
  /** Whether it was logged that there were too many. */
  #toldForgotten = false;
  /** Names of events that came and had no handler. @type {Set<string>} */
  #unheardNames = new Set();

  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, options = {}) {
    this.#url = url;
    this.#settings = settings(options);
    this.#opened = new Promise((resolve, reject) => {
      this.#openedOrNot = { resolve, reject };
    });
    // Without this, a client whose `opened` is never used would be an unhandled rejection.
    this.#opened.catch(() => {});
    this.#ended = new Promise((resolve) => {
      this.#hasEnded = resolve;
    });
    bind(this, Client.prototype);
    if (this.#settings.autoConnect) this.connect();
  }

  /** Vue, Pinia and Alpine do not look into objects that are not plain: there is nothing to watch in a client. */
  get [Symbol.toStringTag]() {
    return "Client";
  }

  /**
   * Connect, if the client was made with `autoConnect: false`. Otherwise it does nothing.
   *
   * @returns {Promise<void>} As `opened`.
   * @throws {RangeError} The URL is not one of a WebSocket.
   * @throws {TypeError} There is no WebSocket.
   * @throws {DisconnectedError} The client has ended for good.
   */
  connect() {
    if (this.#closed) throw this.#disconnected();
    if (this.#state !== "new") return this.#opened;
    const url = webSocketUrl(this.#url);
    const WebSocket = this.#settings.WebSocket ?? globalThis.WebSocket;
    if (!WebSocket) throw new TypeError("there is no global WebSocket: pass one, connect(url, { WebSocket })");
    this.#settings = { ...this.#settings, url, WebSocket };
    this.#state = "connecting";
    this.#watchSurroundings();
    queueMicrotask(() => this.#closed || this.#attempt());
    return this.#opened;
  }

  /**
   * Resolves with the first open connection. Rejects if the client has ended for good
   * before: with `RefusedError` if the server refused it, otherwise with `DisconnectedError`.
   */
  get opened() {
    return this.#opened;
  }

  /** "new" before `connect`, then "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
  get state() {
    return this.#state;
  }

  /** How it ended for good; null before. `refusal` is the error with which the server refused it, or null. */
  get closed() {
    return this.#closed;
  }

  /** "symphony.v1.json", "symphony.v1.msgpack" or "raw", as the server chose; null before the first open. */
  get protocol() {
    return this.#protocol;
  }

  /** The subprotocol that the server chose, `subprotocols` included; null before the first open. */
  get subprotocol() {
    return this.#subprotocol;
  }

  /**
   * Wait until the client has ended for good.
   *
   * @returns {Promise<Closed>} What `closed` is then. It never rejects.
   */
  waitClosed() {
    return this.#ended;
  }

  // -- sending

  /**
   * Send an event. Without a connection it waits in the queue; on a raw route
   * it is `{"event": …, "data": …}` as JSON text.
   *
   * @template {Name<E, "emits">} K
   * @param {K} event
   * @param {OnlyData<Entry<E, "emits", K>>} data Anything that can be encoded; null may be left out.
   * @throws {QueueFullError} `maxQueue` messages or `maxQueueBytes` wait already.
   * @throws {DisconnectedError} The client has ended for good.
   * @throws {TypeError} The data cannot be encoded.
   * @throws {RangeError} The name is empty, too long or "error", or a value in the data cannot be sent, such as NaN.
   * @throws {MessageTooLargeError} The message is larger than the server allows.
   */
  emit(event, ...data) {
    checkName(event);
    this.#put(new Message(event, data[0] ?? null, this.#opening.link));
  }

  /**
   * Send a plain message. On a raw route, text and bytes are sent as they are and
   * anything else as JSON text. On a route with events, it is the event `message`.
   *
   * @param {unknown} message
   * @throws {QueueFullError | DisconnectedError | TypeError | RangeError | MessageTooLargeError} As `emit` does.
   */
  send(message) {
    this.#put(new Message(null, message, this.#opening.link));
  }

  /**
   * Send a request and return its reply. Without a connection the request waits
   * for one. It is sent once, unless it is `idempotent`.
   *
   * @template {Name<E, "requests">} K
   * @param {K} event
   * @param {Arguments<DataOf<Entry<E, "requests", K>>, RequestOptions>} rest Data, then options.
   * @returns {Promise<ReplyOf<Entry<E, "requests", K>>>} Rejects with `RemoteError`: the server answers
   *   with an error; `RequestTimeoutError`: no answer in time; `DisconnectedError`: the connection was lost, and
   *   whether the request was handled is unknown; `WrongRouteError`: the route is raw; what `emit` throws; the reason of
   *   `signal`.
   */
  request(event, ...rest) {
    const [data = null, options = {}] = /** @type {[any?, RequestOptions?]} */ (rest);
    const { timeout = this.#settings.requestTimeout, idempotent, signal } = options;
    return new Promise((resolve, reject) => {
      checkName(event);
      checkAbove0({ timeout });
      /** @type {Call} */
      const call = new Call(event, data, {
        within: this.#opening.link,
        idempotent,
        terms: () => (isEndless(timeout) ? {} : { timeout: Math.min(timeout, Math.max(call.deadline - now(), 0.001)) }),
        heard: (kind, value) => {
          if (kind !== "reply") {
            this.#drop(call, misused(event, "answers with a stream: use client.stream()"));
          } else if (this.#settle(call)) resolve(value);
        },
        failed: reject,
      });
      call.deadline = now() + timeout;
      this.#begin(call, timeout, signal);
    });
  }

  /**
   * Request a stream. Nothing is sent before the iteration begins. Leaving it early
   * cancels the stream at the server. Items that came before an error are returned
   * before it is raised.
   *
   * Iterating raises `RemoteError`: the stream failed at the server; `DisconnectedError`:
   * the connection was lost; `RequestTimeoutError`: no connection within `requestTimeout`;
   * `WrongRouteError`: the route is raw; what `emit` throws; the reason of `signal`, at once.
   *
   * @template {Name<E, "streams">} K
   * @param {K} event
   * @param {Arguments<DataOf<Entry<E, "streams", K>>, StreamOptions>} rest Data, then options.
   * @returns {AsyncGenerator<ItemOf<Entry<E, "streams", K>>, void, undefined>}
   * @throws {TypeError | RangeError} As `emit` for the name; the credit is not from 1 to 2^31 - 1.
   */
  stream(event, ...rest) {
    const [data = null, options = {}] = /** @type {[any?, StreamOptions?]} */ (rest);
    const { credit = 64, signal } = options;
    checkName(event);
    if (!Number.isInteger(credit) || credit < 1 || credit > MAX_CREDIT) {
      throw new RangeError(`credit is a whole number from 1 to ${MAX_CREDIT}, not ${credit}`);
    }
    /** @type {Inbox<any>} */
    const inbox = new Inbox();
    const call = new Call(event, data, {
      within: this.#opening.link,
      terms: () => {
        // The timeout is only for the connection. A stream may take longer.
        clearTimeout(call.timer);
        return { credit };
      },
      heard: (kind, item, bytes) => {
        const { maxQueueBytes } = this.#settings;
        const fits = inbox.size === 0 || inbox.bytes + bytes <= maxQueueBytes;
        if (kind === "item" && inbox.size < credit && fits) inbox.push(item, bytes);
        else if (kind === "item" && fits) this.#drop(call, misused(event, "sends more than was granted"));
        else if (kind === "item") this.#drop(call, unread(event, maxQueueBytes));
        else if (kind === "reply") this.#fail(call, misused(event, "answers with a reply: use client.request()"));
        else if (this.#settle(call)) inbox.end();
      },
      failed: (error) => inbox.fail(error),
    });
    const items = this.#consume(call, inbox, credit, signal);
    // Without this, `return` would wait for the item that was requested last.
    const leave = items.return.bind(items);
    items.return = (value) => {
      inbox.end();
      return leave(value);
    };
    return items;
  }

  /** @param {Call} call @param {Inbox<any>} inbox @param {number} credit @param {AbortSignal} [signal] */
  async *#consume(call, inbox, credit, signal) {
    this.#begin(call, this.#settings.requestTimeout, signal);
    let taken = 0;
    try {
      for await (const item of inbox) {
        signal?.throwIfAborted();
        if (++taken >= credit / 2) {
          const link = this.#link;
          if (link && !call.settled) {
            // A server that sends items whatever was granted may read no grant.
            this.#fits(link);
            link.write({ grant: call.id, credit: taken });
          }
          taken = 0;
        }
        yield item;
      }
    } finally {
      this.#cancel(call);
    }
  }

  /** @param {Call} call @param {number} timeout @param {AbortSignal} [signal] */
  #begin(call, timeout, signal) {
    if (signal?.aborted) return call.failed(signal.reason);
    const abort = () => this.#drop(call, signal?.reason);
    signal?.addEventListener("abort", abort);
    if (!isEndless(timeout)) call.timer = after(timeout, () => this.#drop(call, late(call)));
    call.release = () => {
      clearTimeout(call.timer);
      signal?.removeEventListener("abort", abort);
    };
    try {
      this.#put(call);
    } catch (error) {
      this.#fail(call, error);
    }
  }

  /** @param {Call} call @returns {boolean} Whether it was pending. */
  #settle(call) {
    if (call.settled) return false;
    call.settled = true;
    call.release();
    this.#calls.delete(call.id);
    this.#queue = this.#queue.filter((waiting) => waiting !== call);
    this.#free(call);
    // The code that made the call continues now.
    this.#opening.resume(call.within);
    return true;
  }

  /** It holds no memory any more. @param {Message | Call} item */
  #free(item) {
    this.#heldBytes -= item.bytes;
    item.bytes = 0;
  }

  /** @param {Call | undefined} call @param {unknown} error */
  #fail(call, error) {
    if (call && this.#settle(call)) call.failed(error);
  }

  /** Cancel a call. @param {Call} call */
  #cancel(call) {
    if (this.#calls.has(call.id)) this.#link?.write({ cancel: call.id });
    return this.#settle(call);
  }

  /** @param {Call} call @param {unknown} error */
  #drop(call, error) {
    if (this.#cancel(call)) call.failed(error);
  }

  /** Send now, or queue. @param {Message | Call} item */
  #put(item) {
    if (this.#closed) throw this.#disconnected();
    const { maxQueue, maxQueueBytes, protocol } = this.#settings;
    const link = this.#link;
    const { within } = item;
    // While handlers of `onOpen` run, only they send.
    const takes = link !== null && link.takes && (link.prepared || within === link);
    if (within && !within.prepared && !(takes && within === link)) {
      throw new DisconnectedError("the connection for which onOpen was called has ended");
    }
    // It must not overtake those that wait.
    if (item instanceof Call && item.room) item.waits = !item.room.member && this.#waiting(item.room).length > 0;
    const isSent = takes && !item.waits;
    // A snapshot: if the caller changes the object later, that must not change the message.
    if (!isSent || item.idempotent) {
      const what = item instanceof Call ? item.what : item.event === null ? "the message" : `"${item.event}"`;
      const { data, bytes } = encoding(() => snapshot(item.data, protocol), what, item.data, protocol);
      if (this.#heldBytes + bytes > maxQueueBytes) {
        throw new QueueFullError(`${this.#heldBytes} bytes wait for a connection, and ${maxQueueBytes} may`);
      }
      if (!isSent && this.#queue.length >= maxQueue) {
        throw new QueueFullError(`${maxQueue} messages wait for a connection`);
      }
      item.data = data;
      item.bytes = bytes;
      this.#heldBytes += bytes;
    }
    if (!isSent) this.#queue.push(item);
    else {
      try {
        if (link.unsentBytes > maxQueueBytes) throw new QueueFullError(FULL);
        this.#write(link, item);
      } catch (error) {
        this.#free(item);
        throw error;
      }
    }
  }

  /** @param {Link} link @param {Message | Call} item */
  #write(link, item) {
    const { event, data } = item;
    if (item instanceof Call) {
      const has = item.verb === "event" ? "requests; use client.send()" : "rooms";
      if (link.raw) throw new WrongRouteError(`this route is raw and has no ${has}`);
      item.id = ++this.#lastId;
      item.sent = true;
      item.refusal = null;
      link.write(item.envelope());
      this.#calls.set(item.id, item);
      if (item.idempotent) return;
      item.data = null;
    } else if (event !== null) link.write({ event, data });
    else if (!link.raw) link.write({ event: "message", data });
    else if (typeof data === "string") link.send(encoding(() => checkText(data), "the message", data, "json"));
    else link.send(asBytes(data) ?? json.encode(data));
    this.#free(item);
  }

  // -- rooms

  /**
   * Join a room, and stay in it: the client joins again on every connection, and gets the publications
   * that it has missed, if the room has a history. Without a connection, the join waits for one.
   *
   * Joining a room that the client holds returns the same handle. Within a handler of `onOpen` it joins
   * the room again at once.
   *
   * @param {string} name
   * @param {JoinOptions} [options]
   * @returns {Promise<Room<E>>} Rejects with `RemoteError`: the server refuses it; `RequestTimeoutError`: no answer in
   *   time, and the room is not held; `WrongRouteError`: the route is raw; `DisconnectedError`: the client has ended for
   *   good; what `emit` throws for the name; the reason of `signal`.
   */
  async join(name, options = {}) {
    const { since = null, timeout = this.#settings.requestTimeout, signal } = options;
    checkRoom(name);
    checkSince(since);
    checkAbove0({ timeout });
    if (this.#closed) throw this.#disconnected();
    const { link } = this.#opening;
    const within = link && !link.prepared ? link : null;
    if (within && within !== this.#link) {
      throw new DisconnectedError("the connection for which onOpen was called has ended");
    }
    const deadline = now() + timeout;
    let known = this.#rooms.get(name);
    while (known && !known.room && known.pending && !known.leaving) {
      // Otherwise a handler of `onOpen` would wait for what waits for it.
      if (within && known.call && this.#queue.includes(known.call)) this.#sendNow(within, known.call);
      // If that join fails, this one is tried.
      if (await settles(known.pending, deadline, signal)) break;
      if (now() >= deadline) throw new RequestTimeoutError(`the join of "${name}" was not answered in time`);
      known = this.#rooms.get(name);
    }
    if (!known?.room || known.leaving) {
      const from = since && since !== "start" ? copied(since) : since;
      return this.#join(name, { since: from, timeout: Math.min(timeout, Math.max(deadline - now(), 0.001)), signal, within });
    }
    if (within && !known.live) await (known.asked ? known.answered : this.#rejoin(within, known));
    if (within && within === this.#link) this.#opening.resume(within);
    return known.room;
  }

  /**
   * @param {string} name
   * @param {object} how
   * @param {Position | "start" | null} how.since
   * @param {number} how.timeout
   * @param {AbortSignal} [how.signal]
   * @param {Link | null} how.within The connection, if a handler of `onOpen` joins.
   * @returns {Promise<Room<E>>}
   */
  #join(name, { since, timeout, signal, within }) {
    const known = this.#rooms.get(name);
    if (known?.leaving) this.#forget(known);
    const membership = this.#rooms.get(name) ?? new Membership(name);
    this.#rooms.set(name, membership);
    membership.holding = membership.fresh = true;
    membership.wanted = since;
    /** @type {(room: Room<any>) => void} */
    let resolve = () => {};
    /** @type {(error: unknown) => void} */
    let reject = () => {};
    const pending = new Promise((...both) => {
      [resolve, reject] = both;
    });
    const call = new Call(name, null, {
      verb: "join",
      within,
      idempotent: true,
      terms: () => {
        // The server may have put the client into the room, or have answered on a connection before this one.
        const from = membership.wanted ?? membership.position;
        this.#asks(membership, from);
        const left = Math.min(timeout, Math.max(call.deadline - now(), 0.001));
        return { ...(from && { since: from }), ...(isEndless(timeout) ? {} : { timeout: left }) };
      },
      heard: (kind) => {
        if (kind !== "reply") this.#drop(call, misused(name, "is answered with a stream"));
        else if (membership.left) this.#fail(call, membership.left);
        else if (this.#settle(call)) resolve(this.#hold(membership));
      },
      failed: (error) => {
        this.#unjoined(membership, error);
        reject(error);
      },
    });
    // Before it begins: it may fail at once.
    membership.pending = pending;
    membership.call = call;
    call.deadline = now() + timeout;
    this.#begin(call, timeout, signal);
    return pending;
  }

  /** A join goes out. @param {Membership} membership @param {Position | "start" | null} since */
  #asks(membership, since) {
    membership.pause();
    membership.asked = true;
    membership.since = since;
    membership.left = null;
    membership.behind = false;
  }

  /** The program has joined. @param {Membership} membership @returns {Room<any>} */
  #hold(membership) {
    membership.asked = false;
    membership.pending = membership.call = null;
    membership.live = true;
    // Its handlers are registered in this turn.
    later(() => this.#release(membership));
    membership.room = new Room(membership, {
      leave: () => (membership.leaving ??= this.#leaveRoom(membership)),
      claim: () => this.#claim(membership),
      iterate: () => this.#iterate(membership),
      emit: (event, data, options) => this.#publish(membership, event, data, options),
      history: (options) => this.#history(membership, options),
      count: () => this.#count(membership),
      untold: () => {
        const line = `symphony: the server does not tell who is in "${printable(membership.name)}"`;
        this.#complaints.warn("untold", `${line}, so no handler of onPresence is called. It does in rooms with presence=True`);
      },
    });
    return membership.room;
  }

  /** A join of the program has failed. @param {Membership} membership @param {unknown} error */
  #unjoined(membership, error) {
    const { name, asked, served, member, news } = membership;
    membership.pending = membership.call = membership.wanted = null;
    membership.asked = membership.holding = membership.fresh = false;
    membership.news = new Inbox();
    membership.beginning = null;
    if (served && member) {
      // It is as before. What waited for the program comes again, if it can.
      membership.restart(membership.position);
      membership.live = true;
      for (let next = news.take(); next; next = news.take()) {
        const arrival = "lost" in next.item ? next.item.snapshot : next.item;
        if (arrival?.position === null) this.#pass(membership, arrival);
      }
    } else this.#forget(membership);
    // The server may have let the client in meanwhile.
    const isUnknown = asked && !served && !(error instanceof RemoteError);
    if (isUnknown && this.#link?.takes) this.#askToLeave(this.#link, name).catch(() => {});
  }

  /** Send what waits in the queue before a handler of `onOpen` goes on. @param {Link} link @param {Call} call */
  #sendNow(link, call) {
    this.#queue = this.#queue.filter((waiting) => waiting !== call);
    try {
      this.#write(link, call);
    } catch (error) {
      this.#fail(call, error);
    }
  }

  /**
   * Join a room again, on this connection, after the last publication that was handled.
   *
   * @param {Link} link
   * @param {Membership} membership
   * @returns {Promise<void>} Rejects with the error. It may be ignored.
   */
  #rejoin(link, membership) {
    const { name } = membership;
    const { requestTimeout: timeout } = this.#settings;
    const since = membership.position;
    this.#asks(membership, since);
    /** @type {Promise<void>} */
    const answered = new Promise((resolve, reject) => {
      const call = new Call(name, null, {
        verb: "join",
        within: link,
        terms: () => ({ ...(since && { since }), ...(isEndless(timeout) ? {} : { timeout }) }),
        heard: (kind) => {
          if (kind !== "reply") return this.#drop(call, misused(name, "is answered with a stream"));
          if (membership.left) return this.#fail(call, membership.left);
          if (!this.#settle(call)) return;
          membership.asked = false;
          membership.live = true;
          resolve();
        },
        failed: (error) => {
          this.#notRejoined(link, membership, error);
          reject(error);
        },
      });
      call.deadline = now() + timeout;
      this.#begin(call, timeout);
    });
    answered.catch(() => {});
    membership.answered = answered;
    return answered;
  }

  /** @param {Link} link @param {Membership} membership @param {any} error */
  #notRejoined(link, membership, error) {
    // The next connection joins again. Or it was left, or joined anew.
    if (this.#link !== link || membership.leaving || this.#rooms.get(membership.name) !== membership) return;
    membership.pause();
    const refusal = error instanceof RemoteError ? error : null;
    const isFinal = refusal ? !refusal.retryable || refusal === membership.left : error instanceof WrongRouteError;
    if (!isFinal) return this.#rejoinLater(link, membership, refusal?.retryAfter ?? null);
    const why = refusal ? `${refusal.code}: ${refusal.message}` : error.message;
    const { room } = membership;
    const then = room ? "It does not hold the room any more" : "It does not get what it has missed there";
    const line = `symphony: the client could not join "${printable(membership.name)}" again: ${why}. ${then}`;
    this.#complaints.warn("room", line);
    if (room) this.#remove(membership, error);
    else this.#forget(membership);
  }

  /**
   * Join again after a while, as long as the connection lasts.
   *
   * @param {Link} link
   * @param {Membership} membership
   * @param {number | null} retryAfter Seconds that the server asked for.
   */
  #rejoinLater(link, membership, retryAfter) {
    const { backoff, maxBackoff } = this.#settings;
    const growths = Math.min(membership.failures++, MAX_GROWTHS);
    const bound = Math.min(maxBackoff, backoff * GROWTH ** growths);
    const seconds = Math.min(retryAfter ?? 0, MAX_RETRY) + Math.random() * bound;
    membership.pause();
    membership.timer = after(seconds, () => {
      membership.timer = null;
      if (this.#link === link && link.takes) this.#rejoin(link, membership);
    });
  }

  /** @param {Link} link @param {any} envelope @param {number} bytes */
  #joined(link, envelope, bytes) {
    const { joined: name } = envelope;
    const recovered = envelope.recovered ?? null;
    const told = (envelope.position ?? null) === null ? null : copied(envelope.position);
    const membership = this.#rooms.get(name) ?? (told && this.#serve(name));
    const snapshot = snapshotOf(envelope, bytes);
    if (!membership) return void (snapshot && this.#event(snapshot.event, snapshot.data));
    membership.member = true;
    this.#resume(link, membership);
    if ((envelope.members ?? null) !== null) this.#show(membership, membership.roster.restart(envelope.members));
    const { asked, room, pending, since, tip, wanted } = membership;
    // The answer to the join that is on its way, or about to be sent, names the position.
    const ignores = asked ? since !== null : (room && !membership.live) || (pending && (wanted ?? tip));
    if (membership.leaving || (ignores && recovered === null)) return;
    membership.left = null;
    if (recovered !== null) this.#beginRoom(membership, this.#answered(membership, told, recovered), snapshot);
    else if (told && tip && !isSame(told, tip)) {
      if (link.takes) this.#rejoin(link, membership);
    } else {
      membership.last = membership.tip = told;
      membership.live = true;
      if (asked) membership.recovered = null;
      this.#beginRoom(membership, null, snapshot);
    }
  }

  /**
   * The server has answered a join with a position.
   *
   * @param {Membership} membership
   * @param {Position | null} told
   * @param {boolean} recovered
   * @returns {Position | null} That position, if publications are lost.
   */
  #answered(membership, told, recovered) {
    if (membership.wanted !== null) {
      // The server may have put the client into the room, at another position.
      membership.restart(membership.wanted === "start" ? null : membership.wanted);
      membership.wanted = null;
    }
    const { tip } = membership;
    membership.live = true;
    membership.joinedAt = now();
    membership.recovered = recovered;
    membership.last = told;
    const isSameEpoch = told?.epoch === tip?.epoch;
    if (told === null) {
      membership.tip = null;
      const line = `symphony: "${printable(membership.name)}" has no history any more`;
      if (tip) this.#complaints.warn("lost", `${line}: what came after the offset ${tip.offset} is lost`);
    } else if (tip === null) {
      membership.tip = told;
      if (!recovered) return told;
    } else if (isSame(told, tip) || (recovered && isSameEpoch && told.offset <= tip.offset)) {
      // What was taken is complete, even if the history does not have it any more.
      membership.recovered = true;
    } else if (recovered && !isSameEpoch) {
      // The history goes on in another epoch, in which what was taken may be different.
      membership.restart(told);
    } else {
      membership.recovered = false;
      return told;
    }
    return null;
  }

  /** The members of a room have changed. @param {any} envelope */
  #presence({ presence: name, members = null, diff = null }) {
    const membership = this.#rooms.get(name);
    if (!membership) return;
    if (members !== null) this.#show(membership, membership.roster.restart(members));
    else if (diff !== null) this.#show(membership, membership.roster.take(diff));
  }

  /** @param {Membership} membership @param {boolean} changed Whether what was said has changed its members. */
  #show(membership, changed) {
    const { room, pending, leaving, ended, presence, presenceHandlers } = membership;
    // Others have them from the join of the program on.
    if (leaving || ended || !(room || pending)) return;
    if (changed) for (const handler of presenceHandlers) guard(`presence ${membership.name}`, () => handler(presence));
    if (membership.roster.missed && !membership.isReading) this.#reread(membership);
  }

  /** Read all members of a room, because a change is missing. @param {Membership} membership */
  async #reread(membership) {
    const { name, roster } = membership;
    membership.isReading = true;
    try {
      // If the answer is older, only another change could be a reason to ask again.
      for (let last = null; roster.missed && roster.missed !== last; ) {
        last = roster.missed;
        // It is not one of a handler of `onOpen`.
        await this.#ask("presence", name, { timeout: Infinity, within: null }, (state) => {
          if (!isMembersState(state)) throw new RemoteError("invalid", "the answer is not a list of members");
          this.#show(membership, roster.restart(state));
        });
      }
    } catch (error) {
      if (error instanceof DisconnectedError) return;
      const line = `symphony: a change of the members of "${printable(name)}" is missing, and they cannot be read`;
      const why = `${error instanceof RemoteError ? `${error.code}: ` : ""}${/** @type {any} */ (error).message}`;
      this.#complaints.warn("presence", `${line}: ${printable(why)}. The client tries it again at the next change`);
    } finally {
      membership.isReading = false;
    }
  }

  /** @param {Membership} membership @returns {Promise<number>} */
  async #count(membership) {
    this.#checkHeld(membership);
    const { requestTimeout: timeout } = this.#settings;
    return this.#ask("count", membership.name, { timeout, within: this.#opening.link }, (count) => {
      if (!isId(count)) throw new RemoteError("invalid", "the server's answer is not a number of members");
      return count;
    });
  }

  /**
   * Ask about the members of a room. If the connection is lost, it is asked again on the next one.
   *
   * @param {"presence" | "count"} verb
   * @param {string} name
   * @param {{ timeout: number, within: Link | null }} how As of `Call`.
   * @param {(answer: any) => any} take Called with the answer, before anything that the server sends after it.
   * @returns {Promise<any>} What `take` returns.
   */
  #ask(verb, name, { timeout, within }, take) {
    return new Promise((resolve, reject) => {
      /** @type {Call} */
      const call = new Call(name, null, {
        verb,
        within,
        idempotent: true,
        terms: () => (isEndless(timeout) ? {} : { timeout: Math.min(timeout, Math.max(call.deadline - now(), 0.001)) }),
        heard: (kind, value) => {
          if (kind !== "reply") this.#drop(call, misused(name, "is answered with a stream"));
          else if (this.#settle(call)) {
            try {
              resolve(take(value));
            } catch (error) {
              reject(error);
            }
          }
        },
        failed: reject,
      });
      call.deadline = now() + timeout;
      this.#begin(call, timeout);
    });
  }

  /** @param {string} name @returns {Membership} A new one, for a room that the server put the client into. */
  #serve(name) {
    if (this.#served >= MAX_REMEMBERED_ROOMS) this.#forgetOld();
    const membership = new Membership(name);
    membership.served = true;
    this.#served++;
    this.#rooms.set(name, membership);
    return membership;
  }

  /** Make room for another one. */
  #forgetOld() {
    /** @type {Membership | null} */
    let oldest = null;
    for (const other of this.#rooms.values()) {
      if (!other.served || other.room || other.pending) continue;
      oldest ??= other;
      if (this.#hasOld && other.member) continue;
      // One of an earlier connection, into which the server has not put the client again, goes first.
      oldest = other;
      break;
    }
    if (oldest?.member) this.#hasOld = false;
    if (oldest) this.#forget(oldest);
    if (this.#toldForgotten) return;
    this.#toldForgotten = true;
    const line = `symphony: the server put the client into more than ${MAX_REMEMBERED_ROOMS} rooms`;
    console.warn(`${line}. The client forgets the positions of the oldest ones, and cannot recover these`);
  }

  /** @param {Membership} membership */
  #forget(membership) {
    membership.pause();
    if (this.#rooms.get(membership.name) !== membership) return;
    this.#rooms.delete(membership.name);
    if (membership.served) this.#served--;
  }

  /** @param {string} name @param {any} data The error that says why. */
  #left(name, data) {
    const membership = this.#rooms.get(name);
    if (!membership) return;
    const error = errorIn(data) ?? new RemoteError("left", "the server has ended the membership");
    membership.member = membership.live = false;
    membership.last = null;
    if (membership.asked || membership.leaving) {
      // The answer says what follows from it.
      membership.left = error;
      return;
    }
    if (membership.pending) return;
    if (!membership.room) return this.#forget(membership);
    const line = `symphony: the server put the client out of "${printable(name)}"`;
    this.#complaints.warn("room", `${line}: ${error.code}: ${error.message}`);
    this.#remove(membership, error);
  }

  /** Publications of a room will not come. @param {any} envelope @param {number} bytes */
  #lostSome(envelope, bytes) {
    const membership = this.#rooms.get(envelope.lost);
    // What comes before the answer to a join is about what that answer replaces.
    if (!membership?.live || membership.leaving) return;
    this.#beginRoom(membership, copied(envelope.position), snapshotOf(envelope, bytes));
  }

  /**
   * Tell the program that a room begins, or goes on after a loss.
   *
   * @param {Membership} membership
   * @param {Position | null} lost After which position; null: nothing is lost.
   * @param {Arrival | null} snapshot
   */
  #beginRoom(membership, lost, snapshot) {
    const { news, holding, iterations, iterated, beginning } = membership;
    if (lost) membership.last = membership.tip = lost;
    if (!lost && !snapshot) return;
    const waits = holding || iterations || (snapshot && iterated);
    if (!waits) return this.#tellBeginning(membership, { lost, snapshot });
    // In order with the publications. Two without a publication between them are one.
    const bytes = snapshot?.bytes ?? 0;
    if (!beginning) news.push((membership.beginning = { lost, snapshot }), bytes);
    else {
      Object.assign(beginning, { lost: lost ?? beginning.lost, snapshot });
      news.resize(bytes);
    }
  }

  /** @param {Membership} membership @param {Beginning} beginning */
  #tellBeginning(membership, beginning) {
    this.#tellLost(membership, beginning);
    if (beginning.snapshot && !membership.leaving) this.#pass(membership, beginning.snapshot);
  }

  /** @param {Membership} membership @param {Beginning} beginning */
  #tellLost({ name, lostHandlers, leaving }, { lost: position, snapshot }) {
    if (leaving || !position) return;
    for (const handler of lostHandlers) guard(`lost in ${name}`, () => handler(copied(position)));
    if (lostHandlers.length || snapshot) return;
    const line = `symphony: publications of "${printable(name)}" were lost: it goes on after the offset`;
    this.#complaints.warn("lost", `${line} ${position.offset}`);
  }

  /** @param {Link} link @param {any} envelope A publication. @param {number} bytes */
  #published(link, envelope, bytes) {
    const { event, room: name, data = null } = envelope;
    const membership = this.#rooms.get(name);
    if (!membership) return void this.#event(event, data);
    if (membership.leaving) return;
    const offset = envelope.offset ?? null;
    const epoch = envelope.epoch ?? membership.last?.epoch ?? null;
    const replaces = (envelope.replaces ?? null) === null ? null : copied(envelope.replaces);
    if (offset === null || (membership.live && epoch === null)) {
      this.#deliver(membership, { event, data, position: null, replaces, mark: null, bytes });
      return;
    }
    // Otherwise it comes again.
    if (!membership.live) return;
    const { last } = membership;
    const position = { epoch, offset };
    const verdict = membership.follow(position, envelope.after ?? null);
    if (verdict === "gap") return this.#gap(link, membership);
    if (verdict === "had") return;
    const mark = membership.begin(position);
    if (this.#deliver(membership, { event, data, position, replaces, mark, bytes })) return;
    membership.giveBack(mark);
    membership.last = last;
    membership.live = false;
    membership.behind = true;
  }

  /**
   * An offset is missing. That is a fault of the server, but its history may have it.
   *
   * @param {Link} link
   * @param {Membership} membership
   */
  #gap(link, membership) {
    const name = printable(membership.name);
    this.#complaints.warn("gap", `symphony: publications of "${name}" are missing; the client joins it again to get them`);
    if (now() - membership.joinedAt > LASTING) membership.failures = 0;
    membership.pause();
    if (!link.takes) return;
    if (membership.failures) return this.#rejoinLater(link, membership, null);
    membership.failures++;
    this.#rejoin(link, membership);
  }

  /** @param {Membership} membership @param {Arrival} arrival @returns {boolean} False if it must come again. */
  #deliver(membership, arrival) {
    return membership.holding ? this.#queueNews(membership, arrival) : this.#pass(membership, arrival);
  }

  /**
   * Give a publication to what takes it.
   *
   * @param {Membership} membership
   * @param {Arrival} arrival
   * @param {boolean} [hasWaited] Whether it had its place.
   * @returns {boolean} As `#deliver`.
   */
  #pass(membership, arrival, hasWaited = false) {
    const { event, data, mark } = arrival;
    /** @type {Promise<void>[]} */
    const jobs = [];
    const own = membership.heardBy(event);
    if (!own.length) {
      const { iterated, fresh } = membership;
      const waits = iterated || (fresh && !this.#heardBy(event).length);
      if (waits) return this.#queueNews(membership, arrival, hasWaited);
      this.#event(event, data, jobs);
    }
    for (const handler of own) jobs.push(guard(event, () => handler(event, data, published(arrival))));
    if (mark) mark.left = jobs.length;
    for (const job of jobs) job.then(() => membership.done(mark));
    if (!jobs.length) membership.done(mark);
    return true;
  }

  /** @param {Membership} membership @param {Arrival} arrival @param {boolean} [hasWaited] */
  #queueNews(membership, arrival, hasWaited = false) {
    const { news, fresh, holding, name } = membership;
    if (hasWaited || this.#hasPlace(membership, arrival.bytes)) {
      membership.beginning = null;
      news.push(arrival, arrival.bytes);
      return true;
    }
    if (fresh && !holding) {
      this.#giveUp(membership);
      return this.#pass(membership, arrival);
    }
    const line = `symphony: ${news.size} publications of "${printable(name)}" wait and are not taken`;
    if (arrival.position !== null) {
      this.#complaints.warn("behind", `${line}. The client gets the next ones from the history when they are`);
      return false;
    }
    membership.dropped++;
    this.#complaints.warn("dropped", `${line}. ${membership.dropped} without a position were dropped so far`);
    return true;
  }

  /** @param {Membership} membership @param {number} bytes @returns {boolean} Whether one more may wait. */
  #hasPlace({ news }, bytes) {
    const { maxQueue, maxQueueBytes } = this.#settings;
    return news.size < maxQueue && (news.size === 0 || news.bytes + bytes <= maxQueueBytes);
  }

  /** Drop what waits for a program that takes it in no way. @param {Membership} membership */
  #giveUp(membership) {
    const { news, name } = membership;
    membership.fresh = false;
    membership.news = new Inbox();
    const why = "there is no handler for them, and no iteration";
    this.#complaints.warn("given up", `symphony: ${news.size} publications of "${printable(name)}" were dropped: ${why}`);
    for (let next = news.take(); next; next = news.take()) {
      if ("lost" in next.item) this.#tellLost(membership, next.item);
      else membership.done(next.item.mark);
    }
    membership.beginning = null;
  }

  /** The program registers a handler. @param {Membership} membership */
  #claim(membership) {
    if (!membership.fresh) return;
    membership.fresh = false;
    if (membership.holding) return;
    membership.holding = true;
    // It may register more of them in this turn.
    later(() => this.#release(membership));
  }

  /** The program has had its turn: pass on what waits. @param {Membership} membership */
  #release(membership) {
    const { news, iterations, iterated } = membership;
    membership.holding = false;
    // What still waits then is queued again, in order.
    for (let left = news.size; left > 0; left--) {
      const item = membership.take();
      if (item === undefined) break;
      if ("lost" in item) {
        if (iterations) news.push(item, item.snapshot?.bytes ?? 0);
        else this.#tellBeginning(membership, item);
      } else if (membership.waits(item) && !membership.leaving) this.#pass(membership, item, true);
    }
    if (membership.ended) this.#tellLeft(membership);
    if (membership.behind && !iterated) {
      if (!this.#hasPlace(membership, 0)) this.#giveUp(membership);
      this.#catchUp(membership);
    }
    membership.news.wake();
  }

  /** @param {Membership} membership @returns {AsyncGenerator<any, void, undefined>} */
  #iterate(membership) {
    membership.fresh = false;
    membership.iterated = true;
    const state = { left: false };
    const items = this.#publications(membership, state);
    // Without this, `return` would wait for the next publication.
    const leave = items.return.bind(items);
    items.return = (value) => {
      state.left = true;
      membership.news.wake();
      return leave(value);
    };
    return items;
  }

  /** @param {Membership} membership @param {{ left: boolean }} state Whether the iteration was left. */
  async *#publications(membership, state) {
    membership.iterations++;
    try {
      while (!state.left) {
        const item = membership.holding ? undefined : membership.take();
        if (item && "lost" in item) {
          this.#tellLost(membership, item);
          if (item.snapshot) yield published(item.snapshot);
        } else if (item && membership.waits(item)) {
          try {
            yield published(item);
          } finally {
            membership.done(item.mark);
          }
        } else if (item === undefined && membership.ended && !membership.holding) {
          if (membership.quiet) return;
          throw membership.ended;
        } else if (item === undefined) {
          this.#catchUp(membership);
          await membership.news.changed();
        }
      }
    } finally {
      membership.iterations--;
    }
  }

  /** What did not fit may come now. @param {Membership} membership */
  #catchUp(membership) {
    const { behind, asked, timer, room, leaving, ended } = membership;
    const link = this.#link;
    if (!behind || !room || leaving || ended) return;
    // It comes anyway if a join is on its way or will be, as on the next connection.
    if (!asked && timer === null && link?.takes && link.prepared) this.#rejoin(link, membership);
  }

  /**
   * @param {Membership} membership
   * @param {string} event
   * @param {any} data
   * @param {EmitOptions} options
   * @returns {Promise<Position | null>}
   */
  async #publish(membership, event, data, { key, volatile = false }) {
    checkName(event);
    checkKey(key, volatile);
    this.#checkHeld(membership);
    const { name: room, tip, member } = membership;
    if (volatile) {
      const link = this.#link;
      // Before it is a member again, the server would refuse it. What waits in a slow connection would be late.
      const isIdle = this.#queue.every((item) => item.waits);
      const isClear = link?.takes && link.prepared && link.unsentBytes <= SMALL_BYTES && isIdle;
      if (isClear && member) link.write({ publish: event, data, room });
      return null;
    }
    if (key !== undefined && tip === null) throw new RangeError(`"${room}" has no history that could remember a key`);
    // What may be sent again must not change.
    const terms = { room, ...(tip && { key: key ?? randomText(), client: (this.#name ??= randomText()) }) };
    if (this.#publishing >= this.#settings.maxQueue) {
      throw new QueueFullError(`${this.#publishing} publications wait for the server to acknowledge them`);
    }
    this.#publishing++;
    try {
      return await new Promise((resolve, reject) => {
        /** @type {Call} */
        const call = new Call(event, data, {
          verb: "publish",
          within: this.#opening.link,
          idempotent: tip !== null,
          terms: () => terms,
          heard: (kind, value) => {
            if (kind !== "reply") this.#drop(call, misused(event, "is answered with a stream"));
            else if (this.#settle(call)) {
              if (value === null || isPosition(value)) resolve(value && copied(value));
              else reject(new RemoteError("invalid", "the server's answer is not a position"));
            }
          },
          failed: (error) => reject(outcome(call, error)),
        });
        call.room = membership;
        call.deadline = now() + PUBLISH_TIMEOUT;
        this.#begin(call, PUBLISH_TIMEOUT);
      });
    } finally {
      this.#publishing--;
    }
  }

  /** @param {Membership} membership @param {HistoryOptions} options @returns {Promise<any[]>} */
  async #history(membership, { limit = 100, before = null }) {
    checkLeast(1, { limit });
    if (before !== null && !isPosition(before)) throw new TypeError("before must be a position");
    this.#checkHeld(membership);
    const { requestTimeout: timeout } = this.#settings;
    const { name } = membership;
    /** @type {any[]} */
    let found = [];
    for (let first = before, more = true; more && found.length < limit; ) {
      const rest = limit - found.length;
      const asked = first;
      const page = await new Promise((resolve, reject) => {
        /** @type {Call} */
        const call = new Call(name, null, {
          verb: "history",
          within: this.#opening.link,
          idempotent: true,
          terms: () => ({ ...(isEndless(timeout) ? {} : { timeout }), limit: rest, ...(asked && { before: copied(asked) }) }),
          heard: (kind, value) => {
            if (kind !== "reply") this.#drop(call, misused(name, "is answered with a stream"));
            else if (this.#settle(call)) resolve(value);
          },
          failed: reject,
        });
        call.deadline = now() + timeout;
        this.#begin(call, timeout);
      });
      const kept = page?.publications;
      if (!Array.isArray(kept) || !kept.every(({ event, position }) => typeof event === "string" && isPosition(position))) {
        throw new RemoteError("invalid", `the server's answer is not a history of "${name}"`);
      }
      if (!kept.length) break;
      found = [...kept.map(({ event, data, position, replaces = null }) => published({ event, data, position, replaces })), ...found];
      first = kept[0].position;
      more = page.more === true;
    }
    return found;
  }

  /** @param {Membership} membership */
  #checkHeld({ ended, leaving }) {
    if (ended) throw ended;
    if (leaving) throw new RemoteError("left", "the client leaves the room");
  }

  /** What waits until the client is in a room again, in order. @param {Membership} membership @returns {Call[]} */
  #waiting(membership) {
    const all = [...this.#calls.values(), ...this.#queue];
    return /** @type {Call[]} */ (all.filter((item) => item.waits && /** @type {Call} */ (item).room === membership));
  }

  /** The client is in a room again: publish what waits for that. @param {Link} link @param {Membership} membership */
  #resume(link, membership) {
    const waiting = this.#waiting(membership);
    for (const call of waiting) {
      call.waits = false;
      this.#calls.delete(call.id);
    }
    const isNow = (/** @type {Call} */ { within }) => link.takes && (link.prepared || within === link);
    this.#queue = [...waiting, ...this.#queue.filter((item) => !waiting.includes(/** @type {Call} */ (item)))];
    for (const call of waiting.filter(isNow)) this.#sendNow(link, call);
  }

  /** What waits to be published to a room will not be. @param {Membership} membership @param {Error} error */
  #withdraw(membership, error) {
    for (const item of new Set([...this.#queue, ...this.#waiting(membership)])) {
      // One that was sent on an earlier connection waits to be sent again.
      if (item instanceof Call && item.room === membership) this.#fail(item, item.sent ? unknown(item, error) : error);
    }
  }

  /** @param {Membership} membership */
  async #leaveRoom(membership) {
    const { name, asked, member, ended } = membership;
    if (ended) return;
    this.#withdraw(membership, new RemoteError("left", "the client has left the room"));
    clearTimeout(membership.timer);
    const link = this.#link;
    // A membership ends with its connection.
    const isMember = asked || member;
    try {
      if (link?.takes && isMember) await this.#askToLeave(link, name);
      // Until a server that stops has closed the connection, what it sends is dropped.
      if (!link?.stopping || !isMember) this.#forget(membership);
    } catch (error) {
      if (!(error instanceof DisconnectedError)) throw error;
    } finally {
      this.#endRoom(membership, membership.left ?? new RemoteError("left", "the client has left the room"), true);
    }
  }

  /** @param {Link} link @param {string} name @returns {Promise<void>} */
  #askToLeave(link, name) {
    const { requestTimeout: timeout } = this.#settings;
    return new Promise((resolve, reject) => {
      const call = new Call(name, null, {
        verb: "leave",
        within: link,
        terms: () => (isEndless(timeout) ? {} : { timeout }),
        heard: (kind) => {
          if (kind !== "reply") this.#drop(call, misused(name, "is answered with a stream"));
          else if (this.#settle(call)) resolve();
        },
        failed: reject,
      });
      call.deadline = now() + timeout;
      this.#begin(call, timeout);
    });
  }

  /** The server has ended a membership. @param {Membership} membership @param {Error} error */
  #remove(membership, error) {
    this.#forget(membership);
    this.#endRoom(membership, error, false);
    // After the publications.
    if (!membership.holding) this.#tellLeft(membership);
  }

  /** @param {Membership} membership */
  #tellLeft(membership) {
    const { leftHandlers, ended, name, quiet } = membership;
    if (!ended || quiet || ended instanceof DisconnectedError) return;
    membership.leftHandlers = [];
    for (const handler of leftHandlers) guard(`left ${name}`, () => handler(ended));
  }

  /** A membership has ended for good. @param {Membership} membership @param {Error} error @param {boolean} quiet */
  #endRoom(membership, error, quiet) {
    if (membership.ended) return;
    membership.pause();
    membership.ended = error;
    membership.quiet = quiet;
    membership.news.wake();
    this.#withdraw(membership, error);
  }

  /** The memberships end with the connection. */
  #roomsLost() {
    this.#hasOld = true;
    for (const membership of this.#rooms.values()) {
      membership.pause();
      membership.member = false;
      membership.left = null;
      membership.failures = 0;
      if (membership.leaving) this.#forget(membership);
    }
  }

  // -- receiving

  /**
   * Register a handler for an event. For a request of the server, the first handler
   * answers: the reply is what it returns or resolves to. Its second argument has a
   * `signal`, which is aborted when the server cancels the request. A `Reject` that it
   * throws is the answer. Any other error is logged here, and the server gets `internal`.
   *
   * `"message"` is for messages without an event, and on a raw route for each
   * message. `"*"` gets `(event, data)` of events that have no other handler.
   *
   * @template {Name<E, "receives"> | Name<E, "answers"> | "error" | "*"} K
   * @param {K} event
   * @param {Handler<E, K>} handler
   * @returns {() => void} Removes the handler.
   */
  on(event, handler) {
    return register(this.#handlers, event, handler);
  }

  /**
   * Register a handler that is called with each new state, the first `"connecting"` included.
   *
   * @param {(state: State) => unknown} handler
   * @returns {() => void} Removes the handler.
   */
  onState(handler) {
    const entry = (/** @type {State} */ state) => handler(state);
    this.#stateHandlers = [...this.#stateHandlers, entry];
    return () => {
      this.#stateHandlers = this.#stateHandlers.filter((other) => other !== entry);
    };
  }

  /**
   * Register a handler that runs on every connection before anything else is sent on
   * it: the client waits for what it returns. Use it to sign in. What
   * it sends goes out at once. Everything else, such as messages that were queued
   * without a connection, is sent after it. Several handlers run one after the other. A
   * handler that you register on an open connection runs on the next one.
   *
   * If a handler fails, the error is logged, and the client connects again. In a
   * browser, the client does not recognize the handler any more after it has awaited
   * something else, such as `fetch`. It then sends with the argument, which has `emit`,
   * `send`, `request`, `stream` and `join` for this connection.
   *
   * @param {(connection: Connection<E>) => unknown} handler
   * @returns {() => void} Removes the handler.
   */
  onOpen(handler) {
    const entry = (/** @type {Connection<E>} */ connection) => handler(connection);
    this.#openHandlers = [...this.#openHandlers, entry];
    return () => {
      this.#openHandlers = this.#openHandlers.filter((other) => other !== entry);
    };
  }

  /**
   * The messages of a raw route, of all connections. The iteration ends after
   * `close()` and after a normal close by the server. After any other end it first
   * returns the messages that came before, and then throws `DisconnectedError`.
   *
   * Without a handler for `message`, messages wait for an iteration. No message is
   * dropped: if `maxQueue` messages wait, or `maxQueueBytes`, the client closes for good,
   * with 1013.
   *
   * @returns {AsyncGenerator<MessageOf<E>, void, undefined>}
   */
  [Symbol.asyncIterator]() {
    return this.#inbox[Symbol.asyncIterator]();
  }

  /** @param {Link} link @param {any} message */
  #receive(link, message) {
    const received = asBytes(message) ?? message;
    if (link.raw) {
      if (!this.#event("message", received)) this.#keep(link, received);
      return;
    }
    let envelope;
    try {
      envelope = link.codec.decode(received);
    } catch (error) {
      // The error quotes the message.
      const why = printable(String(error));
      this.#complaints.warn("undecodable", `symphony: the server sent a message that cannot be decoded: ${why}`);
      return;
    }
    this.#envelope(link, envelope, received.length);
  }

  /** @param {Link} link @param {any} envelope @param {number} bytes About how many it had. */
  #envelope(link, envelope, bytes) {
    // Envelopes without a kind are ignored, and so are answers to requests that were
    // never sent or that were cancelled.
    const kind = KINDS.find((field) => (envelope?.[field] ?? null) !== null);
    if (kind === undefined) return;
    const id = envelope[kind];
    const data = envelope.data ?? null;
    const invalid = invalidField(envelope, kind);
    if (invalid !== null) return this.#invalid(link, envelope, invalid);
    const isError = kind === "event" && id === "error" && (envelope.id ?? null) === null;
    if (kind !== "retry") link.lastError = isError ? errorIn(data) : null;
    if (isError) link.lastReason = cutReason(textOf(data?.message));
    // A refusal is not a connection: its events are not for handlers.
    if (link.refused && kind !== "retry") return;
    const call = this.#calls.get(id);
    if (call) this.#opening.resume(call.within);
    if (kind === "event" && (envelope.id ?? null) === null) {
      if (isError || (envelope.room ?? null) === null) this.#event(id, data);
      else this.#published(link, envelope, bytes);
    } else if (kind === "event") this.#answer(link, id, envelope.id, data);
    else if (kind === "reply" || kind === "item" || kind === "end") call?.heard(kind, data, bytes);
    else if (kind === "error") this.#refused(link, call, data);
    else if (kind === "pong") link.pong(id);
    else if (kind === "cancel") this.#answering.get(id)?.abort(new RemoteError("cancelled"));
    else if (kind === "retry") {
      link.retry = id;
      // Without reconnecting, the client continues: the server answers what it refuses.
      if (this.#settings.reconnect) link.awaitStop();
    } else if (kind === "limits") link.maxMessageBytes = id.max_message_bytes ?? Infinity;
    else if (kind === "joined") this.#joined(link, envelope, bytes);
    else if (kind === "left") this.#left(id, data);
    else if (kind === "lost") this.#lostSome(envelope, bytes);
    else if (kind === "presence") this.#presence(envelope);
    else if (kind === "dropped") {
      const line = `symphony: the server has dropped ${id} messages, which this client has not read in time`;
      this.#complaints.warn("dropped", line);
    }
  }

  /** @param {Link} link @param {any} envelope @param {string} field That is not valid. */
  #invalid(link, envelope, field) {
    const value = envelope[field];
    const shown = typeof value === "object" ? typeof value : printable(JSON.stringify(String(value)));
    this.#complaints.warn("invalid", `symphony: the server sent an envelope whose "${field}" is not valid: ${shown}`);
    // A request whose sender waits for an answer.
    const asks = field === "event" && isId(envelope.id) && !link.refused && !this.#answering.has(envelope.id);
    const error = new Reject("invalid", "the name of the event is not valid", { details: { path: "$.event" } });
    if (asks && this.#fits(link)) link.write({ error: envelope.id, data: payloadOf(error) });
  }

  /** @param {Link} link @param {Call | undefined} call @param {any} data The error. */
  #refused(link, call, data) {
    if (!call) return;
    const error = errorOf(call, data);
    // A server that stops refuses new requests. An idempotent one is sent again on the
    // next connection, with the others.
    if (call.idempotent && link.stopping && data?.code === "unavailable") call.refusal = error;
    else if (call.idempotent && data?.code === "forbidden" && this.#rejoins(call.room)) {
      call.waits = true;
      call.sent = call.repeats;
    } else this.#fail(call, error);
  }

  /** Whether the client is not in a room, and will be. @param {Membership | null} membership */
  #rejoins(membership) {
    return membership?.room && !membership.member && !membership.leaving && !membership.ended;
  }

  /**
   * @param {string} event
   * @param {any} data
   * @param {Promise<void>[]} [jobs] Gets what resolves when a handler is done.
   * @returns {boolean} Whether it has a handler.
   */
  #event(event, data, jobs) {
    const handlers = this.#heardBy(event);
    for (const handler of handlers) {
      const job = guard(event, () => handler(event, data));
      jobs?.push(job);
    }
    if (!handlers.length && event === "error") {
      const error = errorIn(data);
      const what = error ? `${error.code}: ${error.message}` : "without a code";
      this.#complaints.warn("error", `symphony: the server sent an error: ${what}`);
    } else if (!handlers.length) this.#unheard(event);
    return handlers.length > 0;
  }

  /** Warn if the name of a handler was probably misspelled. @param {string} event It has no handler. */
  #unheard(event) {
    // A program need not listen to all events. Each name is looked at once.
    if (this.#unheardNames.size >= MAX_UNHEARD || this.#unheardNames.has(event)) return;
    this.#unheardNames.add(event);
    const near = nearest(event, this.#handlers.keys());
    if (near === null) return;
    const [came, has] = [printable(event), printable(near)];
    console.warn(`symphony: the server sends "${came}", which has no handler. There is one for "${has}"`);
  }

  /** @param {string} event @returns {Heard[]} The handlers of the event, or those of "*". */
  #heardBy(event) {
    return this.#handlers.get(event) ?? this.#handlers.get("*") ?? [];
  }

  /** Queue a message for the iteration. @param {Link} link @param {any} message */
  #keep(link, message) {
    const { maxQueue, maxQueueBytes } = this.#settings;
    const { size, bytes } = this.#inbox;
    const fits = size === 0 || bytes + message.length <= maxQueueBytes;
    if (size < maxQueue && fits) return this.#inbox.push(message, message.length);
    const reason = `${size} messages wait and are not read`;
    console.error(`symphony: ${reason}: iterate over the client, or use client.on("message")`);
    this.#closing = link.close(OWN_UNREAD, reason);
    this.#end(new DisconnectedError(`the connection was closed: ${reason}`, UNREAD, reason));
  }

  /** @param {Link} link @param {string} event @param {number} id @param {any} data */
  async #answer(link, event, id, data) {
    if (this.#answering.has(id)) {
      this.#complaints.warn("again", `symphony: the server sent request ${id} again while it is still running`);
      return;
    }
    const busy = this.#answering.size >= MAX_ANSWERING;
    const [handler] = this.#heardBy(event);
    const abort = new AbortController();
    this.#answering.set(id, abort);
    /** Answer once, on the connection of the request. @param {object} envelope */
    const answer = (envelope) => {
      if (this.#answering.get(id) !== abort) return;
      const fits = this.#fits(link);
      link.write(fits ? envelope : { error: id, data: payloadOf(new Reject("too_many", FULL)) });
      this.#answering.delete(id);
    };
    /** @param {Reject} error */
    const reject = (error) => answer({ error: id, data: payloadOf(error) });
    try {
      if (busy) throw new Reject("too_many", `${MAX_ANSWERING} requests are under way`);
      const details = { event };
      if (!handler) throw new Reject("not_found", `no handler for the event '${event}'`, { details });
      const cancelled = new Reject("cancelled", "the request was cancelled");
      abort.signal.addEventListener("abort", () => reject(cancelled));
      const reply = await handler(event, data, { signal: abort.signal });
      answer({ reply: id, data: reply ?? null });
    } catch (error) {
      try {
        if (!(error instanceof Reject)) throw error;
        reject(error);
      } catch (failure) {
        // An error of a cancelled handler is not logged.
        if (!abort.signal.aborted) {
          console.error(`symphony: the handler of "${printable(event)}" failed`, failure);
        }
        reject(new Reject("internal", "the handler failed"));
      }
    }
  }

  /** @param {Link} link @returns {boolean} Whether an answer may wait in the WebSocket. */
  #fits(link) {
    const most = this.#settings.maxQueueBytes * ANSWER_SHARE;
    if (link.unsentBytes <= most) return true;
    if (!link.toldFull) {
      console.warn(`symphony: the server does not read: ${most} bytes wait, so its requests are refused`);
    }
    link.toldFull = true;
    // Refusals and grants must not wait without a limit either.
    if (link.unsentBytes > most + MAX_REFUSAL_BYTES) link.lose("the server does not read");
    return false;
  }

  // -- opening and closing

  /**
   * Close the client for good. Pending requests and streams fail with
   * `DisconnectedError`. Closing a closed client does nothing.
   *
   * @param {number} [code] 1000, or your own: 3000 to 4999.
   * @param {string} [reason] At most 123 bytes in UTF-8.
   * @returns {Promise<void>} When the WebSocket has closed, or after 5 s.
   * @throws {RangeError} The code or the reason may not be sent.
   */
  close(code = NORMAL, reason = "") {
    if (code !== NORMAL && !(code >= 3000 && code <= 4999)) throw new RangeError(`${code} cannot be sent`);
    if (utf8.encode(reason).length > MAX_REASON_BYTES) throw new RangeError("a reason has at most 123 bytes");
    if (!this.#closed) {
      const link = this.#link;
      this.#link = null;
      if (link) this.#closing = link.close(code, reason);
      this.#end(new DisconnectedError(`the client was closed with ${code}`, code, reason), { orderly: true, own: true });
    }
    return this.#closing;
  }

  #attempt() {
    const link = new Link(this.#settings, {
      open: () => this.#open(link),
      message: (message) => this.#receive(link, message),
      end: (code, reason) => this.#lost(link, code, reason),
    });
    this.#link = link;
    this.#enter("connecting");
    // Unless a handler of the state has closed the client.
    this.#link?.start();
  }

  /** @param {Link} link */
  #open(link) {
    this.#protocol = link.protocol;
    this.#subprotocol = link.subprotocol;
    this.#failures = 0;
    if (isForeign(link.subprotocol)) {
      const where = place(this.#settings.url);
      const why = "it chose a subprotocol that Symphony never chooses. The connection is raw";
      this.#complaints.warn("foreign", `symphony: ${where} is not a Symphony server: ${why}`);
    } else if (link.raw) this.#warnOfHandlers();
    if (!link.raw) this.#inbox.fail(new WrongRouteError("this is an event route: use client.on()"));
    if (this.#openHandlers.length) this.#prepare(link);
    else this.#begun(link);
  }

  /** Join the rooms again, and send the queue. @param {Link} link */
  #begun(link) {
    for (const membership of this.#rooms.values()) {
      const { room, asked, live, timer } = membership;
      if (room && !asked && !live && timer === null) this.#rejoin(link, membership);
    }
    this.#flush(link);
  }

  /** Log that the handlers of events are not called on a raw connection. */
  #warnOfHandlers() {
    const name = [...this.#handlers.keys()].find((event) => !["message", "error", "*"].includes(event));
    if (name === undefined || this.#warnedOfHandlers) return;
    this.#warnedOfHandlers = true;
    const where = place(this.#settings.url);
    console.warn(
      `symphony: ${where} is a raw connection, without events: the handler of "${name}" is never called. ` +
        "Is the path right? A route that only sends events needs app.route(..., events=True)",
    );
  }

  /** Do what comes before the queue. @param {Link} link */
  async #prepare(link) {
    const { connectTimeout } = this.#settings;
    const slow = after(connectTimeout, () => {
      // It may wait for something that outlives its connection, such as a publication.
      if (this.#link !== link) return;
      console.warn(`symphony: onOpen is not done after ${connectTimeout} s; nothing else is sent until it is`);
    });
    try {
      const connection = this.#connection(link);
      for (const handler of this.#openHandlers) {
        if (this.#link !== link) return;
        await this.#opening.run(link, () => {
          this.#opening.resume(link);
          return handler(connection);
        });
      }
      if (this.#link === link) this.#begun(link);
    } catch (error) {
      // If the connection was lost, that is why the handler failed, and it runs again.
      if (this.#link !== link) return;
      console.error("symphony: a handler of onOpen failed; the client connects again", error);
      link.leave(OWN_FAILED, "onOpen failed");
    } finally {
      clearTimeout(slow);
    }
  }

  /** @param {Link} link @returns {Connection<any>} */
  #connection(link) {
    /** @param {"emit" | "send" | "request" | "stream" | "join"} name */
    const on = (name) => (/** @type {any[]} */ ...rest) =>
      this.#opening.run(link, () => /** @type {any} */ (this)[name](...rest));
    const [emit, send, request, stream, join] = [on("emit"), on("send"), on("request"), on("stream"), on("join")];
    return /** @type {any} */ ({ emit, send, request, stream, join });
  }

  /**
   * Send the queue, before handlers of the state run, because they may send more. It
   * takes one turn, unless a large message has to wait for the limits of the server.
   *
   * @param {Link} link
   */
  async #flush(link) {
    while (link.takes) {
      const item = this.#queue[0];
      if (!item) break;
      if (item.bytes > SMALL_BYTES && !link.raw && !link.knowsLimits) {
        await link.limitsKnown();
        if (this.#link !== link) return;
        // What waited may have been given up.
        continue;
      }
      this.#queue.shift();
      try {
        this.#write(link, item);
      } catch (error) {
        if (item instanceof Call) this.#fail(item, error);
        else console.error(`symphony: "${item.event ?? "message"}" was not sent`, error);
        this.#free(item);
      }
    }
    link.prepared = true;
    this.#openedOrNot.resolve();
    this.#enter("open");
  }

  /** @param {Link} link @param {number} code @param {string} told The reason, as the peer has told it. */
  #lost(link, code, told) {
    if (link.tooLarge) code = TOO_LARGE;
    this.#link = null;
    if (now() - link.openedAt >= LASTING) {
      this.#attempts = 0;
      this.#refreshed = false;
      this.#later = false;
      this.#elsewhere = 0;
      this.#brief = 0;
      this.#strangeSince = null;
      this.#strange = "";
    }
    const reason = printable(told);
    const refusal = link.refusal(code, told);
    const text = reason ? `${code} ${reason}` : `${code}`;
    if (!this.#comesBack(link, code, refusal, reason)) {
      const retryAfter = link.retry ?? refusal?.retryAfter ?? null;
      const { status } = link;
      const error =
        this.#protocol === null && (code !== LOST || refusal !== null)
          ? new RefusedError(`the server refused the connection: ${text}`, code, reason, { refusal, status, retryAfter })
          : new DisconnectedError(`the connection has ended: ${text}`, code, reason, { refusal });
      return this.#end(error, { orderly: code === NORMAL || code === GOING_AWAY });
    }
    const opened = link.openedAt !== Infinity;
    const retry = link.retry ?? refusal?.retryAfter ?? null;
    // Not any 421: that of a proxy says nothing about the next attempt.
    const decides = link.status === null || link.marked;
    const elsewhere = refusal ? decides && refusal.code === "elsewhere" : opened && code === ELSEWHERE;
    if (retry === null && elsewhere && this.#elsewhere < MAX_AT_ONCE) {
      this.#elsewhere++;
      this.#wakeAt(now());
    } else {
      this.#elsewhere = 0;
      this.#wait(retry, opened);
    }
    if (!this.#away) {
      if (opened) this.#tellBrief(text);
      else this.#tellFailure(link, refusal, text);
    }

    this.#roomsLost();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    const again = calls.filter((call) => call.idempotent);
    for (const call of again) {
      // What a handler of `onOpen` has published is no longer part of it.
      call.within = null;
      call.repeats = call.sent;
    }
    for (const item of [...again, ...this.#queue]) item.waits = false;
    // They were sent before all messages in the queue.
    this.#queue.unshift(...again);
    const error = new DisconnectedError(`the connection was lost: ${text}`, code, reason, { refusal });
    // A server that stops answers what it has begun before it closes. So what has no answer has crossed
    // its notice, and has not run.
    const stopped = link.stopping && code === RESTART;
    for (const call of calls) {
      if (call.idempotent) continue;
      const isLate = stopped && (call.verb === "event" || call.verb === "publish");
      this.#fail(call, isLate ? new RemoteError("unavailable", "the server restarts", true) : error);
    }
    this.#forgetRequests();
    this.#enter("waiting");
  }

  /**
   * Whether to connect again.
   *
   * @param {Link} link
   * @param {number} code
   * @param {RemoteError | null} refusal
   * @param {string} reason
   */
  #comesBack(link, code, refusal, reason) {
    const { reconnect, token, giveUpAfter } = this.#settings;
    if (!reconnect) return false;
    if (link.tooLarge) {
      this.#tooLarge = [...this.#tooLarge, now()].slice(-MAX_TOO_LARGE);
      // Not in a row: some time may pass on each connection before it comes.
      const [first = 0] = this.#tooLarge;
      const again = this.#tooLarge.length < MAX_TOO_LARGE || now() - first >= TOO_LARGE_WINDOW;
      if (again) this.#complaints.warn("large", `symphony: ${place(this.#settings.url)}: ${LARGER}. Trying again`);
      return again;
    }
    const unauthorized = refusal ? refusal.code === "unauthorized" : code === UNAUTHORIZED;
    if (unauthorized && typeof token === "function" && !this.#refreshed) {
      this.#refreshed = true;
      return true;
    }
    const { status } = link;
    // The error of the server decides, if it is certain that it is the server's.
    if (refusal && (status === null || link.marked)) return refusal.retryable;
    if (status === null) {
      this.#strangeSince = null;
      return RECONNECTS_AFTER.has(code);
    }
    if (RECONNECTS_AFTER.has(code) || status >= 500 || status === 425) return true;
    // A client that was connected knows that there is a server. Something between
    // answers, for example while the server restarts.
    if (this.#protocol === null) return false;
    this.#strangeSince ??= now();
    const left = giveUpAfter === null ? Infinity : this.#strangeSince + giveUpAfter - now();
    if (left > 0 && reason !== this.#strange) {
      const limit = giveUpAfter === null ? "" : ` for ${giveUpAfter} s`;
      console.warn(`symphony: ${place(this.#settings.url)} answers with ${reason}; trying again${limit}`);
    }
    this.#strange = reason;
    return left > 0;
  }

  /**
   * Log that the client cannot connect, but not at every attempt.
   *
   * @param {Link} link
   * @param {RemoteError | null} refusal
   * @param {string} text
   */
  #tellFailure(link, refusal, text) {
    // A page sees nothing but 1006 then, for example if the path is wrong.
    const often = this.#protocol === null ? 1 : WARN_AFTER;
    if (++this.#failures !== often) return;
    const where = place(this.#settings.url);
    const causes =
      "the server runs, the path is right (routes of a mounted app are below its mount path), " +
      "and its `origins` and `hosts` allow this page";
    const refused = link.refused || refusal !== null;
    const hint = refused ? "The server refuses it for now." : `Check that ${causes}.`;
    console.warn(`symphony: could not connect to ${where}: ${text}. ${hint} Trying again`);
  }

  /** Log that connections end at once, again and again, but not each time. @param {string} text */
  #tellBrief(text) {
    if (++this.#brief !== WARN_AFTER) return;
    const where = place(this.#settings.url);
    const line = `symphony: ${WARN_AFTER} connections in a row to ${where} were lost within ${LASTING} s: ${text}`;
    console.warn(`${line}. Look at the log of the server. Trying again`);
  }

  /**
   * @param {DisconnectedError} error
   * @param {object} [how]
   * @param {boolean} [how.orderly] Whether an iteration just ends.
   * @param {boolean} [how.own] Whether the program has closed the client.
   */
  #end(error, { orderly = false, own = false } = {}) {
    const { code, reason, refusal } = error;
    this.#link = null;
    this.#closed = { code, reason, refusal };
    clearTimeout(this.#timer);
    this.#surroundings.abort();
    const waiting = this.#queue;
    const calls = [...this.#calls.values(), ...waiting.filter((item) => item instanceof Call)];
    const unsent = waiting.length - waiting.filter((item) => item instanceof Call).length;
    if (unsent) console.warn(`symphony: ${unsent} messages were never sent: ${error.message}`);
    if (!own) {
      const where = place(this.#settings.url);
      console.warn(`symphony: ${where}: ${error.message}. ${this.#advice(error)}`);
    }
    this.#queue = [];
    for (const call of calls) this.#fail(call, call.refusal ?? error);
    for (const membership of this.#rooms.values()) this.#endRoom(membership, error, orderly);
    this.#rooms.clear();
    this.#heldBytes = 0;
    if (orderly) this.#inbox.end();
    else this.#inbox.fail(error);
    this.#openedOrNot.reject(error);
    this.#hasEnded(this.#closed);
    this.#forgetRequests();
    this.#enter("closed");
  }

  /** @param {DisconnectedError} error @returns {string} What to do, for the log. */
  #advice({ code, reason, refusal }) {
    const { reconnect } = this.#settings;
    const why = refusal ? `The server says "${refusal.code}". ` : "";
    if (!reconnect) return `${why}The client does not reconnect: \`reconnect\` is false.`;
    if (reason === LARGER) return "The client does not reconnect.";
    const what = ADVICE.get(code) ?? "It is a code of the app.";
    return `${why}${what} The client does not reconnect.`;
  }

  /** Abort the handlers of the server's requests: their answers cannot be sent. */
  #forgetRequests() {
    const answering = [...this.#answering.values()];
    this.#answering.clear();
    for (const abort of answering) abort.abort(this.#disconnected());
  }

  #disconnected() {
    const { code, reason, refusal } = this.#closed ?? { code: LOST, reason: "", refusal: null };
    return new DisconnectedError(`the client is closed: ${code}${reason && ` ${reason}`}`, code, reason, { refusal });
  }

  /** @param {State} state */
  #enter(state) {
    // A handler of the previous state may have closed the client.
    if (state === this.#toldState || (this.#closed && state !== "closed")) return;
    this.#state = this.#toldState = state;
    for (const handler of this.#stateHandlers) {
      if (this.#state === state) guard(`state ${state}`, () => handler(state));
    }
  }

  /**
   * Wait until the next attempt. The first wait is between 0 and `backoff`, so that
   * clients which lost their connections together do not return together. Each failed
   * attempt makes the limit half as large again, and then the wait is in the upper half
   * of it: when the server is back, the clients follow soon.
   *
   * @param {number | null} retry Seconds that the server asked for.
   * @param {boolean} opened Whether the connection was open.
   */
  #wait(retry, opened) {
    const { backoff, maxBackoff } = this.#settings;
    const least = Math.min(retry ?? 0, MAX_RETRY);
    // A server that answers is back. Only the first such answer begins anew, or clients of
    // a full server would never slow down.
    if (retry !== null && !this.#later) this.#attempts = 0;
    if (retry !== null) this.#later = true;
    else if (!opened) this.#later = false;
    const attempts = Math.min(this.#attempts++, MAX_GROWTHS);
    // Clients that a server sends away together return over as long as it asked for.
    const bound = Math.min(maxBackoff, Math.max(backoff, least) * GROWTH ** attempts);
    const from = attempts ? bound / 2 : 0;
    this.#notBefore = now() + least;
    this.#wakeAt(this.#notBefore + from + Math.random() * (bound - from));
  }

  /** @param {number} time */
  #wakeAt(time) {
    clearTimeout(this.#timer);
    this.#nextAt = this.#away ? Infinity : time;
    if (!this.#away) this.#timer = after(time - now(), () => this.#attempt());
  }

  /**
   * The network, the user or the page is back: shorten the wait, but not below the time
   * that the server set. Or ask for a sign of life, if there is a connection.
   */
  #hurry() {
    this.#away = false;
    const time = Math.max(now(), this.#notBefore) + Math.random() * HURRY;
    if (this.#state === "waiting" && time < this.#nextAt) this.#wakeAt(time);
    this.#link?.check();
  }

  /** The page is left. The browser can keep it, to show it again, if it has no connection. */
  #leave() {
    this.#away = true;
    clearTimeout(this.#timer);
    this.#nextAt = Infinity;
    this.#link?.leave(undefined, "the page was left");
  }

  #watchSurroundings() {
    const { signal } = this.#surroundings;
    // Workers have no document. Outside of browsers there is usually neither.
    const { document } = globalThis;
    const hurry = () => this.#hurry();
    /** @param {any} target @param {Record<string, (event: any) => void>} listeners */
    const listen = (target, listeners) => {
      for (const [name, heard] of Object.entries(listeners)) target?.addEventListener?.(name, heard, { signal });
    };
    listen(globalThis, {
      online: hurry,
      offline: () => this.#link?.check(),
      pagehide: () => this.#leave(),
      pageshow: ({ persisted }) => persisted && hurry(),
    });
    listen(document, {
      resume: hurry,
      visibilitychange: () => document.visibilityState === "visible" && hurry(),
    });
  }
}

/**
 * Bind everything public to an object. Private fields do not pass a Proxy, such as those of Vue and Alpine.
 *
 * @param {any} object
 * @param {object} prototype
 */
function bind(object, prototype) {
  const own = Object.getOwnPropertyDescriptors(prototype);
  for (const name of Reflect.ownKeys(own)) {
    const { get, value } = /** @type {PropertyDescriptor} */ (Reflect.get(own, name));
    if (get) Object.defineProperty(object, name, { get: get.bind(object), configurable: true });
    else if (typeof value === "function" && name !== "constructor") {
      // A subclass may have another one.
      const method = object[name].bind(object);
      Object.defineProperty(object, name, { value: method, configurable: true, writable: true });
    }
  }
}

/** @param {string} text @returns {string} */
function checkText(text) {
  if (LONE_SURROGATE.test(text)) throw new RangeError(NOT_TEXT);
  return text;
}

/** @param {string} text @returns {string} As much of it as fits into a close frame. */
function cutReason(text) {
  const bytes = utf8.encode(text);
  if (bytes.length <= MAX_REASON_BYTES) return text;
  let end = MAX_REASON_BYTES;
  // Not within a character: the bytes after its first are 10xxxxxx.
  while ((/** @type {number} */ (bytes[end]) & 0xc0) === 0x80) end--;
  return new TextDecoder().decode(bytes.subarray(0, end));
}

/**
 * Copy data that waits to be sent.
 *
 * @param {unknown} data
 * @param {"json" | "msgpack"} protocol
 * @returns {{ data: unknown, bytes: number }} `bytes`: about how many it has.
 */
function snapshot(data, protocol) {
  if (typeof data === "string") return { data: checkText(data), bytes: bytesOf(data) };
  const bytes = asBytes(data);
  // Not by `slice`, which copies nothing for a Buffer of Node.
  if (bytes) return { data: new Uint8Array(bytes), bytes: bytes.length };
  if (protocol === "msgpack") {
    const size = { bytes: 0 };
    return { data: copyForMsgpack(data, size), bytes: size.bytes };
  }
  const text = jsonCodec.encode(data);
  return { data: jsonCodec.decode(text), bytes: bytesOf(text) };
}

/**
 * Run a handler of the user. If it fails, at once or later, the error is logged
 * and has no other effect.
 *
 * @param {string} name @param {() => unknown} run
 */
async function guard(name, run) {
  try {
    await run();
  } catch (error) {
    console.error(`symphony: the handler of "${printable(name)}" failed`, error);
  }
}
