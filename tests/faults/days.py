"""What may happen to a case, one move after the other; played against a real stack, and brought to rest in the end.

A plan is drawn before anything is played, so that it stays the same however the processes interleave. A move that does
not fit the moment still asks: what is not offered must be refused.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from caseward.cases.locked import lock_case
from caseward.db.session import Database
from caseward.db.tables import Attempt, Effect, Message
from caseward.messages import OVERRIDE, Order, workflow_id
from caseward.outbox import store
from processes import CATALOGUE
from tests.faults.company import Company
from tests.faults.people import PATIENCE, Json, Person, Sent, offered, open_steps
from tests.playbook import Playbook

T = TypeVar("T")
AT_WORK = frozenset({"queued", "running", "undoing"})
GLANCE = timedelta(seconds=1)  # how long a move watches the machine work before the next one comes
TO_REST = timedelta(seconds=240)


class Move(Protocol):
    """Something that happens."""

    async def play(self, day: "CaseDay") -> None: ...


@dataclass(frozen=True)
class Onward:
    """The next transition of the business, by whoever takes it."""

    async def play(self, day: "CaseDay") -> None:
        case, _ = await day.people["operator"].see(day.case_id)
        name = day.playbook.onward.get(case["state"])
        if name is not None:
            await day.ask(day.playbook.takes[name], "transition", name)


@dataclass(frozen=True)
class Take:
    """A transition, whether it fits or not."""

    who: str
    name: str

    async def play(self, day: "CaseDay") -> None:
        await day.ask(self.who, "transition", self.name)


@dataclass(frozen=True)
class Claim:
    """Somebody takes the case in hand, or gives it back, whether they may or not."""

    who: str
    name: str

    async def play(self, day: "CaseDay") -> None:
        await day.ask(self.who, "claim", self.name)


@dataclass(frozen=True)
class Recover:
    """An override; of several steps that qualify it takes one."""

    who: str
    name: str
    which: int = 0

    async def play(self, day: "CaseDay") -> None:
        await day.ask(self.who, "override", self.name, which=self.which)


@dataclass(frozen=True)
class Replay:
    """The case is done again from a step, by the plan that was shown; or what has none is refused."""

    who: str
    which: int

    async def play(self, day: "CaseDay") -> None:
        steps = sorted(day.playbook.process.steps)
        await day.replay(self.who, steps[self.which % len(steps)])


@dataclass(frozen=True)
class Answer:
    """Somebody confirms or declines what others proposed, whether they may or not."""

    who: str
    name: str

    async def play(self, day: "CaseDay") -> None:
        await day.answer(self.who, self.name)


@dataclass(frozen=True)
class Signal:
    """An operator's retry from Temporal's own Web UI."""

    async def play(self, day: "CaseDay") -> None:
        case, _ = await day.people["operator"].see(day.case_id)
        step = next((step["name"] for step in open_steps(case) if step["outcome"] != "acknowledged"), None)
        if step is None:
            return
        given = {"override": "retry", "step": step, "reason": "Seen in Temporal", "actor": "somebody"}

        async def send() -> None:
            temporal = await TemporalClient.connect(day.company.stack.temporal_address, namespace="caseward")
            await temporal.get_workflow_handle(workflow_id(day.playbook.name, day.case_id)).signal(OVERRIDE, given)

        await insist(send)


@dataclass(frozen=True)
class Fault:
    """A partner does something wrong, a few times."""

    partner: str
    call: str
    mode: str
    times: int = 1
    seconds: float | None = None
    outcome: str = "succeeded"

    async def play(self, day: "CaseDay") -> None:
        order = {"partner": self.partner, "call": self.call, "mode": self.mode, "times": self.times}
        if self.seconds is not None:
            order |= {"seconds": self.seconds, "outcome": self.outcome}
        await day.company.fault(**order, **({"match": day.name} if self.call in day.playbook.named_in else {}))


@dataclass(frozen=True)
class TimePasses:
    """Whatever the case waits for comes nearer."""

    by: timedelta

    async def play(self, day: "CaseDay") -> None:
        await insist(lambda: time_passes(day.company.database, UUID(day.case_id), self.by))


@dataclass(frozen=True)
class SeeItWork:
    """Nobody does anything for a moment."""

    async def play(self, day: "CaseDay") -> None:
        await day.glance(lambda case: case["condition"] not in AT_WORK)


@dataclass(frozen=True)
class SendAgain:
    """A command of before is sent once more."""

    which: int

    async def play(self, day: "CaseDay") -> None:
        if day.sent:
            sent = day.sent[self.which % len(day.sent)]
            await sent.person.repeat(sent)


@dataclass(frozen=True)
class Redeliver:
    """A message is delivered once more, as by a dispatcher that died before it wrote down that it had been."""

    which: int

    async def play(self, day: "CaseDay") -> None:
        async def forget() -> None:
            async with day.company.database.transaction() as session:
                await lock_case(session, CATALOGUE, UUID(day.case_id))
                found = await session.scalars(
                    select(Message.id).where(Message.case_id == UUID(day.case_id)).order_by(Message.id)
                )
                messages = found.all()
                again = messages[self.which % len(messages)]
                await session.execute(update(Message).where(Message.id == again).values(dispatched_at=None))
                await session.execute(text("SELECT pg_notify('caseward_outbox', '')"))

        await insist(forget)


@dataclass(frozen=True)
class CasePlan:
    """How a case's day goes."""

    subject: int
    """Which of the playbook's subjects."""
    faults: tuple[Fault, ...]
    depth: int
    """How many transitions come before anything unusual is done."""
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Kill:
    """A process dies once so many moves were made by all cases together."""

    victim: str
    after: int


