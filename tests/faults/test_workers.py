"""Workers that are killed, stopped and replaced, and a supervisor that is killed."""

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.clients import Client, closed, connect
from support.fleets import APP, Fleet, dial, visit, workers
from support.raw import handshake
from support.sizes import size

pytestmark = pytest.mark.timeout(size(60, full=240))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "workers_app.py"
    file.write_text(APP)
    return file


@pytest.fixture
async def fleet(file: Path) -> AsyncIterator[Fleet]:
    async with workers(file, 3) as fleet:
        yield fleet


async def one_each(fleet: Fleet) -> dict[int, Client]:
    """Return a client of each worker."""
    clients: dict[int, Client] = {}
    while len(clients) < 3:
        client = await connect(fleet.url)
        pid = int(await client.recv())
        if pid in clients:
            await client.close()
        else:
            clients[pid] = client
    return clients


async def test_a_killed_worker_is_replaced_and_the_clients_of_the_others_do_not_notice(fleet: Fleet) -> None:
    clients = await one_each(fleet)
    victim = fleet.first[1]
    os.kill(victim, signal.SIGKILL)
    found = await fleet.logged(r"Worker (\d) \(process (\d+)\) was ended by SIGKILL. A new one starts now.")
    assert found.groups() == ("2", str(victim))
    # In the queue of its socket until the new one is ready.
    seen = {await fleet.greeting() for _ in range(40)}
    assert victim not in seen
    assert len(seen) == 3
    for pid, client in clients.items():
        if pid != victim:
            await client.send("still here?")
            assert await client.recv() == "still here?"
            await client.close()


async def test_others_accept_for_a_stopped_worker_and_it_goes_on_later(fleet: Fleet) -> None:
    victim = fleet.first[2]
    os.kill(victim, signal.SIGSTOP)
    await fleet.logged(rf"Worker 3 \(process {victim}\) does not respond")
    # Those that were already in the queue of its socket stay there.
    seen = {await fleet.greeting() for _ in range(40)}
    assert seen == set(fleet.first) - {victim}
    os.kill(victim, signal.SIGCONT)
    await fleet.logged(rf"Worker 3 \(process {victim}\) responds again")
    while await fleet.greeting() != victim:
        pass


@pytest.mark.alone
async def test_others_accept_for_a_worker_whose_event_loop_is_blocked(fleet: Fleet) -> None:
    async with connect(fleet.url) as client:
        victim = int(await client.recv())
        await client.send("block 4")
        await fleet.logged(rf"process {victim}\) does not respond")
        assert victim not in {await fleet.greeting() for _ in range(40)}
        await fleet.logged(rf"process {victim}\) responds again")
        assert await client.recv() == "block 4"


