import array
from dataclasses import dataclass

import pytest

from symphony.protocol.codec import to_message


@dataclass
class Point:
    x: int
    y: int


def test_text_and_bytes_are_messages_as_they_are():
    assert to_message("hi") == "hi"
    assert to_message(b"hi") == b"hi"


def test_other_buffers_become_bytes():
    """A view's length was once taken for its bytes, which framed 2 of these 16."""
    view = memoryview(array.array("d", [1.0, 2.0]))
    assert to_message(view) == view.tobytes()
    assert to_message(memoryview(b"abcdef")[::2]) == b"ace"
    assert to_message(bytearray(b"ab")) == b"ab"


def test_anything_else_becomes_json_text():
    assert to_message(Point(1, 2)) == '{"x":1,"y":2}'
    assert to_message([None, True, "ä"]) == '[null,true,"ä"]'


def test_what_json_cannot_hold_is_a_type_error():
    with pytest.raises(TypeError, match="object"):
        to_message(object())
