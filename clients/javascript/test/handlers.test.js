import assert from "node:assert/strict";
import { test } from "node:test";

import { Reject } from "../symphony.js";
import { pair, quiet, reach } from "./server.js";

/** Resolves when all frames sent before have been handled. */
async function handled(client, peer) {
  const done = new Promise((resolve) => {
    const off = client.on("the end", () => {
      off();
      resolve();
    });
  });
  peer.frame({ event: "the end" });
  await done;
}

test("all handlers of an event are called in order, each with its data", async (t) => {
  const { client, peer } = await pair(t);
  const heard = [];
  client.on("said", (data) => heard.push(["first", data]));
  client.on("said", (data) => heard.push(["second", data]));
  peer.frame({ event: "said", data: { text: "hi" } });
  peer.frame({ event: "said" });
  await handled(client, peer);
  assert.deepEqual(heard, [
    ["first", { text: "hi" }],
    ["second", { text: "hi" }],
    ["first", null],
    ["second", null],
  ]);
});

test("a handler can be taken away, and once is enough", async (t) => {
  const { client, peer } = await pair(t);
  const heard = [];
  const handler = (data) => heard.push(data);
  const off = client.on("said", handler);
  client.on("said", handler);
  off();
  off();
  peer.frame({ event: "said", data: 1 });
  await handled(client, peer);
  assert.deepEqual(heard, [1]);
});

test("a handler that fails, at once or later, is told and stops nothing", async (t) => {
  const errors = quiet(t, "error");
  const { client, peer } = await pair(t);
  const heard = [];
  client.on("said", () => {
    throw new Error("at once");
  });
  client.on("said", async () => {
    throw new Error("later");
  });
  client.on("said", (data) => heard.push(data));
  peer.frame({ event: "said", data: 1 });
  await handled(client, peer);
  assert.deepEqual(heard, [1]);
  assert.match(errors().join(), /"said" failed.*at once.*"said" failed.*later/);
});

test("a handler of states that fails is told and stops nothing", async (t) => {
  const errors = quiet(t, "error");
  const { client } = await pair(t);
  const heard = [];
  client.onState(() => {
    throw new Error("oh");
  });
  const off = client.onState((state) => heard.push(state));
  client.onState((state) => heard.push(state));
  off();
  client.close();
  assert.deepEqual(heard, ["closed"]);
  assert.match(errors()[0], /state closed/);
});

test('"*" hears the events that have no handler, with their names', async (t) => {
  const { client, peer } = await pair(t);
  const heard = [];
  client.on("said", () => {});
  client.on("*", (event, data) => heard.push([event, data]));
  peer.frame({ event: "said" });
  peer.frame({ event: "left", data: "Ada" });
  peer.frame({ event: "error", data: { code: "invalid" } });
  await handled(client, peer);
  assert.deepEqual(heard, [
    ["left", "Ada"],
    ["error", { code: "invalid" }],
  ]);
});

test("an event `error` that nobody handles is told on the console", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  const error = {
    event: "error",
    data: { code: "not_found", message: "no handler", retryable: false, details: null },
  };
  peer.frame(error);
  await handled(client, peer);
  assert.equal(warnings().length, 1);
  const heard = new Promise((resolve) => client.on("error", resolve));
  peer.frame(error);
  assert.deepEqual(await heard, error.data);
  assert.equal(warnings().length, 1);
});

test("an event that nobody handles is ignored", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  peer.frame({ event: "whatever" });
  await handled(client, peer);
  assert.equal(warnings().length, 0);
});

test("what the first handler returns or resolves to is the reply", async (t) => {
  const { client, peer } = await pair(t);
  client.on("name", async (data) => `Ada ${data}`);
  client.on("name", () => assert.fail("the second is not asked"));
  client.on("nothing", () => {});
  peer.frame({ event: "name", data: "L", id: 0 });
  assert.deepEqual(await peer.next(), { reply: 0, data: "Ada L" });
  peer.frame({ event: "nothing", id: 1 });
  assert.deepEqual(await peer.next(), { reply: 1, data: null });
});

