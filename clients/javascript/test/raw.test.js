import assert from "node:assert/strict";
import { test } from "node:test";

import { DisconnectedError } from "../symphony.js";
import { join, quiet, reach, serve } from "./server.js";

/** A raw route, with a client that is open. */
async function rawPair(t, options) {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url, options);
  const peer = await server.peer();
  await client.opened;
  return { server, client, peer };
}

test("text and bytes are sent as they are, all else as JSON text, an event in its envelope", async (t) => {
  for (const protocol of ["json", "msgpack"]) {
    const { client, peer } = await rawPair(t, { protocol });
    assert.equal(client.protocol, "raw");
    client.send("hi");
    client.send(new Uint8Array([1]));
    client.send(new Uint8Array([2]).buffer);
    client.send({ n: 1 });
    client.send(undefined);
    client.emit("say", "hi");
    assert.equal(await peer.nextMessage(), "hi");
    assert.deepEqual(await peer.nextMessage(), new Uint8Array([1]));
    assert.deepEqual(await peer.nextMessage(), new Uint8Array([2]));
    assert.equal(await peer.nextMessage(), '{"n":1}');
    assert.equal(await peer.nextMessage(), "null");
    assert.equal(await peer.nextMessage(), '{"event":"say","data":"hi"}');
  }
});

test("what is sent without a connection waits, as it was then", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url);
  const data = Buffer.from([1]);
  client.send("text");
  client.send(data);
  client.send([1]);
  client.emit("say", 1);
  data[0] = 9;
  const peer = await server.peer();
  assert.equal(await peer.nextMessage(), "text");
  assert.deepEqual(await peer.nextMessage(), new Uint8Array([1]));
  assert.equal(await peer.nextMessage(), "[1]");
  assert.equal(await peer.nextMessage(), '{"event":"say","data":1}');
});

test("a subprotocol of the route's own is raw too", async (t) => {
  const server = await serve(t);
  server.choose = () => "chat.v2";
  const client = join(t, server.url, { subprotocols: ["chat.v2"] });
  assert.equal(client.subprotocol, null);
  await client.opened;
  assert.equal(client.protocol, "raw");
  assert.equal(client.subprotocol, "chat.v2");
});

test("messages go to the handlers of `message`", async (t) => {
  const { client, peer } = await rawPair(t);
  const heard = [];
  const both = new Promise((resolve) =>
    client.on("message", (message) => heard.push(message) === 2 && resolve()),
  );
  peer.message('{"event":"no frame here"}');
  peer.message(Buffer.from([1, 2]));
  await both;
  assert.deepEqual(heard, ['{"event":"no frame here"}', new Uint8Array([1, 2])]);
});

test("an iteration gets all messages from the first on, over all connections, and ends with close", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url);
  const peer = await server.peer();
  peer.message("a");
  peer.message("b");
  await client.opened;
  const heard = [];
  for await (const message of client) {
    heard.push(message);
    if (message === "b") {
      peer.cut();
      (await server.peer()).message("c");
    }
    if (message === "c") client.close();
  }
  assert.deepEqual(heard, ["a", "b", "c"]);
});

test("an iteration can be left and taken up again", async (t) => {
  const { client, peer } = await rawPair(t);
  peer.message("a");
  peer.message("b");
  const first = async () => {
    for await (const message of client) return message;
  };
  assert.equal(await first(), "a");
  assert.equal(await first(), "b");
});

test("an iteration ends with the server's normal end and raises any other, behind the messages", async (t) => {
  for (const [code, raises] of [
    [1000, false],
    [4403, true],
  ]) {
    const { client, peer } = await rawPair(t);
    peer.message("last");
    peer.close(code, "bye");
    await reach(client, "closed");
    const heard = [];
    const all = (async () => {
      for await (const message of client) heard.push(message);
    })();
    if (raises) await assert.rejects(all, { name: "DisconnectedError", code });
    else await all;
    assert.deepEqual(heard, ["last"]);
  }
});

test("messages that nobody takes are not dropped: the client closes, and says so", async (t) => {
  const errors = quiet(t, "error");
  const { client, peer } = await rawPair(t, { maxQueue: 2 });
  for (const message of ["a", "b", "c"]) peer.message(message);
  await reach(client, "closed");
  assert.equal(client.closed.code, 1013);
  assert.equal((await peer.closed).code, 4000);
  assert.match(errors()[0], /2 messages wait/);
  const heard = [];
  await assert.rejects(
    async () => {
      for await (const message of client) heard.push(message);
    },
    (error) => error instanceof DisconnectedError && error.code === 1013,
  );
  assert.deepEqual(heard, ["a", "b"]);
});

test("a raw route answers no requests, and says what to do", async (t) => {
  const server = await serve(t);
  server.raw();
  const client = join(t, server.url);
  const waiting = assert.rejects(client.request("sum"), { name: "WrongRouteError", message: /raw.*client\.send\(\)/ });
  await client.opened;
  await waiting;
  await assert.rejects(client.request("sum"), /raw/);
  await assert.rejects(client.stream("count").next(), /raw/);
});

test("where there are events there is nothing to iterate over, and it says what to do", async (t) => {
  const server = await serve(t);
  const client = join(t, server.url);
  const early = client[Symbol.asyncIterator]().next();
  await assert.rejects(early, /client\.on\(\)/);
  await assert.rejects(client[Symbol.asyncIterator]().next(), /client\.on\(\)/);
  assert.equal(client.state, "open");
});

test("handlers of events on a raw route are told on the console, once", async (t) => {
  const warnings = quiet(t, "warn");
  const server = await serve(t);
  server.raw();
  const told = () => warnings().filter((line) => line.includes("without events"));
  const plain = join(t, server.url);
  for (const event of ["message", "error", "*"]) plain.on(event, () => {});
  await server.peer();
  await plain.opened;
  assert.deepEqual(told(), []);

  const client = join(t, server.url);
  for (const event of ["message", "said", "left"]) client.on(event, () => {});
  const peer = await server.peer();
  await client.opened;
  peer.close(1012);
  await server.peer();
  await reach(client, "open");
  assert.equal(told().length, 1);
  assert.match(told()[0], /is a raw connection, without events: the handler of "said" is never called/);
});
