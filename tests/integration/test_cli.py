"""The command `symphony`, and `app.run`, as processes."""

import asyncio
import re
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path

import pytest
import trustme
import websockets

from support.clients import closed, connect, get
from support.greeter import GREETER, greeting, write_greeter
from support.process import Running, launch, outcome

SYMPHONY = (sys.executable, "-W", "error", "-m", "symphony")
SCRIPT = str(Path(sys.executable).with_name("symphony"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_greeter(tmp_path)


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


def served(*arguments: str, cwd: Path | None = None) -> AbstractAsyncContextManager[Running]:
    return launch(*SYMPHONY, "run", *arguments, cwd=cwd)


async def failure(*command: str, cwd: Path | None = None) -> tuple[int, list[str]]:
    """Run what must fail without output, and return its exit code and what it complained about."""
    code, output, errors = await outcome(*command, cwd=cwd)
    assert output == ""
    return code, errors.splitlines()


# What it serves


async def test_a_file_is_served_and_ended_by_sigterm(file: Path) -> None:
    async with served(str(file), "--port", "0") as running:
        assert running.address.startswith("http://127.0.0.1:")
        async with connect(running.url) as client:
            assert await client.recv() == "hello"
            running.signal(signal.SIGTERM)
            assert await closed(client) == (1012, "the server restarts")
        assert await running.end() == (0, [])


async def test_a_module_of_the_current_folder_is_served_and_ended_by_sigint(file: Path) -> None:
    async with served("chat_app:app", "--port", "0", cwd=file.parent) as running:
        assert await greeting(running.url) == "hello"
        running.signal(signal.SIGINT)
        assert await running.end() == (0, [])


async def test_host_and_port_may_come_from_the_environment(file: Path) -> None:
    """`HOST` and `PORT` were read: conda sets `HOST` to a name of its own, which nothing could listen on."""
    env = {"SYMPHONY_HOST": "127.0.0.2", "SYMPHONY_PORT": "0", "HOST": "x86_64-conda-linux-gnu", "PORT": "x"}
    async with launch(SCRIPT, "run", str(file), env=env) as running:
        assert running.address.startswith("http://127.0.0.2:")
        assert await greeting(running.url) == "hello"


async def test_the_broker_of_the_rooms_is_named_once(file: Path) -> None:
    greeter = GREETER.format(greeting="unused").replace('"unused"', 'os.environ["SYMPHONY_BROKER"]')
    rewrite(file, f"import os\n{greeter}")
    async with served(str(file), "--port", "0", "--broker", "memory://") as running:
        assert await greeting(running.url) == "memory://"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_broker_that_does_not_exist_is_refused(file: Path, workers: str) -> None:
    command = (*SYMPHONY, "run", str(file), "--workers", workers, "--broker", "rabbit://here")
    code, errors = await failure(*command)
    assert code == 2
    assert "The broker 'rabbit://…' is not known" in " ".join(errors)


async def test_a_folder_for_the_rooms_must_be_one(file: Path) -> None:
    for options, said in (
        (("--data", str(file)), "this is a file"),
        (("--data", "rooms?"), "must not have ? or #"),
        (("--data", "rooms", "--broker", "memory://"), "--data and --broker both name a broker"),
    ):
        code, errors = await failure(*SYMPHONY, "run", str(file), *options)
        assert code == 2
        assert said in " ".join(errors)


async def test_a_unix_socket_is_served_and_removed(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    async with served(str(file), "--uds", str(path)) as running:
        assert running.address == f"unix:{path}"
        async with websockets.unix_connect(str(path), compression=None) as client:
            assert await client.recv() == "hello"
        running.signal()
        assert await running.end() == (0, [])
    assert not path.exists()


async def test_tls_is_served_with_the_given_certificate(file: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--ssl-certfile", str(chain), "--ssl-keyfile", str(key))
    async with served(str(file), "--port", "0", *options) as running:
        assert running.address.startswith("https://")
        async with connect(running.url, ssl=context) as client:
            assert await client.recv() == "hello"


@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", "203.0.113.9"), ("198.51.100.1", "127.0.0.1")])
async def test_proxy_headers_are_believed_of_trusted_proxies_only(
    tmp_path: Path, trusted: str, seen: str
) -> None:
    file = tmp_path / "who_app.py"
    file.write_text(GREETER.format(greeting="unused").replace('"unused"', "socket.client[0]"))
    options = ("--proxy-headers", "--forwarded-allow-ips", trusted)
    async with (
        served(str(file), "--port", "0", *options) as running,
        connect(running.url, additional_headers={"X-Forwarded-For": "203.0.113.9"}) as client,
    ):
        assert await client.recv() == seen


async def test_the_log_level_decides_what_is_logged(file: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *SYMPHONY,
        *("run", str(file), "--port", "0", "--log-level", "info"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode()
        assert await greeting(first.split()[3].replace("http", "ws")) == "hello"
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert b"INFO symphony.socket: " in errors


MOUNTED = (
    GREETER
    + """
from fastapi import FastAPI

def create_app() -> FastAPI:
    outer = FastAPI(lifespan=app.lifespan)
    outer.mount("/ws", app)
    outer.get("/health")(lambda: "well")
    return outer

site = create_app()
"""
)


@pytest.mark.parametrize("target", ["mounted_app.py", "mounted_app:site", "mounted_app:create_app"])
async def test_an_app_of_another_framework_is_served_natively_with_what_is_mounted(
    tmp_path: Path, target: str
) -> None:
    """The mounted app was served alone, under paths of its own, and nothing said so."""
    (tmp_path / "mounted_app.py").write_text(MOUNTED.format(greeting="hello"))
    async with launch(*SYMPHONY, "run", target, "--port", "0", cwd=tmp_path, stderr=PIPE) as running:
        assert await greeting(f"{running.url}/ws/") == "hello"
        assert (await get(f"{running.url}/health")).json() == "well"
        running.signal(signal.SIGTERM)
        assert await running.end() == (0, [])
        # Not the warning either that the native transport is not in use.
        assert await running.errors() == []


async def test_one_format_shows_symphony_uvicorn_and_the_apps_own_loggers(tmp_path: Path) -> None:
    """The app's own lines came bare and without a level, and requests not at all."""
    (tmp_path / "logging_app.py").write_text(
        MOUNTED.format(greeting="hello")
        + "import logging\n"
        + "@site.get('/own')\n"
        + "async def own() -> None:\n"
        + "    logging.getLogger('shop').info('sold %d', 7)\n"
        + "    logging.info('by the module')\n"
        + "    try:\n"
        + "        raise ValueError('no')\n"
        + "    except ValueError:\n"
        + "        logging.getLogger('shop').exception('not sold')\n"
    )
    options = ("--port", "0", "--log-level", "INFO", "--proxy-headers")
    async with launch(*SYMPHONY, "run", "logging_app.py", *options, cwd=tmp_path, stderr=PIPE) as running:
        response = await get(f"{running.url}/own?token=secret", headers={"X-Forwarded-For": "203.0.113.9"})
        assert response.status_code == 200
        await get(f"{running.url}/a%0Ab")
        await greeting(f"{running.url}/ws/")
        running.signal(signal.SIGTERM)
        await running.end()
        lines = await running.errors()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    own = [line for line in lines if " shop: " in line]
    assert re.fullmatch(stamp + "INFO shop: sold 7", own[0])
    assert re.fullmatch(stamp + "ERROR shop: not sold", own[1])
    assert lines[lines.index(own[1]) + 1] == "Traceback (most recent call last):"
    assert any(re.fullmatch(stamp + "INFO root: by the module", line) for line in lines)
    assert any(re.fullmatch(stamp + r"INFO uvicorn\.error: Shutting down", line) for line in lines)
    assert any(re.match(stamp + r"INFO symphony\.socket: \S+ opened on ", line) for line in lines)
    asked, missing = [line for line in lines if "symphony.http" in line]
    assert re.fullmatch(
        stamp + r"INFO symphony\.http: GET /own from 203\.0\.113\.9: 200 after \d+\.\d{3} s", asked
    )
    assert re.fullmatch(
        stamp + r"INFO symphony\.http: GET /a%0Ab from 127\.0\.0\.1:\d+: 404 after \d+\.\d{3} s", missing
    )


@pytest.mark.parametrize("command", [(SCRIPT,), SYMPHONY], ids=["script", "module"])
async def test_the_version_is_told(command: tuple[str, ...]) -> None:
    assert await outcome(*command, "--version") == (0, f"symphony {version('symphony-ws')}\n", "")


# What it refuses


async def test_a_missing_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, errors = await failure(SCRIPT, "run", "absent.py", cwd=tmp_path)
    assert (code, errors) == (2, [f"Error: There is no file absent.py (seen from {tmp_path})."])


async def test_a_missing_name_is_one_line_and_exit_code_2(file: Path) -> None:
    code, errors = await failure(*SYMPHONY, "run", f"{file}:x", "--port", "0")
    assert (code, errors) == (2, [f"Error: {file}:x: there is no 'x'. Symphony apps there: app."])


async def test_an_import_error_shows_the_users_traceback_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "broken_app.py").write_text("import json\nimport absent_library\n")
    code, errors = await failure(*SYMPHONY, "run", "broken_app.py", cwd=tmp_path)
    assert code == 1
    assert errors == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path / "broken_app.py"}", line 2, in <module>',
        "    import absent_library",
        "ModuleNotFoundError: No module named 'absent_library'",
        "Error: broken_app.py could not be imported: its error is above.",
    ]


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["once", "reload"])
async def test_a_busy_port_is_one_line_and_exit_code_1(file: Path, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        code, errors = await failure(*SYMPHONY, "run", str(file), "--port", port, *options)
    assert code == 1
    assert errors == [
        f"Error: 127.0.0.1:{port} is in use by another program. "
        "Stop it or choose another port (0 for a free one)."
    ]


async def test_app_run_on_a_busy_port_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """uvicorn ran the app's start-up first, and ended with exit code 3."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        script = tmp_path / "script.py"
        script.write_text(
            "from symphony import Symphony\n"
            "app = Symphony()\n"
            "app.on_startup(lambda: print('started'))\n"
            f"app.run(port={port})\n"
        )
        code, errors = await failure(sys.executable, str(script))
    assert code == 1
    assert errors == [
        f"Error: 127.0.0.1:{port} is in use by another program. "
        "Stop it or choose another port (0 for a free one)."
    ]


async def test_a_start_up_that_fails_shows_where_and_exits_with_1(tmp_path: Path) -> None:
    """Only type and message of the exception were logged, and uvicorn's exit code was 3."""
    file = tmp_path / "failing_app.py"
    file.write_text(
        "from symphony import Symphony\n"
        "app = Symphony()\n"
        "@app.on_startup\n"
        "def connect_to_the_database():\n"
        "    raise OSError('the database is away')\n"
    )
    code, errors = await failure(*SYMPHONY, "run", str(file), "--port", "0")
    assert code == 1
    assert f'  File "{file}", line 5, in connect_to_the_database' in errors
    assert "OSError: the database is away" in errors


async def test_a_handler_that_is_wrong_is_said_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "wrong_app.py"
    file.write_text(
        GREETER.format(greeting="x").replace("socket: Socket", "socket: Socket, wrong: dict[str, int]")
    )
    code, errors = await failure(*SYMPHONY, "run", str(file), "--port", "0")
    assert code == 1
    assert any("'wrong'" in line and "greet" in line for line in errors)
    assert not any("Traceback" in line for line in errors)


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["once", "reload"])
async def test_a_certificate_that_cannot_be_used_is_said_before_the_start(
    file: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    chain = tmp_path / "chain.pem"
    trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(chain)
    code, errors = await failure(*SYMPHONY, "run", str(file), "--ssl-certfile", str(chain), *options)
    assert code == 2
    assert errors == [
        f"Error: The certificate {chain} has no key in its file: "
        "give the file of its key too, with --ssl-keyfile or ssl_keyfile=."
    ]


async def test_a_log_level_that_does_not_exist_is_one_line_and_exit_code_2(file: Path) -> None:
    code, errors = await failure(*SYMPHONY, "run", str(file), "--log-level", "loud")
    assert code == 2
    assert errors == ["Error: 'loud' is not a log level: use one of debug, info, warning, error, critical."]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("log_level='loud'", "'loud' is not a log level: use one of debug, info, warning, error, critical."),
        ("port=65536", "65536 is not a port: use 1 to 65535, or 0 for a free one."),
        (
            "ssl_certfile='absent.pem'",
            "The certificate absent.pem cannot be read: No such file or directory.",
        ),
    ],
)
async def test_an_argument_of_app_run_that_is_wrong_is_one_line(
    tmp_path: Path, arguments: str, error: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"from symphony import Symphony\nSymphony().run({arguments})\n")
    assert await failure(sys.executable, str(script)) == (1, [f"Error: {error}"])
