"""Offered ⇔ accepted (G7), and a version for every change, for cases in situations that chance brings about.

Hypothesis plays a day on a case: people act, workers begin attempts and are killed, partners answer or don't, time
passes. Then everybody tries everything that the case document offers and does not offer. A failure is printed as the
shortest day that shows it, with the blob to repeat it.
"""

import contextlib
import dataclasses
import itertools
import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.commands import request_claim, request_override, request_transition
from caseward.cases.confirming import confirm_proposal, decline_proposal, expire_due
from caseward.cases.effects import LeaseHeld
from caseward.cases.locked import lock_case, story_of
from caseward.cases.looking_back import whole_situation
from caseward.cases.pauses import keys_of
from caseward.cases.pausing import list_pauses, request_pause, request_resume
from caseward.cases.replay import plan_replay
from caseward.cases.resuming import Resuming
from caseward.cases.timeline import first_break
from caseward.claims import ClaimInput
from caseward.db.session import Database
from caseward.db.tables import Case, Entry
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.proposal import ProposalDocument
from caseward.errors import ActionNotAllowed, BusinessKeyTaken, CommandRefused, InputInvalid
from caseward.overrides import OVERRIDES
from caseward.policy import decide_all, decide_confirming, decide_declining, stale
from caseward.process import IMPOSSIBLE, NONE_NEEDED, Circumstance, Confirmation, Process, Step, Transition
from caseward.situation import Actor, Condition, Situation, condition
from processes.vendor_onboarding import VENDOR_ONBOARDING, Vendor
from tests.integration.desk import OUTCOMES, Begun, Desk, Handle, envelope
from tests.integration.parcels import AT_ONCE, SENIOR, parcels, person, step

EXAMPLES = int(os.environ.get("CASEWARD_EXAMPLES", "25"))  # more of them when somebody has an hour

VENDOR = Vendor.model_validate(Vendor.model_config["json_schema_extra"]["examples"][0])

# Every kind of step that can be declared, in one business.
EVERY_KIND = parcels(
    step("book", owner="logistics"),
    step("label", partner="askable", exhausted="undo", retry=AT_ONCE),
    step("pay", partner="stubborn", skip_roles=frozenset({"senior_operator"})),
    step("mail", partner="stubborn", undo=NONE_NEEDED, exhausted="proceed"),
    step("seal", partner="both", undo=IMPOSSIBLE, skip_roles=frozenset()),
    name="every_kind",
)
# The same, with work that begins with the opening and a transition that supersedes with work of its own.
OPENED_BY_WORK = parcels(
    *EVERY_KIND.transitions[1].steps,
    name="opened_by_work",
    transitions=(
        Transition(
            "open",
            "Pack",
            to="draft",
            pending="shipping",
            undone="cancelled",
            steps=(step("weigh"),),
            roles=frozenset({"clerk"}),
        ),
        *(
            dataclasses.replace(t, steps=(step("recall", partner="askable"),)) if t.name == "cancel" else t
            for t in EVERY_KIND.transitions[1:]
        ),
    ),
)
BY_CHIEFS = Confirmation(by=2, roles=frozenset({"chief"}))
# And with confirmations of every kind.
CONFIRMED = parcels(
    *(
        dataclasses.replace(s, skip_confirmation=BY_CHIEFS) if s.name in {"book", "seal"} else s
        for s in EVERY_KIND.transitions[1].steps
    ),
    name="confirmed",
    confirmations={
        "force_cancel": dataclasses.replace(BY_CHIEFS, by=1),
        "retry": Confirmation(by=1, roles=frozenset({"operator"}), proposer_counts=True),
    },
)
CONFIRMED = dataclasses.replace(
    CONFIRMED,
    transitions=tuple(
        dataclasses.replace(t, confirmation=BY_CHIEFS if t.name in {"ship", "correct", "reopen", "cancel"} else None)
        for t in CONFIRMED.transitions
    ),
)
# Cases that people claim, and confirmations that depend on the case: correcting a parcel makes it heavy.
HEAVY = Circumstance(of=lambda parcel: parcel.weight > 1.5, words="a heavy parcel")
CLAIMED = parcels(
    *EVERY_KIND.transitions[1].steps,
    name="claimed",
    states=tuple(
        dataclasses.replace(
            s, claimable_by=frozenset({"clerk", "chief"}) if s.name in {"draft", "stored"} else s.claimable_by
        )
        for s in EVERY_KIND.states
    ),
    transitions=tuple(
        dataclasses.replace(t, confirmation=dataclasses.replace(BY_CHIEFS, by=1, when=HEAVY))
        if t.name in {"ship", "abandon"}
        else t
        for t in EVERY_KIND.transitions
    ),
)
PROCESSES = {each.name: each for each in (VENDOR_ONBOARDING, EVERY_KIND, OPENED_BY_WORK, CONFIRMED, CLAIMED)}


