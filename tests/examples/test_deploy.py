"""The files of `examples/deploy` fit the server: its ports, probes, options, and the time of a stop.

`tests/redis/test_rolling.py` runs the two proxies.
"""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser
from typing import Any

import pytest
import yaml

from support.examples import EXAMPLES, load
from support.process import START, outcome
from symphony import Limits
from symphony.transport.probing import LIVE_PATH, READY_PATH

FOLDER = EXAMPLES / "deploy"
PORT = 8080


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def seconds(duration: str | int) -> float:
    return float(str(duration).removesuffix("s"))


async def check_command(*command: str) -> None:
    """Check that the command line takes these options: only the app is not there."""
    assert command[:3] == ("symphony", "run", "chat.py")
    found = await outcome(*START, "-m", "symphony", "run", "missing.py", *command[3:])
    assert "missing.py" in found.errors
    assert "No such option" not in found.errors


def test_all_files_are_in_the_readme() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md"}
    assert files == set(
        re.findall(r"`([\w@.]+\.\w+|Dockerfile)`", text("README.md").partition("\nThe names")[0])
    )


async def test_the_image_serves_the_port_that_it_exposes_and_is_asked_whether_it_lives() -> None:
    lines = text("Dockerfile").replace("HEALTHCHECK", "\nHEALTHCHECK").splitlines()
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    await check_command(*command)
    assert command[command.index("--port") + 1] == str(PORT)
    assert f"EXPOSE {PORT}" in lines
    (health,) = (line for line in lines if line.startswith("HEALTHCHECK"))
    assert f"http://127.0.0.1:{PORT}{LIVE_PATH}'" in health
    assert "COPY chat.py ." in lines


def test_compose_runs_what_the_proxy_names_and_waits_for_the_end_of_each() -> None:
    services = yaml.safe_load(text("compose.yaml"))["services"]
    servers = {name for name in services if name.startswith("chat")}
    named = set(re.findall(r"^  server \w+ ([\w-]+):(\d+)$", text("haproxy.cfg"), re.MULTILINE))
    assert named == {(name, str(PORT)) for name in servers}
    assert named == set(re.findall(r"^  server ([\w-]+):(\d+) ", text("nginx.conf"), re.MULTILINE))
    for name in servers:
        assert seconds(services[name]["stop_grace_period"]) > Limits().stop_time
        assert services[name]["build"] == "."


def test_kubernetes_asks_at_the_port_of_the_server() -> None:
    deployment, service, _ = yaml.safe_load_all(text("kubernetes.yaml"))
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": PORT}
    assert container["readinessProbe"]["httpGet"] == {"path": READY_PATH, "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": LIVE_PATH, "port": "http"}
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    given = {each["name"]: each["value"] for each in container["env"]}
    limits = Limits(notice_time=float(given["NOTICE_TIME"]))
    assert pod["terminationGracePeriodSeconds"] > limits.stop_time + 1
    probe = container["readinessProbe"]
    assert limits.notice_time is not None
    assert probe["periodSeconds"] * probe["failureThreshold"] < limits.notice_time


async def test_the_unit_stops_the_main_process_first_and_gives_it_its_time() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(text("chat@.service"))
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert seconds(service["TimeoutStopSec"]) > Limits().stop_time + 1
    program, *arguments = shlex.split(service["ExecStart"].replace("%i", "8081"))
    assert program.endswith("/symphony")
    await check_command("symphony", *arguments)


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf"])
def test_the_proxies_keep_idle_connections_longer_than_pings_take(name: str) -> None:
    (tunnel,) = re.findall(r"(?:timeout tunnel|proxy_read_timeout) (\d+)s", text(name))
    ping = Limits().ping_interval
    assert ping is not None
    assert int(tunnel) > 2 * ping


def test_the_app_waits_until_the_proxy_has_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ((interval, falls),) = re.findall(r"check inter (\d+)ms .* fall (\d)", text("haproxy.cfg"))
    assert f"uri {READY_PATH} " in text("haproxy.cfg")
    notice = load("deploy/chat.py").app.limits.notice_time
    assert int(interval) / 1000 * int(falls) < notice
    monkeypatch.setenv("NOTICE_TIME", "5")
    assert load("deploy/chat.py").app.limits.notice_time == 5.0
