const room = "fanout";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    const path = new URL(request.url).pathname;
    return server.upgrade(request, { data: { path } }) ? undefined : new Response("no upgrade", { status: 400 });
  },
  websocket: {
    open(socket) {
      if (socket.data.path === "/fanout") socket.subscribe(room);
    },
    message(socket, message) {
      if (socket.data.path === "/fanout") server.publish(room, message);
      else socket.send(message);
    },
  },
});
