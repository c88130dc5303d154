"""A scripted engine: it answers a case's activities as the test says, and remembers what it was asked, in order."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from caseward import messages
from caseward.documents.case import CaseFacts, status_document
from caseward.documents.steps import step_documents
from caseward.messages import (
    AdmitAnswer,
    AdmitCall,
    BlockCall,
    CaseRef,
    DeadlineCall,
    FinishAnswer,
    FinishCall,
    LoadAnswer,
    News,
    Offset,
    Order,
    Perform,
    StepAnswer,
    StepCall,
    TakeBackAnswer,
    TakeBackCall,
    activity_name,
    workflow_id,
)
from caseward.process import Process
from caseward.situation import UNDO_SUFFIX, Situation
from caseward.workflow.telling import address
from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.unit.test_policy import NOW, SITUATIONS, situation

WITHIN = 120  # seconds of real time until a test gives up waiting
RESULTS: dict[str, dict[str, Any]] = {
    "check_tax_id": {"registered": True},
    "screen_sanctions": {"reference": "S1", "hits": 0},
    "verify_account": {"reference": "B1", "match": "full"},
    "create_in_erp": {"vendor_number": "V1"},
    "open_payee": {"payee_id": "P1"},
    "send_welcome": {"message_id": "M1"},
    "hold_room": {"hold": "RM-1"},
    "hold_car": {"hold": "CR-1"},
    "authorise_deposit": {"authorisation": "AU-1"},
    "capture_deposit": {"capture": "CA-1"},
    "issue_voucher": {"voucher": "VC-1"},
    "send_confirmation": {"message_id": "M-1"},
    "send_new_days": {"message_id": "M-2"},
    "validate_document": {"accepted": True, "pages": 1},
    "reserve_number": {"number": "CA-1"},
    "enter_in_register": {"entry": "RE-1"},
    "make_certificate": {"number": "CA-1", "sha256": "0" * 64, "size": 1},
    "send_certificate": {"message_id": "M1"},
    "tell_revoked": {"message_id": "M2"},
    "refund_deposit": {"refund": "RF-1", "minor_units": 6000},
    "score_payment": {"score": 81},
    "release_harmless": {"transfer": "TR-1"},
    "release_funds": {"transfer": "TR-1"},
    "return_funds": {"transfer": "TR-2"},
    "file_report": {"report": "SR-1"},
    "tell_sender": {"message_id": "M1"},
}
Answer = Any


class Engine:
    """Postgres and the partners, as one case's workflow sees them."""

    def __init__(self, engines: "Engines") -> None:
        self._engines = engines
        self.process = engines.process
        self.temporal = engines.temporal
        self.case_id = str(uuid4())
        self.ref = CaseRef(self.process.name, self.case_id, "V-1")
        self.asked: list[str] = []
        """What the workflow asked for: the address of a step (`?` behind it: only find out), or an engine activity."""
        self.calls: list[Any] = []
        self.ended: list[str] = []
        self.version = 1
        self.latest = self.news_at(0)
        """What Postgres would say now."""
        self.model: Callable[[str, Any], Answer] | None = None
        """What Postgres would answer where nothing is scripted; None leaves it to the defaults."""
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._gates: list[asyncio.Event] = []
        self._heard = asyncio.Condition()

    # the script

    def answers(self, address: str, *answers: Answer) -> None:
        """The next answers of an activity: values, or functions of the call that make one (and may wait)."""
        self._answers[address].extend(answers)

    async def until_blocked(self, address: str) -> None:
        """Wait until the workflow knows that a step is blocked, which it was told to be with `blocks`.

        The time-skipping server refuses a task that cancels an activity which ended while the task ran
        (ACTIVITY_UNKNOWN), and gives it again only after ten seconds: no takeover may come before the answer is heard.
        """
        await self.until_asked(address)
        await self.until_heard()

    def blocks(self, address: str) -> None:
        """The next answer of the activity is that it is blocked, with the newest news of all."""

        async def blocked(_call: Any) -> Answer:
            return self.answer("blocked")

        self.answers(address, blocked)

    def gate(self, address: str, then: Answer = None) -> asyncio.Event:
        """Hold the activity until the event is set."""
        opened = asyncio.Event()
        self._gates.append(opened)

        async def wait(_call: Any) -> Answer:
            beating = asyncio.create_task(_beat())
            try:
                # A cancelled activity goes on to its end, as ours do.
                while not opened.is_set():
                    with suppress(asyncio.CancelledError):
                        await opened.wait()
            finally:
                beating.cancel()
            return then

        self.answers(address, wait)
        return opened

    async def respond(self, address: str, call: Any, otherwise: Callable[[], Answer]) -> Any:
        self.calls.append(call)
        async with self._heard:
            self.asked.append(address)
            self._heard.notify_all()
        answer = self._answers[address].popleft() if self._answers[address] else None
        if answer is None and self.model is not None:
            answer = self.model(address, call)
        if callable(answer):
            answer = await answer(call)
        if isinstance(answer, Exception):
            raise answer
        self.ended.append(address)
        return otherwise() if answer is None else answer

    async def until_asked(self, address: str, times: int = 1, *, clock: timedelta | None = None) -> None:
        """Wait until the workflow has asked for this so often, letting the time pass in these steps where it waits."""
        try:
            async with asyncio.timeout(WITHIN):
                while clock is not None and self.asked.count(address) < times:
                    await self.temporal.sleep(clock)
                async with self._heard:
                    await self._heard.wait_for(lambda: self.asked.count(address) >= times)
        except TimeoutError:
            raise AssertionError(f"not {times} times {address}, only {self.asked}") from None

    async def until_heard(self) -> None:
        """Wait until the workflow has taken in the newest news, and the answer that carried them."""
        async with asyncio.timeout(WITHIN):
            while (await self.handle.query("status")).get("version", 0) < self.latest.version:
                await asyncio.sleep(0)

    # what it says

    def news(self, now: Situation | None = None, **more: Any) -> News:
        """How the case stands, newer than everything before."""
        self.version += 1
        self.latest = self.news_at(self.version, now, **more)
        return self.latest

    def news_at(self, version: int, now: Situation | None = None, **more: Any) -> News:
        now = replace(now or self._engines.running, version=version, case_id=UUID(self.case_id))
        facts = CaseFacts(business_key="V-1", title="", subject={}, subject_revision=1, opened_at=NOW, changed_at=NOW)
        declared = now.process.transition(now.operation.name) if now.operation else None
        steps = step_documents(now.process, declared.steps if declared else (), now.effects, [])
        return News(version, status_document(now, facts, steps), **more)

    def answer(self, state: str, **more: Any) -> StepAnswer:
        news = self.news()
        return StepAnswer(state, version=news.version, news=news, **more)

    def done(self, step: str) -> StepAnswer:
        return self.answer("settled", happened=True, result=RESULTS.get(step, {"reference": "R1"}))

    def left_out(self) -> StepAnswer:
        return self.answer("settled", happened=False)

    def finished(self, **more: Any) -> FinishAnswer:
        news = self.news(more.pop("now", self._engines.at_rest), **more)
        return FinishAnswer("finished", news.version, news=news)

    def order(self, name: str, fence: int, **more: Any) -> Order:
        self.version += 1
        kind = "override" if name in {"undo", "force_cancel"} else "transition"
        fields: dict[str, Any] = {"takes_over": True, "story": kind == "transition", "version": self.version}
        return Order(f"operation-{fence}", kind, name, fence, **(fields | more))

    def took_back(self, *steps: str, fence: int = 1) -> TakeBackAnswer:
        """What stood of these steps, which the story takes back now."""
        news = self.news()
        return TakeBackAnswer("offsets", news.version, [self.offset(step, fence) for step in steps], news)

    def offset(self, step: str, fence: int, *, settled: bool = True) -> Offset:
        return Offset(f"operation-{fence}:{step}", step, settled=settled)

    def nudge(self, override: str, step: str | None = None, *, fence: int = 2, version: int | None = None) -> Order:
        if version is None:
            self.version += 1
        return Order(
            f"help-{uuid4()}", "override", override, fence, takes_over=False, step=step, version=version or self.version
        )

    # the dispatcher's side

    async def send(self, *orders: Order, news: News | None = None, again: bool = False) -> WorkflowHandle[Any, Any]:
        """Signal with start, as the dispatcher does."""
        return await self._engines.client.start_workflow(
            self.process.name,
            self.ref,
            id=workflow_id(self.process.name, self.case_id),
            task_queue=self._engines.task_queue,
            start_signal=messages.PERFORM,
            start_signal_args=[Perform(list(orders), news or self.news_at(self.version), again=again)],
        )

    async def run_id(self) -> str:
        """Which run works for the case now."""
        return (await self.handle.describe()).run_id

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        return self._engines.client.get_workflow_handle(workflow_id(self.process.name, self.case_id))

    async def time_passes(self, by: timedelta) -> None:
        await self.temporal.sleep(by)

    async def now(self) -> datetime:
        return await self.temporal.get_current_time()

    async def end(self) -> None:
        """Let the workflow close by itself: one terminated in the middle of a task keeps the clock from moving."""
        self.model = None
        for answers in self._answers.values():
            answers.clear()
        for gate in self._gates:
            gate.set()
        final = next(state.name for state in self.process.states if state.final)
        closed = Order("operation-999", "transition", "close", 999, takes_over=True, finished=True)
        await self.send(closed, news=self.news_at(9999, situation(final, self.process), final=True))


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.5)


