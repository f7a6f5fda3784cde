"""The vectors themselves: whole, told apart, and the same in JSON as in MessagePack."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from symphony.errors import CODES
from wire.vectors import FOLDER, decoded, encoded, joined, load, means, message, named, plain, same, texts

FILES = sorted(path.name for path in FOLDER.glob("*.json"))
ENVELOPES = load("envelopes.json")
NEEDS = {
    "int64",
    "int and float apart",
    "bytes",
    "time",
    "nan",
    "http status",
    "http headers",
    "no subprotocol chosen",
    "ping envelopes",
    "limits",
    "retryable",
    "rooms",
    "publishing",
    "clock",
}
FIELDS = {
    "event": ({"event", "data"}, {"id", "timeout", "credit", "room", "offset", "epoch", "after", "replaces"}),
    "reply": ({"id", "data"}, set()),
    "error": ({"id", "data"}, set()),
    "item": ({"id", "data"}, set()),
    "end": ({"id"}, set()),
    "grant": ({"id", "credit"}, set()),
    "cancel": ({"id"}, set()),
    "ping": ({"number"}, set()),
    "pong": ({"number"}, set()),
    "retry": ({"seconds"}, set()),
    "dropped": ({"id"}, set()),
    "join": ({"room", "id"}, {"since", "timeout"}),
    "leave": ({"room", "id"}, {"timeout"}),
    "publish": ({"event", "data", "room"}, {"id", "timeout", "key", "client"}),
    "history": ({"room", "id"}, {"timeout", "limit", "before"}),
    "joined": ({"room"}, {"position", "recovered", "members", "snapshot"}),
    "left": ({"room", "data"}, set()),
    "lost": ({"room", "position"}, {"snapshot"}),
    "presence": ({"room"}, {"id", "timeout", "diff", "members"}),
    "count": ({"room", "id"}, {"timeout"}),
}
FROM = {
    "item": "server",
    "end": "server",
    "pong": "server",
    "retry": "server",
    "dropped": "server",
    "grant": "client",
    "ping": "client",
    "join": "client",
    "leave": "client",
    "publish": "client",
    "history": "client",
    "joined": "server",
    "left": "server",
    "lost": "server",
    "count": "client",
}
SHAPES = {
    "envelopes.json": ({"name", "from", "envelope"}, {"needs", "json", "msgpack"}),
    "malformed.json": (
        {"name"},
        {"needs", "json", "msgpack", "id", "code", "path", "spoken", "text", "binary", "text_hex", "closes"},
    ),
    "server.json": ({"name", "steps"}, {"needs", "codecs", "limits", "offers"}),
    "client.json": ({"name", "steps"}, {"needs", "codecs", "options", "on_open", "clock"}),
    "closing.json": ({"then"}, {"code", "status", "sent"}),
    "handshake.json": (set(), {"route", "offers", "chosen", "speaks", "sends", "token", "subprotocol"}),
}
SERVER_STEPS = {"send", "send_text", "send_binary", "receive", "receive_in_any_order", "closed", "server"}
CLIENT_STEPS = SERVER_STEPS - {"server", "receive_in_any_order"} | {
    "accept",
    "refuse",
    "receive_text",
    "receive_binary",
    "differ",
    "close",
    "drop",
    "silence",
    "call",
    "result",
    "next",
    "ask",
    "ends",
    "raises",
    "abort",
    "leave",
    "handled",
    "message",
    "state",
    "protocol",
    "opened",
    "over",
    "passes",
    "joined",
    "same",
    "position_of",
    "members_of",
    "ended",
    "publication",
    "lost",
}


@pytest.mark.parametrize("file", FILES)
def test_every_entry_has_the_form_that_the_readme_gives_it(file: str) -> None:
    must, may = SHAPES[file]
    for name, entry in texts(load(file)):
        if name.startswith(("delays", "refusals")):
            continue
        assert must <= set(entry) <= must | may, name
        assert set(entry.get("needs", ())) <= NEEDS, name


@pytest.mark.parametrize("file", FILES)
def test_names_are_unique(file: str) -> None:
    for group, entries in load(file).items():
        names = Counter(entry["name"] for entry in entries if "name" in entry)
        assert [name for name, count in names.items() if count > 1] == [], group


@pytest.mark.parametrize("file", FILES)
def test_no_number_is_one_that_some_language_cannot_read(file: str) -> None:
    def check(value: Any) -> None:
        if isinstance(value, list | dict):
            for item in value.values() if isinstance(value, dict) else value:
                check(item)
        elif isinstance(value, int):
            assert abs(value) < 2**53

    check({name: entry for name, entry in texts(load(file)) if "needs" not in entry})


def test_every_file_is_in_the_readme_and_no_other() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert {name for name in FILES if f"## `{name}`" in readme} == set(SHAPES) == set(FILES)
    assert all(f"`{need}`" in readme for need in NEEDS)
    assert all(f'"{step}"' in readme or f"`{step}`" in readme for step in SERVER_STEPS | CLIENT_STEPS)


@pytest.mark.parametrize(
    "vector", [*ENVELOPES["encode"], *ENVELOPES["decode"]], ids=lambda vector: vector["name"]
)
def test_an_envelope_is_of_its_kind_and_sent_by_who_may(vector: dict[str, Any]) -> None:
    envelope = dict(vector["envelope"])
    kind = envelope.pop("kind")
    must, may = FIELDS[kind]
    assert must <= set(envelope) <= must | may
    sender = vector["from"]
    assert sender == FROM.get(kind, "server" if kind == "event" and "room" in envelope else sender)
    assert vector["from"] in ("client", "server", "both")
    assert "json" in vector or "msgpack" in vector


@pytest.mark.parametrize("vector", ENVELOPES["encode"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_the_canonical_form_is_what_another_encoder_makes_of_the_meaning(
    vector: dict[str, Any], codec: str
) -> None:
    if codec in vector:
        assert message(vector, codec) == encoded(means(vector["envelope"]), codec)


@pytest.mark.parametrize("vector", ENVELOPES["decode"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_every_spelling_says_what_the_envelope_means(vector: dict[str, Any], codec: str) -> None:
    if codec not in vector:
        return
    said = decoded(message(vector, codec), codec)
    meant = means(vector["envelope"])
    kind = vector["envelope"]["kind"]
    assert next(name for name in FIELDS if name in said) == kind
    for name, value in meant.items():
        found = said.get(name)
        if name in ("since", "position", "replaces", "before") and isinstance(found, dict):
            # A position may have fields that are new, too, and in any order.
            found = {field: found[field] for field in value}
        assert same(value, found), name
    if kind == "event":
        assert {
            name for name in ("id", "timeout", "credit", "room", "offset") if said.get(name) is not None
        } <= set(meant)


@pytest.mark.parametrize(
    ("group", "vector"),
    [(group, vector) for group, vectors in load("malformed.json").items() for vector in vectors],
    ids=lambda part: part if isinstance(part, str) else part["name"],
)
def test_a_refusal_says_which_message_and_how(group: str, vector: dict[str, Any]) -> None:
    forms = {"json", "msgpack", "text", "binary", "text_hex"} & set(vector)
    for form in forms - {"json", "text"}:
        bytes.fromhex(joined(vector[form]))
    if group == "closes":
        assert vector["closes"] in (1007, 1009)
    else:
        assert vector["code"] in CODES
    if group in ("closes", "wrong_message"):
        assert len(forms) == 1
        assert vector["spoken"] in ("json", "msgpack")
    else:
        assert forms
        assert forms <= {"json", "msgpack"}


@pytest.mark.parametrize("vector", load("malformed.json")["refused"], ids=lambda vector: vector["name"])
def test_both_forms_of_what_is_refused_are_wrong_in_the_same_way(vector: dict[str, Any]) -> None:
    """One of them may be no JSON at all; where both can be read, they say the same."""
    said = []
    for codec in {"json", "msgpack"} & set(vector):
        try:
            said.append(decoded(message(vector, codec), codec))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            said.append(None)
    assert len(said) == 1 or same(*said)


@pytest.mark.parametrize("file", ["server.json", "client.json"])
def test_every_step_is_one_of_those_in_the_readme(file: str) -> None:
    steps = SERVER_STEPS if file == "server.json" else CLIENT_STEPS
    for conversation in load(file)["conversations"]:
        for step in conversation["steps"]:
            verbs = [verb for verb in steps if verb in step]
            assert len(verbs) == 1 or ("call" in step and "raises" in step), (conversation["name"], step)
        assert set(conversation.get("codecs", ())) <= {"json", "msgpack", "plain"}


@pytest.mark.parametrize("file", ["server.json", "client.json"])
def test_an_id_has_come_before_it_is_used(file: str) -> None:
    """In a conversation with a client, it is the client that chooses them."""
    for conversation in load(file)["conversations"]:
        known: dict[str, Any] = {}
        for step in conversation["steps"]:
            came = [step["receive"]] if "receive" in step else step.get("receive_in_any_order", [])
            for envelope in came:
                known |= {id: 1 for id in envelope.values() if isinstance(id, str) and id.startswith("$")}
            if "send" in step:
                named(known, step["send"])


@pytest.mark.parametrize("file", ["server.json", "client.json"])
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_every_envelope_that_is_sent_can_be_written(file: str, codec: str) -> None:
    for conversation in load(file)["conversations"]:
        for step in conversation["steps"]:
            if "send" in step:
                assert same(plain(step["send"]), decoded(encoded(step["send"], codec), codec))