class Day:
    """What happens on a case, one random event after another."""

    def __init__(self, desk: Desk, data: st.DataObject) -> None:
        self.desk, self.data = desk, data
        self.begun: list[Begun] = []
        self.resuming = Resuming(desk.database, desk.catalogue)
        roles = [role.name for role in desk.process.roles]
        self.people = [person(*roles, name=f"anybody-{n}") for n in range(3)]

    async def play(self, events: int) -> Handle:
        self.case = await self.desk.open(self.people[0])
        fingerprint = await self.fingerprint()
        for _ in range(events):
            event = self.data.draw(st.sampled_from(EVENTS))
            with contextlib.suppress(CommandRefused, LeaseHeld):
                await event(self)
            before, fingerprint = fingerprint, await self.fingerprint()
            # Moved instants, which no command does; and the pauses of others, which count in the ETag instead.
            if event in {Day.time_passes, *OTHERS_PAUSES}:
                continue
            assert fingerprint[0] > before[0] or fingerprint == before, "a change without a new version"
        return self.case

    async def fingerprint(self) -> tuple[int, Any]:
        """The version, and all that it stands for: state, condition, and what anybody may do."""
        async with self.desk.database.sessions() as session:
            work = await lock_case(session, self.desk.catalogue, self.case.id)
            now, row = await whole_situation(work, SENIOR), work.case
            current = condition(now)
            self.check_projection(now, current, row)
            everybody = (person(*ROLES(self.desk.process), name="somebody else"), *self.people)
            allowed = [
                [(action, decision.allowed, [reason.code for reason in decision.reasons]) for action, decision in each]
                for each in (decide_all(now, actor) for actor in everybody)
            ]
            entries = await session.scalars(select(Entry).where(Entry.case_id == row.id).order_by(Entry.number))
            assert first_break(list(entries), row.timeline_head) is None
            answers = [
                (proposal.id, stale(now, proposal), by(now, actor, proposal).reasons)
                for proposal in now.proposals
                for actor in everybody
                for by in (decide_confirming, decide_declining)
            ]
            assert row.proposals == len(now.proposals)
            return now.version, (now.state, current, allowed, answers)

    def check_projection(self, now: Situation, current: Condition, row: Case) -> None:
        """The list of cases shows what the case shows, and unfinished work always has somebody who decides (G5)."""
        shown = (row.condition, row.condition_since, row.recovery_owner, row.waiting_on)
        # The process's pause is told when the list is read: it is not written to every case.
        own = tuple(pause for pause in now.pauses if not pause.key.startswith("process:"))
        current = current if current.name != "paused" else condition(dataclasses.replace(now, pauses=own))
        assert shown == (current.name, current.since, current.recovery_owner, current.waiting_on)
        assert now.operation is None or current.recovery_owner
        assert all(effect.recovery_owner and effect.since for effect in now.effects)
        assert current.name != "done" or now.operation is None

    # events

    def somebody(self) -> Actor:
        return self.people[self.data.draw(st.integers(0, len(self.people) - 1))]

    async def somebody_takes_a_transition(self) -> None:
        document = await self.case.document(self.somebody())
        names = [a.name for a in document.actions if a.kind == "transition" and a.allowed]
        if names:
            name = self.data.draw(st.sampled_from(names))
            await self.case.take(name, self.somebody(), **example(self.desk.process.transition(name).input))

    async def somebody_claims(self) -> None:
        actor = self.somebody()
        name = self.data.draw(st.sampled_from(("claim", "claim", "unclaim")))
        await self.case.claim(name, self.data.draw(st.sampled_from((actor, actor, SENIOR))))

    async def somebody_helps(self) -> None:
        document = await self.case.document(SENIOR)
        offered = [action for action in document.actions if action.kind == "override" and action.allowed]
        offered = [action for action in offered if action.name != "replay"]  # takes over, and takes a plan
        helpful = [action for action in offered if action.step] or offered
        if helpful:
            action = self.data.draw(st.sampled_from(helpful))
            await self.case.override(action.name, SENIOR, **override_input(self.desk.process, document, action))

    async def somebody_takes_over(self) -> None:
        name = self.data.draw(st.sampled_from(("undo", "undo", "replay", "force_cancel")))
        given: dict[str, str] = {}
        if name == "replay":
            async with self.desk.database.sessions() as session, session.begin():
                given = await a_plan(session, self.case)
        await self.case.override(name, SENIOR, **given)

    async def somebody_answers_a_proposal(self) -> None:
        actor = self.somebody()
        proposals = (await self.case.document(actor)).proposals
        if proposals:
            proposal = self.data.draw(st.sampled_from(proposals))
            confirming = proposal.confirm.allowed and self.data.draw(st.integers(0, 4))
            async with self.desk.database.transaction() as session:
                await answer(session, self.case, actor, proposal, confirming=bool(confirming))

    async def somebody_pauses_the_case(self) -> None:
        deadlines = self.data.draw(st.sampled_from(("running", "frozen")))
        await self.case.override("pause", SENIOR, deadlines=deadlines)

    async def somebody_resumes_the_case(self) -> None:
        await self.case.override("resume", SENIOR)

    async def somebody_pauses_others(self) -> None:
        """The process, or one of the partners."""
        key = self.data.draw(st.sampled_from(keys_of(self.desk.catalogue)))
        scope, _, name = key.partition(":")
        given = {"process": None, "partner": None} | {scope: name}
        deadlines = self.data.draw(st.sampled_from(("running", "frozen")))
        async with self.desk.database.transaction() as session:
            await request_pause(
                *(session, self.desk.catalogue),
                process=given["process"],
                partner=given["partner"],
                reason="They are moving house",
                deadlines=deadlines,
                envelope=envelope(SENIOR),
            )

    async def somebody_resumes_others(self) -> None:
        async with self.desk.database.transaction() as session:
            listed = await list_pauses(session, self.desk.catalogue)
        standing = [pause for pause in listed.pauses if pause.state in {"paused", "probing"}]
        if standing:
            pause = self.data.draw(st.sampled_from(standing))
            async with self.desk.database.transaction() as session:
                await request_resume(
                    *(session, self.desk.catalogue),
                    pause_id=pause.pause_id,
                    reason="They are back",
                    envelope=envelope(SENIOR),
                )

    async def resuming_goes_on(self) -> None:
        await self.resuming()

    async def proposals_expire(self) -> None:
        await expire_due(self.desk.database, self.desk.catalogue)

    async def addresses(self) -> list[tuple[str, bool]]:
        """What the workflow might do next: a step, finding out, a compensation."""
        if (await self.case.row()).operation_id is None:
            return []
        operation = await self.case.operation()
        declared = story_of(self.desk.process, operation)
        owed = [key.split(":")[1] for key in operation.offsets]
        effects = await self.case.effects()
        offsets = [(name, True) if effects[name].state != "settled" else (f"{name}:undo", False) for name in owed]
        return [(each.name, False) for each in (declared.steps if declared else ()) if each.name not in owed] + offsets

    async def a_worker_begins(self) -> Begun | None:
        choices = await self.addresses()
        if choices:
            address, settle_only = self.data.draw(st.sampled_from(choices))
            begun = await self.case.begin(address, settle_only=settle_only)
            if isinstance(begun, Begun):
                self.begun.append(begun)
                return begun
        return None

    async def a_worker_ends(self) -> None:
        if self.begun:
            begun = self.begun.pop(self.data.draw(st.integers(0, len(self.begun) - 1)))
            name = self.data.draw(st.sampled_from(("succeeded", *OUTCOMES)))
            outcome = OUTCOMES[name]
            if name == "succeeded":
                outcome = dataclasses.replace(outcome, result=result_of(self.desk.process.steps[begun.call.step]))
            await begun.settle(outcome)

    async def a_worker_does_a_step(self) -> None:
        if await self.a_worker_begins():
            await self.a_worker_ends()

    async def the_story_goes_on(self) -> None:
        """As in life: the first step that is not settled, and mostly it succeeds."""
        for address, settle_only in await self.addresses():
            effect = (await self.case.effects()).get(address)
            if effect is None or effect.state != "settled":
                begun = await self.case.begin(address, settle_only=settle_only)
                if isinstance(begun, Begun):
                    result = result_of(self.desk.process.steps[begun.call.step])
                    await begun.settle(dataclasses.replace(OUTCOMES["succeeded"], result=result))
                return

    async def the_story_ends(self) -> None:
        if (await self.case.row()).operation_id is not None:
            operation = await self.case.operation()
            declared = story_of(self.desk.process, operation)
            targets = declared.targets if declared else (None,)
            await self.case.finish(self.data.draw(st.sampled_from(targets)))

    async def the_story_fails(self) -> None:
        if (await self.case.row()).operation_id is not None:
            await self.case.block_story()

    async def time_passes(self) -> None:
        await self.case.time_passes(self.data.draw(st.sampled_from((timedelta(seconds=3), timedelta(days=40)))))

    async def a_deadline_passes(self) -> None:
        await self.case.pass_deadline()