@pytest.mark.parametrize("stuck", [False, True])
async def test_no_worker_outlives_a_killed_supervisor(fleet: Fleet, stuck: bool) -> None:
    clients = await one_each(fleet)
    if stuck:
        await clients[fleet.first[0]].send("block 3")
    fleet.running.signal(signal.SIGKILL)
    for client in clients.values():
        message = await client.recv() if stuck and client is clients[fleet.first[0]] else None
        assert message in (None, "block 3")
        assert await closed(client) == (1012, "the server restarts")
    await fleet.gone()
    gone = r"ERROR symphony\.workers \[(worker \d)\]: The supervisor of this worker has gone"
    assert sorted(match[1] for line in fleet.log if (match := re.search(gone, line))) == [
        "worker 1",
        "worker 2",
        "worker 3",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_workers_in_order(fleet: Fleet, number: signal.Signals) -> None:
    clients = await one_each(fleet)
    fleet.running.signal(number)
    for client in clients.values():
        assert await closed(client) == (1012, "the server restarts")
    assert await fleet.running.end() == (0, [])
    assert fleet.log == []


async def test_ctrl_c_reaches_all_processes_and_stops_them_in_order(fleet: Fleet) -> None:
    clients = await one_each(fleet)
    os.killpg(fleet.pid, signal.SIGINT)
    for client in clients.values():
        assert await closed(client) == (1012, "the server restarts")
    assert await fleet.running.end() == (0, [])


async def test_a_second_signal_ends_everything_at_once(fleet: Fleet) -> None:
    clients = await one_each(fleet)
    # It could not stop in order before that.
    await clients[fleet.first[0]].send("block 60")
    await clients[fleet.first[1]].send("block 60")
    fleet.running.signal(signal.SIGTERM)
    assert await closed(clients[fleet.first[2]]) == (1012, "the server restarts")
    fleet.running.signal(signal.SIGTERM)
    code, _ = await fleet.running.end()
    assert code == 128 + signal.SIGTERM
    await fleet.gone()


async def test_a_worker_that_is_told_to_stop_is_replaced(fleet: Fleet) -> None:
    clients = await one_each(fleet)
    os.kill(fleet.first[0], signal.SIGTERM)
    assert await closed(clients[fleet.first[0]]) == (1012, "the server restarts")
    await fleet.logged("Worker 1 .* was told to stop. A new one replaces it")
    # The others accept everything until it is ready.
    seen: set[int] = set()
    while len(seen) < 3:
        seen.add(await fleet.greeting())
    assert fleet.first[0] not in seen


@pytest.mark.alone
@pytest.mark.within("cli.workers.worker._FIRST_REQUEST_TIMEOUT")
@pytest.mark.beyond("cli.workers.worker._FIRST_REQUEST_TIMEOUT")
async def test_the_first_request_of_an_accepted_connection_is_answered_by_a_worker_that_stops(
    fleet: Fleet,
) -> None:
    # Enough that each worker has some.
    silent, late = [[await dial(fleet.url) for _ in range(20)] for _ in range(2)]
    for pid in fleet.first:
        os.kill(pid, signal.SIGTERM)
    await fleet.logged("was told to stop. A new one replaces it", 3)
    for client in late:
        await client.send(handshake())
    for client in late:
        assert (await client.response()).status == 101
    for client in silent:
        assert await client.at_end()
    for client in (*silent, *late):
        client.writer.close()


async def test_new_connections_are_spread_evenly(file: Path) -> None:
    """With one socket for all, 2,000 connections went 239 to 778 to each of four workers."""
    count = size(1_000, full=8_000)
    async with workers(file, 4) as fleet:
        spread = await fleet.spread(count)
    assert set(spread) == set(fleet.first)
    # Six standard deviations: one run in half a thousand million is beyond.
    allowed = 6 * (count * 1 / 4 * 3 / 4) ** 0.5
    assert all(abs(got - count / 4) < allowed for got in spread.values()), spread


async def test_no_connection_is_reset_while_workers_are_replaced(fleet: Fleet) -> None:
    """A worker that shut its socket down, or took it with it, reset 81 to 94 of 2,000 connections."""
    wanted, rounds = size(1_000, full=4_000), size(1, full=10)
    opened, refused = 0, 0
    reloaded = asyncio.Event()

    async def reload() -> None:
        for number in range(1, rounds + 1):
            os.kill(fleet.pid, signal.SIGHUP)
            await fleet.logged("have been replaced", number)
        reloaded.set()

    async def keep_visiting() -> None:
        nonlocal opened, refused
        while opened < wanted or not reloaded.is_set():
            pid, writer = await visit(fleet.url)
            writer.close()
            opened += 1
            refused += pid is None

    async def keep_busy() -> None:
        # A worker that is idle shows no fault.
        while not reloaded.is_set():
            with suppress(ConnectionClosed, InvalidStatus):
                async with connect(fleet.url) as client:
                    while not reloaded.is_set():
                        await client.send("block 0.05")
                        await client.recv()

    async with asyncio.TaskGroup() as group:
        group.create_task(reload())
        for _ in range(4):
            group.create_task(keep_busy())
        for _ in range(10):
            group.create_task(keep_visiting())
    print(f"{opened} connections, {refused} of them to a worker that had begun to stop")
    # One that was accepted as its worker stopped is told to come again.
    assert refused < opened / 20
    assert not set(fleet.first) & {await fleet.greeting() for _ in range(20)}


async def test_the_unix_socket_of_a_killed_supervisor_is_removed(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with workers(file, 2, "--uds", str(path)) as fleet:
        assert path.is_socket()
        fleet.running.signal(signal.SIGKILL)
        await fleet.gone()
        assert not path.exists()


async def test_a_closed_terminal_stops_the_server(file: Path) -> None:
    """SIGHUP replaces workers. Without its terminal, a server could not be stopped any more."""
    command = [sys.executable, "-m", "symphony", "run", str(file), "--port", "0", "--workers", "2"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    loop = asyncio.get_running_loop()
    shown = b""
    while not re.search(rb"The workers share.*\n", shown):
        shown += await loop.run_in_executor(None, os.read, terminal, 4096)
    os.close(terminal)
    _, status = await loop.run_in_executor(None, os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
