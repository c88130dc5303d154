"""No path reaches what people must confirm with too few of them (hypothesis).

Three people, each in all roles, so that the wrong one is always at hand: who proposed it, who confirmed before, the
same one in another role, through another door, or in the place of somebody else. Between their answers chance lets a
machine try again, somebody take the case over, time pass. The referee reads the timeline and the rows, and knows
nothing of the policy. A failure is printed as the day that shows it, with the blob to repeat it; it is not made
shorter, which takes minutes.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from caseward.cases.admission import admit_override
from caseward.cases.confirming import confirm_proposal, decline_proposal, expire_due
from caseward.cases.effects import LeaseHeld
from caseward.db.tables import Entry, Operation, Subject
from caseward.errors import CommandRefused
from caseward.messages import AdmitCall
from caseward.process import Circumstance, Confirmation, Retry
from caseward.situation import Actor
from tests.integration.desk import Desk, Handle, all_at_once, envelope
from tests.integration.parcels import Parcel, parcels, person, step, transient

EXAMPLES = int(os.environ.get("CASEWARD_EXAMPLES", "25"))  # more of them when somebody has an hour

LIGHT, HEAVY = 1.0, 2.0
TOO_HEAVY = Circumstance(of=lambda parcel: parcel.weight == HEAVY, words="a heavy parcel")
CHIEFS, SENIORS = frozenset({"chief", "clerk"}), frozenset({"senior_operator", "operator"})
NEEDS = {
    "ship": Confirmation(by=2, roles=CHIEFS, groups=frozenset({"chief"}), when=TOO_HEAVY),
    "skip": Confirmation(by=2, roles=SENIORS),
    "mark_done": Confirmation(by=2, roles=SENIORS),
    "force_cancel": Confirmation(by=3, roles=SENIORS, proposer_counts=True),
}
PLAIN = parcels(
    step("book", retry=Retry(waits=(timedelta(seconds=1),) * 30), skip_confirmation=NEEDS["skip"]),
    name="watched",
    confirmations={"force_cancel": NEEDS["force_cancel"]},
)
WATCHED = replace(
    PLAIN,
    transitions=tuple(replace(each, confirmation=NEEDS.get(each.name)) for each in PLAIN.transitions),
    states=tuple(replace(each, claimable_by=CHIEFS if each.name == "draft" else frozenset()) for each in PLAIN.states),
)
ROLES = ("clerk", "chief", "operator", "senior_operator")
PEOPLE = tuple(person(*ROLES, name=f"p{n}") for n in range(3))
# Others who have of themselves no role at all, or only some, and may speak for one of those.
STAND_INS = (
    *(Actor(f"s{n}", frozenset(ROLES), lent=tuple((role, f"p{n % 2}") for role in ROLES)) for n in range(3)),
    replace(PEOPLE[1], lent=tuple((role, "p0") for role in ("chief", "senior_operator"))),
)
NOBODY = (Actor("temporal", frozenset(ROLES), "temporal"), Actor("system", frozenset(ROLES), "system"))
HELPS = {"retry", "skip", "mark_done"}  # they change one step and take no case over
RESULT = {"result": {"number": "R1"}}


# --- the referee -----------------------------------------------------------------------------------------------------


def eligible(actor_id: str, via: str) -> bool:
    return via == "api" and actor_id not in {"temporal", "system"}


def voices(entry: Entry) -> set[str]:
    """Everybody whose word it is: whoever said it, and for whom."""
    return {entry.actor_id, entry.data.get("on_behalf_of") or entry.actor_id}


def moved_on(proposed: Entry, later: Entry, operations: dict[UUID, Operation]) -> bool:
    """By this entry the case is not any more what the proposal was about."""
    if later.operation_id in operations and later.operation_id != proposed.operation_id:
        ends = later.type in {"operation.accepted", "operation.completed", "operation.undone", "operation.superseded"}
        if ends and operations[later.operation_id].name not in HELPS:
            return True
    about = later.effect_key is not None and later.effect_key == operations[proposed.operation_id].effect_key
    return about and later.type.startswith(("attempt.", "effect."))


def needs(row: Operation, weights: dict[int, float]) -> Confirmation | None:
    """What an operation needs, by the subject as it was; light parcels anybody ships alone."""
    return None if row.name == "ship" and weights[row.subject_base] == LIGHT else NEEDS.get(row.name)


def judge(entries: Sequence[Entry], operations: dict[UUID, Operation], weights: dict[int, float]) -> None:
    """Everything that was confirmed or accepted on one case, by its timeline and its subject alone."""
    for number, accepted in enumerate(entries):
        needed = needs(operations[accepted.operation_id], weights) if accepted.operation_id else None
        if accepted.type not in {"operation.accepted", "operation.confirmed"} or needed is None:
            continue
        story = [entry for entry in entries[: number + 1] if entry.operation_id == accepted.operation_id]
        proposed, row = story[0], operations[accepted.operation_id]
        name = f"{row.name} proposed by {proposed.actor_id}"
        assert proposed.type == "operation.proposed", f"{row.name} was never proposed"
        assert not {"operation.declined", "operation.expired"} & {entry.type for entry in story}, f"{name} was over"
        confirmed = [entry for entry in story if entry.type == "operation.confirmed"]
        people = [entry.actor_id for entry in confirmed]
        assert all(eligible(entry.actor_id, entry.actor_via) for entry in confirmed), f"{name}: {people}, by a machine"
        assert proposed.actor_id not in people, f"{name}: confirmed by the same person"
        assert len(people) == len(set(people)), f"{name}: {people}, somebody twice"
        said = [voices(entry) for entry in (proposed, *confirmed)]
        assert sum(map(len, said)) == len(set().union(*said)), f"{name}: {said}, somebody by another"
        assert all(entry.actor_role in needed.roles for entry in confirmed), f"{name}: without the role"
        if accepted.type == "operation.confirmed":
            between = [entry for entry in entries[:number] if entry.number > proposed.number]
            changes = [entry.type for entry in between if moved_on(proposed, entry, operations)]
            assert not changes, f"{name}: confirmed after {changes}"
        else:
            own = needed.proposer_counts and eligible(proposed.actor_id, proposed.actor_via)
            assert len(people) + own >= needed.by, f"{name}: accepted with {people}"
            assert needed.groups <= {entry.actor_role for entry in confirmed}, f"{name}: without {needed.groups}"
            assert (row.input, row.reason) == (proposed.data["input"], proposed.reason), f"{name}: something else"


# --- the day ---------------------------------------------------------------------------------------------------------


class Day:
    """What people, machines and time do to a few cases, one proposal after another."""

    def __init__(self, desk: Desk, data: st.DataObject) -> None:
        self.desk, self.data = desk, data
        self.cases: list[Handle] = []
        self.case = Handle(desk, UUID(int=0))
        self.proposal, self.proposer = UUID(int=0), PEOPLE[0]
        self.sent: list[tuple[UUID, Actor, str]] = []

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(choices))

    async def begin(self) -> None:
        """A case whose first step a machine tries again and again, or one where nothing has begun."""
        weight = self.one_of((HEAVY, HEAVY, HEAVY, LIGHT))
        self.desk.subject = lambda: Parcel(to="Oslo", weight=weight)
        self.case = await self.desk.open(PEOPLE[0])
        self.cases.append(self.case)
        if self.one_of((True, True, True, False)):
            accepted = await self.case.take("ship", PEOPLE[0])
            self.proposal = accepted.operation_id
            for other in PEOPLE[1:] if accepted.proposed else ():
                await self.confirm(other)
            await self.attempt()

    async def propose(self) -> None:
        """Something guarded, by a person or by a signal; where it stands already, the answers are about that."""
        self.proposer = self.one_of((*PEOPLE, *STAND_INS))
        if (await self.case.row()).operation_id is None:
            name = self.one_of(("ship", "ship", "force_cancel"))
        else:
            name = self.one_of(("skip", "skip", "mark_done", "force_cancel"))
        if name == "ship":
            accepted = await self.case.take(name, self.proposer)
            if not accepted.proposed and self.desk.subject().weight == LIGHT:
                self.proposal = accepted.operation_id
                return
        elif self.one_of((True, True, True, False)):
            accepted = await self.case.override(name, self.proposer, **(RESULT if name == "mark_done" else {}))
        else:
            await self.signal(name)
            return
        assert accepted.proposed, f"{name} was accepted at once"
        self.proposal = accepted.operation_id

    async def signal(self, name: str) -> None:
        payload = {"override": name, "reason": "Seen in the UI"} | (RESULT if name == "mark_done" else {})
        call = AdmitCall("watched", str(self.case.id), f"s{self.one_of(range(4))}", payload)
        answer = await admit_override(self.desk.database, self.desk.catalogue, call, allowed=frozenset(NEEDS))
        if answer.accepted:
            self.proposal, self.proposer = UUID(answer.operation_id), NOBODY[0]

    async def confirm(self, actor: Actor, key: str | None = None, proposal: UUID | None = None) -> None:
        sealed = envelope(actor, key)
        wanted = proposal or self.proposal
        self.sent.append((wanted, actor, sealed.idempotency_key))
        async with self.desk.database.transaction() as session:
            await confirm_proposal(session, self.desk.catalogue, operation_id=wanted, reason=None, envelope=sealed)

    def somebody(self) -> Actor:
        """Rather often one who must not count."""
        anybody = self.one_of(PEOPLE)
        before = self.sent[-1][1] if self.sent else anybody
        return self.one_of(
            (
                *(anybody, anybody, anybody, self.proposer, before),
                *(self.one_of(STAND_INS), self.one_of(STAND_INS)),
                replace(self.one_of((anybody, before)), roles=frozenset({self.one_of(ROLES)})),
                *NOBODY,
                replace(anybody, via="temporal"),
            )
        )

    # what may happen between proposal and acceptance

    async def answer(self) -> None:
        await self.confirm(self.somebody())

    async def crowd(self) -> None:
        """Several answers at once, and perhaps a machine's attempt among them."""
        actors = [self.somebody() for _ in range(self.one_of((2, 3, 4)))]
        tries = self.one_of((False, False, True))
        if tries:  # before, because it takes no lock of a case, and rows in another order than the engine
            await self.case.time_passes(timedelta(minutes=2))
        work = [*(self.confirm(actor) for actor in actors), *([self.another_run()] if tries else [])]
        for fault in await all_at_once(*work):
            if isinstance(fault, Exception) and not isinstance(fault, CommandRefused | LeaseHeld):
                raise fault

    async def repeat(self) -> None:
        if self.sent:
            proposal, actor, key = self.one_of(self.sent[-3:])
            await self.confirm(actor, key, proposal)

    async def attempt(self) -> None:
        """By the machine: what was proposed about the one before is stale then, and nobody ended it."""
        if (await self.case.row()).operation_id is not None:
            await self.case.time_passes(timedelta(minutes=2))
            await self.another_run()

    async def another_run(self) -> None:
        if (await self.case.row()).operation_id is not None:
            self.desk.partner.next(transient())
            await self.case.run("book")
            self.desk.partner.script.clear()

    async def takeover(self) -> None:
        await self.case.take("cancel", self.one_of(PEOPLE))

    async def other_weight(self) -> None:
        """What they were to confirm is about another parcel now."""
        weight = self.one_of((LIGHT, HEAVY, HEAVY))
        await self.case.take("correct", self.one_of(PEOPLE), parcel={"to": "Bergen", "weight": weight})
        self.desk.subject = lambda: Parcel(to="Bergen", weight=weight)

    async def claim(self) -> None:
        await self.case.claim(self.one_of(("claim", "unclaim")), self.one_of(PEOPLE))

    async def retry(self) -> None:
        await self.case.override("retry", self.one_of(PEOPLE))

    async def altered(self) -> None:
        """Behind our back: the row says something else than what was proposed."""
        async with self.desk.database.transaction() as session:
            row = update(Operation).where(Operation.id == self.proposal, Operation.state == "proposed")
            await session.execute(row.values(reason="Whatever"))

    async def decline(self) -> None:
        async with self.desk.database.transaction() as session:
            sealed, why = envelope(self.somebody()), "Not now"
            await decline_proposal(
                session, self.desk.catalogue, operation_id=self.proposal, reason=why, envelope=sealed
            )

    async def expiry(self) -> None:
        async with self.desk.database.transaction() as session:
            over = update(Operation).where(Operation.id == self.proposal, Operation.state == "proposed")
            await session.execute(over.values(expires_at=Operation.expires_at - timedelta(days=2)))
        await expire_due(self.desk.database, self.desk.catalogue)

    # what it comes to

    async def everybody_else(self) -> None:
        """What still stands is accepted once all others confirm it: we are not safe by refusing everything."""
        # Of the three one may speak for another, so that some of them are too few.
        for actor in (*PEOPLE, *(person(*ROLES) for _ in range(2))):
            await self.may_be_refused(self.confirm(actor))
        entries, operations = await self.account(self.case)
        row = operations[self.proposal]
        proposed = next(entry for entry in entries if entry.operation_id == row.id)
        since = [entry for entry in entries if entry.number > proposed.number]
        if row.state == "proposed" and row.reason == proposed.reason:
            assert any(moved_on(proposed, entry, operations) for entry in since), f"{row.name}: nobody could confirm it"

    async def may_be_refused(self, work) -> None:
        with contextlib.suppress(CommandRefused, LeaseHeld):
            await work

    async def weights(self, case: Handle) -> dict[int, float]:
        """By revision of the subject."""
        async with self.desk.database.transaction() as session:
            rows = await session.scalars(select(Subject).where(Subject.case_id == case.id))
            return {row.revision: row.data["weight"] for row in rows}

    async def account(self, case: Handle) -> tuple[list[Entry], dict[UUID, Operation]]:
        async with self.desk.database.transaction() as session:
            rows = list(await session.scalars(select(Operation).where(Operation.case_id == case.id)))
        return await case.entries(), {row.id: row for row in rows}

    async def over(self) -> bool:
        """Nothing on this case can be proposed any more that makes a story."""
        row = await self.case.row()
        if row.operation_id is None:
            return row.state != "draft"
        effect = (await self.case.effects()).get("book")
        return effect is not None and effect.state == "settled"


EVENTS = (
    *(Day.answer,) * 6,
    *(Day.crowd, Day.crowd, Day.repeat, Day.attempt, Day.attempt, Day.attempt),
    *(Day.takeover, Day.retry, Day.altered, Day.decline, Day.expiry),
    *(Day.other_weight, Day.claim, Day.claim),
)


@given(data=st.data())
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
async def test_nothing_guarded_is_ever_accepted_with_too_few_people(database, data):
    day = Day(Desk(database, WATCHED), data)
    await day.begin()
    for _ in range(3):
        if await day.over():
            await day.begin()
        await day.may_be_refused(day.propose())
        for _ in range(day.one_of((2, 3, 4))):
            await day.may_be_refused(day.one_of(EVENTS)(day))
        await day.everybody_else()
    for case in day.cases:
        judge(*await day.account(case), await day.weights(case))
        assert await case.chain_break() is None