EVENTS = (
    Day.somebody_takes_a_transition,
    Day.somebody_takes_a_transition,
    Day.somebody_claims,
    Day.somebody_claims,
    Day.somebody_helps,
    Day.somebody_helps,
    Day.somebody_takes_over,
    Day.a_worker_begins,
    Day.a_worker_ends,
    Day.a_worker_does_a_step,
    Day.a_worker_does_a_step,
    Day.the_story_goes_on,
    Day.the_story_goes_on,
    Day.the_story_goes_on,
    Day.the_story_ends,
    Day.the_story_ends,
    Day.the_story_fails,
    Day.time_passes,
    Day.a_deadline_passes,
    Day.somebody_answers_a_proposal,
    Day.somebody_answers_a_proposal,
    Day.somebody_answers_a_proposal,
    Day.proposals_expire,
    Day.somebody_pauses_the_case,
    Day.somebody_resumes_the_case,
    Day.somebody_pauses_others,
    Day.somebody_resumes_others,
    Day.resuming_goes_on,
    Day.resuming_goes_on,
)
OTHERS_PAUSES = {Day.somebody_pauses_others, Day.somebody_resumes_others, Day.resuming_goes_on}


def ROLES(process: Process) -> tuple[str, ...]:  # noqa: N802 - reads as the table it is
    return ("operator", "senior_operator", "auditor", *(role.name for role in process.roles))


