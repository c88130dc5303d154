"""Confirmation: what needs other people is proposed, and accepted by the last of them, or never."""

from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from caseward.cases.admission import admit_override
from caseward.cases.commands import Accepted
from caseward.cases.confirming import confirm_proposal, decline_proposal, expire_due
from caseward.db.tables import Operation
from caseward.documents.proposal import ProposalDocument
from caseward.errors import (
    ActionNotAllowed,
    CommandRefused,
    IdempotencyKeyReused,
    InputInvalid,
    OperationNotFound,
    VersionStale,
)
from caseward.messages import AdmitCall
from caseward.process import Confirmation, Process
from caseward.situation import SYSTEM, Actor
from tests.integration.desk import Desk, Handle, all_at_once, envelope
from tests.integration.parcels import (
    AT_ONCE,
    CHIEF,
    CLERK,
    OPERATOR,
    SENIOR,
    parcels,
    person,
    rejected,
    step,
    transient,
)

ONE_CHIEF = Confirmation(by=1, roles=frozenset({"chief"}))
TWO_CHIEFS = Confirmation(by=2, roles=frozenset({"chief"}))
ONE_SENIOR = Confirmation(by=1, roles=frozenset({"senior_operator"}))
CHARLY = person("chief", name="charly-chief")
CONNY = person("chief", name="conny-chief")
SUSI = person("senior_operator", name="susi-senior")
TEMPORAL = Actor("temporal", frozenset({"operator", "senior_operator", "chief"}), "temporal")


def guarded() -> Process:
    """Parcels whose shipping takes two chiefs, and whose booking takes a second senior operator to leave out."""
    book = step("book", retry=AT_ONCE, skip_confirmation=ONE_SENIOR)
    process = parcels(book, name="guarded", confirmations={"force_cancel": ONE_SENIOR})
    return confirmed(process, ship=TWO_CHIEFS, ship_corrected=TWO_CHIEFS, reopen=TWO_CHIEFS)


def confirmed(process: Process, **confirmations: Confirmation | None) -> Process:
    """The process with these transitions confirmed so."""
    return replace(
        process,
        transitions=tuple(
            replace(each, confirmation=confirmations.get(each.name, each.confirmation)) for each in process.transitions
        ),
    )


@pytest.fixture
async def case(database) -> Handle:
    return await Desk(database, guarded()).open()


@pytest.fixture
async def blocked(database) -> Handle:
    """At its first step, which only two senior operators together may leave out."""
    case = await Desk(database, confirmed(guarded(), ship=None)).open()
    await case.take("ship")
    case.desk.partner.next(rejected())
    await case.run("book")
    return case


async def confirm(case: Handle, proposal: Accepted, actor: Actor, **how: Any) -> Accepted:
    key, version = how.get("key"), how.get("version")
    async with case.desk.database.transaction() as session:
        return await confirm_proposal(
            session,
            case.desk.catalogue,
            operation_id=proposal.operation_id,
            reason=how.get("reason"),
            envelope=envelope(actor, key, None if version is None else [version]),
        )


async def decline(case: Handle, proposal: Accepted, actor: Actor, reason: str = "Not now", key: str | None = None):
    async with case.desk.database.transaction() as session:
        return await decline_proposal(
            session,
            case.desk.catalogue,
            operation_id=proposal.operation_id,
            reason=reason,
            envelope=envelope(actor, key),
        )


async def code_of(refused: Awaitable[Any]) -> str:
    with pytest.raises(CommandRefused) as caught:
        await refused
    return caught.value.first_code if isinstance(caught.value, ActionNotAllowed) else caught.value.code


async def state_of(case: Handle, accepted: Accepted) -> str:
    return (await case.operation(accepted.operation_id)).state


async def shown(case: Handle, actor: Actor) -> ProposalDocument:
    (proposal,) = (await case.document(actor)).proposals
    return proposal


