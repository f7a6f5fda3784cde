"""`make demo-cluster`, where it cannot run; tests/browser/test_demo_cluster.py runs it."""

import socket
import sys
from pathlib import Path

from support.balancers import haproxy_binary
from support.examples import EXAMPLES
from support.process import outcome
from support.redisservers import redis_binary

PROGRAM = str(EXAMPLES / "ws" / "scaling" / "cluster.py")


async def test_it_says_what_is_missing_and_how_to_install_it(tmp_path: Path) -> None:
    ended = await outcome(sys.executable, PROGRAM, env={"PATH": str(tmp_path)})
    assert ended.code == 1
    assert "redis-server is missing. Install it: apt-get install redis-server, or brew install redis." in (
        ended.output
    )


async def test_it_says_if_its_port_is_taken() -> None:
    redis_binary(), haproxy_binary()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await outcome(sys.executable, PROGRAM, env={"PORT": str(port)})
    assert ended.code == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in ended.output
    assert "make demo-cluster PORT=9000" in ended.output
