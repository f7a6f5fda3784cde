"""Routing: which handler answers depends on the path, and takes values from it.

Each route answers with what it took from the path, and closes.

Run it with `python examples/ws/routing.py`, and connect with
`wscat -c ws://127.0.0.1:8080/pages/start`.
"""

import os

from symphony import Router, Socket, Symphony

app = Symphony()


# Static: exactly this path. It wins over parameters, and those win over wildcards,
# whatever the order in which they are registered.
@app.route("/")
async def home(socket: Socket) -> None:
    await socket.send({"route": "home"})
    await socket.close()


# Parameter: one segment of the path, given to the parameter of the same name.
@app.route("/pages/{name}")
async def page(socket: Socket, name: str) -> None:
    await socket.send({"route": "page", "name": name})
    await socket.close()


# Wildcard: all the rest of the path, slashes included.
@app.route("/files/{path:path}")
async def file(socket: Socket, path: str) -> None:
    await socket.send({"route": "file", "path": path})
    await socket.close()


# Query: what is not in the path comes from `?q=…&page=…`, converted to its type. A
# page that is not a number is refused with HTTP 400, and so is a query without `q`.
@app.route("/search")
async def search(socket: Socket, q: str, page: int = 1) -> None:
    await socket.send({"route": "search", "q": q, "page": page})
    await socket.close()


# A router groups routes, usually in a module of their own. Routers can be nested:
# this one is at /api/users, and `{id:int}` takes digits only.
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
