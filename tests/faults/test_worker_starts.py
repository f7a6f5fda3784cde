"""Workers that start with each option of `symphony run`, and workers that cannot start."""

import json
import os
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trustme
import websockets

from support.clients import closed, connect, get
from support.fleets import APP, workers
from support.process import outcome

pytestmark = pytest.mark.timeout(60)

SYMPHONY = (sys.executable, "-W", "error", "-m", "symphony", "run")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "starting_app.py"
    rewrite(file, APP)
    return file


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


async def failure(file: Path, *options: str) -> tuple[int, str]:
    """Run workers that must fail without output; return the exit code and what was said."""
    code, output, errors = await outcome(*SYMPHONY, str(file), "--workers", "3", "--port", "0", *options)
    assert output == ""
    return code, errors


# Options


async def test_a_factory_is_served_with_tls(file: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    rewrite(file, APP + "\nhidden = app\ndel app\ndef create_app() -> Symphony:\n    return hidden\n")
    options = ("--ssl-certfile", str(chain), "--ssl-keyfile", str(key))
    async with workers(file, 2, *options, name=":create_app") as fleet:
        assert fleet.running.address.startswith("https://")
        seen: set[str] = set()
        while len(seen) < 2:
            async with connect(fleet.url, ssl=context) as client:
                seen.add(str(await client.recv()))
    assert seen == set(map(str, fleet.first))


async def test_a_unix_socket_is_shared_and_removed(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "workers.sock"
    async with workers(file, 2, "--uds", str(path)) as fleet:
        assert fleet.running.address == f"unix:{path}"
        async with websockets.unix_connect(str(path), compression=None) as client:
            victim = int(await client.recv())
            os.kill(victim, signal.SIGKILL)
            await closed(client)
            await fleet.logged("was ended by SIGKILL")
            async with websockets.unix_connect(str(path), compression=None) as other:
                assert int(await other.recv()) != victim
        fleet.running.signal()
        assert await fleet.running.end() == (0, [])
    assert not path.exists()


async def test_an_app_of_another_framework_is_served_behind_a_proxy(file: Path) -> None:
    outer = APP.replace("str(os.getpid())", "socket.client[0]").replace("app", "ws")
    outer += (
        "\nfrom fastapi import FastAPI\n\n"
        "app = FastAPI(lifespan=ws.lifespan)\n"
        '@app.get("/pid")\n'
        "async def pid() -> int:\n    return os.getpid()\n"
        'app.mount("/ws", ws)\n'
    )
    rewrite(file, outer)
    async with workers(file, 2, "--proxy-headers", name=":app") as fleet:
        seen: set[int] = set()
        while len(seen) < 2:
            seen.add(json.loads((await get(f"{fleet.running.address}/pid")).text))
        assert seen == set(fleet.first)
        headers = {"X-Forwarded-For": "203.0.113.9"}
        async with connect(f"{fleet.url}/ws/", additional_headers=headers) as client:
            assert await client.recv() == "203.0.113.9"


async def test_each_address_of_a_name_is_served_by_all_workers(file: Path) -> None:
    async with workers(file, 2, "--host", "localhost") as fleet:
        assert {await fleet.greeting() for _ in range(40)} == set(fleet.first)


async def test_reloading_serves_with_one_process(file: Path) -> None:
    code, errors = await failure(file, "--reload")
    assert (code, errors) == (2, "Error: --reload serves with one process: leave out --workers.\n")


@pytest.mark.within("cli.main.MAX_WORKERS")
@pytest.mark.beyond("cli.main.MAX_WORKERS")
async def test_there_are_1_to_256_workers(file: Path) -> None:
    for count, said in (("256", "There is no file"), ("257", "or equal to"), ("0", "or equal to")):
        code, errors = await failure(file.with_name("missing.py"), "--workers", count)
        assert code == 2
        assert said in errors


# Failures


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_like_this\n", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        (
            "@app.on_startup\nasync def fail() -> None:\n    raise ValueError('no database')\n",
            "ValueError: no database",
        ),
        ("del app\n", "has no Symphony app"),
        ("os._exit(7)\n", ""),
        ("os._exit(0)\n", "ended with exit code 0 before it was ready"),
        ("os.kill(os.getpid(), 9)\n", "was ended by SIGKILL before it was ready"),
    ],
)
async def test_an_app_that_cannot_start_fails_once_with_its_reason(file: Path, text: str, said: str) -> None:
    rewrite(file, APP + text)
    code, errors = await failure(file)
    assert code != 0
    assert errors.count(said) == 1 or said == ""
    assert "A new one starts" not in errors


async def test_a_worker_that_fails_after_the_first_stops_all_of_them(file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    rewrite(
        file,
        APP
        + f"\ntry:\n    open({str(mark)!r}, 'x')\nexcept FileExistsError:\n    raise ValueError('again')\n",
    )
    code, errors = await failure(file)
    assert code == 1
    assert "ValueError: again" in errors


async def test_workers_do_not_share_the_address_of_another_server(file: Path) -> None:
    """With SO_REUSEPORT, two servers could listen on one port, and each would get half of the clients."""
    async with workers(file, 2) as fleet:
        port = fleet.url.rpartition(":")[2]
        for count in ("2", "1"):
            command = (*SYMPHONY, str(file), "--workers", count, "--port", port)
            code, _, errors = await outcome(*command)
            assert code == 1
            assert f"127.0.0.1:{port} is in use" in errors
        assert await fleet.greeting() in fleet.first


async def test_code_that_cannot_start_does_not_replace_workers_that_run(file: Path) -> None:
    async with workers(file, 2) as fleet:
        rewrite(file, "raise ValueError('broken')\n")
        fleet.running.signal(signal.SIGHUP)
        await fleet.logged("Worker 1 .* before it was ready. The old workers stay.")
        assert {await fleet.greeting() for _ in range(40)} == set(fleet.first)
        rewrite(file, APP)
        fleet.running.signal(signal.SIGHUP)
        await fleet.logged("All workers have been replaced")
        assert not set(fleet.first) & {await fleet.greeting() for _ in range(40)}


async def test_a_worker_that_fails_again_and_again_is_started_ever_later(file: Path) -> None:
    async with workers(file, 2) as fleet:
        rewrite(file, "raise ValueError('broken')\n")
        os.kill(fleet.first[0], signal.SIGKILL)
        await fleet.logged(r"Worker 1 .* was ended by SIGKILL. A new one starts now")
        await fleet.logged(r"Worker 1 .* before it was ready. A new one starts in 1 s")
        # The other one accepts all connections meanwhile.
        assert {await fleet.greeting() for _ in range(40)} == {fleet.first[1]}
        await fleet.logged(r"Worker 1 .* before it was ready. A new one starts in 2 s")
        rewrite(file, APP)
        while await fleet.greeting() == fleet.first[1]:
            pass