class TestProposing:
    async def test_blocks_nothing_and_takes_nothing_over(self, case):
        before = await case.row()
        proposal = await case.take("ship", reason="It is urgent")
        after, operation = await case.row(), await case.operation(proposal.operation_id)
        assert proposal.proposed
        assert (operation.state, operation.confirmations) == ("proposed", 2)
        unchanged = ("state", "fence", "operation_id", "condition", "condition_since", "visit", "deadline_at")
        assert [getattr(after, name) for name in unchanged] == [getattr(before, name) for name in unchanged]
        assert after.version == before.version + 1
        assert (after.proposals, (await case.timeline())[-1]) == (1, "operation.proposed")
        assert len(await case.messages()) == 1, "the opening's; the workflow hears nothing of it"
        await case.take("store")
        assert (await case.row()).state == "stored"

    async def test_the_document_says_what_it_is_about_and_who_may_answer(self, case):
        proposal = await case.take("ship_corrected", reason="It is urgent", parcel={"to": "Bergen"})
        seen = await shown(case, CHIEF)
        assert (seen.operation_id, seen.action.kind, seen.action.name) == (
            proposal.operation_id,
            "transition",
            "ship_corrected",
        )
        assert (seen.title, seen.reason) == ("Ship with a correction", "It is urgent")
        assert seen.input["parcel"]["to"] == "Bergen"
        assert (seen.proposer.id, seen.proposer.role, seen.needed, seen.given) == (CLERK.id, "clerk", 2, [])
        assert seen.expires_at - seen.proposed_at == timedelta(days=1)
        assert (seen.confirm.allowed, seen.decline.allowed, seen.stale) == (True, True, False)
        assert seen.confirm.href == f"/v1/operations/{proposal.operation_id}/confirm"
        clerks = await shown(case, CLERK)
        assert [reason.code for reason in clerks.confirm.reasons] == ["role_missing", "four_eyes"]
        assert clerks.decline.allowed, "whoever proposed it may withdraw it"

    async def test_the_operation_was_not_accepted_and_says_who_decides(self, case):
        proposal = await case.take("ship")
        document = await case.operation_document(proposal.operation_id)
        assert (document.state, document.accepted_at, document.recovery_owner) == ("proposed", None, "chief")
        assert document.confirmations.needed == 2

    async def test_an_equal_one_is_refused_while_it_stands(self, case):
        await case.take("ship")
        assert await code_of(case.take("ship", CHIEF)) == "proposal_stands"
        assert (await case.take("ship_corrected", parcel={"to": "Bergen"})).proposed, "several may stand at once"

    async def test_the_action_says_how_many_must_confirm(self, case):
        actions = {(a.name): a.confirmations for a in (await case.document(CLERK)).actions}
        assert (actions["ship"], actions["cancel"], actions["force_cancel"], actions["undo"]) == (2, 0, 1, 0)

    async def test_the_same_command_again_is_the_same_proposal(self, case):
        first = await case.take("ship", key="k-1")
        again = await case.take("ship", key="k-1")
        assert (again.operation_id, again.repeated) == (first.operation_id, True)

    async def test_input_that_could_not_be_accepted_is_refused_at_once(self, blocked):
        with pytest.raises(InputInvalid):
            await blocked.override("mark_done", result={"surprise": 1})
        assert (await blocked.row()).proposals == 0


