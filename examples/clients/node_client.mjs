/**
 * A client in JavaScript, for Node 22; in Node 20 run `npm install ws` before.
 *
 * Run the server, `python examples/clients/app.py`, then this, as often as you like:
 * `node examples/clients/node_client.mjs Ben "hello, all"`. Ctrl+C ends it. Stop the
 * server and start it again, and see how the client comes back.
 */

// In a project of yours: from "symphony-ws".
import { connect, DisconnectedError } from "../../clients/javascript/symphony.js";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
const url = new URL(process.env.URL ?? "ws://127.0.0.1:8080/chat");
const [name = "Ben", ...texts] = process.argv.slice(2);
url.searchParams.set("name", name);

const client = connect(url, { WebSocket });

// What the server may send: events, and requests, which are answered by what their
// handler returns, or resolves to.
client.on("said", ({ name, text }) => console.log(`${name}: ${text}`));
client.on("vote", ({ question, options }) => {
  console.log(`${question} ${options.at(-1)}!`);
  return options.at(-1);
});

// "connecting", "open", "waiting" when the connection was lost, or "closed" for good.
client.onState((state) => {
  console.log(`(${state})`);
  if (state === "closed" && client.closed.code !== 1000) {
    console.error(`Closed for good: ${client.closed.code} ${client.closed.reason}`);
    process.exitCode = 1;
  }
});
process.once("SIGINT", () => {
  client.close();
  console.log("Bye!");
});

try {
  // Requests have replies.
  console.log("here:", (await client.request("who")).join(", "));

  // Events have none. Without a connection they wait for the next.
  for (const text of texts) client.emit("say", { text });

  console.log("votes:", await client.request("poll", { question: "Tea or coffee?", options: ["tea", "coffee"] }));

  // A stream is iterated over. Leaving the loop early ends it at the server, too.
  for await (const line of client.stream("recite")) {
    console.log("  " + line);
    if (line.endsWith(";")) break;
  }
} catch (error) {
  // In the midst of it. The client comes back all the same.
  if (!(error instanceof DisconnectedError)) throw error;
  console.log(error.message);
}
