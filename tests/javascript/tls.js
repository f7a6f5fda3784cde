/** In Node: a client that says when it is open, and sends what it reads as requests. */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { connect } from "../../clients/javascript/symphony.js";

const { WebSocket } = createRequire(new URL("../../clients/javascript/package.json", import.meta.url))("ws");

const client = connect(process.argv[2], { WebSocket, backoff: 0.02, maxBackoff: 0.05 });
client.onState((state) => {
  if (state === "open" || state === "closed") console.log(state);
});
for await (const line of createInterface({ input: process.stdin })) {
  console.log(await client.request("ping", Number(line)));
}
await client.close();
