/**
 * A client in JavaScript for Node 22. With Node 20, run `npm install ws` first.
 *
 * Run the server with `python examples/clients/app.py`. Then run one or more of these:
 * `node examples/clients/node_client.mjs Ben "hello, all"`. Stop one with Ctrl+C. If
 * you restart the server, the client reconnects automatically.
 */

// In your own project, import from "symphony-ws".
import { connect, DisconnectedError } from "../../clients/javascript/symphony.js";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
const url = new URL(process.env.URL ?? "ws://127.0.0.1:8080/chat");
const [name = "Ben", ...texts] = process.argv.slice(2);
url.searchParams.set("name", name);

const client = connect(url, { WebSocket });

// Handlers for events and requests from the server. The value that a handler returns, or
// resolves to, answers a request.
client.on("said", ({ name, text }) => console.log(`${name}: ${text}`));
client.on("vote", ({ question, options }) => {
  console.log(`${question} ${options.at(-1)}!`);
  return options.at(-1);
});

// "connecting", "open", "waiting" to reconnect, or "closed" permanently.
client.onState((state) => {
  console.log(`(${state})`);
  if (state === "closed" && client.closed.code !== 1000) {
    console.error(`Closed permanently: ${client.closed.code} ${client.closed.reason}`);
    process.exitCode = 1;
  }
});
process.once("SIGINT", () => {
  client.close();
  console.log("Bye!");
});

try {
  // A request waits for a reply.
  console.log("here:", (await client.request("who")).join(", "));

  // An event has no reply. While the client is not connected, events are queued.
  for (const text of texts) client.emit("say", { text });

  console.log("votes:", await client.request("poll", { question: "Tea or coffee?", options: ["tea", "coffee"] }));

  // Iterate over a stream. If you leave the loop early, the stream ends on the server.
  for await (const line of client.stream("recite")) {
    console.log("  " + line);
    if (line.endsWith(";")) break;
  }
} catch (error) {
  // The connection was lost. The client reconnects anyway.
  if (!(error instanceof DisconnectedError)) throw error;
  console.log(error.message);
}
