/**
 * MessagePack for the JavaScript client of Symphony. The client loads this
 * module when a connection asks for it: `connect(url, { protocol: "msgpack" })`.
 * It depends on nothing, the client's own module included, so that both can be
 * served under any name.
 */

/** Levels of nesting; the protocol asks for at least 200. */
const MAX_DEPTH = 500;
const utf8 = new TextEncoder();
/** Half of a surrogate pair: not text. It has no form in UTF-8. */
const LONE_SURROGATE = /\p{Cs}/u;
// A byte order mark is part of the text: keep it.
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** The type of the one extension that MessagePack itself defines. */
const TIMESTAMP = -1;
/**
 * The numbers after the codes from 0xca on: their name in a DataView, and how many bytes they take.
 *
 * @type {[string, number][]}
 */
const NUMBERS = [
  ["Float32", 4], ["Float64", 8],
  ["Uint8", 1], ["Uint16", 2], ["Uint32", 4], ["BigUint64", 8],
  ["Int8", 1], ["Int16", 2], ["Int32", 4], ["BigInt64", 8],
];

/** @param {unknown} value @returns {Uint8Array | null} The value as bytes; null if it is not bytes. */
function asBytes(value) {
  if (value instanceof Uint8Array) return value;
  return value instanceof ArrayBuffer ? new Uint8Array(value) : null;
}

class Writer {
  #bytes = new Uint8Array(256);
  #end = 0;

  written() {
    return this.#bytes.slice(0, this.#end);
  }

  /** @param {unknown} value @param {number} depth @returns {void} */
  write(value, depth) {
    if (value === null || value === undefined) this.#byte(0xc0);
    else if (typeof value === "string") this.#string(value);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "boolean") this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "bigint") this.#bigint(value);
    else if (typeof value === "object") this.#object(value, depth);
    else throw new TypeError(`a ${typeof value} cannot be sent`);
  }

