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

/** Bytes that may wait in the WebSocket before `emit` and `request` are refused. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;
/** Requests of the server that handlers may work on at once. */
const MAX_ANSWERING = 1000;
/** Levels of nesting in MessagePack, as in msgpack.js. */
const MAX_DEPTH = 500;
/** Items of credit that a stream may have. */
const MAX_CREDIT = 2 ** 31 - 1;
/** Characters of an event's name. */
const MAX_NAME = 256;
/** UTF-8 bytes of a close reason (RFC 6455 §5.5). */
const MAX_REASON_BYTES = 123;
/** Seconds that a connection must last to reset the backoff. */
const LASTING = 5;
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
   *   the HTTP status; null if it is unknown, as in browsers. `retryAfter`: how many seconds to wait
   *   before trying again, or null.
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

/** The queue of unsent messages is full. The message was not added. */
export class QueueFullError extends SymphonyError {
  name = "QueueFullError";
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
  return new RemoteError(code, String(message), retryable === true, details, isDelay(retryAfter) ? retryAfter : null);
}

/** @param {unknown} seconds */
const isDelay = (seconds) => typeof seconds === "number" && seconds >= 0 && seconds < Infinity;

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

/**
 * Write a value as JSON has it, or throw if it would arrive as another one.
 * Bytes are base64. `this[key]`, not the value given: the toJSON method of
 * Node's Buffer has run by then.
 *
 * @this {any} @param {string} key @param {any} value
 * @throws {TypeError | RangeError} JSON cannot hold the value.
 */
function exactly(key, value) {
  const bytes = asBytes(this[key]);
  if (bytes) return base64(bytes);
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  if (typeof value === "number" || typeof value === "bigint") return checkNumber(value, 2 ** 53);
  return asData(value);
}

/**
 * Return a number that can be sent, or throw.
 *
 * @template {number | bigint} N
 * @param {N} value @param {number} most The largest integer that the codec keeps exact. From 1e21 on,
 *   JavaScript writes numbers with an exponent, so that they are no integers.
 * @returns {N}
 */
function checkNumber(value, most) {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError(`${value} cannot be sent: NaN and infinity are no data`);
  }
  const size = value < 0 ? -value : value;
  const isInteger = typeof value === "bigint" || (Number.isInteger(value) && size < 1e21);
  if (isInteger && size > most) {
    throw new RangeError(`${value} cannot be sent in JSON, where integers are exact up to 2^53`);
  }
  return value;
}

/** @param {any} value @returns {any} The value; a Set as an array, a Map as an object. */
function asData(value) {
  if (typeof value === "function" || typeof value === "symbol") {
    throw new TypeError(`a ${typeof value} cannot be sent`);
  }
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Set) return [...value];
  if (value instanceof Map) return Object.fromEntries(value);
  if (ArrayBuffer.isView(value)) throw new TypeError("send bytes as a Uint8Array, numbers as an array");
  return value;
}

