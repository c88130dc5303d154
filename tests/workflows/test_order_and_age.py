"""Messages in any order and number, thousands of operations on one case, and a case that outlives its code."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import Worker

from caseward.messages import FinishAnswer, FinishCall, LoadAnswer, News, Order, StepAnswer, StepCall
from caseward.workflow.sandbox import runner
from tests.unit.test_policy import SITUATIONS, situation
from tests.workflows.engine import WITHIN, Engine, Engines
from tests.workflows.newer import NewerOnboarding

EXAMPLES = 25
A_YEAR = timedelta(days=365)


class Truth:
    """What Postgres would say, once everything was accepted that the messages tell of: the highest fence rules."""

    def __init__(self, engine: Engine, newest: Order | None = None) -> None:
        self.engine = engine
        self.newest = newest
        self.finished: list[str] = []
        self.done: list[str] = []
        """What was done outside, by effect key, in order; each once, as the effect protocol promises."""
        engine.model = self.answer

    def answer(self, address: str, call: Any) -> Any:
        match call:
            case StepCall():
                return self._step(call)
            case FinishCall():
                return self._finish(call)
        return LoadAnswer(self._news(), self._in_flight(), self._fence()) if address == "load" else None

    def _fence(self) -> int:
        return self.newest.fence if self.newest else 0

    def _in_flight(self) -> Order | None:
        return self.newest if self.newest and self.newest.operation_id not in self.finished else None

    def _news(self) -> News:
        return self.engine.news() if self._in_flight() else self.end()

    def end(self) -> News:
        return self.engine.news(situation("active"))

    def _step(self, call: StepCall) -> StepAnswer:
        if call.fence < self._fence() or self._in_flight() is None:
            return StepAnswer("superseded", version=self.engine.version, news=self._news())
        if call.effect_key not in self.done:
            self.done.append(call.effect_key)
        return self.engine.done(call.step)

    def _finish(self, call: FinishCall) -> FinishAnswer:
        if call.operation_id not in self.finished:
            if call.fence < self._fence():
                return FinishAnswer("superseded", self.engine.version, news=self._news())
            self.finished.append(call.operation_id)
        news = self._news()
        return FinishAnswer("finished", news.version, news=news)


class Closed(Truth):
    """Of a case whose newest operation closes it."""

    def end(self) -> News:
        return self.engine.news(situation("cancelled"), final=True)


def life(engine: Engine) -> list[tuple[list[Order], News]]:
    """Every message that was ever put into the outbox for a case, in order: opened to cancelled in the middle."""
    offsets = [engine.offset("open_payee", 3, settled=False), engine.offset("create_in_erp", 3)]
    orders = [
        engine.order("open", 1, finished=True, story=False),
        engine.order("submit", 2),
        engine.order("approve", 3),
        engine.nudge("retry", "open_payee", fence=3),
        engine.nudge("skip", "open_payee", fence=3),
        engine.order("cancel", 4, story=False, offsets=offsets),
    ]
    said = [([order], engine.news_at(order.version)) for order in orders]
    return [*said, ([], engine.news_at(engine.version))]


# Without the opening (0): alone and late it would be believed, as the first thing ever told of a case.
SHUFFLES = st.permutations(range(1, 7)).flatmap(
    lambda order: st.lists(st.integers(1, 3), min_size=6, max_size=6).map(
        lambda times: [n for n, often in zip(order, times, strict=True) for _ in range(often)]
    )
)


class TestOrder:
    @given(order=SHUFFLES, batched=st.booleans())
    @settings(max_examples=EXAMPLES)
    async def test_messages_in_any_order_and_number_lead_to_the_same_end(self, real_engines: Engines, order, batched):
        engine = real_engines.new()
        told = life(engine)
        truth = Closed(engine, told[5][0][0])
        if batched:
            orders = [each for number in order for each in told[number][0]]
            await engine.send(*orders, news=max((told[number][1] for number in order), key=lambda news: news.version))
        else:
            for number in order:
                await engine.send(*told[number][0], news=told[number][1])
        await closed(engine)
        assert truth.finished == ["operation-4"]
        assert truth.done == [
            "operation-3:open_payee",
            "operation-3:open_payee:undo",
            "operation-3:create_in_erp:undo",
        ]
        assert (await engine.handle.query("status"))["state"] == "cancelled"

    async def test_whatever_comes_again_for_a_closed_case_changes_nothing(self, real_engines: Engines):
        engine = real_engines.new()
        told = life(engine)
        truth = Closed(engine, told[5][0][0])
        for orders, news in told:
            await engine.send(*orders, news=news)
        await closed(engine)
        before = (list(truth.finished), list(truth.done))
        for orders, news in [*told, *reversed(told)]:
            await engine.send(*orders, news=news, again=True)
            await closed(engine)
        assert (truth.finished, truth.done) == before


async def closed(engine: Engine) -> None:
    """The case's newest run has ended by itself."""
    async with asyncio.timeout(WITHIN):
        while (await engine.handle.describe()).status is not WorkflowExecutionStatus.COMPLETED:
            await engine.handle.result(follow_runs=True)