def example(model: type[BaseModel]) -> dict[str, Any]:
    examples = (model.model_config.get("json_schema_extra") or {}).get("examples", [{}])
    return examples[0]


def result_of(declared: Step[Any]) -> dict[str, Any]:
    """A result that fits the step's type."""
    fitting = {"string": "R1", "boolean": True, "integer": 1}
    fields = declared.result.model_json_schema().get("properties", {})
    required = declared.result.model_json_schema().get("required", [])
    return {name: fitting[fields[name]["type"]] for name in required}


def override_input(process: Process, document: CaseDocument, action: ActionDocument) -> dict[str, Any]:
    """What somebody would fill in who read the document."""
    given: dict[str, Any] = {"reason": "Agreed by phone"}
    if OVERRIDES[action.name].per_step:
        given |= {"step": action.step, "item": action.item}
    if action.step is not None and document.operation is not None:
        shown = next(each for each in document.operation.steps if each.name == action.step and each.state != "pending")
        if action.name in {"retry", "skip"} and shown.outcome == "unknown":
            given["happened"] = False
        if action.name == "mark_done" and shown.direction == "do":
            given["result"] = result_of(process.steps[action.step])
    return given


async def a_plan(session: AsyncSession, case: Handle) -> dict[str, str]:
    """A plan that would be carried out, as somebody would look for one; any hash where there is none."""
    work = await lock_case(session, case.desk.catalogue, case.id)
    for name in case.desk.process.steps:
        with contextlib.suppress(CommandRefused):
            planned = await plan_replay(work, name)
            return {"step": name, "plan_hash": planned.document.plan_hash}
    return {"step": "none", "plan_hash": "0" * 64}


