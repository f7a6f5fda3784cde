"""`symphony.testing.Cluster`: what it runs, and how it says that something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from symphony import History, Identity, RemoteError, Room, Socket, Symphony
from symphony.rooms.sharedfeed import SharedFeed
from symphony.testing import BrokenPromiseError, Cluster


def make_app() -> Symphony:
    app = Symphony()
    app.rooms("chat:{name}", history=History(size=10), client_join=True)
    app.rooms("club:{name}", presence=True, grace=5, client_join=True)
    route = app.route("/", events=True)

    @route.on_connect
    async def enter(socket: Socket) -> None:
        if socket.handshake.token:
            socket.login(Identity(socket.handshake.token))

    return app


async def say(cluster: Cluster, node: int, *texts: int) -> None:
    one = cluster.nodes[node]
    for text in texts:
        await one.run(one.app.room("chat:a").emit("said", text))


def test_members_on_all_nodes_get_what_is_published_on_one() -> None:
    async def scenario(cluster: Cluster) -> None:
        followers = []
        for _ in range(6):
            client = await cluster.connect("/")
            followers.append(cluster.follow(client, await client.join("chat:a")))
        await say(cluster, 0, 1, 2, 3)
        await asyncio.sleep(1)
        assert [[one.data for one in each.publications] for each in followers] == [[1, 2, 3]] * 6
        assert [one.data for one in cluster.stored("chat:a")] == [1, 2, 3]

    Cluster(make_app, nodes=3).run(scenario)


def test_a_client_of_a_killed_node_misses_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        (node,) = [node for node in cluster.nodes if node.links]
        node.kill()
        await say(cluster, 0, 1, 2)
        await asyncio.sleep(2)
        await say(cluster, 0, 3)
        await asyncio.sleep(1)
        assert [one.data for one in follower.publications] == [1, 2, 3]
        assert follower.lost == []

    Cluster(make_app, nodes=2, seed=3).run(scenario)


def test_what_a_restarted_broker_has_forgotten_is_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        await say(cluster, 0, 1)
        cluster.broker.restart()
        await asyncio.sleep(3)
        await say(cluster, 1, 2)
        await asyncio.sleep(1)
        assert [one.data for one in follower.publications] == [1, 2]
        assert len(follower.lost) == 1

    Cluster(make_app).run(scenario)


def test_the_member_of_a_killed_node_departs_once_after_its_lease() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/", token="ann")
        other = await cluster.connect("/", token="bob")
        await client.join("club:a")
        room = await other.join("club:a")
        home = next(node for node in cluster.nodes if "bob" in str(node.app.room("club:a").members))
        for node in tuple(cluster.nodes):
            if node is not home:
                node.kill()
        if "ann" in str(home.app.room("club:a").members):
            pytest.fail("choose a seed where both are on other nodes")
        await client.close()
        await asyncio.sleep(20)
        assert sorted(room.presence) == ["ann", "bob"]
        await asyncio.sleep(30)
        assert sorted(room.presence) == ["bob"]

    Cluster(make_app, seed=1).run(scenario)


def test_a_paused_node_goes_on_with_what_was_sent_to_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        (node,) = [node for node in cluster.nodes if node.links]
        other = 1 - cluster.nodes.index(node)
        node.pause()
        await say(cluster, other, 1, 2)
        await asyncio.sleep(1)
        assert follower.publications == []
        node.resume()
        await asyncio.sleep(1)
        assert [one.data for one in follower.publications] == [1, 2]

    Cluster(make_app).run(scenario)


def test_an_isolated_node_hears_later_what_it_has_missed() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        (node,) = [node for node in cluster.nodes if node.links]
        other = 1 - cluster.nodes.index(node)
        node.isolate()
        await say(cluster, other, 1, 2)
        await asyncio.sleep(5)
        assert follower.publications == []
        node.rejoin()
        await asyncio.sleep(5)
        assert [one.data for one in follower.publications] == [1, 2]

    Cluster(make_app).run(scenario)


def test_a_restarted_broker_that_has_its_file_has_lost_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        await say(cluster, 0, 1, 2)
        cluster.broker.restart(keeps="all")
        await asyncio.sleep(3)
        await say(cluster, 1, 3)
        await asyncio.sleep(1)
        assert [one.data for one in follower.publications] == [1, 2, 3]
        assert follower.lost == []

    Cluster(make_app).run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_members_are_told_once_of_a_broker_that_has_lost_the_last_publications(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        await say(cluster, 0, 1, 2, 3)
        # The client has all of them.
        await asyncio.sleep(0.1)
        cluster.broker.restart(keeps="older")
        await asyncio.sleep(3)
        await say(cluster, 1, 4)
        await asyncio.sleep(1)
        assert len(follower.lost) == 1
        # It goes on with the oldest that is kept.
        kept = [one.data for one in follower.publications][3:]
        assert kept in ([4], [1, 4], [1, 2, 4], [1, 2, 3, 4])
        assert [one.data for one in cluster.stored("chat:a")][-len(kept) :] == kept

    Cluster(make_app, seed=seed).run(scenario)


def test_an_empty_place_in_a_repair_is_no_hole_for_the_members() -> None:
    """A node that had missed a publication and its edit told of the edit only: members joined again."""

    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        follower = cluster.follow(client, await client.join("chat:a"))
        (node,) = [node for node in cluster.nodes if node.links]
        other = cluster.nodes[1 - cluster.nodes.index(node)]
        cluster.broker.forget(cluster.random)
        room = other.app.room("chat:a")
        for _ in range(3):
            position = await other.run(room.emit("said", "first"))
            await other.run(room.emit("said", "edited", replaces=position))
        await asyncio.sleep(40)
        assert [(one.data, one.position.offset) for one in follower.publications] == [
            ("edited", offset) for offset in (2, 4, 6)
        ]

    # What is sent on each connection is checked, too.
    Cluster(make_app).run(scenario)


def test_a_member_is_restored_though_another_one_came_first_after_the_store_has_lost_its_memory() -> None:
    """The node has told the epoch of the member who came last, so the others arrived a second time."""

    async def scenario(cluster: Cluster) -> None:
        for name in ("ann", "bob", "cleo"):
            client = await cluster.connect("/", token=name)
            await client.join("club:a")
        cluster.broker.restart()
        await asyncio.sleep(2)
        await (await cluster.connect("/", token="dan")).join("club:a")
        await asyncio.sleep(15)
        decided = [line for line in cluster.trace if "store:" in line and "in club:a" in line]
        for name in ("ann", "bob", "cleo"):
            kinds = [kind for kind in ("arrive", "restore") for line in decided if f"{name} {kind}" in line]
            assert kinds == ["arrive", "restore"]

    Cluster(make_app, nodes=1).run(scenario)


def forget_one(feed: SharedFeed, record: Any) -> None:
    feed.last = record.position


def deliver_twice(feed: SharedFeed, record: Any) -> None:
    super(SharedFeed, feed)._received(record)
    super(SharedFeed, feed)._received(record)


@pytest.mark.parametrize(
    ("mutant", "words"),
    [(forget_one, "in the end"), (deliver_twice, "again"), (lambda *_: None, "in time")],
)
def test_a_broken_promise_names_the_seed_and_what_happened(
    mutant: Callable[..., None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        cluster.follow(client, await client.join("chat:a"))
        await say(cluster, 0, 1, 2)
        await say(cluster, 1, 3)

    monkeypatch.setattr(SharedFeed, "_received", mutant)
    monkeypatch.setattr(SharedFeed, "_mend", lambda feed, *, check=False: None)
    traces = []
    for _ in range(2):
        with pytest.raises(BrokenPromiseError, match=words) as broken:
            Cluster(make_app, seed=7).run(scenario)
        assert "This is seed 7" in str(broken.value)
        assert "chat:a has said 1" in str(broken.value)
        assert broken.value.seed == 7
        traces.append(broken.value.trace)
    assert traces[0] == traces[1]


def test_what_a_scenario_raises_has_the_seed_as_a_note() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.note("it begins")
        raise LookupError("nothing is here")

    with pytest.raises(LookupError) as raised:
        Cluster(make_app, seed=9).run(scenario)
    (note,) = raised.value.__notes__
    assert "seed 9" in note
    assert "it begins" in note


def test_a_refused_join_is_told_as_on_a_server() -> None:
    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        with pytest.raises(RemoteError, match="may not ask"):
            await client.join("hall:a")

    Cluster(make_app).run(scenario)


@pytest.mark.parametrize(
    ("options", "words"), [({"nodes": 0}, "at least one"), ({"faults": ["fire"]}, "'fire'")]
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cluster(make_app, **options)


def test_a_cluster_that_does_not_run_says_so() -> None:
    with pytest.raises(RuntimeError, match="run"):
        _ = Cluster(make_app).nodes


def test_a_handler_in_a_thread_is_refused() -> None:
    def make() -> Symphony:
        app = make_app()
        route = app.route("/threads", events=True)

        @route.on("work", thread=True)
        def work() -> int:
            return 1

        return app

    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/threads")
        with pytest.raises(RemoteError, match="internal"):
            await client.request("work")

    Cluster(make).run(scenario)


async def test_it_does_not_run_inside_another_loop() -> None:
    async def scenario(cluster: Cluster) -> None: ...

    with pytest.raises(RuntimeError, match="without `async`"):
        Cluster(make_app).run(scenario)


def test_a_room_runs_on_its_home_only_while_the_lease_is_sure() -> None:
    """A node that cannot reach the store stops ticks and tasks before another node may begin with them."""
    log: list[tuple[float, str, str]] = []

    def make() -> Symphony:
        app = Symphony()
        games = app.rooms("game:{name}", state=dict, client_join=True)
        app.route("/", events=True)

        @games.every(1.0)
        async def tick(room: Room[Any]) -> None:
            log.append((asyncio.get_running_loop().time(), "tick", room.name))

        @games.task
        async def work(room: Room[Any]) -> None:
            log.append((asyncio.get_running_loop().time(), "task", room.name))
            try:
                await asyncio.sleep(1000)
            finally:
                log.append((asyncio.get_running_loop().time(), "end", room.name))

        return app

    async def scenario(cluster: Cluster) -> None:
        client = await cluster.connect("/")
        await client.join("game:a")
        await asyncio.sleep(5)
        (node,) = [node for node in cluster.nodes if node.links]
        node.isolate()
        await asyncio.sleep(60)
        isolated = [(at, what) for at, what, _ in log if at > 5]
        assert max(at for at, what in isolated) < 36
        assert [what for _, what in isolated if what != "tick"] == ["end"]
        log.clear()
        node.rejoin()
        await asyncio.sleep(20)
        assert [what for _, what, _ in log].count("task") == 1
        assert [what for _, what, _ in log].count("tick") > 5
        await client.close()

    Cluster(make).run(scenario)
