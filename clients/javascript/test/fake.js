/** A WebSocket without a network, for what no server can be made to do. */

import { connect } from "../symphony.js";

export class FakeSocket {
  /** The last one made, and all. */
  static last;
  static made = [];
  readyState = 0;
  protocol = "";
  bufferedAmount = 0;
  sent = [];

  constructor(url, offered) {
    Object.assign(this, { url, offered });
    FakeSocket.last = this;
    FakeSocket.made.push(this);
  }

  open(protocol = this.offered[0]) {
    this.readyState = 1;
    this.protocol = protocol;
    this.onopen({});
  }

  send(message) {
    this.sent.push(message);
  }

  /** Begins to close; nobody answers. */
  close() {
    this.readyState = 2;
  }

  end(code, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

/** A client with such a WebSocket, whose handshake has begun. */
export async function joinFake(t, options) {
  const client = connect("ws://localhost/", { WebSocket: FakeSocket, backoff: 0, ...options });
  t.after(() => {
    client.close();
    // None may be left that `close` waits for.
    for (const socket of FakeSocket.made.splice(0)) socket.end(1000);
  });
  const made = FakeSocket.made.length;
  await handshake();
  // The module of MessagePack takes more turns, the first time.
  while (FakeSocket.made.length === made) await new Promise(setImmediate);
  return client;
}

/** Let an attempt begin that is due. */
export async function handshake() {
  await null;
  await null;
}