class TestConfirming:
    async def test_the_last_one_accepts_the_very_operation(self, case):
        proposal = await case.take("ship", reason="It is urgent")
        proposed_at = (await case.operation(proposal.operation_id)).accepted_at
        await confirm(case, proposal, CHIEF)
        assert await state_of(case, proposal) == "proposed"
        await confirm(case, proposal, CHARLY, reason="Seen the papers")
        operation, row = await case.operation(proposal.operation_id), await case.row()
        assert (operation.state, operation.actor_id, operation.reason) == ("accepted", CLERK.id, "It is urgent")
        assert operation.accepted_at > proposed_at
        assert (row.state, row.operation_id, row.proposals) == ("shipping", proposal.operation_id, 0)
        assert operation.fence == row.fence
        assert (await case.messages())[-1].operation_id == proposal.operation_id
        assert (await case.timeline())[-4:] == [
            "operation.proposed",
            "operation.confirmed",
            "operation.confirmed",
            "operation.accepted",
        ]
        given = (await case.operation_document(proposal.operation_id)).confirmations.given
        assert [(each.actor.id, each.actor.role, each.reason) for each in given] == [
            (CHIEF.id, "chief", None),
            (CHARLY.id, "chief", "Seen the papers"),
        ]
        assert await case.work() == "finished"
        assert (await case.row()).state == "shipped"
        assert await case.chain_break() is None

    async def test_of_a_transition_with_input_makes_its_revision_then(self, case):
        proposal = await case.take("ship_corrected", parcel={"to": "Bergen"})
        for chief in (CHIEF, CHARLY):
            await confirm(case, proposal, chief)
        assert await case.work() == "finished"
        document = await case.document()
        assert (document.state, document.subject["to"], document.subject_revision) == ("shipped", "Bergen", 2)

    async def test_of_a_step_left_out_lets_the_story_go_on(self, blocked):
        proposal = await blocked.override("skip", step="book")
        assert (await blocked.effect("book")).state == "blocked", "nothing happens before"
        await confirm(blocked, proposal, SUSI)
        effect = await blocked.effect("book")
        assert (effect.state, effect.decision, effect.decided_by) == ("settled", "skipped", proposal.operation_id)
        order = (await blocked.messages())[-1].payload["order"]
        assert (order["operation_id"], order["step"]) == (str(proposal.operation_id), "book")
        assert await blocked.work() == "finished"
        assert await state_of(blocked, proposal) == "completed"

    async def test_marking_done_is_guarded_as_leaving_out_is(self, blocked):
        proposal = await blocked.override("mark_done", result={"number": "R-17"})
        assert proposal.proposed
        await confirm(blocked, proposal, SUSI)
        assert (await blocked.effect("book")).result == {"number": "R-17"}

    async def test_of_force_cancel_takes_the_case_over(self, blocked):
        proposal = await blocked.override("force_cancel")
        await confirm(blocked, proposal, SUSI)
        assert (await blocked.row()).state == "cancelled"
        assert await state_of(blocked, proposal) == "completed"

    async def test_an_open_proposal_is_no_help_that_a_finish_could_complete(self, blocked):
        proposal = await blocked.override("skip", step="book")
        await blocked.override("retry", step="book")
        assert await state_of(blocked, proposal) == "declined", "the retry decided otherwise"
        again = await blocked.override("force_cancel")
        assert await blocked.work() == "finished"
        assert await state_of(blocked, again) == "declined"
        assert (await blocked.row()).state == "shipped"

    async def test_who_has_not_the_role_can_not(self, case):
        proposal = await case.take("ship")
        for stranger in (person("clerk"), OPERATOR, SENIOR, person("auditor")):
            assert await code_of(confirm(case, proposal, stranger)) == "role_missing"

    async def test_who_may_not_see_the_case_hears_of_no_operation(self, case):
        proposal = await case.take("ship")
        for answer in (confirm, decline):
            with pytest.raises(OperationNotFound):
                await answer(case, proposal, person("stranger"))

    async def test_who_proposed_it_does_not_count_in_whatever_role(self, case):
        both = person("chief", "clerk", name="both")
        proposal = await case.take("ship", both)
        assert await code_of(confirm(case, proposal, both)) == "four_eyes"
        assert await code_of(confirm(case, proposal, person("chief", name="both"))) == "four_eyes"

    async def test_one_person_counts_once(self, case):
        proposal = await case.take("ship")
        await confirm(case, proposal, CHIEF)
        assert await code_of(confirm(case, proposal, CHIEF)) == "already_confirmed"
        in_another_role = person("chief", "senior_operator", name=CHIEF.id)
        assert await code_of(confirm(case, proposal, in_another_role)) == "already_confirmed"
        assert await state_of(case, proposal) == "proposed"

    async def test_who_acted_on_what_four_eyes_watch_can_not(self, database):
        plain = parcels()
        states = tuple(replace(each, deadline=None) for each in plain.states)  # or it would scrap without asking
        case = await Desk(database, confirmed(replace(plain, states=states), scrap=ONE_CHIEF)).open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        proposal = await case.take("scrap", CHARLY)
        assert await code_of(confirm(case, proposal, CHIEF)) == "four_eyes"
        await confirm(case, proposal, CONNY)
        assert (await case.row()).state == "scrapped"

    async def test_whoever_confirmed_a_transition_has_acted_on_the_case(self, database):
        case = await Desk(database, confirmed(parcels(), abandon=ONE_CHIEF)).open()
        await case.take("store")
        proposal = await case.take("abandon", CHIEF)
        await confirm(case, proposal, CHARLY)
        for chief in (CHIEF, CHARLY):
            assert await code_of(case.take("scrap", chief)) == "four_eyes"
        await case.take("scrap", CONNY)

    async def test_a_proposal_that_came_to_nothing_was_no_act(self, database):
        case = await Desk(database, confirmed(parcels(), abandon=ONE_CHIEF)).open()
        await case.take("store")
        await decline(case, await case.take("abandon", CHIEF), CHARLY)
        await confirm(case, await case.take("abandon", CHARLY), CONNY)
        await case.take("scrap", CHIEF)

    async def test_the_engine_and_whoever_signals_are_nobody(self, case):
        proposal = await case.take("ship")
        system = Actor("system", frozenset({"chief"}), "system")
        for nobody in (TEMPORAL, system, person("chief", name="temporal")):
            assert await code_of(confirm(case, proposal, nobody)) == "not_somebody"
            assert await code_of(decline(case, proposal, nobody)) == "not_somebody"

    async def test_the_proposer_counts_only_where_that_is_declared(self, database):
        counting = Confirmation(by=2, roles=frozenset({"senior_operator"}), proposer_counts=True)
        case = await Desk(database, parcels(confirmations={"force_cancel": counting})).open()
        actions = {a.name: a.confirmations for a in (await case.document(SENIOR)).actions}
        assert actions["force_cancel"] == 1
        proposal = await case.override("force_cancel")
        assert [given.actor.id for given in (await shown(case, SUSI)).given] == [SENIOR.id]
        assert await code_of(confirm(case, proposal, SENIOR)) == "four_eyes"
        await confirm(case, proposal, SUSI)
        assert (await case.row()).state == "cancelled"

    async def test_who_is_enough_alone_proposes_nothing(self, database):
        alone = Confirmation(by=1, roles=frozenset({"senior_operator"}), proposer_counts=True)
        case = await Desk(database, parcels(confirmations={"undo": alone})).open()
        await case.take("store")
        assert (await case.override("undo", OPERATOR)).proposed
        assert not (await case.override("undo", SENIOR)).proposed
        assert (await case.row()).state == "draft"
        assert (await case.row()).proposals == 0

    async def test_at_another_version_than_the_one_seen_is_refused(self, case):
        proposal = await case.take("ship")
        version = (await case.row()).version
        with pytest.raises(VersionStale):
            await confirm(case, proposal, CHIEF, version=version - 1)
        await confirm(case, proposal, CHIEF, version=version)

    async def test_a_key_names_one_answer(self, case):
        proposal = await case.take("ship")
        await confirm(case, proposal, CHIEF, key="k-1", reason="Seen")
        again = await confirm(case, proposal, CHIEF, key="k-1", reason="Seen")
        assert again.repeated
        with pytest.raises(IdempotencyKeyReused):
            await confirm(case, proposal, CHIEF, key="k-1", reason="Something else")
        with pytest.raises(IdempotencyKeyReused):
            await decline(case, proposal, CHIEF, key="k-1")
        with pytest.raises(IdempotencyKeyReused):
            await case.take("cancel", CHIEF, key="k-1")
        assert (await case.row()).proposals == 1

    async def test_of_what_was_altered_behind_our_back_is_refused(self, case):
        proposal = await case.take("ship_corrected", parcel={"to": "Bergen"})
        async with case.desk.database.transaction() as session:
            altered = update(Operation).where(Operation.id == proposal.operation_id)
            await session.execute(altered.values(input={"parcel": {"to": "Elsewhere", "weight": 1.0}}))
        assert await code_of(confirm(case, proposal, CHIEF)) == "proposal_stale"

    async def test_of_what_is_declared_anew_is_refused(self, case):
        proposal = await case.take("ship")
        stricter = Confirmation(by=3, roles=frozenset({"chief"}))
        later = Handle(Desk(case.desk.database, confirmed(guarded(), ship=stricter)), case.id)
        assert await code_of(confirm(later, proposal, CHIEF)) == "proposal_stale"
        assert (await later.take("ship")).proposed, "by the new declaration, in place of the old one"
        assert await state_of(later, proposal) == "declined"