async def perform_one_after_the_other(engine: Engine, operations: int) -> tuple[Truth, set[str], int]:
    """Suspend and reinstate by turns; answers the runs that were seen, and the longest history of any."""
    truth, runs, longest = Truth(engine), set(), 0
    for fence in range(2, 2 + operations):
        name = "suspend" if fence % 2 else "reinstate"
        truth.newest = engine.order(name, fence)
        await engine.send(truth.newest, news=engine.news_at(engine.version))
        async with asyncio.timeout(WITHIN):
            async with engine._heard:
                await engine._heard.wait_for(lambda wanted=truth.newest.operation_id: wanted in truth.finished)
        if fence % 5 == 0:
            description = await engine.handle.describe()
            runs.add(description.run_id)
            longest = max(longest, description.history_length)
    return truth, runs, longest


class TestThousands:
    async def check(self, engine: Engine, operations: int, limit: int) -> None:
        truth, runs, longest = await perform_one_after_the_other(engine, operations)
        assert truth.finished == [f"operation-{fence}" for fence in range(2, 2 + operations)]
        assert len(truth.done) == len(set(truth.done)) == 2 * operations
        events_of_one = 40  # an operation is never cut in two while its activities run
        assert longest <= limit + events_of_one
        assert len(runs) > 1

    async def test_of_operations_leave_histories_bounded_and_lose_nothing(self, real_engines: Engines, monkeypatch):
        monkeypatch.setattr("caseward.workflow.case.HISTORY_LIMIT", 150)
        await self.check(real_engines.new(), 60, 150)

    @pytest.mark.full
    async def test_three_thousand_of_them(self, engine: Engine):
        await self.check(engine, 3000, 4096)


@asynccontextmanager
async def newer_worker(engines: Engines):
    """A worker of a newer version takes over; what is started now is its own."""
    older, engines.task_queue = engines.task_queue, f"{engines.task_queue}-newer"
    async with Worker(
        engines.client,
        task_queue=engines.task_queue,
        workflows=[NewerOnboarding],
        activities=[*engines.activities(), engines.step_activity("insure")],
        workflow_runner=runner(),
    ):
        yield
        engines.task_queue = older


class TestAge:
    async def test_a_case_is_reopened_a_year_later_by_code_of_a_newer_version(self, engine: Engine, engines: Engines):
        handle = await engine.send(
            engine.order("reject", 3, finished=True, story=False),
            news=engine.news(situation("rejected"), final=True),
        )
        await asyncio.wait_for(handle.result(), WITHIN)
        first = await engine.run_id()
        await engine.time_passes(A_YEAR)
        async with newer_worker(engines):
            reopened = engine.order("reopen", 4, finished=True, story=False)
            engine.answers("load", LoadAnswer(engine.news(situation("draft")), fence=4))
            await engine.send(reopened, news=engine.news(situation("draft")))
            assert await engine.run_id() != first
            await engine.send(engine.order("approve", 5))
            await engine.until_asked("finish")
            assert [name for name in engine.asked if name != "load"] == [
                "create_in_erp",
                "insure",
                "open_payee",
                "finish",
            ]
            await self.close(engine)

    async def test_a_step_that_the_newer_version_lacks_blocks_visibly_and_can_be_helped(self, engine, engines):
        async with newer_worker(engines):
            offsets = [engine.offset("send_welcome", 2, settled=False), engine.offset("create_in_erp", 2)]
            blocked = engine.answer("blocked")
            engine.answers("missing send_welcome", blocked, engine.left_out())
            await engine.send(engine.order("undo", 3, offsets=offsets))
            await engine.until_asked("missing send_welcome")
            await engine.handle.query("status")
            assert engine.asked == ["missing send_welcome"]
            await engine.send(engine.nudge("mark_done", "send_welcome", fence=3))
            await engine.until_asked("finish")
            assert engine.asked == ["missing send_welcome"] * 2 + ["create_in_erp:undo", "finish"]
            await self.close(engine)

    async def test_so_does_a_compensation_that_is_no_more(self, engine: Engine):
        """`send_welcome` has none; an older version promised one."""
        engine.answers("missing send_welcome:undo", engine.answer("blocked"), engine.left_out())
        await engine.send(engine.order("undo", 3, offsets=[engine.offset("send_welcome", 2)]))
        await engine.until_asked("missing send_welcome:undo")
        await engine.send(engine.nudge("skip", "send_welcome:undo", fence=3))
        await engine.until_asked("finish")

    async def test_a_story_that_is_no_more_blocks_for_engineering(self, engine: Engine, engines: Engines):
        async with newer_worker(engines):
            engine.answers("block", engine.news(SITUATIONS["the story is blocked"]))
            await engine.send(engine.order("suspend", 3))
            await engine.until_asked("block")
            assert engine.calls[-1].cause == "story_missing"
            await self.close(engine)

    async def close(self, engine: Engine) -> None:
        """Before its worker goes."""
        handle = engine.handle
        await engine.end()
        await asyncio.wait_for(handle.result(), WITHIN)
