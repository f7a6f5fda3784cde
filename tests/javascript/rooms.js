/** In Node: members of a room whose connections are cut again and again, and what they got. */

import { createRequire } from "node:module";

import { connect } from "../../clients/javascript/symphony.js";

const { WebSocket } = createRequire(new URL("../../clients/javascript/package.json", import.meta.url))("ws");

const [url, protocol, many] = process.argv.slice(2);
const COUNT = Number(many);

/** A client whose connection can be cut, as by a network that goes. */
function cuttable(path) {
  let last;
  class Cuttable extends WebSocket {
    constructor(...how) {
      super(...how);
      last = this;
    }
  }
  const client = connect(`${url}${path}`, { WebSocket: Cuttable, protocol, backoff: 0.01, maxBackoff: 0.05 });
  return { client, cut: () => last.terminate() };
}

/** Random numbers that are the same each time. */
let seed = 7;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;

/** What a member got, and a promise of the last one. */
function record() {
  const got = [];
  let whole;
  const all = new Promise((resolve) => (whole = resolve));
  const take = (number) => {
    got.push(number);
    if (number === COUNT) whole();
  };
  return { got, all, take, lost: [] };
}

async function handlers() {
  const member = { ...cuttable("/rooms"), ...record() };
  const room = await member.client.join("feed:1");
  room.on("said", member.take);
  room.onLost((position) => member.lost.push(position));
  return { ...member, room };
}

async function iteration() {
  const member = { ...cuttable("/rooms"), ...record() };
  const room = await member.client.join("feed:1", { since: "start" });
  room.onLost((position) => member.lost.push(position));
  (async () => {
    for await (const { data } of room) {
      member.take(data);
      // It is slower than what comes.
      if (data % 10 === 0) await new Promise(setImmediate);
    }
  })();
  return { ...member, room };
}

/** The server puts it into the room. */
async function served() {
  const member = { ...cuttable("/served"), ...record() };
  member.client.on("said", member.take);
  await member.client.request("is_in");
  return { ...member, room: null };
}

/** It joins when it opens. */
async function opening() {
  const member = { ...cuttable("/rooms"), ...record() };
  let held = null;
  member.client.onOpen(async ({ join }) => {
    const room = await join("feed:1");
    if (!held) room.on("said", member.take);
    held = room;
  });
  await member.client.opened;
  return { ...member, room: held };
}

const members = await Promise.all([handlers(), iteration(), served(), opening()]);
const publisher = connect(`${url}/rooms`, { WebSocket, protocol });
for (let number = 1; number <= COUNT; number++) {
  await publisher.request("post", number);
  if (random(4) === 0) members[random(members.length)].cut();
}
await Promise.all(members.map(({ all }) => all));
// The position is stored when the handlers have returned.
while (members.some(({ room }) => room && room.position.offset < COUNT)) await new Promise(setImmediate);
const answer = members.map(({ got, lost, room }) => ({ got, lost, position: room?.position ?? null }));
await members[0].room.leave();
await publisher.request("post", COUNT + 1);
const after = members[0].got.length;
await Promise.all([publisher, ...members.map(({ client }) => client)].map((client) => client.close()));
console.log(JSON.stringify({ members: answer, after }));
