"""No path reaches what people must confirm with too few of them (hypothesis).

Chance plays people of all roles, signals, repeats, doubles, expiry and takeovers on one case. The test keeps its own
account of who confirmed what, and of how the case stood then; the rows say only what was accepted. A failure is printed
as the shortest day that shows it, with the blob to repeat it.
"""

import contextlib
import os
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from caseward.cases.admission import admit_override
from caseward.cases.commands import Accepted
from caseward.cases.confirming import confirm_proposal, decline_proposal, expire_due
from caseward.cases.effects import LeaseHeld
from caseward.db.tables import Effect, Operation
from caseward.errors import CommandRefused
from caseward.messages import AdmitCall
from caseward.process import Confirmation
from caseward.situation import NEVER_ACCEPTED, Actor
from tests.integration.engine import AT_ONCE, Desk, Handle, all_at_once, envelope, parcels, person, rejected, step

EXAMPLES = int(os.environ.get("CASEWARD_EXAMPLES", "25"))  # more of them when somebody has an hour

CHIEFS, SENIORS = frozenset({"chief"}), frozenset({"senior_operator"})
NEEDS = {
    "ship": Confirmation(by=2, roles=CHIEFS),
    "scrap": Confirmation(by=1, roles=CHIEFS),
    "skip": Confirmation(by=1, roles=SENIORS),
    "mark_done": Confirmation(by=1, roles=SENIORS),
    "force_cancel": Confirmation(by=3, roles=SENIORS, proposer_counts=True),
}
PLAIN = parcels(
    step("book", retry=AT_ONCE, skip_confirmation=NEEDS["skip"]),
    name="watched",
    confirmations={"force_cancel": NEEDS["force_cancel"]},
)
WATCHED = replace(
    PLAIN,
    states=tuple(replace(state, deadline=None) for state in PLAIN.states),  # one of them takes `scrap`
    transitions=tuple(replace(each, confirmation=NEEDS.get(each.name)) for each in PLAIN.transitions),
)
ROLES = ("clerk", "chief", "operator", "senior_operator")
TEMPORAL = Actor("temporal", frozenset(ROLES), "temporal")
COMMANDS = ("ship", "ship", "store", "abandon", "scrap", "cancel", "reopen")
OVERRIDES = ("skip", "skip", "mark_done", "retry", "undo", "force_cancel")