class TestAProposalOfAnotherMoment:
    """Refused, unless operation, fence, step and attempt are those proposed."""

    async def test_another_attempt_was_made(self, blocked):
        proposal = await blocked.override("skip", step="book")
        async with blocked.desk.database.transaction() as session:  # as a later attempt would leave it
            effect = await session.merge(await blocked.effect("book"))
            effect.attempt_count += 1
        seen = await shown(blocked, SUSI)
        assert (seen.stale, [reason.code for reason in seen.confirm.reasons]) == (True, ["proposal_stale"])
        assert await code_of(confirm(blocked, proposal, SUSI)) == "proposal_stale"
        again = await blocked.override("skip", step="book")
        assert await state_of(blocked, proposal) == "declined", "replaced by the one about this attempt"
        await confirm(blocked, again, SUSI)

    async def test_the_partner_did_it_meanwhile(self, database):
        case = await Desk(database, parcels(step("book", skip_confirmation=ONE_SENIOR), step("label"))).open()
        await case.take("ship")
        case.desk.partner.next(transient())
        assert (await case.run("book")).state == "retrying"
        proposal = await case.override("skip")
        await case.time_passes(timedelta(seconds=10))
        assert (await case.run("book")).state == "settled"
        assert await code_of(confirm(case, proposal, SUSI)) == "proposal_stale"
        assert (await case.effect("book")).decision is None

    async def test_the_case_was_taken_over(self, blocked):
        proposal = await blocked.override("skip", step="book")
        cancel = await blocked.take("cancel")
        operation = await blocked.operation(proposal.operation_id)
        assert (operation.state, (await blocked.row()).proposals) == ("declined", 0)
        entry = next(e for e in await blocked.entries() if e.type == "operation.declined")
        assert (entry.actor_id, entry.reason) == ("system", "Call back took the case over.")
        assert await code_of(confirm(blocked, proposal, SUSI)) == "not_proposed"
        assert await state_of(blocked, cancel) == "completed"

    async def test_the_operation_it_was_about_is_completed(self, blocked):
        proposal = await blocked.override("force_cancel")
        await blocked.override("retry", step="book")
        assert await state_of(blocked, proposal) == "proposed", "another step's retry is no matter to it"
        assert await blocked.work() == "finished"
        assert await state_of(blocked, proposal) == "declined"

    async def test_a_business_key_taken_meanwhile_is_no_confirmation(self, case):
        await case.take("cancel")
        proposal = await case.take("reopen")
        await confirm(case, proposal, CHIEF)
        key = (await case.row()).business_key
        await case.desk.open(business_key=key)
        assert await code_of(confirm(case, proposal, CHARLY)) == "business_key_taken"
        assert (await state_of(case, proposal), (await case.row()).state) == ("proposed", "cancelled")