/** How a value becomes a JSON message, and back. `decode` throws for invalid JSON. */
export const json = {
  /** @param {unknown} value @returns {string} */
  encode: (value) => JSON.stringify(value, exactly) ?? "null",
  /** @param {string} message @returns {any} */
  decode: (message) => JSON.parse(message),
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
 * @param {any} value @param {number} [depth] @returns {any}
 * @throws {TypeError | RangeError} MessagePack cannot encode the value.
 */
function copyForMsgpack(value, depth = 0) {
  if (typeof value === "bigint") {
    if (Number.isSafeInteger(Number(value))) return Number(value);
    const fits = BigInt.asUintN(64, value) === value || BigInt.asIntN(64, value) === value;
    if (!fits) throw new RangeError(`${value} does not fit into 64 bits`);
  }
  if (typeof value === "number") return checkNumber(value, Infinity);
  const bytes = asBytes(value);
  // Not by `slice`, which copies nothing for a Buffer of Node.
  if (bytes) return new Uint8Array(bytes);
  if (value instanceof Date) return new Date(value);
  value = asData(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth === MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels, or circular`);
  if (typeof value.toJSON === "function") return copyForMsgpack(value.toJSON(), depth + 1);
  if (Array.isArray(value)) return value.map((item) => copyForMsgpack(item, depth + 1));
  const fields = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(fields.map(([key, item]) => [key, copyForMsgpack(item, depth + 1)]));
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
 * @template T
 * @typedef {(data: DataOf<T>, context: { signal: AbortSignal }) => ReplyOf<T> | Promise<ReplyOf<T>>} Answering
 */
/** @template E @typedef {"message" extends Name<E, "receives"> ? Entry<E, "receives", "message"> : any} MessageOf */

/** @typedef {{ code: string, message: string, retryable: boolean, details: any, retry_after?: number }} ErrorData */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
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
 * @property {boolean} [reconnect] Whether to reconnect when the connection is lost: true.
 * @property {number} [backoff] The longest first wait, in seconds: 0.5. It doubles with each attempt.
 * @property {number} [maxBackoff] The longest of all waits, in seconds: 30.
 * @property {number} [maxQueue] Messages that may wait for a connection or, on a raw route, for the
 *   program: 1000.
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

// ------------------------------------------------------------------ time

const now = () => performance.now() / 1000;

/** @param {number} seconds May be negative: then at once. @param {() => void} action @returns {any} */
const after = (seconds, action) => setTimeout(action, Math.min(Math.max(seconds, 0) * 1000, LONGEST_DELAY));

/** @param {number} seconds Whether it is longer than any timer can wait, and so no limit. */
const isEndless = (seconds) => seconds * 1000 > LONGEST_DELAY;

// -------------------------------------------------------- one connection

/** The client reconnects after these close codes, and after no others. */
const RECONNECTS_AFTER = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429, 4503]);
const NORMAL = 1000;
const GOING_AWAY = 1001;
const LOST = 1006;
const UNREAD = 1013;
const INVALID = 4400;
const UNAUTHORIZED = 4401;
/** Sent instead of 1013, which a page may not send. */
const OWN_UNREAD = 4000;

/**
 * A browser fails the connection if it offered subprotocols and the server chose
 * none. So the server needs a name to choose in these two cases, too: the route
 * is raw, or the connection is refused.
 */
const RAW = "symphony.raw";
const REFUSE = "symphony.refuse";

/** The kinds of envelopes that a server sends. The first of these fields decides. */
const KINDS = /** @type {const} */ (["event", "reply", "error", "item", "end", "cancel", "pong", "retry"]);

/** One attempt to connect, and its connection. It ends once, even if its WebSocket fires more events. */
class Link {
  raw = false;
  /** JSON for raw routes and refusals, and until the server has chosen. @type {Codec} */
  codec = json;
  openedAt = Infinity;
  /** How many seconds the client must wait before it reconnects; set by the server. @type {number | null} */
  retry = null;
  /** The last event `error`; null if anything but `retry` came after it. @type {RemoteError | null} */
  lastError = null;
  /** The reason that a close frame has if it closes because of that error. */
  lastReason = "";
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
  /** @type {any} */
  #timer;

  /**
   * @param {Settings} settings
   * @param {{ open(): void, message(data: any): void, end(code: number, reason: string): void }} hears
   */
  constructor(settings, hears) {
    this.#settings = settings;
    this.#hears = hears;
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

  get unsentBytes() {
    return this.#socket.bufferedAmount;
  }

  async start() {
    const { token, offer, url, WebSocket, connectTimeout, protocol } = this.#settings;
    // While the token function runs.
    const loading = protocol === "msgpack" && !msgpack ? loadMsgpack() : null;
    loading?.catch(() => {});
    this.#timer = after(connectTimeout, () => this.#lose(`no connection within ${connectTimeout} s`));
    let value;
    try {
      value = typeof token === "function" ? await token() : token;
    } catch (error) {
      console.error("symphony: the token function failed", error);
      this.#lose("the token function failed");
      return;
    }
    try {
      if (loading) await loading;
    } catch (error) {
      console.error("symphony: msgpack.js could not be loaded; it must be in the same folder as symphony.js", error);
      this.#lose("the MessagePack module could not be loaded");
      return;
    }
    if (this.#ended) return;
    const credentials = (value ?? null) === null ? [] : [`symphony.token.${base64url(String(value))}`];
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
    socket.onopen = () => {
      answered = true;
      if (this.#ended || this.refused) return;
      clearTimeout(this.#timer);
      this.raw = socket.protocol !== this.#settings.events;
      this.openedAt = this.#heardAt = now();
      if (!this.raw) {
        this.codec = (this.#settings.protocol === "msgpack" && msgpack) || json;
        if (this.#settings.heartbeat) this.#awaitSilence();
      }
      this.#hears.open();
    };
    socket.onmessage = (/** @type {any} */ event) => {
      this.#heardAt = now();
      if (!this.#ended) this.#hears.message(event.data);
    };
    socket.onclose = (/** @type {any} */ event) => this.#end(event.code, event.reason || this.#trouble);
    // Keep this listener after the end: `ws` throws errors that have none.
    socket.onerror = (/** @type {any} */ event) => {
      this.#trouble = event.message ?? "";
      // Some versions of Node fire no `close` for an attempt that failed.
      if (!answered) this.#lose(this.#trouble);
    };
  }

  #awaitSilence() {
    const rest = this.#heardAt + (this.#settings.heartbeat ?? Infinity) - now();
    if (rest > 0) this.#timer = after(rest, () => this.#awaitSilence());
    else this.check();
  }

  /** Ping the server. Without any message in time, the connection counts as lost. */
  check() {
    // A page cannot ping on a raw route. A closing connection sends no ping either, but it
    // still needs the timeout, or it might never end.
    if (this.#ended || this.openedAt === Infinity || this.raw) return;
    const { heartbeat } = this.#settings;
    const asked = now();
    clearTimeout(this.#timer);
    this.write({ ping: ++this.#pings });
    this.#timer = after(Math.max((heartbeat ?? 0) / 2, 1), () => {
      if (this.#heardAt < asked) this.#lose("the server does not answer pings");
      else if (heartbeat) this.#awaitSilence();
    });
  }

  /**
   * Send an envelope. Without a connection it is dropped: check `ready` first if
   * that matters.
   *
   * @param {object} envelope
   */
  write(envelope) {
    this.send(this.codec.encode(envelope));
  }

  /** @param {any} message */
  send(message) {
    if (this.ready) this.#socket.send(message);
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

  /** @param {string} reason */
  #lose(reason) {
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
  }
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

/** Items that have come and were not taken yet. The caller limits how many. */
class Inbox {
  /** @type {any[]} */
  #items = [];
  /** @type {(() => void)[]} */
  #waiting = [];
  /** @type {(() => void) | null} What ends an iteration, once all items are taken. */
  #last = null;

  get size() {
    return this.#items.length;
  }

  /** @param {unknown} item */
  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  end() {
    this.#last = () => {};
    this.#wake();
  }

  /** @param {unknown} error */
  fail(error) {
    this.#last = () => {
      throw error;
    };
    this.#wake();
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Iterate over the items as they come. Several iterations share them. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      if (this.#items.length) yield this.#items.shift();
      else if (this.#last) return this.#last();
      else await new Promise((resolve) => this.#waiting.push(() => resolve(null)));
    }
  }
}

/** @param {Call} call */
const late = ({ event }) => new RequestTimeoutError(`"${event}" was not answered in time`);

/** @param {string} event @param {string} what How the server answers instead. */
const misused = (event, what) => new RemoteError("invalid", `"${event}" ${what}`);

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

  /** @param {string | null} event @param {unknown} data */
  constructor(event, data) {
    this.event = event;
    this.data = data;
  }
}

/** A request or a stream, from the call to its end. */
class Call {
  /** Its id on the connection on which it was sent last. */
  id = 0;
  /** When it times out here, by `now()`. */
  deadline = Infinity;
  settled = false;
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
   * @param {boolean} [kind.idempotent] Sent again if the connection is lost.
   * @param {() => object} kind.terms Further fields of its envelope, asked for when it is sent.
   * @param {(kind: "reply" | "item" | "end", data: any) => void} kind.heard
   * @param {(error: unknown) => void} kind.failed
   */
  constructor(event, data, { idempotent = false, terms, heard, failed }) {
    this.event = event;
    this.data = data;
    this.idempotent = idempotent;
    this.terms = terms;
    this.heard = heard;
    this.failed = failed;
  }
}

// ---------------------------------------------------------------- settings

const DEFAULTS = {
  protocol: /** @type {"json" | "msgpack"} */ ("json"),
  subprotocols: /** @type {string[]} */ ([]),
  connectTimeout: 10,
  requestTimeout: 10,
  heartbeat: /** @type {number | null} */ (20),
  reconnect: true,
  backoff: 0.5,
  maxBackoff: 30,
  maxQueue: 1000,
};

/** @typedef {ReturnType<typeof settings>} Settings */

/** @param {string | URL} url @param {Options} options */
function settings(url, options) {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const { token, WebSocket = globalThis.WebSocket } = options;
  const chosen = { ...DEFAULTS, ...given };
  const { protocol, connectTimeout, requestTimeout, heartbeat, backoff, maxBackoff, maxQueue } = chosen;
  if (!WebSocket) throw new TypeError("there is no global WebSocket: pass one, connect(url, { WebSocket })");
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
  checkLeast(0, { backoff, maxBackoff });
  checkLeast(1, { maxQueue });
  const events = `symphony.v1.${protocol}`;
  const offer = [...new Set([events, ...chosen.subprotocols, RAW, REFUSE])];
  return { ...chosen, url: webSocketUrl(url), token, WebSocket, events, offer };
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

/** @param {string | URL} url */
function webSocketUrl(url) {
  const base = globalThis.location?.href;
  let absolute;
  try {
    absolute = new URL(url, base);
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
  // In code points. Counted only if it could be too long.
  const length = event.length > MAX_NAME ? [...event].length : event.length;
  if (length === 0 || length > MAX_NAME) {
    throw new RangeError(`the name of an event must have 1 to ${MAX_NAME} characters`);
  }
  if (event === "error") throw new RangeError('the event "error" belongs to Symphony; use another name');
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
 * @throws {TypeError} `token` is of a wrong type, or there is no WebSocket.
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
  #settings;
  /** @type {State} */
  #state = "connecting";
  /** The state that handlers were told last. @type {State | null} */
  #toldState = null;
  /** @type {string | null} */
  #protocol = null;
  /** @type {string | null} */
  #subprotocol = null;
  /** @type {{ code: number, reason: string, refusal: RemoteError | null } | null} */
  #closed = null;
  /** @type {{ resolve(): void, reject(error: unknown): void }} */
  #openedOrNot = { resolve() {}, reject() {} };
  /** @type {Promise<void>} */
  #opened;
  #closing = Promise.resolve();

  /** @type {Link | null} */
  #link = null;
  #attempts = 0;
  #refreshed = false;
  #notBefore = 0;
  #nextAt = 0;
  /** @type {any} */
  #timer;
  #surroundings = new AbortController();

  /** @type {(Message | Call)[]} */
  #queue = [];
  /** Requests and streams that were sent on this connection. @type {Map<unknown, Call>} */
  #calls = new Map();
  #lastId = 0;

  /** @type {Map<string, Heard[]>} */
  #handlers = new Map();
  /** @type {((state: State) => unknown)[]} */
  #stateHandlers = [];
  /** Requests of the server that handlers here work on. @type {Map<number, AbortController>} */
  #answering = new Map();
  #inbox = new Inbox();

  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, options = {}) {
    this.#settings = settings(url, options);
    this.#opened = new Promise((resolve, reject) => {
      this.#openedOrNot = { resolve, reject };
    });
    // Without this, a client whose `opened` is never used would be an unhandled rejection.
    this.#opened.catch(() => {});
    this.#watchSurroundings();
    queueMicrotask(() => this.#closed || this.#attempt());
  }

  /**
   * Resolves with the first open connection. Rejects if the client has ended for good
   * before: with `RefusedError` if the server refused it, otherwise with `DisconnectedError`.
   */
  get opened() {
    return this.#opened;
  }

  /** "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
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

  // -- sending

  /**
   * Send an event. Without a connection it waits in the queue; on a raw route
   * it is `{"event": …, "data": …}` as JSON text.
   *
   * @template {Name<E, "emits">} K
   * @param {K} event
   * @param {OnlyData<Entry<E, "emits", K>>} data Anything that can be encoded; null may be left out.
   * @throws {QueueFullError} `maxQueue` messages wait already, or 16 MiB for a slow connection.
   * @throws {DisconnectedError} The client has ended for good.
   * @throws {TypeError} The data cannot be encoded.
   * @throws {RangeError} The name is empty, too long or "error", or the data is nested too deeply.
   */
  emit(event, ...data) {
    checkName(event);
    this.#put(new Message(event, data[0] ?? null));
  }

  /**
   * Send a plain message. On a raw route, text and bytes are sent as they are and
   * anything else as JSON text. On a route with events, it is the event `message`.
   *
   * @param {unknown} message
   * @throws {QueueFullError | DisconnectedError | TypeError | RangeError} As `emit` does.
   */
  send(message) {
    this.#put(new Message(null, message));
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
    const inbox = new Inbox();
    const call = new Call(event, data, {
      terms: () => {
        // The timeout is only for the connection. A stream may take longer.
        clearTimeout(call.timer);
        return { credit };
      },
      heard: (kind, item) => {
        if (kind === "item" && inbox.size < credit) inbox.push(item);
        else if (kind === "item") this.#drop(call, misused(event, "sends more than was granted"));
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

  /** @param {Call} call @param {Inbox} inbox @param {number} credit @param {AbortSignal} [signal] */
  async *#consume(call, inbox, credit, signal) {
    this.#begin(call, this.#settings.requestTimeout, signal);
    let taken = 0;
    try {
      for await (const item of inbox) {
        signal?.throwIfAborted();
        if (++taken >= credit / 2) {
          if (!call.settled) this.#link?.write({ grant: call.id, credit: taken });
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
    return true;
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
    const link = this.#link;
    const takes = link !== null && link.takes;
    // A snapshot: if the caller changes the object later, that must not change the message.
    if (!takes || item.idempotent) item.data = snapshot(item.data, this.#settings.protocol);
    if (takes) {
      if (link.unsentBytes > MAX_UNSENT_BYTES) throw new QueueFullError("the connection is slow, and its buffer is full");
      this.#write(link, item);
    } else {
      const { maxQueue } = this.#settings;
      if (this.#queue.length >= maxQueue) throw new QueueFullError(`${maxQueue} messages wait for a connection`);
      this.#queue.push(item);
    }
  }

  /** @param {Link} link @param {Message | Call} item */
  #write(link, item) {
    const { event, data } = item;
    if (item instanceof Call) {
      if (link.raw) throw new WrongRouteError("this route is raw and has no requests; use client.send()");
      item.id = ++this.#lastId;
      item.refusal = null;
      link.write({ event, data, id: item.id, ...item.terms() });
      this.#calls.set(item.id, item);
    } else if (event !== null) link.write({ event, data });
    else if (!link.raw) link.write({ event: "message", data });
    else link.send(typeof data === "string" ? data : asBytes(data) ?? json.encode(data));
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
    const call = /** @type {any} */ (handler);
    const rest = event === "*";
    /** @type {Heard} */
    const entry = (name, data, context) => (rest ? call(name, data, context) : call(data, context));
    this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), entry]);
    return () => {
      const others = (this.#handlers.get(event) ?? []).filter((other) => other !== entry);
      if (others.length) this.#handlers.set(event, others);
      else this.#handlers.delete(event);
    };
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
   * The messages of a raw route, of all connections. The iteration ends after
   * `close()` and after a normal close by the server. After any other end it first
   * returns the messages that came before, and then throws `DisconnectedError`.
   *
   * Without a handler for `message`, messages wait for an iteration. No message is
   * dropped: if `maxQueue` messages wait, the client closes for good, with 1013.
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
      console.warn("symphony: the server sent a message that cannot be decoded", error);
      return;
    }
    this.#envelope(link, envelope);
  }

  /** @param {Link} link @param {any} envelope */
  #envelope(link, envelope) {
    // Envelopes without a kind are ignored, and so are answers to requests that were
    // never sent or that were cancelled.
    const kind = KINDS.find((field) => (envelope?.[field] ?? null) !== null);
    if (kind === undefined) return;
    const id = envelope[kind];
    const data = envelope.data ?? null;
    const isError = kind === "event" && id === "error" && (envelope.id ?? null) === null;
    if (kind !== "retry") link.lastError = isError ? errorIn(data) : null;
    if (isError) link.lastReason = cutReason(String(data?.message ?? ""));
    // A refusal is not a connection: its events are not for handlers.
    if (link.refused && kind !== "retry") return;
    const call = this.#calls.get(id);
    if (kind === "event" && (envelope.id ?? null) === null) this.#event(id, data);
    else if (kind === "event") this.#answer(link, id, envelope.id, data);
    else if (kind === "reply" || kind === "item" || kind === "end") call?.heard(kind, data);
    else if (kind === "error") this.#refused(link, call, data);
    else if (kind === "cancel") this.#answering.get(id)?.abort(new RemoteError("cancelled"));
    else if (kind === "retry" && isDelay(id)) {
      link.retry = id;
      // Without reconnecting, the client continues: the server answers what it refuses.
      link.stopping = this.#settings.reconnect;
    }
  }

  /** @param {Link} link @param {Call | undefined} call @param {any} data The error. */
  #refused(link, call, data) {
    if (!call) return;
    const error = errorOf(call, data);
    // A server that stops refuses new requests. An idempotent one is sent again on the
    // next connection, with the others.
    if (call.idempotent && link.stopping && data?.code === "unavailable") call.refusal = error;
    else this.#fail(call, error);
  }

  /** @param {string} event @param {any} data @returns {boolean} Whether it has a handler. */
  #event(event, data) {
    const handlers = this.#heardBy(event);
    for (const handler of handlers) guard(event, () => handler(event, data));
    if (!handlers.length && event === "error") console.warn("symphony: the server sent an error", data);
    return handlers.length > 0;
  }

  /** @param {string} event @returns {Heard[]} The handlers of the event, or those of "*". */
  #heardBy(event) {
    return this.#handlers.get(event) ?? this.#handlers.get("*") ?? [];
  }

  /** Queue a message for the iteration. @param {Link} link @param {any} message */
  #keep(link, message) {
    const { maxQueue } = this.#settings;
    if (this.#inbox.size < maxQueue) return this.#inbox.push(message);
    const reason = `${maxQueue} messages wait and are not read`;
    console.error(`symphony: ${reason}: iterate over the client, or use client.on("message")`);
    this.#closing = link.close(OWN_UNREAD, reason);
    this.#end(new DisconnectedError(`the connection was closed: ${reason}`, UNREAD, reason));
  }

  /** @param {Link} link @param {string} event @param {number} id @param {any} data */
  async #answer(link, event, id, data) {
    if (this.#answering.has(id)) {
      console.warn(`symphony: the server sent request ${id} again while it is still running`);
      return;
    }
    const busy = this.#answering.size >= MAX_ANSWERING;
    const [handler] = this.#heardBy(event);
    const abort = new AbortController();
    this.#answering.set(id, abort);
    /** Answer once, on the connection of the request. @param {object} envelope */
    const answer = (envelope) => {
      if (this.#answering.get(id) !== abort) return;
      link.write(envelope);
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
        if (!abort.signal.aborted) console.error(`symphony: the handler of "${event}" failed`, failure);
        reject(new Reject("internal", "the handler failed"));
      }
    }
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
      this.#end(new DisconnectedError(`the client was closed with ${code}`, code, reason), true);
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
    if (!link.raw) this.#inbox.fail(new WrongRouteError("this is an event route: use client.on()"));
    // Send the queue before handlers of the state run, because they may send more.
    while (link.takes) {
      const item = this.#queue.shift();
      if (!item) break;
      try {
        this.#write(link, item);
      } catch (error) {
        if (item instanceof Call) this.#fail(item, error);
        else console.error(`symphony: "${item.event ?? "message"}" was not sent`, error);
      }
    }
    this.#openedOrNot.resolve();
    this.#enter("open");
  }

  /** @param {Link} link @param {number} code @param {string} reason */
  #lost(link, code, reason) {
    const { reconnect, token, backoff, maxBackoff } = this.#settings;
    this.#link = null;
    if (now() - link.openedAt >= LASTING) {
      this.#attempts = 0;
      this.#refreshed = false;
    }
    const refresh = code === UNAUTHORIZED && typeof token === "function" && !this.#refreshed;
    const text = reason ? `${code} ${reason}` : `${code}`;
    // After the opening, the last error may be about something else.
    const refusal = link.refused || link.lastReason === reason ? link.lastError : null;
    if (!reconnect || !(RECONNECTS_AFTER.has(code) || refresh)) {
      const retryAfter = link.retry ?? refusal?.retryAfter ?? null;
      const error =
        this.#protocol === null && code !== LOST
          ? new RefusedError(`the server refused the connection: ${text}`, code, reason, { refusal, retryAfter })
          : new DisconnectedError(`the connection has ended: ${text}`, code, reason, { refusal });
      return this.#end(error, code === NORMAL || code === GOING_AWAY);
    }
    this.#refreshed ||= refresh;
    this.#notBefore = now() + (link.retry ?? refusal?.retryAfter ?? 0);
    const bound = Math.min(maxBackoff, backoff * 2 ** this.#attempts++);
    this.#wakeAt(this.#notBefore + Math.random() * bound);

    const calls = [...this.#calls.values()];
    this.#calls.clear();
    // They were sent before all messages in the queue.
    this.#queue.unshift(...calls.filter((call) => call.idempotent));
    const error = new DisconnectedError(`the connection was lost: ${text}`, code, reason, { refusal });
    for (const call of calls) if (!call.idempotent) this.#fail(call, error);
    this.#forgetRequests();
    this.#enter("waiting");
  }

  /** @param {DisconnectedError} error @param {boolean} [orderly] Whether an iteration just ends. */
  #end(error, orderly = false) {
    const { code, reason, refusal } = error;
    this.#link = null;
    this.#closed = { code, reason, refusal };
    clearTimeout(this.#timer);
    this.#surroundings.abort();
    const waiting = this.#queue;
    const calls = [...this.#calls.values(), ...waiting.filter((item) => item instanceof Call)];
    const unsent = waiting.length - waiting.filter((item) => item instanceof Call).length;
    if (unsent) console.warn(`symphony: ${unsent} messages were never sent: ${error.message}`);
    this.#queue = [];
    for (const call of calls) this.#fail(call, call.refusal ?? error);
    if (orderly) this.#inbox.end();
    else this.#inbox.fail(error);
    this.#openedOrNot.reject(error);
    this.#forgetRequests();
    this.#enter("closed");
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

  /** @param {number} time */
  #wakeAt(time) {
    clearTimeout(this.#timer);
    this.#nextAt = time;
    this.#timer = after(time - now(), () => this.#attempt());
  }

  /** The network or the user is back: shorten the wait, but not below the time that the server set. */
  #hurry() {
    const time = Math.max(now(), this.#notBefore) + Math.random() * HURRY;
    if (this.#state === "waiting" && time < this.#nextAt) this.#wakeAt(time);
  }

  #watchSurroundings() {
    const { signal } = this.#surroundings;
    // Workers have no document. Outside of browsers there is usually neither.
    const { document } = globalThis;
    globalThis.addEventListener?.("online", () => this.#hurry(), { signal });
    globalThis.addEventListener?.("offline", () => this.#link?.check(), { signal });
    const shown = () => document.visibilityState === "visible" && this.#hurry();
    document?.addEventListener("visibilitychange", shown, { signal });
  }
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

/** @param {unknown} data @param {"json" | "msgpack"} protocol */
function snapshot(data, protocol) {
  if (typeof data === "string") return data;
  const bytes = asBytes(data);
  // Not by `slice`, which copies nothing for a Buffer of Node.
  if (bytes) return new Uint8Array(bytes);
  return protocol === "msgpack" ? copyForMsgpack(data) : json.decode(json.encode(data));
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
    console.error(`symphony: the handler of "${name}" failed`, error);
  }
}
