"""What is bound, what is not, and what is left behind."""

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from symphony.transport.native.listen import ListenError, listening


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_free_port_is_bound_and_given_back() -> None:
    with listening("127.0.0.1", 0, None) as [bound]:
        port = bound.getsockname()[1]
        assert port
    with listening("127.0.0.1", port, None) as [again]:
        assert again.getsockname() == ("127.0.0.1", port)


def test_a_socket_knows_that_it_speaks_tcp() -> None:
    """asyncio turns Nagle's algorithm off only for sockets that say so."""
    with listening("127.0.0.1", 0, None) as [bound]:
        assert bound.proto == socket.IPPROTO_TCP


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_no_host_is_every_address_of_both_families() -> None:
    with listening("", 0, None) as sockets:
        assert {bound.family for bound in sockets} == {socket.AF_INET, socket.AF_INET6}


def test_a_busy_port_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ListenError) as caught, listening("127.0.0.1", port, None):
            pass
    assert str(caught.value) == (
        f"127.0.0.1:{port} is in use by another program. Stop it or choose another port (0 for a free one)."
    )


def test_an_address_of_another_machine_is_refused() -> None:
    with (
        pytest.raises(ListenError, match=r"192\.0\.2\.1:0 is not an address of this machine"),
        listening("192.0.2.1", 0, None),
    ):
        pass


def test_a_name_that_means_nothing_is_refused() -> None:
    with pytest.raises(ListenError, match="The host 'no host' is not known"), listening("no host", 0, None):
        pass


def test_a_unix_socket_is_for_everyone_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    with listening("", 0, str(path)) as [bound]:
        assert bound.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()


def test_a_unix_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    with listening("", 0, str(path)) as [bound]:
        bound.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_unix_socket_of_a_living_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        inode = path.stat().st_ino
        with pytest.raises(ListenError, match="in use by another server"), listening("", 0, str(path)):
            pass
        assert path.stat().st_ino == inode


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    with pytest.raises(ListenError, match="not a socket"), listening("", 0, str(path)):
        pass
    assert path.read_text() == "keep me"


def test_a_unix_socket_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "absent", "chat.sock")
    with pytest.raises(ListenError, match=r"Cannot listen on .*: No such file"), listening("", 0, path):
        pass


@pytest.mark.parametrize("port", [-1, 65536, 10**12])
def test_a_number_that_is_not_a_port_is_refused(port: int) -> None:
    """65536 was a free port, other numbers an unknown host."""
    with pytest.raises(ListenError, match=f"{port} is not a port"), listening("127.0.0.1", port, None):
        pass


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".com"])
def test_a_host_that_is_no_name_is_refused(host: str) -> None:
    """It was a UnicodeError with a traceback."""
    with pytest.raises(ListenError, match="is not a host name"), listening(host, 0, None):
        pass


def test_a_port_that_needs_more_rights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with (
        pytest.raises(ListenError, match=r"no permission to listen on .*127\.0\.0\.1:80"),
        listening("127.0.0.1", 80, None),
    ):
        pass


@pytest.mark.parametrize("path", ["x" * 200, "nul\0", "file/chat.sock"])
def test_a_path_that_cannot_be_a_unix_socket_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    """A file in the place of the folder, or a null character, was a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(ListenError) as caught, listening("", 0, str(tmp_path / path)):
        pass
    assert str(caught.value).startswith("Cannot listen on ")
    assert "\n" not in str(caught.value)


def socket_in(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    bound.listen()
    return bound


@pytest.mark.parametrize("stopped", [False, True], ids=["accepting", "not accepting any more"])
def test_the_unix_socket_of_the_next_server_is_left_alone(tmp_path: Path, stopped: bool) -> None:
    """A stopping server closes its socket first and drains for seconds. The next one starts meanwhile."""
    path = tmp_path / "chat.sock"
    with ExitStack() as after:
        with listening("", 0, str(path)) as [bound]:
            if stopped:
                bound.close()
            path.unlink()
            after.enter_context(socket_in(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize("kind", ["a file", "a folder", "a link", "nothing"])
def test_what_has_taken_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "chat.sock"
    with listening("", 0, str(path)):
        path.unlink()
        if kind == "a file":
            path.write_text("precious")
        elif kind == "a folder":
            path.mkdir()
        elif kind == "a link":
            path.symlink_to(tmp_path)
    assert os.path.lexists(path) == (kind != "nothing")


def test_a_unix_socket_that_was_given_other_rights_is_still_removed(tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    with listening("", 0, str(path)):
        path.chmod(0o600)
    assert not path.exists()