class TestDeclining:
    @pytest.mark.parametrize("who", [CHIEF, CLERK], ids=["who may confirm", "who proposed"])
    async def test_ends_it_with_the_reason(self, case, who):
        proposal = await case.take("ship")
        await decline(case, proposal, who, reason="The customer paid nothing")
        operation, row = await case.operation(proposal.operation_id), await case.row()
        assert (operation.state, operation.finished_at is not None, row.proposals) == ("declined", True, 0)
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, entry.reason) == (
            "operation.declined",
            who.id,
            "The customer paid nothing",
        )
        document = await case.operation_document(proposal.operation_id)
        assert document.confirmations.declined.actor.id == who.id
        for answer in (confirm, decline):
            assert await code_of(answer(case, proposal, CHARLY)) == "not_proposed"
        assert (await case.take("ship")).proposed

    async def test_by_somebody_else_is_refused(self, case):
        proposal = await case.take("ship")
        assert await code_of(decline(case, proposal, person("clerk"))) == "role_missing"

    async def test_is_open_to_who_confirmed_and_thought_again(self, case):
        proposal = await case.take("ship")
        await confirm(case, proposal, CHIEF)
        await decline(case, proposal, CHIEF)
        assert await state_of(case, proposal) == "declined"

    async def test_an_operation_that_was_never_proposed_can_be_answered_by_nobody(self, case):
        stored = await case.take("store")
        for answer in (confirm, decline):
            assert await code_of(answer(case, stored, CHIEF)) == "not_proposed"