class Day:
    """What happens, and the account that the test keeps of it."""

    def __init__(self, case: Handle, data: st.DataObject) -> None:
        self.case, self.data = case, data
        self.people = [person(*data.draw(st.sets(st.sampled_from(ROLES))), name=f"p{n}") for n in range(5)]
        self.people += [person(*ROLES, name=f"p{n}") for n in range(3)]  # the same people in all roles
        self.confirmed: defaultdict[UUID, list[Actor]] = defaultdict(list)
        self.proposers: dict[UUID, Actor] = {}
        self.stood: dict[UUID, object] = {}
        self.sent: list[tuple[UUID, Actor, str]] = []

    def somebody(self) -> Actor:
        return self.data.draw(st.sampled_from([*self.people, *self.people, TEMPORAL]))

    async def stands(self, operation_id: UUID) -> object:
        """All that a proposal is about, read from the rows themselves."""
        row, operation = await self.case.row(), await self.case.operation(operation_id)
        effect = None
        if operation.effect_key is not None:
            async with self.case.desk.database.transaction() as session:
                effect = await session.get_one(Effect, operation.effect_key)
        about = (effect.key, effect.attempt_count, effect.state) if effect else None
        return row.fence, row.operation_id, row.subject_revision, about, operation.input

    async def proposals(self) -> list[UUID]:
        async with self.case.desk.database.transaction() as session:
            wanted = select(Operation.id).where(Operation.case_id == self.case.id, Operation.confirmations > 0)
            return list(await session.scalars(wanted.order_by(Operation.id)))

    async def _sent(self, accepted: Accepted, actor: Actor) -> None:
        if accepted.proposed:
            self.proposers[accepted.operation_id] = actor
            self.stood[accepted.operation_id] = await self.stands(accepted.operation_id)

    # events

    async def a_command(self) -> None:
        actor = self.data.draw(st.sampled_from(self.people))
        await self._sent(await self.case.take(self.data.draw(st.sampled_from(COMMANDS)), actor), actor)

    async def an_override(self) -> None:
        actor, name = self.data.draw(st.sampled_from(self.people)), self.data.draw(st.sampled_from(OVERRIDES))
        more = {"result": {"number": "R1"}} if name == "mark_done" else {}
        await self._sent(await self.case.override(name, actor, **more), actor)

    async def a_signal(self) -> None:
        name = self.data.draw(st.sampled_from(OVERRIDES))
        payload = {"override": name, "reason": "Seen in the UI"}
        payload |= {"result": {"number": "R1"}} if name == "mark_done" else {}
        key = f"temporal:{self.data.draw(st.integers(0, 3))}"
        call = AdmitCall("watched", str(self.case.id), key, payload)
        desk = self.case.desk
        answer = await admit_override(desk.database, desk.catalogue, call, allowed=frozenset(OVERRIDES))
        if answer.proposed:
            operation_id = UUID(answer.operation_id)
            self.proposers[operation_id] = TEMPORAL
            self.stood.setdefault(operation_id, await self.stands(operation_id))

    async def _confirm(self, operation_id: UUID, actor: Actor, key: str | None = None) -> None:
        sealed = envelope(actor, key)
        async with self.case.desk.database.transaction() as session:
            accepted = await confirm_proposal(
                session, self.case.desk.catalogue, operation_id=operation_id, reason=None, envelope=sealed
            )
        self.sent.append((operation_id, actor, sealed.idempotency_key))
        if not accepted.repeated:
            self.confirmed[operation_id].append(actor)

    async def a_confirmation(self) -> None:
        proposals = await self.proposals()
        if proposals:
            operation_id = self.data.draw(st.sampled_from(proposals))
            actor, stood, before = self.somebody(), self.stood[operation_id], await self.stands(operation_id)
            confirmations = len(self.confirmed[operation_id])
            await self._confirm(operation_id, actor)
            if len(self.confirmed[operation_id]) > confirmations:
                assert before == stood, "confirmed, though the case was not any more what was proposed"

    async def everybody_confirms_at_once(self) -> None:
        proposals = await self.proposals()
        if proposals:
            operation_id = self.data.draw(st.sampled_from(proposals))
            crowd = [self.somebody() for _ in range(self.data.draw(st.integers(2, 6)))]
            await all_at_once(*(self._confirm(operation_id, actor) for actor in crowd))

    async def a_repeat(self) -> None:
        if self.sent:
            operation_id, actor, key = self.data.draw(st.sampled_from(self.sent))
            await all_at_once(*(self._confirm(operation_id, actor, key) for _ in range(3)))

    async def a_refusal(self) -> None:
        proposals = await self.proposals()
        if proposals:
            async with self.case.desk.database.transaction() as session:
                await decline_proposal(
                    session,
                    self.case.desk.catalogue,
                    operation_id=self.data.draw(st.sampled_from(proposals)),
                    reason="Not now",
                    envelope=envelope(self.somebody()),
                )

    async def time_is_over(self) -> None:
        async with self.case.desk.database.transaction() as session:
            over = update(Operation).where(Operation.case_id == self.case.id, Operation.state == "proposed")
            await session.execute(over.values(expires_at=Operation.expires_at - timedelta(days=2)))
        await expire_due(self.case.desk.database, self.case.desk.catalogue)

    async def the_story_goes_on(self) -> None:
        if (await self.case.row()).operation_id is not None:
            if self.data.draw(st.booleans()):
                self.case.desk.partner.next(rejected())
            await self.case.work()
            self.case.desk.partner.script.clear()

    async def check(self) -> None:
        """Whatever was accepted of what is guarded had its people, each of them somebody else."""
        async with self.case.desk.database.transaction() as session:
            rows = await session.scalars(select(Operation).where(Operation.case_id == self.case.id))
            accepted = [row for row in rows if row.state not in NEVER_ACCEPTED]
        for operation in accepted:
            needed = NEEDS.get(operation.name)
            if needed is None:
                continue
            proposer = self.proposers.get(operation.id)
            assert proposer is not None, f"{operation.name} was accepted and never proposed"
            willing = [actor for actor in self.confirmed[operation.id] if actor.roles & needed.roles]
            people = {actor.id for actor in willing if actor.via == "api"} - {proposer.id}
            counts = needed.proposer_counts and proposer.via == "api" and bool(proposer.roles & needed.roles)
            assert len(people) + counts >= needed.by, f"{operation.name}: {people} by {proposer}"
        for effect in (await self.case.effects()).values():
            if effect.decision in {"skipped", "marked_done"}:
                assert effect.decided_by in self.proposers, "left out, and nobody was asked"


EVENTS = (
    *(Day.a_command, Day.a_command, Day.an_override, Day.an_override, Day.a_signal),
    *(Day.a_confirmation, Day.a_confirmation, Day.a_confirmation, Day.a_confirmation),
    *(Day.everybody_confirms_at_once, Day.a_repeat, Day.a_refusal, Day.time_is_over),
    *(Day.the_story_goes_on, Day.the_story_goes_on),
)


@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck), database=None)
async def test_nothing_guarded_is_ever_accepted_with_too_few_people(database, data):
    day = Day(await Desk(database, WATCHED).open(person("clerk", name="p0")), data)
    if data.draw(st.booleans()):  # half of the days begin where a step is blocked, by people beyond doubt
        proposed = await day.case.take("ship", person("clerk", name="x0"))
        day.proposers[proposed.operation_id] = person("clerk", name="x0")
        for name in ("x1", "x2"):
            await day._confirm(proposed.operation_id, person("chief", name=name))
        day.stood[proposed.operation_id] = None
        day.case.desk.partner.next(rejected())
        await day.case.run("book")
    for _ in range(data.draw(st.integers(1, 14))):
        with contextlib.suppress(CommandRefused, LeaseHeld):
            await data.draw(st.sampled_from(EVENTS))(day)
        await day.check()
    assert await day.case.chain_break() is None