  /** @param {any} value @param {number} depth @returns {void} */
  #object(value, depth) {
    const bytes = asBytes(value);
    if (bytes) {
      this.#length(bytes.length, 0, 0, 0xc4, 0xc5);
      return this.#append(bytes);
    }
    if (value instanceof Date) return this.#date(value.getTime());
    if (ArrayBuffer.isView(value)) throw new TypeError("send bytes as a Uint8Array, numbers as an array");
    if (depth === MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels, or circular`);
    if (typeof value.toJSON === "function") return this.write(value.toJSON(), depth + 1);
    if (value instanceof Set) return this.#array([...value], depth);
    if (Array.isArray(value)) return this.#array(value, depth);
    const fields = value instanceof Map ? named(value) : Object.entries(value);
    const present = fields.filter((field) => field[1] !== undefined);
    this.#length(present.length, 0x80, 16, 0, 0xde);
    for (const [key, item] of present) {
      this.#string(key);
      this.write(item, depth + 1);
    }
  }

  /** @param {any[]} items @param {number} depth */
  #array(items, depth) {
    this.#length(items.length, 0x90, 16, 0, 0xdc);
    for (const item of items) this.write(item, depth + 1);
  }

  /** @param {number} value */
  #number(value) {
    if (!Number.isFinite(value)) throw new RangeError(`${value} is not a number that can be sent`);
    if (!Number.isSafeInteger(value)) this.#code(0xcb, "Float64", 8, value);
    else if (value >= 2 ** 32) this.#code(0xcf, "BigUint64", 8, BigInt(value));
    else if (value >= 2 ** 16) this.#code(0xce, "Uint32", 4, value);
    else if (value >= 2 ** 8) this.#code(0xcd, "Uint16", 2, value);
    else if (value >= 2 ** 7) this.#code(0xcc, "Uint8", 1, value);
    else if (value >= -(2 ** 5)) this.#byte(value & 0xff);
    else if (value >= -(2 ** 7)) this.#code(0xd0, "Int8", 1, value);
    else if (value >= -(2 ** 15)) this.#code(0xd1, "Int16", 2, value);
    else if (value >= -(2 ** 31)) this.#code(0xd2, "Int32", 4, value);
    else this.#code(0xd3, "BigInt64", 8, BigInt(value));
  }

  /** @param {bigint} value */
  #bigint(value) {
    const small = narrow(value);
    if (typeof small === "number") this.#number(small);
    else if (BigInt.asUintN(64, value) === value) this.#code(0xcf, "BigUint64", 8, value);
    else if (BigInt.asIntN(64, value) === value) this.#code(0xd3, "BigInt64", 8, value);
    else throw new RangeError(`${value} does not fit into 64 bits`);
  }

  /** @param {string} value */
  #string(value) {
    // It would be changed silently.
    if (LONE_SURROGATE.test(value)) throw new RangeError("half of a surrogate pair, such as half of an emoji, is not text");
    const bytes = utf8.encode(value);
    this.#length(bytes.length, 0xa0, 32, 0xd9, 0xda);
    this.#append(bytes);
  }

  /** @param {number} time In milliseconds. */
  #date(time) {
    if (Number.isNaN(time)) throw new RangeError("the date is not valid");
    const seconds = Math.floor(time / 1000);
    const nanoseconds = (time - seconds * 1000) * 1_000_000;
    if (seconds < 0 || seconds >= 2 ** 34) {
      this.#append([0xc7, 12, TIMESTAMP]);
      this.#put("Uint32", 4, nanoseconds);
      this.#put("BigInt64", 8, BigInt(seconds));
    } else if (nanoseconds || seconds >= 2 ** 32) {
      this.#append([0xd7, TIMESTAMP]);
      this.#put("BigUint64", 8, (BigInt(nanoseconds) << 34n) | BigInt(seconds));
    } else {
      this.#append([0xd6, TIMESTAMP]);
      this.#put("Uint32", 4, seconds);
    }
  }

  /**
   * A length in its shortest form. `code8` is 0 where there is no such form;
   * the code for 32 bits always follows that for 16.
   *
   * @param {number} length @param {number} short @param {number} below
   * @param {number} code8 @param {number} code16
   */
  #length(length, short, below, code8, code16) {
    if (length < below) this.#byte(short | length);
    else if (code8 && length < 2 ** 8) this.#code(code8, "Uint8", 1, length);
    else if (length < 2 ** 16) this.#code(code16, "Uint16", 2, length);
    else this.#code(code16 + 1, "Uint32", 4, length);
  }

  /** @param {number} code @param {string} kind @param {number} size @param {number | bigint} value */
  #code(code, kind, size, value) {
    this.#byte(code);
    this.#put(kind, size, value);
  }

  /** @param {string} kind @param {number} size @param {number | bigint} value */
  #put(kind, size, value) {
    const at = this.#claim(size);
    /** @type {any} */ (new DataView(this.#bytes.buffer))[`set${kind}`](at, value);
  }

  /** @param {number} value */
  #byte(value) {
    const at = this.#claim(1);
    this.#bytes[at] = value;
  }

  /** @param {ArrayLike<number>} bytes */
  #append(bytes) {
    const at = this.#claim(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /**
   * Say where so many bytes go. To be called before `#bytes` is read: it may
   * put a longer buffer in its place.
   *
   * @param {number} count
   */
  #claim(count) {
    const start = this.#end;
    this.#end += count;
    if (this.#end > this.#bytes.length) {
      const longer = new Uint8Array(Math.max(this.#end, this.#bytes.length * 2));
      longer.set(this.#bytes);
      this.#bytes = longer;
    }
    return start;
  }
}

class Reader {
  #bytes;
  /** @type {any} By name: its methods are in `NUMBERS`. */
  #view;
  #at = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left() {
    return this.#bytes.length - this.#at;
  }

  /** @param {number} depth @returns {any} */
  read(depth) {
    const code = this.#uint(0);
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 0x0f, depth);
    if (code < 0xa0) return this.#array(code & 0x0f, depth);
    if (code < 0xc0) return this.#string(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    // The other codes form families, ordered by the size of what follows.
    // Bytes are copied, so that a few of them do not keep a whole message alive.
    if (code >= 0xc4 && code <= 0xc6) return new Uint8Array(this.#take(this.#uint(code - 0xc4)));
    if (code >= 0xc7 && code <= 0xc9) return this.#extension(this.#uint(code - 0xc7));
    if (code >= 0xca && code <= 0xd3) return this.#number(code);
    if (code >= 0xd4 && code <= 0xd8) return this.#extension(1 << (code - 0xd4));
    if (code >= 0xd9 && code <= 0xdb) return this.#string(this.#uint(code - 0xd9));
    if (code >= 0xdc && code <= 0xdd) return this.#array(this.#uint(code - 0xdb), depth);
    if (code >= 0xde) return this.#map(this.#uint(code - 0xdd), depth);
    throw new SyntaxError(`MessagePack has no code 0x${code.toString(16)}`);
  }

  /** @param {number} code */
  #number(code) {
    const [kind, size] = /** @type {[string, number]} */ (NUMBERS[code - 0xca]);
    const value = this.#view[`get${kind}`](this.#skip(size));
    return typeof value === "bigint" ? narrow(value) : value;
  }

  /** @param {number} length @param {number} depth */
  #array(length, depth) {
    this.#enter(depth);
    const items = [];
    for (let i = 0; i < length; i++) items.push(this.read(depth + 1));
    return items;
  }

