"""The listening sockets of the workers."""

import socket
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from symphony.cli.workers.sockets import close, spread
from symphony.transport.native.listen import ListenError, bind

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not spread connections")


@only_linux
def test_connections_are_spread_over_sockets_of_one_address() -> None:
    slots = spread(bind("127.0.0.1", 0, None), 3)
    got: Counter[int] = Counter()
    with ExitStack() as stack:
        stack.callback(close, slots)
        address = slots[0][0].getsockname()
        for (each,) in slots:
            assert each.getsockname() == address
            each.listen(200)
        for _ in range(120):
            client = stack.enter_context(socket.socket())
            client.connect(address)
            for number, (each,) in enumerate(slots):
                each.setblocking(False)
                try:
                    stack.enter_context(each.accept()[0])
                except BlockingIOError:
                    continue
                got[number] += 1
    assert got.total() == 120
    assert min(got[number] for number in range(3)) > 10


@only_linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_another_server_does_not_get_the_address(host: str) -> None:
    slots = spread(bind(host, 0, None), 2)
    try:
        port = slots[0][0].getsockname()[1]
        for (each,) in slots:
            each.listen()
        with pytest.raises(ListenError, match="is in use by another program"):
            bind(host, port, None)
    finally:
        close(slots)


def test_a_unix_socket_is_shared(tmp_path: Path) -> None:
    bound = bind("", 0, str(tmp_path / "socket"))
    slots = spread(bound, 3)
    assert slots == [bound, bound, bound]
    close(slots)
    assert bound[0].fileno() == -1
