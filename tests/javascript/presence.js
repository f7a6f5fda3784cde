/** In Node: who is in a room, as a client on a real server is told. */

import { createRequire } from "node:module";

import { connect } from "../../clients/javascript/symphony.js";

const { WebSocket } = createRequire(new URL("../../clients/javascript/package.json", import.meta.url))("ws");

const [url, protocol] = process.argv.slice(2);
let last;
class Cuttable extends WebSocket {
  constructor(...how) {
    super(...how);
    last = this;
  }
}
const open = (name) => connect(`${url}/${name}`, { WebSocket: Cuttable, protocol, backoff: 0.01, maxBackoff: 0.05 });

const ann = open("ann");
await ann.opened;
const link = last;
const room = await ann.join("chat:a");
const seen = [[...room.presence]];
let wake = () => {};
room.onPresence((presence) => {
  seen.push([...presence]);
  wake();
});

/** Once the members are these. */
async function shows(...ids) {
  while (String([...room.presence.keys()]) !== String(ids)) await new Promise((resolve) => (wake = resolve));
}

const bob = open("bob");
const other = await bob.join("chat:a");
await shows("ann", "bob");
const counts = [await room.count(), await other.count()];
// A page that is reloaded: its connection is lost, and another comes within the grace period.
last.terminate();
await other.count();
// A name that changes.
await bob.request("rename", "Bobby");
while (room.presence.get("bob").name !== "Bobby") await new Promise((resolve) => (wake = resolve));
// The client itself is away for a moment.
link.terminate();
counts.push(await room.count());
const eve = open("eve");
await eve.join("chat:a");
await shows("ann", "bob", "eve");
await other.leave();
await shows("ann", "eve");
await eve.close();
await shows("ann");
counts.push(await room.count());
// Rooms whose clients are not told.
const quiet = await ann.join("quiet:a");
counts.push(await quiet.count());
await Promise.all([ann, bob].map((client) => client.close()));
console.log(JSON.stringify({ seen, counts, quiet: [quiet.presence.isKnown, quiet.presence.size] }));
