"""Routing: choose the handler by the path, and read values from the path.

Each route sends the values from its path, and closes the connection.

Run it with `python examples/ws/routing.py`, and connect with
`wscat -c ws://127.0.0.1:8080/pages/start`.
"""

import os

from symphony import Router, Socket, Symphony

app = Symphony()


# Static: exactly this path. Static routes win over parameters, and parameters win over
# wildcards. The order of registration does not matter.
@app.route("/")
async def home(socket: Socket) -> None:
    await socket.send({"route": "home"})
    await socket.close()


# Parameter: one segment of the path, passed to the parameter of the same name.
@app.route("/pages/{name}")
async def page(socket: Socket, name: str) -> None:
    await socket.send({"route": "page", "name": name})
    await socket.close()


# Wildcard: the rest of the path, including slashes.
@app.route("/files/{path:path}")
async def file(socket: Socket, path: str) -> None:
    await socket.send({"route": "file", "path": path})
    await socket.close()


# Query: parameters that are not in the path come from `?q=…&page=…`, converted to their
# types. If `page` is not a number or `q` is missing, the client is refused with HTTP 400.
@app.route("/search")
async def search(socket: Socket, q: str, page: int = 1) -> None:
    await socket.send({"route": "search", "q": q, "page": page})
    await socket.close()


# A router groups routes, usually in their own module. Routers can be nested: this one is
# at /api/users. `{id:int}` matches digits only.
users = Router(prefix="/users")


@users.route("/{id:int}")
async def user(socket: Socket, id: int) -> None:
    await socket.send({"route": "user", "id": id})
    await socket.close()


@users.route("/me")
async def me(socket: Socket) -> None:
    await socket.send({"route": "me"})
    await socket.close()


api = Router(prefix="/api")
api.include(users)
app.include(api)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