test("a Reject is the error that it says", async (t) => {
  const { client, peer } = await pair(t);
  client.on("buy", (item) => {
    if (item === "lamp") throw new Reject("room_full", "no room");
    throw new Reject("shop.sold_out", "none left", { details: { item }, retryable: true });
  });
  peer.frame({ event: "buy", data: "ring", id: 1 });
  assert.deepEqual(await peer.next(), {
    error: 1,
    data: { code: "shop.sold_out", message: "none left", retryable: true, details: { item: "ring" } },
  });
  peer.frame({ event: "buy", data: "lamp", id: 2 });
  assert.deepEqual(await peer.next(), {
    error: 2,
    data: { code: "room_full", message: "no room", retryable: true, details: null },
  });
});

test("a code of a Reject is known or has a namespace", () => {
  assert.throws(() => new Reject("sold_out"), { name: "RangeError", message: /namespace/ });
  for (const retryAfter of [-1, NaN, Infinity, "1"]) {
    assert.throws(() => new Reject("too_many", "", { retryAfter }), { name: "RangeError" });
  }
});

test("anything else thrown is internal, without details, and told here", async (t) => {
  const errors = quiet(t, "error");
  const { client, peer } = await pair(t);
  client.on("name", () => {
    throw new Error("a secret");
  });
  client.on("big", () => 2n ** 60n);
  client.on("worse", () => {
    throw new Reject("invalid", "no", { details: 2n ** 60n });
  });
  peer.frame({ event: "name", id: 1 });
  const failed = { code: "internal", message: "the handler failed", retryable: true, details: null };
  assert.deepEqual(await peer.next(), { error: 1, data: failed });
  peer.frame({ event: "big", id: 2 });
  assert.deepEqual(await peer.next(), { error: 2, data: failed });
  peer.frame({ event: "worse", id: 3 });
  assert.deepEqual(await peer.next(), { error: 3, data: failed });
  assert.match(errors()[0], /"name" failed.*a secret/);
});

test("a request without a handler is not found", async (t) => {
  const { client, peer } = await pair(t);
  client.on("other", () => {});
  peer.frame({ event: "name", id: 1 });
  assert.deepEqual(await peer.next(), {
    error: 1,
    data: {
      code: "not_found",
      message: "no handler for the event 'name'",
      retryable: false,
      details: { event: "name" },
    },
  });
});

test('a request that has no handler of its own is answered by "*"', async (t) => {
  const { client, peer } = await pair(t);
  client.on("*", (event, data, { signal }) => [event, data, signal.aborted]);
  peer.frame({ event: "name", data: 5, id: 1 });
  assert.deepEqual(await peer.next(), { reply: 1, data: ["name", 5, false] });
});

test("a request that the server cancels is answered so, once, and its handler told", async (t) => {
  const { client, peer } = await pair(t);
  let told;
  const began = new Promise((resolve) => {
    client.on("name", (data, { signal }) => {
      resolve();
      return new Promise((answer) =>
        signal.addEventListener("abort", () => answer((told = signal.reason.code))),
      );
    });
  });
  peer.frame({ event: "name", id: 1 });
  await began;
  peer.frame({ cancel: 1 });
  assert.deepEqual(await peer.next(), {
    error: 1,
    data: { code: "cancelled", message: "the request was cancelled", retryable: false, details: null },
  });
  peer.frame({ cancel: 1 });
  await handled(client, peer);
  assert.equal(told, "cancelled");
  client.emit("after");
  assert.equal((await peer.next()).event, "after");
});

