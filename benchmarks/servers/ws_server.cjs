// CommonJS: only `require` finds a package by NODE_PATH.
const { WebSocket, WebSocketServer } = require("ws");

const members = new Set();

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  perMessageDeflate: false,
  backlog: 2048,
});

server.on("connection", (socket, request) => {
  if (request.url === "/echo") {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
    return;
  }
  members.add(socket);
  socket.on("close", () => members.delete(socket));
  socket.on("message", (data, binary) => {
    for (const member of members) {
      if (member.readyState === WebSocket.OPEN) member.send(data, { binary });
    }
  });
});
