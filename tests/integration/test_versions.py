"""Which build of our code a real Temporal gives its work to, and what becomes of runs that another one began."""

import asyncio
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from caseward.messages import PERFORM, TASK_QUEUE, Perform
from caseward.outbox.to_temporal import BEGUN_ANEW
from caseward.reconciler import versions
from caseward.reconciler.versions import Versions, content_of, deployed_as

WITHIN = 120  # seconds, of which a fast machine needs two


def story(*names: str) -> type[Any]:
    """A run that begins with timers in this order, and then rests; it counts how often it was told to read anew."""

    class Story:
        def __init__(self) -> None:
            self.told: list[bool] = []
            self.rests = False

        @workflow.signal(name=PERFORM)
        def perform(self, told: Perform) -> None:
            self.told.append(told.resync)

        @workflow.query
        def order(self) -> list[str]:
            return list(names)

        @workflow.query
        def resyncs(self) -> int:
            return sum(self.told)

        @workflow.query
        def at_rest(self) -> bool:
            return self.rests

        async def run(self) -> None:
            for name in names:
                await (workflow.sleep(0.01) if name == "sleep" else workflow.wait_condition(lambda: True))
                workflow.upsert_memo({name: True})
            self.rests = True
            await workflow.wait_condition(lambda: False)

    Story.__qualname__, Story.run.__qualname__ = "Story", "Story.run"
    Story.run = workflow.run(Story.run)
    return workflow.defn(name="story")(Story)


OLD, NEW = story("memo", "sleep"), story("sleep", "memo")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    cli = Path(sysconfig.get_path("scripts")) / "temporal"
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(cli), dev_server_log_level="error"
    ) as environment:
        yield environment


@pytest.fixture
def client(temporal: WorkflowEnvironment) -> Client:
    return temporal.client


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LOOK_EVERY", timedelta(milliseconds=50))


@asynccontextmanager
async def working(client: Client, build_id: str, stories: type[Any] = OLD) -> AsyncIterator[Versions]:
    """A worker of this build, as `worker.py` has it."""
    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[stories],
        workflow_runner=UnsandboxedWorkflowRunner(),
        deployment_config=deployed_as(build_id),
        workflow_failure_exception_types=[workflow.NondeterminismError],
    )
    async with worker:
        found = Versions(client, build_id)
        await found.become_current()
        yield found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await holds():
            await asyncio.sleep(0.05)


async def current(client: Client) -> str | None:
    while True:
        try:
            found = await Versions(client, "nobody")._current()
        except RPCError as fault:  # the server answers only so many such questions a second
            if fault.status is not RPCStatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.5)
        else:
            return found and found.build_id


async def started(client: Client) -> str:
    """A run that has begun and rests."""
    run = await client.start_workflow("story", id=str(uuid4()), task_queue=TASK_QUEUE, retry_policy=BEGUN_ANEW)
    await until(lambda: run.query("at_rest"))
    return run.id


class TestWhoIsCurrent:
    async def test_who_starts_last(self, client: Client):
        async with working(client, "one"):
            assert await current(client) == "one"
            async with working(client, "two"):
                assert await current(client) == "two"
        async with working(client, "two"):
            assert await current(client) == "two"
        async with working(client, "one"):
            assert await current(client) == "one", "rolled back"

    async def test_another_stays_so_while_its_workers_ask_for_work(self, client: Client, monkeypatch):
        async with working(client, "three") as older, working(client, "four"):
            looking = asyncio.create_task(older.stay_available())
            try:
                await asyncio.sleep(0.5)  # several looks
                assert await current(client) == "four"
                monkeypatch.setattr(versions, "GONE_AFTER", timedelta(seconds=-1))
                await until(lambda: _is(client, "three"))
            finally:
                looking.cancel()

    async def test_one_that_has_asked_for_nothing_yet_is_left_the_time_to(self, client: Client):
        async with working(client, "five") as older:
            await Versions(client, "six").become_current()
            current = await older._current()
            assert current is not None
            assert current.build_id == "six"
            assert not await older._abandoned(current)

    async def test_where_nobody_is_somebody_becomes_it(self, temporal: WorkflowEnvironment):
        cli = Path(sysconfig.get_path("scripts")) / "temporal"
        async with await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(cli), dev_server_log_level="error"
        ) as lost_everything:
            client = lost_everything.client
            assert await current(client) is None
            looking = asyncio.create_task(Versions(client, "one").stay_available())
            try:
                await until(lambda: _is(client, "one"))
            finally:
                looking.cancel()


async def _is(client: Client, build_id: str) -> bool:
    return await current(client) == build_id


class TestRunsOfAnotherBuild:
    async def test_begin_anew_where_todays_story_can_not_follow(self, client: Client):
        async with working(client, "five"):
            resting = await started(client)
        first = (await client.get_workflow_handle(resting).describe()).run_id
        async with working(client, "six", NEW) as newer:

            async def begun_anew() -> bool:
                await newer.roll_over()
                about = await client.get_workflow_handle(resting).describe()
                return about.run_id != first and about.status is not None and about.status.name == "RUNNING"

            await until(begun_anew)
            assert await client.get_workflow_handle(resting).query("order") == ["sleep", "memo"]

    async def test_are_told_to_read_anew_and_those_of_the_current_one_are_not(self, client: Client):
        async with working(client, "seven"):
            resting = client.get_workflow_handle(await started(client))
        async with working(client, "eight") as newer:
            own = client.get_workflow_handle(await started(client))

            async def told() -> bool:
                await newer.roll_over()
                return await resting.query("resyncs") > 0

            await until(told)
            assert await own.query("resyncs") == 0
            await until(lambda: _no_more(newer))


async def _no_more(newer: Versions) -> bool:
    """None is left, once Temporal's list has caught up."""
    return not [run.id async for run in newer._client.list_workflows(await newer._older())]


class TestTheDigest:
    def test_tells_code_by_content_and_place(self, tmp_path: Path):
        (tmp_path / "stories").mkdir()
        (tmp_path / "worker.py").write_text("run()")
        found = []
        for name, text in (("a.py", "1"), ("a.py", "2"), ("a.py", "1"), ("b.py", "1")):
            path = tmp_path / "stories" / name
            path.write_text(text)
            found.append(content_of(tmp_path, ("worker.py", "stories")))
            path.unlink()
        assert found[0] == found[2]
        assert len(set(found)) == 3