test("an answer does not go to another connection than the question", async (t) => {
  const { server, client, peer } = await pair(t);
  let answer;
  const began = new Promise((resolve) => {
    client.on("name", (data, { signal }) => {
      resolve(signal);
      return new Promise((done) => (answer = done));
    });
  });
  peer.frame({ event: "name", id: 1 });
  const signal = await began;
  peer.cut();
  const again = await server.peer();
  await reach(client, "open");
  assert.equal(signal.aborted, true);
  answer("Ada");
  await null;
  client.emit("after");
  assert.equal((await again.next()).event, "after");
});

test("a handler may ask the server itself, while the server waits", async (t) => {
  const { client, peer } = await pair(t);
  client.on("name", async () => `Ada ${await client.request("surname")}`);
  peer.frame({ event: "name", id: 1 });
  const { event, id } = await peer.next();
  assert.equal(event, "surname");
  peer.frame({ reply: id, data: "Lovelace" });
  assert.deepEqual(await peer.next(), { reply: 1, data: "Ada Lovelace" });
});

test("more requests at once than are allowed are too many", async (t) => {
  const { client, peer } = await pair(t);
  client.on("wait", () => new Promise(() => {}));
  for (let id = 0; id <= 1000; id++) peer.frame({ event: "wait", id });
  const { error, data } = await peer.next();
  assert.deepEqual([error, data.code], [1000, "too_many"]);
});

test("a request with the id of one under way is told on the console, and the first goes on", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  let answer;
  client.on("name", () => new Promise((resolve) => (answer = resolve)));
  peer.frame({ event: "name", id: 1 });
  peer.frame({ event: "name", id: 1 });
  await handled(client, peer);
  assert.equal(warnings().length, 1);
  answer("Ada");
  assert.deepEqual(await peer.next(), { reply: 1, data: "Ada" });
});

test("what is no message of its encoding is told on the console, and all goes on", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  for (const message of ["{", "", Buffer.from("{}")]) peer.message(message);
  await handled(client, peer);
  // One a second.
  assert.equal(warnings().length, 1);
});

test("an event whose name is nearly that of a handler is told once, and others are not", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  client.on("said", () => {});
  client.on("user_joined", () => {});
  for (let times = 0; times < 3; times++) {
    for (const event of ["siad", "sayd", "weather", "SAID", "userJoined", "x", "message"]) peer.frame({ event });
  }
  await handled(client, peer);
  assert.deepEqual(
    warnings(),
    [["siad", "said"], ["sayd", "said"], ["SAID", "said"], ["userJoined", "user_joined"]].map(
      ([came, has]) => `symphony: the server sends "${came}", which has no handler. There is one for "${has}"`,
    ),
  );
});

test("frames of no kind, of an unknown one, and answers that nobody waits for are passed over", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t);
  for (const frame of [
    [],
    null,
    7,
    {},
    { publication: 1 },
    { grant: 1 },
    { reply: 99 },
    { end: 7 },
    { cancel: 3 },
  ])
    peer.frame(frame);
  await handled(client, peer);
  assert.equal(warnings().length, 0);
});

test("the same is true where MessagePack is spoken", async (t) => {
  const warnings = quiet(t, "warn");
  const { client, peer } = await pair(t, { protocol: "msgpack" });
  for (const message of ["{}", Buffer.from([0xc1]), Buffer.from([0xc0])]) peer.message(message);
  await handled(client, peer);
  assert.equal(warnings().length, 1);
});

test("a field that is null is as if it were not there", async (t) => {
  const { client, peer } = await pair(t);
  const heard = new Promise((resolve) => client.on("said", resolve));
  peer.frame({ event: "said", id: null });
  assert.equal(await heard, null);
  const sum = client.request("sum");
  peer.frame({ event: null, reply: (await peer.next()).id, data: 6 });
  assert.equal(await sum, 6);
});

test("fields that are new are ignored", async (t) => {
  const { client, peer } = await pair(t);
  const heard = new Promise((resolve) => client.on("said", resolve));
  peer.frame({ event: "said", data: 1, position: 7, reply: 3 });
  assert.equal(await heard, 1);
});
