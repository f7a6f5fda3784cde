import pytest

from symphony.errors import ConfigurationError, Reject
from symphony.rooms.family import DEFAULT_FAMILY, Families, Family
from symphony.rooms.policy import RoomPolicy


def test_a_name_that_matches_is_of_its_family_with_the_parameters():
    families = Families()
    chat = Family(RoomPolicy("chat:{name}"))
    families.add(chat)
    assert families.find("chat:lobby") == (chat, {"name": "lobby"})


def test_a_name_unlike_any_family_is_a_room_without_a_policy():
    families = Families()
    families.add(Family(RoomPolicy("chat:{name}")))
    family, params = families.find("lobby")
    assert (family.authorize, params) == (None, {})


def test_a_name_that_begins_like_a_family_and_is_none_of_it_is_refused():
    """With `socket.join(f"chat:{name}")` a client sent `a:b`, and its room had no `authorize`."""
    families = Families()
    families.add(Family(RoomPolicy("chat:{name}")))
    with pytest.raises(Reject, match=r"'chat:a:b' is not a name of the rooms 'chat:\{name\}'"):
        families.find("chat:a:b")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{team}:secret", "a:b:secret"),
        ("{team}:secret", ":secret"),
        ("{team}:secret", "a\n:b:secret"),
        ("{kind}:{id:int}", "a:007"),
        ("{kind}:{id:int}", "a:b:7"),
        ("{id:int}", "007"),
        ("{at:float}", "1.50"),
        ("{name}", "a:b"),
        ("{id:int}:moves", "x:moves"),
    ],
)
def test_a_name_shaped_like_a_pattern_that_begins_with_a_parameter_is_refused(pattern: str, name: str):
    """With `socket.join(f"{team}:secret")` a client sent `a:b`, and its room had no `authorize`."""
    families = Families()
    families.add(Family(RoomPolicy(pattern)))
    with pytest.raises(Reject, match="is not a name of the rooms"):
        families.find(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("{team}:secret", "lobby"), ("{team}:secret", "a:secrets"), ("{id:int}", "lobby"), ("{id:int}", "a:7")],
)
def test_a_name_of_another_shape_is_a_room_without_a_policy(pattern: str, name: str):
    families = Families()
    families.add(Family(RoomPolicy(pattern)))
    assert families.find(name)[0] is DEFAULT_FAMILY


def test_the_more_specific_family_wins_whatever_the_order():
    families = Families()
    families.add(Family(RoomPolicy("chat:{name:path}")))
    lobby = Family(RoomPolicy("chat:lobby"))
    families.add(lobby)
    assert families.find("chat:lobby")[0] is lobby


def test_two_families_of_one_shape_are_an_error():
    families = Families()
    families.add(Family(RoomPolicy("chat:{name}")))
    with pytest.raises(ConfigurationError, match=r"chat:\{room\}"):
        families.add(Family(RoomPolicy("chat:{room}")))


@pytest.mark.parametrize(
    ("pattern", "name", "looks_alike"),
    [
        ("{org}:{team}:{id:int}:log", ":" * 512, False),
        ("{org}:{team}:{id:int}:log", ":" * 509 + "log", True),
        ("{org}:{team}:log", "a:log", False),
        ("{a}:log:{b}:log", "x:log", False),
        ("{a}:log:{b}:log", "x:log:y:z:log", True),
        ("{a}::{b}", "x:::y", True),
        ("{a}:{id:int}", "x", False),
    ],
)
def test_the_text_of_a_pattern_is_looked_for_in_order(pattern: str, name: str, looks_alike: bool):
    families = Families()
    families.add(Family(RoomPolicy(pattern)))
    if looks_alike:
        with pytest.raises(Reject, match="is not a name of the rooms"):
            families.find(name)
    else:
        assert families.find(name)[0] is DEFAULT_FAMILY


def test_no_room_name_takes_long_whatever_the_pattern():
    """With a regex of 12 `.*`, this test would not end in a lifetime."""
    families = Families()
    families.add(Family(RoomPolicy(":".join(f"{{p{number}}}" for number in range(12)) + ":log")))
    for name in (":" * 512, "a:" * 256, ":log" * 127 + ":lo"):
        assert families.find(name)[0] is DEFAULT_FAMILY
