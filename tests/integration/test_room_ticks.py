"""`@rooms.every(seconds)`: ticks that do not drift, and `@rooms.save` after `room.touch()`."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Annotated, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.clients import Log, connect, until
from symphony import ConfigurationError, Depends, Room, Socket, Symphony
from symphony.testing import TestClient


class Game:
    def __init__(self) -> None:
        self.moves = 0


def joining(app: Symphony) -> None:
    """Let sockets join with `+name`, leave with `-name`, and move with `*name`."""

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        name = message[1:]
        if message.startswith("+"):
            await socket.join(name)
        elif message.startswith("-"):
            await socket.leave(name)
        else:
            room = app.room(name)
            room.state.moves += 1
            room.touch()
        return message


async def ask(client: Any, message: str) -> None:
    await client.send(message)
    assert await client.receive() == message


@pytest.mark.parametrize(("seconds", "rooms"), [(0.05, 1), (1 / 3, 1), (1, 5), (7, 20)])
async def test_advancing_the_clock_gives_exactly_the_right_number_of_ticks(seconds: float, rooms: int):
    app, log = Symphony(), Log()
    joining(app)

    @app.rooms("game:{id:int}").every(seconds)
    async def tick(room: Room, dt: float) -> None:
        log.append((room.name, dt))

    async with TestClient(app) as client, client.connect("/") as one:
        for number in range(rooms):
            await ask(one, f"+game:{number}")
        for times in (1, 10, 100):
            log.clear()
            await client.clock.advance(times * seconds)
            for number in range(rooms):
                assert log.count((f"game:{number}", seconds)) == times
            assert len(log) == rooms * times
    assert app.stats.missed_ticks == 0


async def test_ticks_of_many_rooms_are_spread_over_the_interval():
    app = Symphony()
    joining(app)
    times: dict[str, float] = {}

    @app.rooms("game:{id:int}").every(1)
    def tick(room: Room) -> None:
        times.setdefault(room.name, asyncio.get_running_loop().time())

    async with TestClient(app) as client, client.connect("/") as one:
        for number in range(100):
            await ask(one, f"+game:{number}")
        await client.clock.advance(2)
        in_order = sorted(times.values())
        assert len(in_order) == 100
        gaps = [later - earlier for earlier, later in pairwise(in_order)]
        # Evenly spread, they would be 10 ms apart.
        assert max(gaps) < 0.03


async def test_a_tick_that_takes_too_long_skips_the_ticks_it_has_missed_and_counts_them():
    app, log = Symphony(), Log()
    joining(app)

    @app.rooms("game:{id:int}").every(1)
    async def tick(room: Room, dt: float) -> None:
        log.append(dt)
        await asyncio.sleep(3.5 if len(log) == 2 else 0.9)

    async with TestClient(app) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await client.clock.advance(10)
        assert log == [1, 1, 3, 1, 1, 1, 1, 1]
        assert sum(log) == 10
        assert app.stats.missed_ticks == 2


async def test_ticks_that_come_late_but_are_not_missed_do_not_drift():
    """A tick that waited for the interval after the one before would come ever later."""
    app, times = Symphony(), Log()
    joining(app)

    @app.rooms("game:{id:int}").every(0.1)
    async def tick() -> None:
        times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.07)

    async with TestClient(app) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await client.clock.advance(1000 * 0.1)
        assert len(times) == 1000
        assert times[-1] - times[0] == pytest.approx(999 * 0.1)


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), KeyError("x")])
async def test_an_exception_names_the_room_and_the_next_tick_comes(error: BaseException, caplog):
    app, log = Symphony(), Log()
    joining(app)

    @app.rooms("game:{id:int}").every(1)
    def tick(id: int) -> None:
        log.append(id)
        if len(log) == 2:
            raise error

    async with TestClient(app, raise_errors=False) as client, client.connect("/") as one:
        await ask(one, "+game:7")
        await client.clock.advance(4)
        assert log == [7] * 4
        client.errors.clear()
    assert "every(1) of room 'game:7'" in caplog.text


async def test_a_tick_has_parameters_and_dependencies_and_its_room_is_typed():
    app, log = Symphony(), Log()
    joining(app)

    async def session(room: Room) -> AsyncIterator[str]:
        log.append("opened")
        yield room.name
        log.append("closed")

    rooms = app.rooms("game:{id:int}", state=Game)

    @rooms.every(1)
    async def tick(dt: float, room: Room[Game], id: int, db: Annotated[str, Depends(session)]) -> None:
        log.append((dt, room.state.moves, id, db))

    async with TestClient(app) as client, client.connect("/") as one:
        await ask(one, "+game:7")
        await client.clock.advance(1)
        assert log == ["opened", (1, 0, 7, "game:7"), "closed"]


async def test_ticks_come_from_open_to_the_end_of_the_room():
    app, log = Symphony(), Log()
    joining(app)
    rooms = app.rooms("game:{id:int}", linger=2.5)

    @rooms.every(1)
    def tick(id: int) -> None:
        log.append(id)

    rooms.on_empty(lambda: log.append("empty"))
    async with TestClient(app) as client, client.connect("/") as one:
        await client.clock.advance(5)
        assert log == []
        await app.room("game:1").open()
        await client.clock.advance(3)
        assert log == [1, 1, 1]
        await ask(one, "+game:1")
        await ask(one, "-game:1")
        await client.clock.advance(1.9)
        assert log == [1] * 4
        await client.clock.advance(10)
        assert log == [*[1] * 5, "empty"]


async def test_a_tick_may_close_its_room_and_is_the_last():
    app, log = Symphony(), Log()
    joining(app)
    rooms = app.rooms("game:{id:int}", state=Game)

    @rooms.every(1)
    async def tick(room: Room[Game], dt: float) -> None:
        log.append("tick")
        if log.count("tick") == 3:
            await room.close(4000)
            log.append("closed")

    rooms.on_empty(lambda: log.append("empty"))
    async with TestClient(app) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await client.clock.advance(100)
        assert log == ["tick", "tick", "tick", "closed", "empty"]
        assert app.room("game:1").state is None


async def test_ticks_reach_members_over_real_sockets(serve):
    app = Symphony()
    joining(app)

    @app.rooms("game:{id:int}").every(0.01)
    async def tick(room: Room, dt: float) -> None:
        await room.send(json.dumps(dt))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+game:1")
        received = [await client.recv() for _ in range(20)]
        received.remove("+game:1")
        assert set(map(float, received)) <= {round(0.01 * times, 9) for times in range(1, 100)}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1", None])
def test_an_interval_is_a_number_above_0(seconds: Any):
    rooms = Symphony().rooms("game:{id}")
    with pytest.raises(ConfigurationError, match=r"every of rooms 'game:\{id\}' takes a number of seconds"):
        rooms.every(seconds)
    with pytest.raises(ConfigurationError, match=r"save of rooms 'game:\{id\}' takes a number of seconds"):
        rooms.save(every=seconds)


async def test_a_pattern_with_dt_has_no_ticks():
    app = Symphony()
    joining(app)
    app.rooms("game:{dt}").every(1)(lambda dt: None)
    with pytest.raises(ConfigurationError, match="is the name of the seconds since the last tick"):
        async with app.lifespan():
            pass


class Stored:
    """An app whose games are stored."""

    def __init__(self, **options: Any) -> None:
        self.app = Symphony()
        joining(self.app)
        self.log = Log()
        self.stored = 0
        self.failing = False
        self.rooms = self.app.rooms("game:{id:int}", state=Game, **options)

        @self.rooms.save(every=2)
        async def save(room: Room[Game], id: int) -> None:
            moves = room.state.moves
            self.log.append(moves)
            await asyncio.sleep(0.5)
            if self.failing:
                raise OSError("no disk")
            self.stored = moves

        self.rooms.on_empty(lambda: self.log.append("empty"))


async def test_changes_are_saved_once_in_a_while_and_only_if_there_are_any():
    game = Stored()
    async with TestClient(game.app) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await client.clock.advance(100)
        assert game.log == []
        for _ in range(5):
            await ask(one, "*game:1")
        await client.clock.advance(1.5)
        assert game.log == []
        await client.clock.advance(0.6)
        assert game.log == [5]
        # While it is saved: the next save has it.
        await ask(one, "*game:1")
        await client.clock.advance(100)
        assert game.log == [5, 6]
        assert game.stored == 6
        await ask(one, "-game:1")
        await client.clock.advance(1)
        assert game.log == [5, 6, "empty"]


@pytest.mark.parametrize("during", [False, True])
async def test_the_last_changes_are_saved_before_on_empty_and_joins_wait_for_it(during: bool):
    game = Stored()
    async with TestClient(game.app) as client, client.connect("/") as one, client.connect("/") as two:
        await ask(one, "+game:1")
        await ask(one, "*game:1")
        if during:
            await client.clock.advance(2.1)
            await ask(one, "*game:1")
        await ask(one, "-game:1")
        await two.send("+game:1")
        await client.clock.advance(2)
        assert await two.receive() == "+game:1"
        assert game.log == ([1, 2, "empty"] if during else [1, "empty"])
        assert game.stored == 1 + during
        assert game.app.room("game:1").state.moves == 0


async def test_a_save_that_fails_is_reported_and_tried_again(caplog):
    game = Stored()
    game.failing = True
    async with TestClient(game.app, raise_errors=False) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await ask(one, "*game:1")
        await client.clock.advance(6)
        assert game.log == [1, 1]
        assert "save of room 'game:1' failed" in caplog.text
        await ask(one, "-game:1")
        await client.clock.advance(1)
        assert game.log[2:] == [1]
        game.failing = False
        await client.clock.advance(4)
        assert (game.log[-1], game.stored) == ("empty", 1)
        client.errors.clear()


async def test_changes_that_can_not_be_saved_at_the_end_do_not_keep_the_room_for_ever(caplog):
    game = Stored()
    game.failing = True
    async with TestClient(game.app, raise_errors=False) as client, client.connect("/") as one:
        await ask(one, "+game:1")
        await ask(one, "*game:1")
        await ask(one, "-game:1")
        await client.clock.advance(60)
        assert game.log[-1] == "empty"
        assert "The last changes of room 'game:1' were not saved." in caplog.text
        assert game.app.room("game:1").state is None
        client.errors.clear()


async def test_an_app_that_stops_saves_first(serve):
    app, log = Symphony(), Log()
    joining(app)
    rooms = app.rooms("game:{id:int}", state=Game, linger=60)

    @rooms.save(every=1000)
    async def save(room: Room[Game]) -> None:
        await asyncio.sleep(0)
        log.append(room.state.moves)

    app.on_shutdown(lambda: log.append("shutdown"))
    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("+game:1", "*game:1", "*game:1", "-game:1"):
            await client.send(message)
            assert await client.recv() == message
    assert log == [2, "shutdown"]


async def test_touch_without_a_room_or_a_hook_does_nothing():
    app = Symphony()
    joining(app)
    app.rooms("plain:{id}", state=Game)
    async with TestClient(app) as client, client.connect("/") as one:
        app.room("plain:1").touch()
        app.room("any").touch()
        await ask(one, "+plain:1")
        await ask(one, "*plain:1")
        await until(lambda: app.room("plain:1").state.moves == 1)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("touch"), st.just(0.0)),
        st.tuples(st.just("advance"), st.sampled_from([0.1, 0.6, 1.0, 2.5])),
        st.tuples(st.just("fail"), st.just(0.0)),
        st.tuples(st.just("work"), st.just(0.0)),
    ),
    max_size=20,
)


@given(operations)
@example([("touch", 0), ("advance", 2.5), ("touch", 0), ("fail", 0), ("advance", 0.1), ("work", 0)])
@settings(max_examples=60, deadline=None)
def test_the_last_change_is_always_saved_before_the_room_ends(steps: list[tuple[str, float]]):
    async def run() -> None:
        game = Stored()
        async with TestClient(game.app, raise_errors=False) as client:
            room = game.app.room("game:1")
            await room.open(ttl=1000)
            state = room.state
            for step, seconds in steps:
                if step == "touch":
                    state.moves += 1
                    room.touch()
                elif step == "advance":
                    await client.clock.advance(seconds)
                else:
                    game.failing = step == "fail"
            game.failing = False
            await room.close()
            await client.clock.advance(10)
            assert game.stored == state.moves
            assert game.log[-1] == "empty"
            client.errors.clear()

    asyncio.run(run())
