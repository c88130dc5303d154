"""A person and the worker's own retry at one step in the same moment: one effect, one outcome, and who won is told.

The engine is real, and so is its Postgres; the partner is a script, so that a thousand races take a minute.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from caseward.cases import breaker
from caseward.cases.effects import LeaseHeld
from caseward.db.session import Database
from caseward.errors import ActionNotAllowed, InputInvalid
from caseward.outbox.store import TO_MAIL
from caseward.process import Catalogue
from tests.faults import invariants
from tests.integration.desk import Begun, Desk, Handle
from tests.integration.parcels import SENIOR, LostReply, Receipt, parcels, rejected, silent, step, transient

AT_ONCE = 8
HESITATION = 0.02  # seconds, about what a step's two transactions take
KINDS = ("repeatable", "askable", "both", "stubborn")
BEFORE = {"busy": transient, "silent": silent, "reply lost": LostReply, "refused": rejected}
OVERRIDES = ("retry", "skip", "mark_done", "undo")
SIDES = ("worker", "operator")
BATCHES = 10  # at most, until each side has won each kind: on a slow machine one of them may be rare


@dataclass
class Race:
    """One case, one step, two who want to end it."""

    desk: Desk
    chance: random.Random
    override: str
    before: str
    accepted: UUID | None = None
    refused: Exception | None = None
    case: Handle = field(init=False)

    async def run(self) -> None:
        await self._begin()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._the_worker())
            both.create_task(self._the_operator())
        await self._until_at_rest()

    async def _begin(self) -> None:
        """The step was tried once, and is due again."""
        self.case = await self.desk.open()
        await self.case.take("ship")
        if self.before == "worker frozen":
            self.frozen = await self.case.begin("book")
            assert isinstance(self.frozen, Begun)
            self.desk.partner._happen(self.frozen.call.effect_key, idempotent=True)
        else:
            self.desk.partner.next(BEFORE[self.before]())
            await self.case.run("book")
        await self.case.time_passes(timedelta(minutes=5))

    async def _hesitate(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, HESITATION))

    async def _the_worker(self) -> None:
        await self._hesitate()
        if self.before == "worker frozen":  # the other worker thaws, with an answer that nobody waits for
            thawed = asyncio.create_task(self._thaw())
        if self.before == "refused":
            await self._retry()
        self.desk.partner.next(self._hesitate)
        with suppress(LeaseHeld, AssertionError):  # another attempt, or nothing in flight any more
            await self.case.run("book")
        if self.before == "worker frozen":
            await thawed

    async def _retry(self) -> None:
        """What is blocked goes on when somebody else says so."""
        with suppress(ActionNotAllowed):
            await self.case.override("retry", SENIOR, step="book")

    async def _thaw(self) -> None:
        assert isinstance(self.frozen, Begun)
        await self._hesitate()
        done = self.desk.partner.answers[self.frozen.call.effect_key]
        await self.frozen.settle("succeeded", result=done.model_dump())

    async def _the_operator(self) -> None:
        """Looks at the partner's side and says what is true of it."""
        await self._hesitate()
        key = f"{(await self.case.row()).operation_id}:book"
        answer = self.desk.partner.answers.get(key)
        given: dict[str, Any] = {} if self.override == "undo" else {"step": "book"}
        if self.override == "mark_done":
            given["result"] = (answer or Receipt(number="by hand")).model_dump()
        if self.override in {"retry", "skip"} and answer is None:
            given["happened"] = False
        try:
            self.accepted = (await self.case.override(self.override, SENIOR, **given)).operation_id
        except (ActionNotAllowed, InputInvalid) as fault:
            self.refused = fault

    async def _until_at_rest(self) -> None:
        for _ in range(20):
            row = await self.case.row()
            if row.operation_id is None:
                return
            await self.case.time_passes(timedelta(minutes=5))
            if row.condition == "blocked":
                await self._tell_the_truth()
            await self.case.work()
        message = f"never at rest: {await self.case.timeline()}"
        raise AssertionError(message)

    async def _tell_the_truth(self) -> None:
        for address, effect in (await self.case.effects()).items():
            if effect.state != "blocked":
                continue
            answer = self.desk.partner.answers.get(effect.key)
            if answer is None:
                await self.case.override("retry", SENIOR, step=address, happened=False)
            else:
                result = answer.model_dump() if effect.direction == "do" else {}
                await self.case.override("mark_done", SENIOR, step=address, result=result)

    def judge(self, record: invariants.Record) -> str:
        """Who won; raises where the record does not bear it out."""
        entries = record.entries[self.case.id]
        effect = next(e for e in record.effects.values() if e.case_id == self.case.id and e.direction == "do")
        happened = Counter(self.desk.partner.happened)
        assert max(happened.values(), default=0) <= 1, happened
        ends = [entry for entry in entries if entry.effect_key == effect.key and entry.type in ENDS]
        assert len(ends) == 1, f"not one outcome but {[entry.type for entry in ends]}"
        if self.accepted is None:
            assert self.refused, "neither accepted nor refused"
            assert ends[0].type in {"effect.succeeded", "effect.marked_done"}, ends[0].type
            return "worker"
        told = [e for e in entries if e.type == "operation.accepted" and e.operation_id == self.accepted]
        assert len(told) == 1, "accepted, and the timeline does not tell it once"
        won_at, operation = told[0].number, record.operations[self.accepted]
        later = [entry.type for entry in entries if entry.number > won_at and entry.effect_key == effect.key]
        assert operation.state == "completed"
        match self.override:
            case "skip" | "mark_done":
                assert effect.decision == {"skip": "skipped", "mark_done": "marked_done"}[self.override]
                assert "attempt.started" not in later, later
            case "retry":
                assert effect.outcome == "succeeded"
            case _:
                assert record.cases[self.case.id].state == "draft"
                assert happened[effect.key] == happened[f"{effect.key}:undo"]
        # An undo comes never too late: it takes back what was done.
        return "worker" if ends[0].number < won_at else "operator"