  /** @param {number} length @param {number} depth */
  #map(length, depth) {
    this.#enter(depth);
    /** @type {Record<string, any>} */
    const fields = {};
    for (let i = 0; i < length; i++) {
      const key = this.read(depth + 1);
      if (typeof key !== "string" && typeof key !== "number" && typeof key !== "bigint") {
        throw new SyntaxError("a key of a map is neither text nor a number");
      }
      const value = this.read(depth + 1);
      // Not by assignment, which for this one key sets the prototype.
      if (key === "__proto__") {
        Object.defineProperty(fields, key, { value, enumerable: true, configurable: true, writable: true });
      } else fields[String(key)] = value;
    }
    return fields;
  }

  /** @param {number} depth */
  #enter(depth) {
    if (depth === MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels`);
  }

  /** @param {number} length */
  #string(length) {
    return strictUtf8.decode(this.#take(length));
  }

  /** @param {number} length */
  #extension(length) {
    const type = this.#view.getInt8(this.#skip(1));
    if (type !== TIMESTAMP) throw new SyntaxError(`an extension of the unknown type ${type}`);
    const at = this.#skip(length);
    let [seconds, nanoseconds] = [NaN, 0];
    if (length === 4) seconds = this.#view.getUint32(at);
    else if (length === 8) {
      const both = this.#view.getBigUint64(at);
      seconds = Number(BigInt.asUintN(34, both));
      nanoseconds = Number(both >> 34n);
    } else if (length === 12) {
      nanoseconds = this.#view.getUint32(at);
      seconds = Number(this.#view.getBigInt64(at + 4));
    }
    const date = new Date(seconds * 1000 + Math.floor(nanoseconds / 1_000_000));
    const valid = nanoseconds < 1_000_000_000 && !Number.isNaN(date.getTime());
    if (!valid) throw new SyntaxError("no valid timestamp");
    return date;
  }

  /** @param {number} power Of two, the bytes that it has. @returns {number} */
  #uint(power) {
    const at = this.#skip(1 << power);
    if (power === 0) return this.#view.getUint8(at);
    return power === 1 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  /** @param {number} length */
  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** @param {number} length */
  #skip(length) {
    if (length > this.left) throw new SyntaxError("the message ends too early");
    const at = this.#at;
    this.#at += length;
    return at;
  }
}

/** @param {bigint} value @returns {number | bigint} A number where it is exact. */
function narrow(value) {
  const small = Number(value);
  return Number.isSafeInteger(small) ? small : value;
}

/** @param {Map<any, any>} map @returns {[string, any][]} Its fields. As in JSON, keys are text. */
function named(map) {
  return [...map].map(([key, value]) => {
    if (typeof key === "string" || Number.isSafeInteger(key)) return [String(key), value];
    throw new TypeError("a key of the Map is neither text nor an integer");
  });
}

/**
 * Encode a value as one message.
 *
 * Bytes are a `Uint8Array` or an `ArrayBuffer`, instants a `Date`, integers
 * beyond 2^53 a `BigInt`. A `Set` becomes an array and a `Map` an object. A
 * `toJSON` method is called as `JSON.stringify` does.
 *
 * @param {unknown} value
 * @returns {Uint8Array}
 * @throws {TypeError | RangeError} MessagePack has no form for the value.
 */
export function encode(value) {
  const writer = new Writer();
  writer.write(value, 0);
  return writer.written();
}

/**
 * Decode a message.
 *
 * @param {Uint8Array} message
 * @returns {any}
 * @throws {SyntaxError | TypeError} The message is not exactly one value.
 */
export function decode(message) {
  const reader = new Reader(message);
  const value = reader.read(0);
  if (reader.left) throw new SyntaxError(`${reader.left} bytes after the value`);
  return value;
}
