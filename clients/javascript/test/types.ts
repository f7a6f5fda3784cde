/** What the types promise. Nothing here runs: `npm run check` reads it. */

import {
  connect,
  Client,
  DisconnectedError,
  type Position,
  QueueFullError,
  RefusedError,
  Reject,
  RemoteError,
  RequestTimeoutError,
  Room,
  type RoomPresence,
  SymphonyError,
  WrongRouteError,
} from "../symphony.js";

interface Said {
  name: string;
  text: string;
}

interface Events {
  emits: { say: { text: string }; wave: null; maybe: { n: number } | null };
  receives: { said: Said; left: string };
  requests: { sum: { data: number[]; reply: number }; now: { reply: Date }; log: { data: string } };
  streams: { count: { data: number; item: number }; all: { item: Said } };
  answers: { name: { reply: string }; add: { data: [number, number]; reply: number } };
}

/** Compiles only if both are the same type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>): void {}

const client = connect<Events>("/chat", {
  token: async () => "t",
  protocol: "msgpack",
  requestTimeout: 5,
  WebSocket,
});
same<typeof client, Client<Events>>(true);
same<typeof client.state, "new" | "connecting" | "open" | "waiting" | "closed">(true);
same<typeof client.closed, { code: number; reason: string; refusal: RemoteError | null } | null>(true);
same<typeof client.opened, Promise<void>>(true);
same<ReturnType<typeof client.connect>, Promise<void>>(true);
client.waitClosed().then((closed) => same<typeof closed.code, number>(true));
client.onOpen(async ({ emit, request }) => {
  emit("say", { text: "hi" });
  const sum = await request("sum", [1, 2]);
  same<typeof sum, number>(true);
  // @ts-expect-error no such event
  emit("shout");
});

// @ts-expect-error no such option
connect<Events>("/chat", { request_timeout: 5 });
// @ts-expect-error no such encoding
connect<Events>("/chat", { protocol: "xml" });
// @ts-expect-error no such part of a map of events
connect<{ emit: {} }>("/chat");

client.emit("say", { text: "hi" });
client.emit("wave");
client.emit("maybe");
client.emit("maybe", { n: 1 });
// @ts-expect-error no such event
client.emit("shout", { text: "hi" });
// @ts-expect-error the data is not left out
client.emit("say");
// @ts-expect-error the data is of another type
client.emit("say", { text: 1 });

async function requests(): Promise<void> {
  const sum = await client.request("sum", [1, 2]);
  same<typeof sum, number>(true);
  const now = await client.request("now");
  same<typeof now, Date>(true);
  await client.request("now", null, { timeout: 1, idempotent: true, signal: new AbortController().signal });
  await client.request("log", "line");
  // @ts-expect-error no such request
  await client.request("say", { text: "hi" });
  // @ts-expect-error the data is of another type
  await client.request("sum", ["1"]);
  // @ts-expect-error no such option
  await client.request("sum", [1], { retries: 3 });
}

async function streams(): Promise<void> {
  for await (const number of client.stream("count", 3, { credit: 8 })) same<typeof number, number>(true);
  for await (const said of client.stream("all")) same<typeof said, Said>(true);
  // @ts-expect-error no such stream
  client.stream("sum", [1]);
  // @ts-expect-error the data is not left out
  client.stream("count");
}

const off: () => void = client.on("said", ({ name, text }) => {
  same<typeof name, string>(true);
  same<typeof text, string>(true);
});
off();
client.on("name", () => "Ada");
client.on("name", async (data, { signal }) => {
  same<typeof data, null>(true);
  same<typeof signal, AbortSignal>(true);
  return "Ada";
});
client.on("add", ([a, b]) => a + b);
client.on("error", (error) => same<typeof error.code, string>(true));
client.on("*", (event) => same<typeof event, string>(true));
// @ts-expect-error no such event
client.on("sayd", () => {});
// @ts-expect-error the reply is of another type
client.on("name", () => 7);
// @ts-expect-error the data is of another type
client.on("left", (name: number) => {});
client.onState((state) => same<typeof state, "new" | "connecting" | "open" | "waiting" | "closed">(true));

async function rooms(): Promise<void> {
  const signal = new AbortController().signal;
  const room = await client.join("chat:lobby", { since: { epoch: "e", offset: 1 }, timeout: 1, signal });
  same<typeof room, Room<Events>>(true);
  await client.join("chat:lobby", { since: "start" });
  await client.join("chat:lobby", { since: room.position });
  same<typeof room.name, string>(true);
  same<typeof room.position, Position | null>(true);
  same<typeof room.recovered, boolean | null>(true);
  same<typeof room.ended, Error | null>(true);
  same<typeof room.dropped, number>(true);
  const off: () => void = room.on("said", ({ name }) => same<typeof name, string>(true));
  off();
  room.on("*", (event) => same<typeof event, string>(true));
  room.onLost(({ offset, epoch }) => same<[typeof offset, typeof epoch], [number, string]>(true));
  room.onLeft((error) => same<typeof error, Error>(true));
  for await (const { event, data, position } of room) {
    same<typeof position, Position | null>(true);
    if (event === "said") same<typeof data, Said>(true);
    else same<typeof data, string>(true);
    same<typeof event, "said" | "left">(true);
  }
  const info: string | undefined = room.presence.get("ann");
  const members: ReadonlyMap<string, any> = room.presence;
  same<[typeof room.presence.total, typeof room.presence.isKnown], [number, boolean]>(true);
  for (const [id] of room.presence) same<typeof id, string>(true);
  // @ts-expect-error it cannot be changed
  room.presence.set("ann", null);
  const offPresence: () => void = room.onPresence((presence) => same<typeof presence, RoomPresence>(true));
  offPresence();
  same<ReturnType<typeof room.count>, Promise<number>>(true);
  void [info, members];
  await room.leave();
  client.onOpen(async ({ join }) => void (await join("chat:lobby")));
  // @ts-expect-error no such event
  room.on("sayd", () => {});
  // @ts-expect-error a request of the server is not published
  room.on("name", () => "Ada");
  // @ts-expect-error not a position
  await client.join("chat:lobby", { since: 5 });
  // @ts-expect-error no such option
  await client.join("chat:lobby", { position: null });
  const untyped = await connect("/").join("anything");
  untyped.on("anything", (data) => data.goes.here);
  for await (const { event, data } of untyped) {
    same<typeof event, string>(true);
    data.goes.here;
  }
}

async function raw(): Promise<void> {
  const lines = connect<{ receives: { message: string } }>("/raw");
  lines.send({ anything: ["goes"] });
  for await (const line of lines) same<typeof line, string>(true);
  // @ts-expect-error what is left out of the map is not there
  lines.emit("say");
}

async function untyped(): Promise<void> {
  const client = connect("ws://localhost/");
  client.emit("anything");
  client.emit("anything", { at: ["all"] });
  const reply = await client.request("anything", 1, { timeout: 1 });
  reply.goes.here;
  for await (const item of client.stream("anything")) item.goes.here;
  client.on("anything", (data) => data.goes.here);
  client.on("anything", () => "a reply");
  for await (const message of client) message.goes.here;
}

function errors(error: unknown): void {
  if (error instanceof RemoteError) same<typeof error.code, string>(true);
  if (error instanceof RefusedError) {
    const lost: DisconnectedError = error;
    same<typeof lost.code, number>(true);
    same<typeof lost.refusal, RemoteError | null>(true);
    same<typeof error.status, number | null>(true);
    same<typeof error.retryAfter, number | null>(true);
  }
  const own: SymphonyError[] = [
    new Reject("shop.sold_out", "none left", { details: 1 }),
    new QueueFullError(),
    new RequestTimeoutError(),
    new WrongRouteError(),
  ];
  throw own[0];
}

void [requests, streams, rooms, raw, untyped, errors];

/** As the README shows it. */
async function shown(): Promise<void> {
  interface Events {
    emits: { say: { text: string } };
    receives: { said: { name: string; text: string } };
    requests: { sum: { data: number[]; reply: number } };
    streams: { count: { data: number; item: number } };
    answers: { name: { reply: string } }; // requests of the server
  }

  const client = connect<Events>("/chat");
  client.on("said", ({ name }) => console.log(name.toUpperCase()));
  const sum: number = await client.request("sum", [1, 2]);
  void sum;
}
void shown;
