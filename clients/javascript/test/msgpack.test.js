import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode } from "../msgpack.js";
import { json } from "../symphony.js";

const bytes = (hex) => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const of = (length, make) => Array.from({ length }, (_, i) => make(i));

const EXACT = [
  [null, "c0"],
  [false, "c2"],
  [true, "c3"],
  [0, "00"],
  [127, "7f"],
  [128, "cc80"],
  [255, "ccff"],
  [256, "cd0100"],
  [65535, "cdffff"],
  [65536, "ce00010000"],
  [4294967295, "ceffffffff"],
  [4294967296, "cf0000000100000000"],
  [Number.MAX_SAFE_INTEGER, "cf001fffffffffffff"],
  [9007199254740992n, "cf0020000000000000"],
  [18446744073709551615n, "cfffffffffffffffff"],
  [-1, "ff"],
  [-32, "e0"],
  [-33, "d0df"],
  [-128, "d080"],
  [-129, "d1ff7f"],
  [-32768, "d18000"],
  [-32769, "d2ffff7fff"],
  [-2147483648, "d280000000"],
  [-2147483649, "d3ffffffff7fffffff"],
  [Number.MIN_SAFE_INTEGER, "d3ffe0000000000001"],
  [-9223372036854775808n, "d38000000000000000"],
  [1.5, "cb3ff8000000000000"],
  [-1e300, "cbfe37e43c8800759c"],
  ["", "a0"],
  ["é", "a2c3a9"],
  ["\ufeffa", "a4efbbbf61"],
  ["a".repeat(31), `bf${"61".repeat(31)}`],
  ["a".repeat(32), `d920${"61".repeat(32)}`],
  ["a".repeat(256), `da0100${"61".repeat(256)}`],
  ["a".repeat(65536), `db00010000${"61".repeat(65536)}`],
  [new Uint8Array(0), "c400"],
  [new Uint8Array([1, 2]), "c4020102"],
  [new Uint8Array(256), `c50100${"00".repeat(256)}`],
  [new Uint8Array(65536), `c600010000${"00".repeat(65536)}`],
  [[], "90"],
  [[1, [2]], "92019102"],
  [of(16, () => 0), `dc0010${"00".repeat(16)}`],
  [of(65536, () => 0), `dd00010000${"00".repeat(65536)}`],
  [{}, "80"],
  [{ a: { b: null } }, "81a16181a162c0"],
  [
    Object.fromEntries(of(16, (i) => [String.fromCharCode(97 + i), 0])),
    `de0010${of(16, (i) => `a1${hex([97 + i])}00`).join("")}`,
  ],
  [new Date(0), "d6ff00000000"],
  [new Date(1500), "d7ff7735940000000001"],
  [new Date(2 ** 32 * 1000), "d7ff0000000100000000"],
  [new Date(2 ** 34 * 1000), "c70cff000000000000000400000000"],
  [new Date(-1), "c70cff3b8b87c0ffffffffffffffff"],
];

test("every kind of value has its shortest form, and comes back from it", () => {
  for (const [value, form] of EXACT) {
    assert.equal(hex(encode(value)), form);
    assert.deepEqual(decode(bytes(form)), value);
  }
});

test("longer forms than needed are read", () => {
  for (const [form, value] of [
    ["cc01", 1],
    ["cd0001", 1],
    ["ce00000001", 1],
    ["cf0000000000000001", 1],
    ["d001", 1],
    ["d1ffff", -1],
    ["d2ffffffff", -1],
    ["d3ffffffffffffffff", -1],
    ["ca3fc00000", 1.5],
    ["d90161", "a"],
    ["da000161", "a"],
    ["db0000000161", "a"],
    ["dc000101", [1]],
    ["dd0000000101", [1]],
    ["de0001a16101", { a: 1 }],
    ["df00000001a16101", { a: 1 }],
    ["c50001ff", new Uint8Array([255])],
    ["c7 04 ff 00000001", new Date(1000)],
    ["c8 0004 ff 00000001", new Date(1000)],
    ["c9 00000004 ff 00000001", new Date(1000)],
  ])
    assert.deepEqual(decode(bytes(form)), value);
});

test("a map of 65536 fields comes back", () => {
  const map = Object.fromEntries(of(65536, (i) => [`k${i}`, i]));
  assert.deepEqual(decode(encode(map)), map);
});

test("what JSON has no word for becomes what JSON.stringify makes of it", () => {
  assert.deepEqual(decode(encode({ a: undefined, b: [undefined] })), { b: [null] });
  assert.deepEqual(decode(encode({ toJSON: () => "said" })), "said");
  assert.deepEqual(decode(encode(new URL("http://a/"))), "http://a/");
  assert.deepEqual(decode(encode(Buffer.from("hi"))), new Uint8Array([104, 105]));
  assert.deepEqual(decode(encode(new Uint8Array([7]).buffer)), new Uint8Array([7]));
  assert.ok(Object.is(decode(encode(-0)), 0));
});

