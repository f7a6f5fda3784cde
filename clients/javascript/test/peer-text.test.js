/** Text of the other side cannot change what a log or an error looks like. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, joinFake } from "./fake.js";
import { pair, quiet, reach } from "./server.js";

const EVIL = [
  ["an escape sequence", "\u001b[2Jgone"],
  ["a line break", "one\r\nsymphony: two"],
  ["C1", "a\u009b31mb"],
  ["a line separator", "a\u2028b\u2029c"],
  ["a change of direction", "a\u202etxt.exe\u2066"],
  ["an invisible character", "a\u200b\ufeff\u00adb"],
  ["half of a pair", "a\ud83d"],
  ["too much text", "é".repeat(100_000)],
];
const BAD = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/** Our own codec would refuse some of it. */
const raw = (peer, frame) => peer.message(JSON.stringify(frame));

function clean(text) {
  assert.ok(!BAD.test(text), JSON.stringify(text));
  assert.ok(text.length <= 400, `${text.length} characters`);
}

for (const [what, text] of EVIL) {
  test(`${what} in an error, a reason or a name is shown as it is harmless`, async (t) => {
    const lines = ["warn", "error"].map((level) => quiet(t, level));
    const { client, peer } = await pair(t);
    const asked = client.request("sum");
    const { id } = await peer.next();
    raw(peer, { error: id, data: { code: text, message: text, details: { text } } });
    await assert.rejects(asked, (error) => {
      clean(error.message);
      clean(error.code);
      return true;
    });
    client.on("*", () => {
      throw new Error("own");
    });
    raw(peer, { event: text, data: 1 });
    raw(peer, { event: text, id: 1 });
    await peer.next();
    raw(peer, { event: "error", data: { code: text, message: text } });
    peer.message(`{${text}`);
    raw(peer, { event: "wait", id: text });
    raw(peer, { event: "wait", id: text });
    for (const said of lines.flatMap((level) => level())) for (const line of said.split("\n    at ").slice(0, 1)) clean(line);
  });

  test(`${what} in the reason of a close`, async (t) => {
    const warnings = quiet(t, "warn");
    const client = await joinFake(t);
    FakeSocket.last.open();
    FakeSocket.last.onmessage({ data: JSON.stringify({ event: "error", data: { code: "test.no", message: text } }) });
    FakeSocket.last.end(4403, text);
    await reach(client, "closed");
    clean(client.closed.reason);
    await assert.rejects(client.waitClosed().then(() => client.request("x")), (error) => {
      clean(error.message);
      clean(error.reason);
      return true;
    });
    for (const line of warnings()) clean(line);
  });
}

// within: MAX_SHOWN
// beyond: MAX_SHOWN
test("text of 200 characters is shown whole, and longer text is cut to that", async (t) => {
  const { client, peer } = await pair(t);
  for (const length of [199, 200, 201, 10_000]) {
    const message = "é".repeat(length);
    const asked = client.request("sum");
    peer.frame({ error: (await peer.next()).id, data: { code: "test.no", message } });
    await assert.rejects(asked, (error) => {
      assert.equal(error.message, length <= 200 ? message : `${"é".repeat(199)}…`);
      return true;
    });
  }
});

test("plain text of any script stays as it is", async (t) => {
  const { client, peer } = await pair(t);
  for (const text of ["naïve", "日本語", "می\u200cخواهم", "👨\u200d👩\u200d👧"]) {
    const asked = client.request("sum");
    const { id } = await peer.next();
    peer.frame({ error: id, data: { code: "test.no", message: text } });
    await assert.rejects(asked, { message: text });
  }
});

test("fields of an error that are not text do no harm", async (t) => {
  const { client, peer } = await pair(t);
  for (const message of [null, 5, { toString: 1 }, [], true]) {
    const asked = client.request("sum");
    const { id } = await peer.next();
    peer.frame({ error: id, data: { code: "test.no", message } });
    await assert.rejects(asked, { code: "test.no" });
  }
});

test("names, ids and codes that are not text do no harm either", async (t) => {
  const lines = ["warn", "error"].map((level) => quiet(t, level));
  const { client, peer } = await pair(t);
  client.on("*", () => {
    throw new Error("own");
  });
  const heard = new Promise((resolve) => client.on("heard", resolve));
  for (const odd of [5.5, true, [1], { a: 1 }, { toString: 1 }]) {
    raw(peer, { event: odd });
    raw(peer, { event: odd, id: 7 });
    assert.equal((await peer.next()).error, 7);
    // Its id is none that could be answered.
    raw(peer, { event: "name", id: odd });
    for (const kind of ["reply", "error", "item", "end", "cancel", "pong", "retry", "limits"]) {
      if (kind !== "retry") raw(peer, { [kind]: odd, data: odd });
    }
    raw(peer, { event: "error", data: odd });
    raw(peer, { event: "error", data: { code: odd, message: odd } });
  }
  raw(peer, { event: "heard" });
  await heard;
  assert.equal(client.state, "open");
  for (const said of lines.flatMap((level) => level())) clean(said.split("\n    at ")[0]);
});
