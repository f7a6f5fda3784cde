// CommonJS: only `require` finds a package by NODE_PATH.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"] });

io.on("connection", (socket) => {
  socket.join("fanout");
  socket.on("echo", (data) => socket.emit("echo", data));
  socket.on("publish", (data) => io.to("fanout").emit("publish", data));
  socket.on("move", (move, callback) => {
    const valid = Number.isInteger(move?.x) && Number.isInteger(move.y) && typeof move.name === "string";
    callback(valid ? { x: move.x, y: move.y, name: move.name } : { error: "invalid" });
  });
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