test("what cannot be said is refused", () => {
  const circle = [];
  circle.push(circle);
  for (const value of [circle, () => 1, Symbol("s"), 2n ** 64n, -(2n ** 63n) - 1n, new Float32Array(1)]) {
    assert.throws(() => encode(value), /sent|bits|circular|Uint8Array/);
  }
});

// within: MAX_DEPTH
// beyond: MAX_DEPTH
test("two hundred levels of nesting are read and written, and a million are refused", () => {
  let deep = 1;
  for (let i = 0; i < 200; i++) deep = i % 2 ? [deep] : { deep };
  assert.deepEqual(decode(encode(deep)), deep);
  assert.throws(() => decode(new Uint8Array(1_000_000).fill(0x91)), /nested/);
});

test("a message that is cut off anywhere is an error", () => {
  for (const [, form] of EXACT.filter(([, form]) => form.length < 200)) {
    const whole = bytes(form);
    for (let length = 0; length < whole.length; length++) {
      // In the middle of a longer buffer: nothing behind the end may be read.
      assert.throws(() => decode(new Uint8Array(whole.buffer, 0, length)), SyntaxError);
    }
  }
});

test("bytes after the value are an error", () => {
  assert.throws(() => decode(bytes("c0c0")), /1 bytes after/);
});

test("a length that the message cannot hold is refused before anything is made of it", () => {
  for (const form of ["ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffffff"]) {
    assert.throws(() => decode(bytes(form)), SyntaxError);
  }
});

test("what is no MessagePack is refused", () => {
  assert.throws(() => decode(bytes("c1")), /0xc1/);
  assert.throws(() => decode(bytes("a1ff")), TypeError);
  assert.throws(() => decode(bytes("81c0c0")), /key/);
  assert.throws(() => decode(bytes("819001")), /key/);
});

test("extensions that nobody knows are named", () => {
  assert.throws(() => decode(bytes("d40500")), /type 5/);
  assert.throws(() => decode(bytes("c7 00 fe")), /type -2/);
});

test("timestamps that are none are refused", () => {
  for (const form of [
    "d5ff0000",
    "d8ff" + "00".repeat(16),
    "c703ff000000",
    "d7ffffffffff00000000",
    "c70cffffffffff0000000000000000",
    "c70cff000000007fffffffffffffff",
  ]) {
    assert.throws(() => decode(bytes(form)), /timestamp/);
  }
});

test("nanoseconds are cut to the milliseconds that a Date has", () => {
  assert.deepEqual(decode(bytes("d7ff0000000400000001")), new Date(1000));
});

test("numbers may be keys, and no key changes the prototype", () => {
  assert.deepEqual(decode(bytes("82 01 a161 cfffffffffffffffff a162")), {
    1: "a",
    "18446744073709551615": "b",
  });
  const map = decode(bytes("81 a9 5f5f70726f746f5f5f 81 a178 01"));
  assert.deepEqual(Object.keys(map), ["__proto__"]);
  assert.equal(map.x, undefined);
});

test("bytes do not share memory with the message", () => {
  const message = bytes("c40101");
  const value = decode(message);
  message[2] = 9;
  assert.deepEqual(value, new Uint8Array([1]));
});

test("bytes are base64 in JSON, wherever they are", () => {
  const data = [new Uint8Array([255, 254]), { buffer: Buffer.from("hi") }, new Uint8Array([1]).buffer];
  assert.equal(json.encode(data), '["//4=",{"buffer":"aGk="},"AQ=="]');
  assert.equal(json.encode({ at: new Date(0) }), '{"at":"1970-01-01T00:00:00.000Z"}');
  assert.equal(json.encode(undefined), "null");
});

test("random values come back as they were", () => {
  // A small generator of its own, so that a failure can be repeated.
  let seed = 1;
  const random = (below) => {
    seed = (seed * 48271) % 2147483647;
    return seed % below;
  };
  const value = (depth) => {
    switch (random(depth > 3 ? 6 : 8)) {
      case 0:
        return [null, true, false][random(3)];
      case 1:
        return (random(2) ? 1 : -1) * random(2 ** 31) * random(2 ** 20);
      case 2:
        return (random(2 ** 31) - 2 ** 30) / (random(1000) + 1);
      case 3:
        return "aé🎺\u0000".repeat(random(30));
      case 4:
        return new Uint8Array(of(random(40), () => random(256)));
      case 5:
        return new Date((random(2) ? 1 : -1) * random(2 ** 31) * random(4000));
      case 6:
        return of(random(20), () => value(depth + 1));
      default:
        return Object.fromEntries(of(random(20), (i) => [`k${i}`, value(depth + 1)]));
    }
  };
  for (let i = 0; i < 300; i++) {
    const sent = [value(0)];
    // Adding 0 makes a -0 the 0 that comes back.
    assert.deepEqual(decode(encode(sent)), JSON.stringify(sent) ? normal(sent) : sent);
  }
});

/** Without the sign of zero, which JSON does not keep either. */
function normal(value) {
  if (typeof value === "number") return value + 0;
  if (Array.isArray(value)) return value.map(normal);
  if (value === null || typeof value !== "object" || value instanceof Date || value instanceof Uint8Array)
    return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, normal(item)]));
}
