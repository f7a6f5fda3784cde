/**
 * JavaScript clients, as a test of Python tells them to be: on standard input a
 * command a line, on standard output a line for each thing that happens.
 *
 *     > {"do": 1, "client": 0, "verb": "connect", "args": ["ws://…", {"backoff": 0.1}]}
 *     > {"do": 2, "client": 0, "verb": "request", "args": ["sum", [1, 2]]}
 *     < {"client": 0, "state": "open", "at": 1700000000.5}
 *     < {"did": 2, "how": "done", "value": 3, "at": 1700000000.6}
 *
 * It ends when nothing keeps it alive: standard input is closed, and no client
 * has a connection or a timer left.
 */
import { createInterface } from "node:readline";

import { connect } from "../../clients/javascript/symphony.js";
import { WebSocket } from "../../clients/javascript/node_modules/ws/wrapper.mjs";

const now = () => (performance.timeOrigin + performance.now()) / 1000;
const tell = (line) => process.stdout.write(`${JSON.stringify({ ...line, at: now() })}\n`);

const clients = new Map();

const verbs = {
  connect(number, [url, { tokens, ...options }]) {
    const left = [...(tokens ?? [])];
    const token = () => {
      const value = left.length > 1 ? left.shift() : left[0];
      tell({ client: number, asked: value });
      return value;
    };
    const client = connect(url, { ...options, ...(tokens ? { token } : {}), WebSocket });
    clients.set(number, client);
    client.onState((state) => tell({ client: number, state, closed: client.closed }));
    client.on("greeted", (data) => tell({ client: number, heard: data }));
    client.on("name", () => `client ${number}`);
    return client.opened;
  },
  emit: (number, [event, data]) => clients.get(number).emit(event, data),
  request: (number, [event, data, options]) => clients.get(number).request(event, data, options),
  async stream(number, [event, data]) {
    const items = [];
    try {
      for await (const item of clients.get(number).stream(event, data)) {
        items.push(item);
        tell({ client: number, item });
      }
    } catch (error) {
      error.value = items;
      throw error;
    }
    return items;
  },
  close: (number) => clients.get(number).close(),
};

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { do: id, client, verb, args } = JSON.parse(line);
  try {
    const value = await verbs[verb](client, args);
    tell({ did: id, how: "done", value: value ?? null });
  } catch (error) {
    tell({ did: id, how: error.name, value: error.value ?? error.code ?? null });
  }
});