ENDS = frozenset({"effect.succeeded", "effect.skipped", "effect.marked_done", "effect.voided", "effect.dropped"})


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.full)])
async def test_an_override_and_the_workers_retry(database: Database, rounds: int, seed: int, monkeypatch):
    monkeypatch.setattr(breaker, "THRESHOLD", rounds)  # these partners fail most of the time, and are not to be paused
    chance = random.Random(seed)
    won: Counter[tuple[str, str]] = Counter()
    for _ in range(BATCHES):
        won += await who_won(database, chance, rounds)
        if all(won[override, side] for override in OVERRIDES for side in SIDES):
            break
    print(f"who won: {sorted(won.items())}")  # noqa: T201 - a race that one side always wins is none
    for override in OVERRIDES:
        for side in SIDES:
            assert won[override, side], f"{override}: the {side} never won"


async def who_won(database: Database, chance: random.Random, rounds: int) -> Counter[tuple[str, str]]:
    """So many races, and of each override how often either side won."""
    processes = {kind: parcels(step("book", partner=kind), name=f"race_{kind}") for kind in KINDS}
    races = [
        Race(
            desk=Desk(database, processes[chance.choice(KINDS)]),
            chance=random.Random(chance.random()),
            override=chance.choice(OVERRIDES),
            before=chance.choice([*BEFORE, "worker frozen"]),
        )
        for _ in range(rounds)
    ]
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(race: Race) -> None:
        async with slots:
            with blamed_on(race):
                await race.run()

    async with asyncio.TaskGroup() as all_of_them:
        for race in races:
            all_of_them.create_task(run(race))

    record = await record_of(database, races)
    assert invariants.of_record(record, Catalogue(processes.values())) == []
    won: Counter[tuple[str, str]] = Counter()
    for race in races:
        with blamed_on(race):
            won[race.override, race.judge(record)] += 1
    return won


@contextmanager
def blamed_on(race: Race) -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        fault.add_note(f"{race.override} over {race.before} at {race.desk.process.name}, case {race.case.id}")
        raise


async def record_of(database: Database, races: list[Race]) -> invariants.Record:
    cases = {race.case.id for race in races}
    async with database.transaction() as session:
        # No dispatcher works here: all counts as delivered, and of a mail the mail server knows then.
        told = "UPDATE outbox_messages SET dispatched_at = now() WHERE case_id = ANY(:cases) RETURNING *"
        delivered = (await session.execute(text(told), {"cases": list(cases)})).all()
    mails = [f"{row.case_id}{invariants.MAIL}{row.id}" for row in delivered if row.destination == TO_MAIL]
    ledger = [{"key": key} for key in (*mails, *(key for race in races for key in race.desk.partner.happened))]
    return await invariants.read(database, ledger, only=cases)
