"""A chat that can be deployed without losing a message.

README.md says what the other files are.
"""

import os

from symphony import Identity, Limits, Socket, Symphony

app = Symphony(
    origins=os.environ.get("ORIGINS", "").split(),
    limits=Limits(
        max_connections=20_000,
        # Longer than the proxy needs to notice that this server is not ready.
        notice_time=float(os.environ.get("NOTICE_TIME", "1.5")),
    ),
)
chat = app.route("/chat")
# Who is away for less than 15 s, because their server restarts, does not leave.
rooms = app.rooms("chat:{name}", history=1000, presence=True, grace=15.0, client_join=True)


@chat.on("login")
async def login(socket: Socket, data: str) -> None:
    # A real app asks for a token here.
    socket.login(Identity(data))


@chat.on("where")
async def where() -> int:
    return os.getpid()


@rooms.on_publish("said")
async def said(data: str) -> None:
    """Let members say something."""