class Engines:
    """Every case's engine, and the activities that lead to them."""

    def __init__(
        self,
        temporal: WorkflowEnvironment,
        client: Client,
        *,
        process: Process = VENDOR_ONBOARDING,
        running: Situation = SITUATIONS["running"],
        at_rest: Situation | None = None,
    ) -> None:
        self.temporal = temporal
        self.process = process
        self.running, self.at_rest = running, at_rest or situation("active")
        """How the case stands where a test says nothing: while an operation runs, and when it is over."""
        self.client = client
        """Without time skipping: waiting for a result does not move the clock."""
        self.task_queue = f"caseward-{uuid4()}"
        self._by_case: dict[str, Engine] = {}

    def new(self) -> Engine:
        engine = Engine(self)
        self._by_case[engine.case_id] = engine
        return engine

    def activities(self) -> list[Callable[..., Awaitable[Any]]]:
        declared = self.process.steps.values()
        steps = [self.step_activity(step.name) for step in declared]
        steps += [self.step_activity(step.name + UNDO_SUFFIX) for step in declared if step.compensable]
        return [*steps, *self._engine_activities()]

    def step_activity(self, name: str) -> Callable[..., Awaitable[Any]]:
        @activity.defn(name=activity_name(self.process.name, name))
        async def run_step(call: StepCall) -> StepAnswer:
            engine = self._by_case[call.case_id]
            where = f"{name}?" if call.settle_only else name
            return await engine.respond(where, call, lambda: engine.done(call.step))

        return run_step

    def _engine_activities(self) -> list[Callable[..., Awaitable[Any]]]:
        @activity.defn(name=messages.LOAD)
        async def load(ref: CaseRef) -> LoadAnswer:
            engine = self._by_case[ref.case_id]
            return await engine.respond("load", ref, lambda: LoadAnswer(engine.latest))

        @activity.defn(name=messages.FINISH)
        async def finish(call: FinishCall) -> FinishAnswer:
            engine = self._by_case[call.case_id]
            return await engine.respond("finish", call, engine.finished)

        @activity.defn(name=messages.TAKE_BACK)
        async def take_back(call: TakeBackCall) -> TakeBackAnswer:
            engine = self._by_case[call.case_id]
            return await engine.respond("take back", call, engine.took_back)

        @activity.defn(name=messages.PASS_DEADLINE)
        async def pass_deadline(call: DeadlineCall) -> News:
            engine = self._by_case[call.case_id]
            return await engine.respond("deadline", call, lambda: engine.news(self.at_rest))

        @activity.defn(name=messages.BLOCK)
        async def block(call: BlockCall) -> News:
            engine = self._by_case[call.case_id]
            return await engine.respond("block", call, lambda: engine.news(SITUATIONS["the story is blocked"]))

        @activity.defn(name=messages.ADMIT)
        async def admit(call: AdmitCall) -> AdmitAnswer:
            engine = self._by_case[call.case_id]
            return await engine.respond("admit", call, lambda: AdmitAnswer(accepted=True, operation_id="operation-9"))

        @activity.defn(name=messages.STEP_MISSING)
        async def step_missing(call: StepCall) -> StepAnswer:
            engine = self._by_case[call.case_id]
            return await engine.respond(f"missing {address(call)}", call, lambda: engine.answer("blocked"))

        return [load, finish, take_back, pass_deadline, block, admit, step_missing]


def our_fault() -> ApplicationError:
    """Postgres is away: an activity raises, and is tried again until it works."""
    return ApplicationError("the database is away", type="OperationalError")