@dataclass(frozen=True)
class DayPlan:
    """Several cases side by side, and what dies meanwhile."""

    cases: tuple[CasePlan, ...]
    kills: tuple[Kill, ...] = ()


@dataclass
class CaseDay:
    """One case, as long as it is watched."""

    company: Company
    playbook: Playbook
    people: Mapping[str, Person]
    name: str
    case_id: str = ""
    sent: list[Sent] = field(default_factory=list)
    moved: Callable[[], None] = lambda: None

    async def play(self, plan: CasePlan) -> None:
        for fault in plan.faults:
            await fault.play(self)
        await self.open(plan.subject)
        for move in (*(Onward(), SeeItWork()) * plan.depth, *plan.moves):
            await move.play(self)
            await self.somebody_is_named()
            self.moved()

    async def open(self, subject: int) -> None:
        body = {"business_key": self.name, "subject": self.playbook.subjects[subject](self.name)}
        who = self.people[self.playbook.takes[self.playbook.process.opening.name]]
        answer = await who.send(f"/v1/{self.playbook.process.path}", body, key=str(uuid4()))
        assert answer.status_code == 201, answer.text
        self.case_id = answer.json()["case_id"]

    async def ask(self, who: str, kind: str, name: str, *, which: int = 0) -> Sent | None:
        """Look, and do what was seen; once more where the case moved meanwhile."""
        person = self.people[who]
        for _ in range(5):
            case, etag = await person.see(self.case_id)
            choice = await self.choose(case, kind, name, which)
            if choice is None:
                return None
            action, body = choice
            sent = await person.act(self.case_id, action, body, etag)
            if sent is not None:
                self.sent.append(sent)
                return sent
            if not action["allowed"]:
                return None
        return None

    async def replay(self, who: str, step: str) -> None:
        """Ask for the plan and do what it says; where there is none, the case document has to have said so."""
        person = self.people[who]
        for _ in range(5):
            case, etag = await person.see(self.case_id)
            action = offered(case, "override", "replay")
            assert action is not None, case
            answer = await person.ask(f"/v1/cases/{self.case_id}/plan", {"step": step})
            plan_hash = answer.json().get("plan_hash", "0" * 64)
            if action["allowed"] and not answer.is_success:  # there is a plan, though not from this step
                assert answer.status_code in {409, 422}, answer.text
                return
            body = {"reason": "Once more", "step": step, "plan_hash": plan_hash}
            sent = await person.act(self.case_id, action, body, etag)
            if sent is not None:
                self.sent.append(sent)
                return
            if not action["allowed"]:
                return

    async def answer(self, who: str, name: str) -> bool:
        """Confirm or decline the oldest proposal as it was seen; whether that was accepted."""
        person = self.people[who]
        case, etag = await person.see(self.case_id)
        for proposal in case["proposals"][:1]:
            action = {**proposal[name], "name": name, "step": proposal["action"]["step"]}
            sent = await person.act(self.case_id, action, {"reason": "Looked at it"}, etag)
            if sent is not None:
                self.sent.append(sent)
                return True
        return False

    async def choose(self, case: Json, kind: str, name: str, which: int) -> tuple[Json, Json] | None:
        """The action that is meant and what is sent with it; of step overrides the one that is true."""
        if kind == "transition":
            action = offered(case, kind, name)
            given = self.playbook.input(name, case)
            return (action, {"input": given, "reason": "It is the next thing"}) if action else None
        steps = open_steps(case)
        if name not in {"retry", "skip", "mark_done"}:
            action = offered(case, kind, name)
            return (action, {"reason": "Somebody decided so"}) if action else None
        if not steps:
            action = offered(case, kind, name)
            return (action, {"reason": "Just in case"}) if action else None
        return await self.honest(case, name, steps[which % len(steps)])

    async def honest(self, case: Json, name: str, step: Json) -> tuple[Json, Json] | None:
        """What somebody who asked the partner says about a step, instead of or as `name`."""
        body: Json = {"reason": "Asked the partner", "step": step["name"]}
        if step["state"] == "running":
            action = offered(case, "override", name, step["name"])
            return (action, {**body, "result": {}} if name == "mark_done" else body) if action else None
        happened = await self.company.ledger(key=step["effect_key"])
        if happened and (name != "retry" or step["outcome"] == "unknown"):
            name = "mark_done"
        elif name == "mark_done":
            name = "retry"
        if name == "mark_done":
            done = step["direction"] == "do"
            body["result"] = self.playbook.result(step["name"], happened[0]["answer"]) if done else {}
        elif step["outcome"] == "acknowledged":
            if name != "retry":
                return None  # it may still come, and nobody can say that it won't
        elif not happened:
            body["happened"] = False
        action = offered(case, "override", name, step["name"])
        return (action, body) if action else None

    async def glance(self, wanted: Callable[[Json], bool], *, within: timedelta = GLANCE) -> Json:
        """The case as soon as it is as wanted, or when the time is over."""
        give_up_at = time.monotonic() + within.total_seconds()
        while True:
            case, _ = await self.people["operator"].see(self.case_id)
            if wanted(case) or time.monotonic() > give_up_at:
                return case
            await asyncio.sleep(0.04)

    async def somebody_is_named(self) -> None:
        """G5: whatever is not over names who decides next, and since when."""
        case, _ = await self.people["operator"].see(self.case_id)
        info = case["condition_info"]
        assert info["since"], case
        if case["condition"] != "done":
            assert info["recovery_owner"], case
        for step in open_steps(case):
            assert step["recovery_owner"], step
            assert step["since"], step

    # --- the end of the day

    async def come_to_rest(self) -> None:
        """Partners are well again, and people decide what is theirs to decide; what still hangs is stopped by force."""
        give_up_at = time.monotonic() + TO_REST.total_seconds()
        rounds = 0
        while time.monotonic() < give_up_at:
            case, _ = await self.people["operator"].see(self.case_id)
            if case["condition"] == "paused" and await self.ask("operator", "override", "resume"):
                continue
            if case["operation"] is None:
                return
            rounds += 1
            confirmer = self.playbook.confirmer
            if case["proposals"] and confirmer and await self.answer(confirmer, "confirm"):
                continue
            if case["condition"] == "blocked":
                await self.decide(case, rounds)
            elif any(step["state"] in {"retrying", "waiting"} for step in open_steps(case)):
                await insist(lambda: time_passes(self.company.database, UUID(self.case_id), timedelta(minutes=2)))
            version = case["version"]
            await self.glance(
                lambda now, seen=version: now["operation"] is None or now["version"] > seen, within=GLANCE * 3
            )
        case, _ = await self.people["operator"].see(self.case_id)
        raise AssertionError(f"never at rest: {case}")

    async def decide(self, case: Json, rounds: int) -> None:
        """Retry what did not happen, at last leave it out, or stop everything."""
        step = next((step for step in open_steps(case) if step["state"] == "blocked"), None)
        names = ("retry", "retry", "skip", "force_cancel")
        name = names[min(rounds // 3, 3)]
        if step is None or name == "force_cancel":
            await self.ask("operator", "override", "retry" if step is None else name)
            return
        which = open_steps(case).index(step)
        if await self.ask("operator", "override", name, which=which) is None:
            await self.ask("operator", "override", "force_cancel")


async def insist(work: Callable[[], Awaitable[T]]) -> T:
    """Again until the server that is away just now is back."""
    give_up_at = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            return await work()
        except (DBAPIError, OSError, RPCError, RuntimeError, TimeoutError):
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(0.1)


async def time_passes(database: Database, case_id: UUID, by: timedelta) -> None:
    """Move every instant that the case waits for into the past, and tell the workflow, as waiting would have.

    Leases stay: the worker that holds one lives by a clock that nobody can move.
    """
    async with database.transaction() as session:
        work = await lock_case(session, CATALOGUE, case_id)
        if work.case.deadline_at is not None:
            work.case.deadline_at -= by
        waiting = [effect for effect in work.driven() if effect.state in {"retrying", "waiting"}]
        for effect in waiting:
            for instant in ("next_attempt_at", "maybe_sent_until", "answer_by"):
                if getattr(effect, instant) is not None:
                    setattr(effect, instant, getattr(effect, instant) - by)
            await session.execute(
                update(Attempt)
                .where(Attempt.effect_key == effect.key, Attempt.ended_at.is_not(None))
                .values(started_at=Attempt.started_at - by)
            )
        work.touch()
        work.promise(None)
        for effect in waiting:
            nudge = Order(
                operation_id=str(work.case.operation_id),
                kind="override",
                name="time_passes",
                fence=work.case.fence,
                takes_over=False,
                step=f"{effect.step}:undo" if effect.direction == "undo" else effect.step,
                item=effect.item,
                version=work.case.version,
            )
            told = {"order": asdict(nudge), "news": asdict(work.news())}
            payload = {"process": work.process.name, "business_key": work.case.business_key, **told}
            store.put(session, case_id=case_id, operation_id=None, payload=payload)


async def leases_lapse(database: Database, cases: list[UUID]) -> None:
    """The worker is dead, and whoever comes after need not wait for the leases that it held."""
    by = timedelta(seconds=20)

    async def lapse() -> None:
        async with database.transaction() as session:
            mine = select(Effect.key).where(Effect.case_id.in_(cases), Effect.state == "running")
            await session.execute(
                update(Attempt)
                .where(Attempt.effect_key.in_(mine), Attempt.ended_at.is_(None))
                .values(lease_until=Attempt.lease_until - by)
                .execution_options(synchronize_session=False)
            )

    await insist(lapse)


async def play(company: Company, playbook: Playbook, people: Mapping[str, Person], plan: DayPlan) -> list[Any]:
    """A whole day; gives its cases, all at rest."""
    moves, changed = 0, asyncio.Event()

    def moved() -> None:
        nonlocal moves
        moves += 1
        changed.set()

    days = [CaseDay(company, playbook, people, f"S-{uuid4().hex[:12]}", moved=moved) for _ in plan.cases]

    async def kill_one_after_the_other() -> None:
        for order in sorted(plan.kills, key=lambda each: each.after):
            while moves < order.after:
                changed.clear()
                await changed.wait()
            await company.stack.kill(order.victim)
            if order.victim == "worker":
                await leases_lapse(company.database, [UUID(day.case_id) for day in days if day.case_id])
            await company.stack.start_service(order.victim)

    kills = asyncio.create_task(kill_one_after_the_other())
    try:
        async with asyncio.TaskGroup() as cases:
            for day, case_plan in zip(days, plan.cases, strict=True):
                cases.create_task(day.play(case_plan))
        # Those that were to come after more moves than there were come now.
        moves = max((order.after for order in plan.kills), default=0)
        changed.set()
        await kills
    finally:
        kills.cancel()
        for name, child in company.stack.children.items():
            if not child.running:
                await company.stack.start_service(name)
        await company.clear_faults()
    async with asyncio.TaskGroup() as cases:
        for day in days:
            cases.create_task(day.come_to_rest())
    return days
