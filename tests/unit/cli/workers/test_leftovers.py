"""What the workers of a killed supervisor remove."""

import pickle
import socket
from pathlib import Path

from symphony.cli.workers.leftovers import Leftovers


def bound(path: Path) -> socket.socket:
    path.parent.mkdir(exist_ok=True)
    each = socket.socket(socket.AF_UNIX)
    each.bind(str(path))
    return each


def test_the_sockets_are_removed_and_the_folder_of_the_broker(tmp_path: Path) -> None:
    uds, broker = tmp_path / "server", tmp_path / "random" / "broker"
    with bound(uds), bound(broker):
        left = pickle.loads(pickle.dumps(Leftovers.of(str(uds), f"ipc://{broker}")))
        for _ in range(2):
            left.remove()
            assert list(tmp_path.iterdir()) == []


def test_the_socket_of_the_next_server_stays(tmp_path: Path) -> None:
    uds = tmp_path / "server"
    with bound(uds):
        left = Leftovers.of(str(uds), None)
        uds.unlink()
        with bound(uds):
            left.remove()
            assert uds.is_socket()


def test_a_folder_with_other_files_stays(tmp_path: Path) -> None:
    broker = tmp_path / "shared" / "broker"
    with bound(broker):
        (broker.parent / "other").touch()
        Leftovers.of(None, f"ipc://{broker}").remove()
    assert [file.name for file in broker.parent.iterdir()] == ["other"]


def test_there_may_be_nothing_to_remove(tmp_path: Path) -> None:
    for left in (Leftovers(), Leftovers.of(None, "ipc://127.0.0.1:5000/token"), Leftovers.of(None, None)):
        left.remove()
