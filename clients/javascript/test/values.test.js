/** What can be sent, and what is refused, in both encodings and in any place. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode } from "../msgpack.js";
import { json } from "../symphony.js";
import { FakeSocket, joinFake } from "./fake.js";
import { pair } from "./server.js";

const HALF = "😀".slice(0, 1);
const REFUSED = [
  ["half of a surrogate pair", HALF, RangeError],
  ["the other half", "😀".slice(1), RangeError],
  ["halves in the wrong order", "a\udc00\ud800b", RangeError],
  ["half in a name of a field", { [`x${HALF}`]: 1 }, RangeError],
  ["NaN", NaN, RangeError],
  ["Infinity", Infinity, RangeError],
  ["-Infinity", -Infinity, RangeError],
  ["a date that is none", new Date(NaN), RangeError],
  ["an integer of more than 64 bits", 2n ** 64n, RangeError],
  ["a negative one", -(2n ** 63n) - 1n, RangeError],
  ["a function", () => 1, TypeError],
  ["a symbol", Symbol("s"), TypeError],
  ["an array of floats", new Float32Array(1), TypeError],
  ["a view", new DataView(new ArrayBuffer(1)), TypeError],
  ["a Map with objects as keys", new Map([[{}, 1]]), TypeError],
];
const REFUSED_IN_JSON = [
  ["an integer beyond 2^53", 2 ** 53, RangeError],
  ["a negative one", -(2 ** 60), RangeError],
  ["a BigInt beyond 2^53", 2n ** 53n, RangeError],
];
const WHERE = [
  [(value) => value, "$"],
  [(value) => ({ text: value }), "$.text"],
  [(value) => [0, { list: ["", value] }], "$[1].list[1]"],
  [(value) => ({ own: { toJSON: () => [value] } }), "$.own[0]"],
  [(value) => new Set([1, value]), "$[1]"],
  [(value) => new Map([[1, value]]), "$.1"],
];

for (const protocol of ["json", "msgpack"]) {
  const refused = [...REFUSED, ...(protocol === "json" ? REFUSED_IN_JSON : [])];

  test(`${protocol}: what would be changed silently is refused, and the error says where`, async (t) => {
    const client = await joinFake(t, { protocol });
    for (const connected of [false, true]) {
      if (connected) FakeSocket.last.open();
      for (const [what, value, kind] of refused) {
        for (const [around, path] of WHERE) {
          const place = what === "half in a name of a field" ? `${path}.` : path;
          assert.throws(
            () => client.emit("say", around(value)),
            (error) => {
              assert.ok(error instanceof kind, `${what} in ${path}: ${error}`);
              assert.ok(error.message.startsWith(`"say" cannot be sent: ${place}`), error.message);
              assert.ok(!/\p{Cs}/u.test(error.message));
              return true;
            },
          );
        }
        await assert.rejects(client.request("sum", [value]), kind);
      }
    }
    assert.deepEqual(FakeSocket.last.sent, []);
    client.emit("after");
    assert.equal(FakeSocket.last.sent.length, 1);
  });

  test(`${protocol}: circles and shared objects do not hold up the search for a fault`, async (t) => {
    const client = await joinFake(t, { protocol });
    FakeSocket.last.open();
    const circle = { bad: NaN };
    circle.one = circle.two = [circle, circle];
    assert.throws(() => client.emit("say", { circle }), /\$\.circle\.bad/);
    let shared = [NaN];
    for (let i = 0; i < 100; i++) shared = [shared, shared];
    assert.throws(() => client.emit("say", shared), /NaN is not a number/);
  });

  test(`${protocol}: the same values arrive as the same`, async (t) => {
    const { client, peer } = await pair(t, { protocol });
    const at = new Date(5);
    for (const [value, comes] of [
      ["\ud83d\ude00", "\ud83d\ude00"],
      ["\\ud83d is text", "\\ud83d is text"],
      ["\\\\ud83d", "\\\\ud83d"],
      [1e300, 1e300],
      [1e21, 1e21],
      [2 ** 53 - 1, 2 ** 53 - 1],
      [5n, 5],
      [new Set([1, "a"]), [1, "a"]],
      [new Map([["a", 1], [2, new Set()]]), { a: 1, 2: [] }],
      [{ none: undefined, list: [undefined] }, { list: [null] }],
      [Buffer.from([1]), protocol === "json" ? "AQ==" : new Uint8Array([1])],
      [at, protocol === "json" ? at.toJSON() : at],
      [new URL("http://a/"), "http://a/"],
    ]) {
      client.emit("say", value);
      assert.deepEqual((await peer.next()).data, comes);
    }
  });
}

test("MessagePack carries integers up to 64 bits, and those beyond 2^53 come as BigInt", async (t) => {
  const { client, peer } = await pair(t, { protocol: "msgpack" });
  for (const value of [2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n, -(2n ** 63n), -(2n ** 53n)]) {
    client.emit("say", { value });
    assert.equal((await peer.next()).data.value, value);
  }
});

test("text that is not well-formed is refused on a raw route as well", async (t) => {
  const client = await joinFake(t);
  FakeSocket.last.open("symphony.raw");
  for (const text of [HALF, `a${HALF}b`, "\udc00"]) assert.throws(() => client.send(text), /the message cannot be sent: \$: /);
  client.send("😀");
  assert.deepEqual(FakeSocket.last.sent, ["😀"]);
});

test("a name that is not text is refused", async (t) => {
  const client = await joinFake(t);
  assert.throws(() => client.emit(HALF), RangeError);
  await assert.rejects(client.request(`say${HALF}`), RangeError);
  assert.throws(() => client.stream(HALF), RangeError);
});

test("the codecs refuse the same by themselves", () => {
  for (const [, value, kind] of REFUSED) {
    assert.throws(() => encode([value]), kind);
    assert.throws(() => json.encode([value]), (error) => error instanceof kind && error.message.startsWith("$[0]"));
  }
  for (const [, value, kind] of REFUSED_IN_JSON) {
    assert.throws(() => json.encode(value), kind);
    assert.equal(Number(decode(encode(value))), Number(value));
  }
});

test("an answer that cannot be sent is an internal error, and is logged here with its place", async (t) => {
  const told = t.mock.method(console, "error", () => {});
  const { client, peer } = await pair(t);
  for (const [event, value] of Object.entries({ half: { name: HALF }, nan: [NaN], big: 2 ** 60 })) {
    client.on(event, () => value);
    peer.frame({ event, id: 1 });
    const { error, data } = await peer.next();
    assert.deepEqual([error, data.code], [1, "internal"]);
  }
  assert.match(String(told.mock.calls[0].arguments[1]), /\$\.name/);
});