class TestExpiring:
    async def test_ends_what_is_due_and_nothing_else(self, case, database):
        other = await case.desk.open()
        due, standing = await case.take("ship"), await other.take("ship")
        await its_time_is_over(case, due)
        await expire_due(database, case.desk.catalogue)
        assert (await state_of(case, due), await state_of(other, standing)) == ("expired", "proposed")
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, (await case.row()).proposals) == ("operation.expired", SYSTEM.id, 0)
        assert await code_of(confirm(case, due, CHIEF)) == "not_proposed"
        before = await case.dump()
        await expire_due(database, case.desk.catalogue)
        assert await case.dump() == before, "done twice it changes nothing"

    async def test_whichever_commits_first_counts(self, case, database):
        proposal = await case.take("ship")
        await its_time_is_over(case, proposal)
        for chief in (CHIEF, CHARLY):
            await confirm(case, proposal, chief)
        await expire_due(database, case.desk.catalogue)
        assert await state_of(case, proposal) == "accepted"

    async def test_goes_on_until_nothing_is_due(self, case, database):
        cases = [await case.desk.open() for _ in range(55)]
        for each in cases:
            await its_time_is_over(each, await each.take("ship"))
        assert await expire_due(database, case.desk.catalogue)
        assert not await expire_due(database, case.desk.catalogue)
        assert {(await each.row()).proposals for each in cases} == {0}

    async def test_beside_a_confirmation_ends_one_way(self, case, database):
        proposal = await case.take("ship")
        await confirm(case, proposal, CHIEF)
        await its_time_is_over(case, proposal)
        await all_at_once(confirm(case, proposal, CHARLY), expire_due(database, case.desk.catalogue))
        state, types = await state_of(case, proposal), await case.timeline()
        assert ("operation.accepted" in types[1:]) == (state == "accepted")
        assert ("operation.expired" in types) == (state == "expired")


class TestAtOnce:
    async def test_fifty_confirmations_of_one_person_are_one(self, case):
        proposal = await case.take("ship")
        answers = await all_at_once(*(confirm(case, proposal, CHIEF) for _ in range(50)))
        assert sum(isinstance(answer, Accepted) for answer in answers) == 1
        assert {a.first_code for a in answers if isinstance(a, ActionNotAllowed)} == {"already_confirmed"}
        assert await state_of(case, proposal) == "proposed"
        assert len((await shown(case, CHARLY)).given) == 1

    async def test_fifty_of_one_command_are_one_answer(self, case):
        proposal = await case.take("ship")
        answers = await all_at_once(*(confirm(case, proposal, CHIEF, key="k-50") for _ in range(50)))
        assert sum(answer.repeated for answer in answers) == 49
        assert len((await shown(case, CHARLY)).given) == 1

    async def test_two_last_confirmations_accept_it_once(self, case):
        for _ in range(5):
            fresh = await case.desk.open()
            proposal = await fresh.take("ship")
            await confirm(fresh, proposal, CHIEF)
            answers = await all_at_once(confirm(fresh, proposal, CHARLY), confirm(fresh, proposal, CONNY))
            assert sum(isinstance(answer, Accepted) for answer in answers) == 1
            assert {a.first_code for a in answers if isinstance(a, ActionNotAllowed)} == {"not_proposed"}
            assert (await fresh.timeline()).count("operation.accepted") == 1
            assert (await fresh.row()).fence == 2

    async def test_fifty_equal_proposals_are_one(self, case):
        answers = await all_at_once(*(case.take("ship", person("clerk")) for _ in range(50)))
        assert sum(isinstance(answer, Accepted) for answer in answers) == 1
        assert (await case.row()).proposals == 1


class TestOtherDoors:
    async def test_a_signal_proposes_and_never_more(self, blocked):
        call = AdmitCall("guarded", str(blocked.id), "temporal:1", {"override": "skip", "reason": "Never mind"})
        answer = await admit_override(blocked.desk.database, blocked.desk.catalogue, call, allowed=frozenset({"skip"}))
        assert (answer.accepted, answer.proposed) == (True, True)
        operation = await blocked.operation(UUID(answer.operation_id))
        assert (operation.state, operation.actor_id) == ("proposed", "temporal")
        assert (await blocked.effect("book")).state == "blocked"

    async def test_whoever_signals_never_counts(self, database):
        counting = Confirmation(by=1, roles=frozenset({"operator"}), proposer_counts=True)
        case = await Desk(database, parcels(confirmations={"undo": counting})).open()
        await case.take("store")
        call = AdmitCall("parcel", str(case.id), "temporal:1", {"override": "undo", "reason": "Never mind"})
        answer = await admit_override(database, case.desk.catalogue, call, allowed=frozenset({"undo"}))
        assert answer.proposed
        assert (await shown(case, OPERATOR)).given == []

    async def test_what_temporal_holds_says_nothing_of_proposals(self, blocked):
        await blocked.override("skip", step="book", reason="Mrs Berg said so")
        await blocked.override("retry", step="book")
        assert "Berg" not in str([message.payload for message in await blocked.messages()])


async def its_time_is_over(case: Handle, proposal: Accepted) -> None:
    async with case.desk.database.transaction() as session:
        operation = await session.get_one(Operation, proposal.operation_id)
        operation.expires_at -= timedelta(days=2)
