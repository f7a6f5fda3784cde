"""Which server of a cluster has which key."""

from __future__ import annotations

from typing import Any

import pytest

from symphony.broker.redis.cluster import Slots, slot_of
from symphony.broker.redis.scripts import Names


def test_the_slot_of_a_name_is_that_of_its_tag() -> None:
    # The example of the specification of CRC16.
    assert slot_of("123456789") == 0x31C3
    assert slot_of("a{123456789}b{c}") == 0x31C3


@pytest.mark.parametrize("name", ["a", "", "{", "}", "{}", "a{b}c", "%", "é", "x" * 300])
def test_all_keys_of_a_room_and_its_channel_are_in_one_slot(name: str) -> None:
    names = Names("sym")
    tagged, *keys = names.room(name)
    assert len({slot_of(each) for each in (*keys, names.channel(name), f"{tagged}k:3:ann:{{key}}")}) == 1
    assert len({slot_of(each) for each in (*names.kept(name), names.topic(name))}) == 1
    presence = names.presence("7")
    assert slot_of(f"{presence}p:{name}") == slot_of(presence)


def test_rooms_topics_and_members_have_no_name_in_common() -> None:
    """A room may be called as it likes, such as by its clients."""
    names = Names("sym")
    tricky = ["nodes", "t:nodes", "%t:nodes", "presence", "%p", "%p0", "", "%", "{", "%7B", "}"]
    keys = [key for room in tricky for key in (*names.room(room), names.channel(room))]
    keys += [key for topic in tricky for key in (*names.kept(topic), names.topic(topic))]
    keys += [names.presence(part) for part in ("", "0", "1")]
    keys += [names.probe("node", number) for number in range(3)]
    assert len(keys) == len(set(keys))


def node(port: int, role: str = "master", health: str = "online", **more: Any) -> list[object]:
    fields = {
        "id": "x",
        "port": port,
        "ip": "10.0.0.1",
        "endpoint": "10.0.0.1",
        "role": role,
        "health": health,
    }
    flat = [part for name, value in (fields | more).items() for part in (name.replace("_", "-"), value)]
    return [part.encode() if isinstance(part, str) else part for part in flat]


def shard(slots: list[int], *nodes: list[object]) -> list[object]:
    return [b"slots", slots, b"nodes", list(nodes)]


def test_the_master_of_each_slot_is_the_one_that_is_online() -> None:
    answer = [
        shard([0, 99, 200, 299], node(1, health="fail"), node(2), node(3, "replica")),
        shard([100, 199], node(4, health="fail"), node(5, "replica", "loading")),
        shard([], node(6)),
    ]
    slots = Slots.of(answer, "asked", tls=False)
    assert [slots.masters[slot] for slot in (0, 99, 299)] == [("10.0.0.1", 2)] * 3
    assert [slots.masters[slot] for slot in (100, 199, 300, 16_383)] == [None] * 4
    assert [port for _, port in slots.nodes] == [1, 2, 3, 4, 5, 6]


def test_a_server_that_does_not_know_its_host_has_the_one_that_was_asked() -> None:
    answer = [shard([0, 0], node(1, endpoint="")), shard([1, 1], node(2, endpoint="?", ip=""))]
    answer += [shard([2, 2], node(3, endpoint="one.example")), shard([3, 3], node(4, endpoint=None))]
    slots = Slots.of(answer, "asked", tls=False)
    assert slots.masters[:4] == [("10.0.0.1", 1), ("asked", 2), ("one.example", 3), ("10.0.0.1", 4)]


def test_with_tls_it_is_the_port_for_tls() -> None:
    answer = [shard([0, 0], node(1, tls_port=11)), shard([1, 1], node(2))]
    assert Slots.of(answer, "asked", tls=True).masters[:2] == [("10.0.0.1", 11), None]
