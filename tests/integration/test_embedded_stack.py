"""The embedded stack as people use it: real processes, killed the hard way. No test sleeps; each waits for a fact."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from dev.errors import DataDirInUse, PortTaken
from dev.service import ROOT, port_is_free
from dev.stack import Stack
from settings import Settings

GENEROUSLY = 300.0


@pytest.fixture
def settings(settings_for: Callable[[Path], Settings], tmp_path: Path) -> Settings:
    return settings_for(tmp_path / "data")


@contextlib.asynccontextmanager
async def supervisor(settings: Settings, *parts: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m dev` as a process of its own, past its start."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dev", *parts),
        cwd=ROOT,
        env={**os.environ, **settings.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(GENEROUSLY):
            while b"Caseward is running" not in (line := await process.stdout.readline()):
                assert line, "the stack ended before it ran"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def eventually(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(GENEROUSLY):
        while not fact():
            await asyncio.sleep(0.02)


def recorded_pid(settings: Settings, service: str) -> int:
    return int((settings.data_dir / "run" / f"{service}.lock").read_text())


def is_running(pid: int) -> bool:
    """Whether the process still does anything; a zombie that nobody has fetched does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def query(stack: Stack, statement: str) -> list[tuple]:
    address = stack.database_url.replace("+psycopg", "", 1)
    async with await psycopg.AsyncConnection.connect(address) as connection:
        cursor = await connection.execute(statement)
        return await cursor.fetchall() if cursor.description else []


class TestStart:
    async def test_a_fresh_folder_becomes_a_running_stack(self, settings):
        async with Stack(settings, only=("postgres", "temporal")) as stack:
            assert await query(stack, "show fsync") == [("on",)]
            assert await query(stack, "show data_checksums") == [("on",)]
            assert not port_is_free(settings.temporal_port)
            pids = [child.pid for child in stack.children.values()]
        assert not any(is_running(pid) for pid in pids)

    async def test_secrets_are_readable_by_their_owner_only(self, settings):
        async with Stack(settings, only=("postgres",)):
            for secret in ("keys/private.json", "postgres/password"):
                assert (settings.data_dir / secret).stat().st_mode & 0o077 == 0

    async def test_keys_stay_the_same_over_restarts(self, settings):
        async with Stack(settings, only=()):
            first = settings.jwks_file.read_bytes()
        async with Stack(settings, only=()):
            assert settings.jwks_file.read_bytes() == first

    async def test_a_server_that_runs_already_is_used_in_place_of_ours(self, settings):
        async with Stack(settings, only=("postgres",)) as other:
            # `model_copy` keeps the rest, the data folder apart: that one is in use.
            named = settings.model_copy(
                update={"database_url": other.database_url, "data_dir": settings.data_dir / "second"}
            )
            async with Stack(named, only=("postgres",)) as stack:
                assert stack.parts == ()
                assert await query(stack, "select 1") == [(1,)]

    async def test_a_taken_port_is_told_by_the_name_of_its_setting(self, settings):
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", settings.api_port)
        async with server:
            with pytest.raises(PortTaken, match=f"CASEWARD_API_PORT: port {settings.api_port} is taken"):
                await Stack(settings).start()
        assert not (settings.data_dir / "postgres").exists(), "nothing was begun"

    async def test_a_second_stack_on_the_same_folder_is_refused(self, settings):
        async with Stack(settings, only=("postgres",)):
            with pytest.raises(DataDirInUse, match=f"process {os.getpid()}"):
                await Stack(settings, only=("postgres",)).start()

    async def test_two_stacks_run_side_by_side(self, settings, tmp_path):
        other = settings.model_copy(update={"data_dir": tmp_path / "other"})
        async with Stack(settings, only=("postgres",)) as one, Stack(other, only=("postgres",)) as two:
            assert one.database_url != two.database_url
            assert await query(two, "select 1") == [(1,)]


class TestPostgresKilled:
    async def test_committed_data_and_the_address_survive(self, settings):
        async with Stack(settings, only=("postgres",)) as stack:
            address = stack.database_url
            await query(stack, "create table kept as select 42 as answer")
            await stack.kill("postgres")
            await stack.start_service("postgres")
            assert stack.database_url == address
            assert await query(stack, "select answer from kept") == [(42,)]

    async def test_a_process_id_that_is_somebody_elses_by_now_does_not_stop_the_start(self, settings):
        async with Stack(settings, only=("postgres",)) as stack:
            await stack.kill("postgres")
            stale = settings.data_dir / "postgres" / "pgdata" / "postmaster.pid"
            lines = stale.read_text().splitlines()
            stale.write_text("\n".join(["1", *lines[1:]]) + "\n")
            await stack.start_service("postgres")
            assert await query(stack, "select 1") == [(1,)]

    async def test_a_cluster_of_another_version_is_refused_with_the_way_out(self, settings):
        async with Stack(settings, only=("postgres",)) as stack:
            await stack.stop_service("postgres")
            (settings.data_dir / "postgres" / "pgdata" / "PG_VERSION").write_text("15\n")
            with pytest.raises(Exception, match=r"made by Postgres 15.*pg_dump.*pg_restore"):
                await stack.start_service("postgres")


class TestSupervisor:
    async def test_a_killed_supervisor_leaves_no_child_and_the_next_goes_on(self, settings):
        async with supervisor(settings, "postgres", "temporal") as process:
            pids = [recorded_pid(settings, "postgres"), recorded_pid(settings, "temporal")]
            assert all(is_running(pid) for pid in pids)
            process.kill()
            await eventually(lambda: not any(is_running(pid) for pid in pids))
        async with Stack(settings, only=("postgres", "temporal")) as stack:
            assert await query(stack, "select 1") == [(1,)]

    async def test_the_next_start_needs_no_pause_after_the_kill(self, settings):
        async with supervisor(settings, "postgres", "temporal") as process:
            process.kill()
            await process.wait()
            async with Stack(settings, only=("postgres", "temporal")) as stack:
                assert await query(stack, "select 1") == [(1,)]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
    async def test_a_signal_stops_everything_in_good_order(self, settings, number):
        async with supervisor(settings, "postgres") as process:
            pid = recorded_pid(settings, "postgres")
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), GENEROUSLY) == 0
            assert not is_running(pid)
        assert "database system is shut down" in (settings.data_dir / "logs" / "postgres.log").read_text()

    async def test_a_child_that_died_is_started_again(self, settings):
        async with supervisor(settings, "postgres"):
            first = recorded_pid(settings, "postgres")
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: (settings.data_dir / "run" / "postgres.lock").read_text() not in ("", str(first)))
            assert is_running(recorded_pid(settings, "postgres"))
