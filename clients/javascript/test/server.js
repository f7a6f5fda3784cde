/** A server whose every move the test plays, and what else the tests share. */

import { once } from "node:events";
import { WebSocketServer, WebSocket } from "ws";

import * as msgpack from "../msgpack.js";
import { connect, json } from "../symphony.js";

/** What the client under test uses: the global one, unless this Node has none. */
export const Implementation = globalThis.WebSocket ?? WebSocket;
export const PackagedWebSocket = WebSocket;

/** What came and what waits for it, in order. */
export class Incoming {
  #items = [];
  #waiting = [];

  push(item) {
    const taker = this.#waiting.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }

  next() {
    if (this.#items.length) return Promise.resolve(this.#items.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  get size() {
    return this.#items.length;
  }
}

/** The server's end of one connection. */
export class Peer {
  #socket;
  #messages = new Incoming();

  constructor(socket, request) {
    this.#socket = socket;
    this.offered = (request.headers["sec-websocket-protocol"] ?? "").split(/, ?/);
    this.codec = socket.protocol === "symphony.v1.msgpack" ? msgpack : json;
    this.closed = once(socket, "close").then(([code, reason]) => ({ code, reason: String(reason) }));
    socket.on("message", (data, binary) => this.#messages.push(binary ? new Uint8Array(data) : String(data)));
  }

  /** The next message as it came. */
  nextMessage() {
    return this.#messages.next();
  }

  /** The next frame. */
  async next() {
    return this.codec.decode(await this.#messages.next());
  }

  /** How many messages have come that nobody asked for. */
  get unread() {
    return this.#messages.size;
  }

  frame(frame) {
    this.#socket.send(this.codec.encode(frame));
  }

  message(message) {
    this.#socket.send(message);
  }

  /** What is sent meanwhile leaves in one write. */
  together(send) {
    const { _socket: socket } = this.#socket;
    socket.cork();
    send();
    socket.uncork();
  }

  /** Bytes as they are, without a frame around them. */
  bytes(bytes) {
    this.#socket._socket.write(bytes);
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** Read nothing more. What the client sends fills the buffers of the kernel, then its own. */
  pause() {
    this.#socket.pause();
  }

  /** As when the network goes: no close frame. */
  cut() {
    this.#socket.terminate();
  }
}

const events = (offered) => offered.find((name) => name.startsWith("symphony.v1.")) ?? false;

class Server {
  #server;
  #peers = new Incoming();
  #closed = [];
  /** Which of the offered subprotocols is chosen. */
  choose = events;

  constructor(server) {
    this.#server = server;
    server.options.handleProtocols = (offered) => this.choose([...offered]);
    server.on("connection", (socket, request) => {
      const peer = new Peer(socket, request);
      this.#closed.push(peer.closed);
      this.#peers.push(peer);
    });
  }

  get port() {
    return this.#server.address().port;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/`;
  }

  /** The next connection that is made. */
  peer() {
    return this.#peers.next();
  }

  /** Every route is raw. */
  raw() {
    this.choose = (offered) => (offered.includes("symphony.raw") ? "symphony.raw" : false);
  }

  /** Say no to all that come, until told otherwise. */
  async refuse(code, reason) {
    this.choose = () => "symphony.refuse";
    (await this.peer()).close(code, reason);
  }

  /** Let all in again. */
  accept() {
    this.choose = events;
  }

  async stop() {
    for (const socket of this.#server.clients) socket.terminate();
    this.#server.close();
    await once(this.#server, "close");
    // `ws` clears its timers only then, and must not find the next test's.
    await Promise.all(this.#closed);
  }
}

/** A server that is gone at the end of the test. */
export async function serve(t, { port = 0 } = {}) {
  const listening = new WebSocketServer({ port, host: "127.0.0.1" });
  await once(listening, "listening");
  const server = new Server(listening);
  let stopped = null;
  const stop = server.stop.bind(server);
  server.stop = () => (stopped ??= stop());
  t.after(() => server.stop());
  return server;
}

/** A client that is closed at the end of the test; it comes back at once. */
export function join(t, url, options = {}) {
  const client = connect(url, { WebSocket: Implementation, backoff: 0, ...options });
  t.after(() => client.close());
  return client;
}

/** A server, a client that is open, and the server's end of it. */
export async function pair(t, options) {
  const server = await serve(t);
  const client = join(t, server.url, options);
  const peer = await server.peer();
  await client.opened;
  return { server, client, peer };
}

/** Wait until the client is in a state. */
export function reach(client, state) {
  if (client.state === state) return Promise.resolve();
  return new Promise((resolve) => {
    const off = client.onState((now) => {
      if (now !== state) return;
      off();
      resolve();
    });
  });
}

/** Stop the time that the client sees; `tick` moves it on, in seconds. */
export function stopTime(t) {
  let milliseconds = 0;
  t.mock.timers.enable({ apis: ["setTimeout"] });
  t.mock.method(performance, "now", () => milliseconds);
  return (seconds, step = 10) => {
    for (let left = Math.round(seconds * 1000); left > 0; left -= step) {
      const forward = Math.min(step, left);
      milliseconds += forward;
      t.mock.timers.tick(forward);
    }
  };
}

/** Print nothing of one kind; the function returned gives the texts of what there was. */
export function quiet(t, level) {
  const { mock } = t.mock.method(console, level, () => {});
  return () => mock.calls.map((call) => call.arguments.map(String).join(" "));
}
