"""Writes to real pipes, whose other end reads when the test wants."""

import io
import os
from collections.abc import Iterator

import pytest

from symphony.transport.native.unblocked import MAX_WAITING_BYTES, Unblocked


@pytest.fixture
def pipe() -> Iterator[tuple[int, Unblocked]]:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        yield reader, Unblocked(stream)
    os.close(reader)


def read_all(reader: int, stream: Unblocked) -> str:
    os.set_blocking(reader, False)
    parts: list[bytes] = []
    while True:
        stream.flush()
        try:
            part = os.read(reader, 1 << 20)
        except BlockingIOError:
            return b"".join(parts).decode()
        parts.append(part)


def test_lines_arrive_at_once_and_in_order(pipe: tuple[int, Unblocked]) -> None:
    reader, stream = pipe
    for n in range(10):
        stream.write(f"{n} é\n")
    assert os.read(reader, 4096).decode() == "".join(f"{n} é\n" for n in range(10))


@pytest.mark.parametrize("size", [10, 4096, 50_000])
@pytest.mark.within("transport.native.unblocked.MAX_WAITING_BYTES")
@pytest.mark.beyond("transport.native.unblocked.MAX_WAITING_BYTES")
def test_a_reader_that_stops_costs_lines_and_not_time(pipe: tuple[int, Unblocked], size: int) -> None:
    """A pipe that nobody read stopped the server at its third long line."""
    reader, stream = pipe
    count = 2 * (MAX_WAITING_BYTES + (1 << 20)) // size
    for n in range(count):
        stream.write(f"{n:07}{'x' * size}\n")
    lines = read_all(reader, stream).splitlines()
    numbers = [int(line[:7]) for line in lines]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < count
    stream.write("after\n")
    dropped = count - len(numbers)
    assert read_all(reader, stream).splitlines() == [
        f"{dropped} log lines were dropped, because nothing read the log.",
        "after",
    ]


def test_one_line_that_is_too_long_is_dropped_and_counted(pipe: tuple[int, Unblocked]) -> None:
    reader, stream = pipe
    stream.write("x" * (MAX_WAITING_BYTES + 1))
    stream.write("next\n")
    assert read_all(reader, stream).endswith("dropped, because nothing read the log.\nnext\n")


def test_a_closed_reader_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        Unblocked(stream).write("nobody\n")


def test_a_stream_without_a_descriptor_is_written_to_directly() -> None:
    stream = io.StringIO()
    unblocked = Unblocked(stream)
    unblocked.write("text\n")
    unblocked.flush()
    assert stream.getvalue() == "text\n"