async def attempt(case: Handle, actor: Actor, document: CaseDocument, action: ActionDocument) -> None:
    """Post the action with fitting input at the document's version; roll back what was accepted."""
    process = case.desk.process
    async with case.desk.database.sessions() as session, session.begin() as transaction:
        if action.kind == "transition":
            declared = process.transition(action.name)
            accepted = await request_transition(
                session,
                case.desk.catalogue,
                process=process.name,
                case_id=case.id,
                transition=action.name,
                input=declared.input.model_validate(example(declared.input)),
                reason=None,
                envelope=envelope(actor, if_match=[document.etag]),
            )
        elif action.kind == "claim":
            accepted = await request_claim(
                session,
                case.desk.catalogue,
                case_id=case.id,
                claim=action.name,
                input=ClaimInput(),
                envelope=envelope(actor, if_match=[document.etag]),
            )
        else:
            model = OVERRIDES[action.name].input
            given = override_input(process, document, action)
            if action.name == "replay":
                given |= await a_plan(session, case)
            accepted = await request_override(
                session,
                case.desk.catalogue,
                case_id=case.id,
                override=action.name,
                input=model.model_validate(given),
                envelope=envelope(actor, if_match=[document.etag]),
            )
        assert accepted.proposed == (action.confirmations > 0), f"{action.name}: confirmations are told as they are"
        await transaction.rollback()


async def answer(
    session: AsyncSession,
    case: Handle,
    actor: Actor,
    proposal: ProposalDocument,
    *,
    confirming: bool,
    etag: str | None = None,
) -> None:
    sealed = envelope(actor, if_match=None if etag is None else [etag])
    called = confirm_proposal if confirming else decline_proposal
    operation_id, catalogue = proposal.operation_id, case.desk.catalogue
    await called(session, catalogue, operation_id=operation_id, reason="Looked at it", envelope=sealed)


async def check_answers(case: Handle, actor: Actor, document: CaseDocument) -> None:
    """Each proposal is confirmed and declined where its document says so, and else refused for the reasons it gives."""
    for proposal, confirming in itertools.product(document.proposals, (True, False)):
        shown = proposal.confirm if confirming else proposal.decline
        what = f"{'confirming' if confirming else 'declining'} {proposal.title} by {sorted(actor.roles)}"
        async with case.desk.database.sessions() as session, session.begin() as transaction:
            try:
                await answer(session, case, actor, proposal, confirming=confirming, etag=document.etag)
            except ActionNotAllowed as refused:
                said = [(reason.code, reason.message) for reason in shown.reasons]
                assert not shown.allowed, f"offered and refused: {what}: {refused}"  # noqa: PT017 - either may happen
                assert [(r.code, r.message) for r in refused.reasons] == said, what  # noqa: PT017
            except BusinessKeyTaken:
                assert proposal.action.name in {"reopen", "undo"}, what
            else:
                assert shown.allowed, f"accepted though not offered: {what}: {shown.reasons}"
            await transaction.rollback()


async def check_offers(case: Handle, actor: Actor) -> int:
    """Everything in the document is accepted where it says so, and refused for the very reasons it gives."""
    document = await case.document(actor)
    await check_answers(case, actor, document)
    for action in document.actions:
        what = f"{action.name} {action.step or ''} by {sorted(actor.roles)} in {document.state}, {document.condition}"
        try:
            await attempt(case, actor, document, action)
        except ActionNotAllowed as refused:
            assert not action.allowed, f"offered and refused: {what}: {refused}"  # noqa: PT017 - either may happen
            said = [(reason.code, reason.message) for reason in action.reasons]
            assert [(reason.code, reason.message) for reason in refused.reasons] == said, what  # noqa: PT017
        except (InputInvalid, BusinessKeyTaken) as refused:
            pytest.fail(f"offered and refused: {what}: {refused} {refused.members}")
        else:
            assert action.allowed, f"accepted though not offered: {what}: {action.reasons}"
    return len(document.actions)


async def nothing_is_paused(database: Database) -> None:
    """What the day before paused is forgotten, and so is what waited for it."""
    async with database.transaction() as session:
        await session.execute(text("TRUNCATE pauses, pause_changes"))
        await session.execute(text("UPDATE effects SET paused_by = 'a pause that is gone' WHERE state = 'paused'"))


@given(data=st.data())
@settings(max_examples=EXAMPLES)
async def test_whatever_is_offered_is_accepted_and_nothing_else(database, data):
    await nothing_is_paused(database)  # partners are shared by all days
    process = PROCESSES[data.draw(st.sampled_from(sorted(PROCESSES)))]
    desk = Desk(database, process, subject=lambda: VENDOR) if process is VENDOR_ONBOARDING else Desk(database, process)
    day = Day(desk, data)
    case = await day.play(events=data.draw(st.integers(0, 14)))
    before = await case.dump()
    role = data.draw(st.sampled_from(ROLES(process)))
    for actor in (person(role), person(*ROLES(process)), day.somebody()):
        await check_offers(case, actor)
    assert await case.dump() == before, "a refusal changes nothing"
