"""Bulk runs: one override over a frozen list, first a few, then the rest, never faster than agreed, each verified."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from caseward.bulk import fingerprint
from caseward.cases import bulk_drive
from caseward.cases.blocked import blocked_groups
from caseward.cases.bulk import BulkOrder, Group, continue_bulk, order_bulk, stop_bulk
from caseward.cases.bulk_drive import drive
from caseward.cases.bulk_queries import get_bulk, list_bulk, list_items
from caseward.cases.confirming import confirm_proposal
from caseward.db.tables import BulkItem, BulkRun
from caseward.documents.bulk import BulkDocument, BulkGroup
from caseward.errors import ActionNotAllowed, BulkNotFound, IdempotencyKeyReused, InputInvalid
from caseward.process import Catalogue, Confirmation
from caseward.situation import Actor
from tests.integration.desk import Desk, Handle, all_at_once, envelope
from tests.integration.parcels import (
    AT_ONCE,
    CLERK,
    OPERATOR,
    SENIOR,
    acknowledged,
    parcels,
    person,
    rejected,
    silent,
    step,
    transient,
)

numbers = count(1)


@pytest.fixture(autouse=True)
async def nobody_elses_runs(database, monkeypatch):
    """Runs that other tests left are over, and a turn does not rest."""
    monkeypatch.setattr(bulk_drive, "TICK", timedelta(0))
    async with database.transaction() as session:
        await session.execute(text("UPDATE bulk_runs SET finished_at = now() - interval '1 min'"))


class Recovery:
    """A desk with cases that are blocked, and the runs that somebody orders over them."""

    def __init__(self, database, *steps, limits: dict[str, int] | None = None, **changes: Any) -> None:
        steps = steps or (step("book", retry=AT_ONCE), step("label", retry=AT_ONCE))
        self.desk = Desk(database, parcels(*steps, name=f"bulk{next(numbers)}", **changes))
        self.desk.catalogue = Catalogue([self.desk.process], limits=limits)
        self.database = database
        self.cases: list[Handle] = []

    async def block(self, how_many: int, *answers: Any) -> list[Handle]:
        """Cases that ship until the partner's answer (a refusal, unless told) blocks them."""
        made = []
        for _ in range(how_many):
            case = await self.desk.open()
            await case.take("ship")
            self.desk.partner.next(*(answers or (rejected(),)))
            assert await case.work() == "blocked"
            made.append(case)
        self.cases += made
        return made

    async def groups(self, actor: Actor = OPERATOR) -> list[BulkGroup]:
        async with self.database.transaction() as session:
            return (await blocked_groups(session, self.desk.catalogue, actor=actor)).groups

    async def largest(self) -> Group:
        """The largest group, as an order names it."""
        group = (await self.groups())[0]
        return Group(process=group.process, step=group.step, partner=group.partner, fingerprint=group.fingerprint)

    async def order(self, actor: Actor = SENIOR, *, key: str | None = None, **given: Any) -> UUID:
        """A retry of the largest group, unless told otherwise."""
        if "case_ids" not in given and "group" not in given:
            given["group"] = await self.largest()
        wanted = {"override": "retry", "reason": "The carrier is back", "canary": 2, "rate": 100, "stop_after": 2}
        order = BulkOrder(**{"look": False, **wanted, **given})
        async with self.database.transaction() as session:
            return await order_bulk(session, self.desk.catalogue, order=order, envelope=envelope(actor, key))

    async def turn(self) -> bool:
        return await drive(self.database, self.desk.catalogue)

    async def run(self, bulk_id: UUID) -> BulkDocument:
        async with self.database.transaction() as session:
            return await get_bulk(session, bulk_id=bulk_id)

    async def counts(self, bulk_id: UUID) -> dict[str, int]:
        return {state: number for state, number in (await self.run(bulk_id)).counts.items() if number}

    async def items(self, bulk_id: UUID) -> list[BulkItem]:
        async with self.database.transaction() as session:
            rows = await session.scalars(select(BulkItem).where(BulkItem.bulk_id == bulk_id).order_by(BulkItem.number))
            return list(rows)

    async def work(self, bulk_id: UUID) -> None:
        """The workflows of all cases under way go on."""
        for item in await self.items(bulk_id):
            if item.state == "sent":
                await Handle(self.desk, item.case_id).work()

    async def until(self, bulk_id: UUID, *states: str) -> BulkDocument:
        """Let everybody do their part until the run is in one of these states."""
        for _ in range(200):
            await self.turn()
            run = await self.run(bulk_id)
            if run.state in states:
                return run
            await self.work(bulk_id)
        raise AssertionError(run)

    async def over(self, bulk_id: UUID) -> dict[str, int]:
        """Let everybody do their part until nothing is owed."""
        for _ in range(200):
            await self.turn()
            if (await self.run(bulk_id)).finished_at is not None:
                return await self.counts(bulk_id)
            await self.work(bulk_id)
        raise AssertionError(await self.run(bulk_id))


@pytest.fixture
def recovery(database) -> Recovery:
    return Recovery(database)


class TestGroups:
    async def test_are_by_step_partner_and_error_with_the_largest_first(self, recovery: Recovery):
        await recovery.block(2)
        await recovery.block(3, transient("overloaded"))
        await recovery.block(1, None, rejected())
        groups = await recovery.groups()
        assert [(g.step, g.cause, g.error_code, g.count) for g in groups] == [
            ("book", "exhausted", "overloaded", 3),
            ("book", "rejected", "no_such_street", 2),
            ("label", "rejected", "no_such_street", 1),
        ]
        assert {g.partner for g in groups} == {"carrier"}
        assert groups[1].example == "We don't deliver there."
        assert groups[1].recovery_owner == "front_desk"

    async def test_know_who_waits_longest(self, recovery: Recovery):
        cases = await recovery.block(2)
        oldest = await cases[0].effect("book")
        assert (await recovery.groups())[0].since == oldest.since

    async def test_are_named_by_what_the_case_document_shows(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        document = await case.document()
        group = (await recovery.groups())[0]
        assert document.condition_info.fingerprint == group.fingerprint
        assert document.operation is not None
        assert document.operation.steps[0].fingerprint == group.fingerprint

    async def test_have_stories_that_cant_go_on_too(self, recovery: Recovery):
        for message in ("one fault", "another"):
            case = await recovery.desk.open()
            await case.take("ship")
            await case.block_story(message)
        (group,) = await recovery.groups()
        assert (group.step, group.partner, group.cause, group.count) == (None, None, "story_failed", 2)
        assert group.recovery_owner == "engineering"
        assert (await case.document()).condition_info.fingerprint == group.fingerprint

    async def test_have_nothing_of_an_operation_that_is_gone(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        await case.take("cancel")
        assert await recovery.groups() == []

    async def test_show_nobody_what_is_not_theirs(self, recovery: Recovery):
        await recovery.block(1)
        assert await recovery.groups(person("stranger")) == []
        assert len(await recovery.groups(CLERK)) == 1

    def test_a_fingerprint_stays_the_same_for_good(self):
        """Runs that were ordered by an older version name it."""
        assert fingerprint("open_payee", "bank", "rejected", "rejected", "account_closed") == "eaba828b38f1"


class TestOrder:
    async def test_freezes_the_list_in_order_of_age(self, recovery: Recovery):
        cases = await recovery.block(3)
        bulk_id = await recovery.order()
        await recovery.block(1)
        items = await recovery.items(bulk_id)
        assert [item.case_id for item in items] == [case.id for case in cases]
        assert {item.state for item in items} == {"frozen"}

    async def test_does_nothing_to_any_case_yet(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        version = (await case.row()).version
        await recovery.order()
        assert (await case.row()).version == version

    async def test_twice_with_one_key_is_one_run(self, recovery: Recovery):
        await recovery.block(1)
        key = str(uuid4())
        twins = await all_at_once(*(recovery.order(key=key) for _ in range(4)))
        assert len(set(twins)) == 1
        with pytest.raises(IdempotencyKeyReused):
            await recovery.order(key=key, canary=1)

    async def test_with_the_key_of_another_command_is_refused(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        await case.override("retry", SENIOR, key="the key of a retry")
        await case.work()
        await recovery.block(1)
        with pytest.raises(IdempotencyKeyReused):
            await recovery.order(key="the key of a retry")

    async def test_by_somebody_without_the_role_is_refused(self, recovery: Recovery):
        await recovery.block(1)
        for actor in (CLERK, person("auditor"), person()):
            with pytest.raises(ActionNotAllowed) as refused:
                await recovery.order(actor)
            assert refused.value.first_code == "role_missing"

    async def test_that_the_policy_could_never_allow_is_refused_at_once(self, database):
        recovery = Recovery(database, step("book", skip_roles=frozenset(), retry=AT_ONCE))
        await recovery.block(1)
        with pytest.raises(ActionNotAllowed) as refused:
            await recovery.order(override="skip")
        assert refused.value.first_code == "skip_forbidden"
        with pytest.raises(ActionNotAllowed) as refused:
            await recovery.order(OPERATOR, override="force_cancel")
        assert refused.value.first_code == "role_missing"

    async def test_of_a_group_in_which_nothing_is_left_is_refused(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        group = (await recovery.groups())[0]
        await case.override("retry")
        await case.work()
        wanted = Group(process=group.process, step="book", partner="carrier", fingerprint=group.fingerprint)
        with pytest.raises(ActionNotAllowed) as refused:
            await recovery.order(group=wanted)
        assert refused.value.first_code == "nothing_blocked"

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"override": "replay"}, "override"),
            ({"override": "dance"}, "override"),
            ({"input": {"step": "book"}}, "input.step"),
            ({"input": {"nonsense": 1}}, "input.nonsense"),
        ],
    )
    async def test_that_is_malformed_names_the_field(self, recovery: Recovery, given, field):
        await recovery.block(1)
        with pytest.raises(InputInvalid) as refused:
            await recovery.order(**given)
        assert refused.value.members["errors"][0]["field"] == field

    @pytest.mark.parametrize("of_a_group", [False, True])
    async def test_names_every_case_that_is_none_of_theirs(self, recovery: Recovery, database, of_a_group):
        (mine,) = await recovery.block(1)
        foreign = await Recovery(database).block(1)
        unknown = uuid4()
        group = await recovery.largest() if of_a_group else None
        with pytest.raises(InputInvalid) as refused:
            await recovery.order(group=group, case_ids=(mine.id, foreign[0].id, unknown))
        assert [str(id_) in str(refused.value.members["errors"]) for id_ in (mine.id, foreign[0].id, unknown)] == [
            False,
            True,
            True,
        ]

    async def test_over_chosen_cases_of_a_group_says_that_it_is_not_over_all_of_it(self, recovery: Recovery):
        (_, *two) = await recovery.block(3)
        chosen = [case.id for case in two]
        group = await recovery.largest()
        run = await recovery.run(await recovery.order(group=group, case_ids=tuple(chosen)))
        assert run.chosen is not None
        assert (run.chosen.cases, run.chosen.gone, run.total) == (2, 0, 2)
        assert run.chosen.sentence == "Only 2 chosen cases of the group."
        assert [item.case_id for item in await recovery.items(run.bulk_id)] == chosen
        whole = await recovery.run(await recovery.order(group=group))
        named = await recovery.run(await recovery.order(case_ids=tuple(chosen)))
        assert (whole.chosen, named.chosen) == (None, None)
        assert (whole.group, named.group) == (run.group, None), "they are of the same group"

    async def test_over_chosen_cases_counts_those_that_somebody_else_has_repaired(self, recovery: Recovery):
        (repaired, mine) = await recovery.block(2)
        group, key = await recovery.largest(), str(uuid4())
        await repaired.override("retry")
        await repaired.work()
        both = {"group": group, "case_ids": (repaired.id, mine.id), "key": key}
        bulk_id = await recovery.order(**both)
        chosen = (await recovery.run(bulk_id)).chosen
        assert chosen is not None
        assert (chosen.cases, chosen.gone) == (2, 1)
        assert chosen.sentence.endswith("of the group. 1 of them was no longer blocked as seen then, and left out.")
        assert [item.case_id for item in await recovery.items(bulk_id)] == [mine.id]
        await recovery.over(bulk_id)
        assert await recovery.order(**both) == bulk_id, "sent again it is the same run, whatever has moved"
        with pytest.raises(ActionNotAllowed) as refused:
            await recovery.order(group=group, case_ids=(repaired.id, mine.id))
        assert refused.value.first_code == "nothing_blocked"

    async def test_never_goes_faster_than_the_partner_takes(self, database):
        recovery = Recovery(database, step("book", partner="carrier", retry=AT_ONCE), limits={"carrier": 7})
        recovery.desk.partner.carrier = recovery.desk.partner.repeatable
        await recovery.block(1)
        run = await recovery.run(await recovery.order(rate=100))
        assert run.rate == 7
        assert any("7 a second" in note.what for note in run.account)


class TestRun:
    async def test_tries_a_few_first_and_the_rest_when_they_are_well(self, recovery: Recovery):
        await recovery.block(5)
        bulk_id = await recovery.order()
        for _ in range(3):  # nobody works: nothing is known of the first two
            await recovery.turn()
            assert await recovery.counts(bulk_id) == {"sent": 2, "frozen": 3}
        assert await recovery.over(bulk_id) == {"repaired": 5}
        run = await recovery.run(bulk_id)
        assert (run.state, run.stopped_because) == ("completed", None)
        for case in recovery.cases:
            assert (await case.row()).state == "shipped"
            assert await case.chain_break() is None
        assert Counter(recovery.desk.partner.happened).most_common(1)[0][1] == 1

    async def test_is_taken_for_whoever_ordered_it_by_the_one_command(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        bulk_id = await recovery.order(OPERATOR)
        await recovery.over(bulk_id)
        (item,) = await recovery.items(bulk_id)
        assert item.operation_id is not None
        operation = await case.operation(item.operation_id)
        assert (operation.actor_id, operation.actor_role, operation.actor_via) == (OPERATOR.id, "operator", "bulk")
        assert (operation.reason, operation.bulk_id) == ("The carrier is back", bulk_id)
        assert (await case.operation_document(operation.id)).bulk_id == bulk_id
        entry = next(e for e in await case.entries() if e.operation_id == operation.id)
        assert (entry.type, entry.actor_via, entry.reason) == ("operation.accepted", "bulk", "The carrier is back")

    async def test_stops_by_itself_when_the_first_ones_fail(self, recovery: Recovery):
        await recovery.block(6)
        bulk_id = await recovery.order(canary=3, stop_after=2)
        recovery.desk.partner.next(*(rejected() for _ in range(3)))
        assert await recovery.over(bulk_id) == {"blocked_again": 3, "left": 3}
        run = await recovery.run(bulk_id)
        assert (run.state, run.stopped_because) == ("stopped", "3 of the first 3 failed.")
        assert len(recovery.desk.partner.sent) == 6 + 3
        assert (await recovery.items(bulk_id))[0].outcome["error"]["code"] == "no_such_street"

    async def test_stops_when_all_of_the_first_ones_fail_however_many_were_granted(self, recovery: Recovery):
        await recovery.block(4)
        bulk_id = await recovery.order(canary=2, stop_after=50)
        recovery.desk.partner.next(rejected(), rejected())
        assert await recovery.over(bulk_id) == {"blocked_again": 2, "left": 2}

    async def test_goes_on_when_fewer_fail_than_granted(self, recovery: Recovery):
        await recovery.block(4)
        bulk_id = await recovery.order(canary=2, stop_after=2)
        recovery.desk.partner.next(rejected())
        assert await recovery.over(bulk_id) == {"blocked_again": 1, "repaired": 3}

    async def test_stops_by_itself_when_the_rest_begins_to_fail(self, recovery: Recovery):
        await recovery.block(12)
        bulk_id = await recovery.order(canary=2, stop_after=3, rate=4)
        await recovery.until(bulk_id, "ramping")
        recovery.desk.partner.next(*(rejected() for _ in range(30)))
        over = await recovery.over(bulk_id)
        assert (over["repaired"], over["blocked_again"] >= 3, over["left"] >= 4) == (2, True, True)
        assert "of the last 50 failed" in (await recovery.run(bulk_id)).stopped_because

    async def test_waits_for_somebody_to_look_if_so_ordered(self, recovery: Recovery):
        await recovery.block(4)
        bulk_id = await recovery.order(look=True)
        await recovery.until(bulk_id, "looking")
        assert not await recovery.turn(), "there is nothing to do at once"
        assert await recovery.counts(bulk_id) == {"repaired": 2, "frozen": 2}
        for _ in range(2):
            async with recovery.database.transaction() as session:
                await continue_bulk(session, bulk_id=bulk_id, actor=OPERATOR, reason="They look well")
        assert await recovery.over(bulk_id) == {"repaired": 4}
        account = (await recovery.run(bulk_id)).account
        assert [note.by for note in account if note.reason] == [SENIOR.id, OPERATOR.id]
        with pytest.raises(ActionNotAllowed):
            async with recovery.database.transaction() as session:
                await continue_bulk(session, bulk_id=bulk_id, actor=OPERATOR, reason="Once more")

    async def test_stops_when_told_and_waits_for_what_was_sent(self, recovery: Recovery):
        await recovery.block(4)
        bulk_id = await recovery.order()
        await recovery.turn()
        for _ in range(2):
            async with recovery.database.transaction() as session:
                await stop_bulk(session, bulk_id=bulk_id, actor=OPERATOR, reason="The carrier asked us to")
        assert await recovery.counts(bulk_id) == {"sent": 2, "left": 2}
        assert (await recovery.run(bulk_id)).finished_at is None
        assert await recovery.over(bulk_id) == {"repaired": 2, "left": 2}
        assert (await recovery.run(bulk_id)).stopped_because == "The carrier asked us to"

    async def test_that_is_over_cant_be_stopped_and_an_unknown_one_neither(self, recovery: Recovery):
        await recovery.block(1)
        bulk_id = await recovery.order()
        await recovery.over(bulk_id)
        for run, error in ((bulk_id, ActionNotAllowed), (uuid4(), BulkNotFound)):
            with pytest.raises(error):
                async with recovery.database.transaction() as session:
                    await stop_bulk(session, bulk_id=run, actor=OPERATOR, reason="Too late")

    async def test_may_be_ordered_again_for_what_was_left(self, recovery: Recovery):
        await recovery.block(4)
        first = await recovery.order(canary=2)
        recovery.desk.partner.next(rejected(), rejected())
        await recovery.over(first)
        assert await recovery.over(await recovery.order()) == {"repaired": 4}

    async def test_two_turns_at_once_begin_no_case_twice(self, recovery: Recovery):
        """Even if no lock kept the second one waiting: it sees that they have begun."""
        await recovery.block(2)
        bulk_id = await recovery.order()
        async with recovery.database.transaction() as first, recovery.database.transaction() as second:
            run = await first.get_one(BulkRun, bulk_id)
            pid = await second.scalar(text("SELECT pg_backend_pid()"))
            assert len(await bulk_drive._let_begin(first, run, 2)) == 2
            later = asyncio.create_task(bulk_drive._let_begin(second, run, 2))
            async with recovery.database.transaction() as third:
                waits = text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
                async with asyncio.timeout(60):
                    while not await third.scalar(waits, {"pid": pid}):
                        await asyncio.sleep(0.01)
            await first.commit()
            assert await later == []

    async def test_of_what_needs_confirmation_only_proposes(self, database):
        """A bulk run is no way around the second person."""
        second = Confirmation(by=1, roles=frozenset({"senior_operator"}))
        recovery = Recovery(database, step("book", retry=AT_ONCE, skip_confirmation=second))
        cases = await recovery.block(3)
        bulk_id = await recovery.order(override="skip")
        assert await recovery.over(bulk_id) == {"proposed": 3}
        assert (await recovery.run(bulk_id)).state == "completed"
        for case, item in zip(cases, await recovery.items(bulk_id), strict=True):
            operation = await case.operation(item.operation_id)
            assert (operation.state, operation.confirmations, operation.actor_via) == ("proposed", 1, "bulk")
            effect = await case.effect("book")
            assert (effect.state, effect.decision) == ("blocked", None)
            assert (await case.row()).proposals == 1
            assert "operation.accepted" not in [e.type for e in await case.entries() if e.operation_id == operation.id]
        susi = person("senior_operator", name="susi-senior")
        async with database.transaction() as session:
            proposal = (await recovery.items(bulk_id))[0].operation_id
            await confirm_proposal(
                session, recovery.desk.catalogue, operation_id=proposal, reason=None, envelope=envelope(susi)
            )
        decided = [(await case.effect("book")).decision for case in cases]
        assert decided == ["skipped", None, None]


class TestOutcome:
    async def test_of_a_case_that_moved_on_is_that_nothing_was_done(self, recovery: Recovery):
        moved, retried, left = await recovery.block(3)
        bulk_id = await recovery.order(canary=1)
        await moved.take("cancel")
        await retried.override("retry", OPERATOR)
        counts = await recovery.over(bulk_id)
        assert counts == {"moved": 2, "repaired": 1}
        items = await recovery.items(bulk_id)
        assert [item.outcome["code"] for item in items[:2]] == ["case_moved", "case_moved"]
        assert (await left.row()).state == "shipped"

    async def test_of_a_case_that_is_blocked_for_another_reason_by_now_is_that_nothing_was_done(
        self, recovery: Recovery
    ):
        """What was agreed was agreed for one error."""
        (case,) = await recovery.block(1)
        bulk_id = await recovery.order()
        await case.override("retry")
        recovery.desk.partner.next(transient("maintenance"))
        assert await case.work() == "blocked"
        sent = len(recovery.desk.partner.sent)
        assert await recovery.over(bulk_id) == {"moved": 1}
        assert len(recovery.desk.partner.sent) == sent

    async def test_of_an_override_that_misses_its_input_is_the_refusal(self, database):
        """Nobody knows whether it happened: a retry must say so, in bulk as anywhere."""
        recovery = Recovery(database, step("pay", partner="stubborn", retry=AT_ONCE))
        await recovery.block(2, silent())
        bulk_id = await recovery.order()
        assert await recovery.over(bulk_id) == {"refused": 2}
        assert (await recovery.run(bulk_id)).state == "stopped"
        (first, _) = await recovery.items(bulk_id)
        assert first.outcome["errors"][0]["field"] == "happened"
        assert await recovery.over(await recovery.order(input={"happened": False})) == {"repaired": 2}

    async def test_of_a_mark_done_is_that_the_story_went_on(self, recovery: Recovery):
        cases = await recovery.block(2)
        bulk_id = await recovery.order(override="mark_done", input={"result": {"number": "by hand"}})
        await recovery.turn()
        await recovery.turn()
        assert await recovery.counts(bulk_id) == {"sent": 2}
        assert await recovery.over(bulk_id) == {"repaired": 2}
        assert (await cases[0].effect("book")).decision == "marked_done"

    async def test_of_an_undo_is_that_the_case_is_back(self, recovery: Recovery):
        cases = await recovery.block(2, None, rejected())
        bulk_id = await recovery.order(override="undo")
        assert await recovery.over(bulk_id) == {"repaired": 2}
        assert {(await case.row()).state for case in cases} == {"draft"}

    async def test_of_an_undo_that_is_blocked_in_turn_is_that(self, recovery: Recovery):
        await recovery.block(1, None, rejected())
        bulk_id = await recovery.order(override="undo")
        recovery.desk.partner.next(rejected())
        assert await recovery.over(bulk_id) == {"blocked_again": 1}

    async def test_of_a_story_is_that_it_went_on(self, recovery: Recovery):
        case = await recovery.desk.open()
        await case.take("ship")
        await case.block_story()
        bulk_id = await recovery.order()
        await recovery.turn()
        await recovery.turn()
        assert await recovery.counts(bulk_id) == {"sent": 1}
        assert await recovery.over(bulk_id) == {"repaired": 1}

    async def test_of_a_story_that_fails_again_is_that(self, recovery: Recovery):
        case = await recovery.desk.open()
        await case.take("ship")
        await case.block_story()
        bulk_id = await recovery.order()
        await recovery.turn()
        await case.block_story()
        await recovery.turn()
        assert await recovery.counts(bulk_id) == {"blocked_again": 1}

    async def test_of_a_case_that_is_cancelled_meanwhile_is_no_repair(self, recovery: Recovery):
        (case,) = await recovery.block(1)
        bulk_id = await recovery.order()
        await recovery.turn()
        await case.take("cancel")
        assert await recovery.over(bulk_id) == {"moved": 1}

    async def test_of_work_that_the_partner_does_later_is_waited_for(self, recovery: Recovery):
        await recovery.block(1)
        bulk_id = await recovery.order()
        recovery.desk.partner.next(acknowledged())
        await recovery.turn()
        await recovery.work(bulk_id)
        await recovery.turn()
        assert await recovery.counts(bulk_id) == {"acknowledged": 1}
        assert (await recovery.run(bulk_id)).state == "canary"

    async def test_of_cases_named_one_by_one_with_nothing_blocked_is_the_policys_refusal(self, recovery: Recovery):
        (blocked,) = await recovery.block(1)
        resting = await recovery.desk.open()
        bulk_id = await recovery.order(case_ids=(resting.id, blocked.id), stop_after=2)
        assert await recovery.over(bulk_id) == {"repaired": 1, "refused": 1}
        refused = (await recovery.items(bulk_id))[1]
        assert (refused.case_id, refused.outcome["code"]) == (resting.id, "nothing_open")

    async def test_of_a_case_at_which_our_own_code_fails_holds_nobody_up(self, recovery: Recovery, monkeypatch):
        (bad, _, _) = await recovery.block(3)
        bulk_id = await recovery.order(canary=3)
        request = bulk_drive.request_override

        async def fails_at_one(session, catalogue, *, case_id, **how):
            if case_id == bad.id:
                raise KeyError("a fault of ours")
            return await request(session, catalogue, case_id=case_id, **how)

        monkeypatch.setattr(bulk_drive, "request_override", fails_at_one)
        assert await recovery.over(bulk_id) == {"refused": 1, "repaired": 2}

    async def test_is_listed_page_by_page(self, recovery: Recovery):
        await recovery.block(5)
        bulk_id = await recovery.order()
        seen, after = [], 0
        while True:
            async with recovery.database.transaction() as session:
                page = await list_items(session, bulk_id=bulk_id, state="frozen", after=after, limit=2)
            seen += [item.case_id for item in page.items]
            if page.next is None:
                break
            after = page.items[-1].number
            assert f"after={after}" in page.next
        assert seen == [case.id for case in recovery.cases]
        async with recovery.database.transaction() as session:
            runs = await list_bulk(session, state="canary", before=None, limit=1)
        assert runs.runs[0].bulk_id == bulk_id


class TestRate:
    async def begun(self, recovery: Recovery, bulk_id: UUID) -> list[datetime]:
        return sorted(item.begun_at for item in await recovery.items(bulk_id) if item.begun_at is not None)

    async def test_no_more_begin_than_the_rate_while_nothing_is_known_of_the_first(self, recovery: Recovery):
        """A partner that is slow is not piled upon."""
        await recovery.block(8)
        bulk_id = await recovery.order(canary=1, rate=3)
        await recovery.until(bulk_id, "ramping")
        for _ in range(10):
            await recovery.turn()
        counts = await recovery.counts(bulk_id)
        assert (counts["sent"] <= 3, counts["repaired"]) == (True, 1)

    async def test_counts_a_case_for_a_second_after_its_outcome(self, recovery: Recovery, monkeypatch):
        """Answered early or late, its request may have come just now; here the second lasts as long as the test."""
        monkeypatch.setattr(bulk_drive, "SECOND", timedelta(hours=1))
        await recovery.block(6)
        bulk_id = await recovery.order(canary=1, rate=3)
        for _ in range(8):
            await recovery.turn()
            await recovery.work(bulk_id)
        assert await recovery.counts(bulk_id) == {"repaired": 3, "frozen": 3}

    async def test_of_one_partner_is_shared_by_all_runs(self, database):
        recovery = Recovery(database, step("book", partner="carrier", retry=AT_ONCE), limits={"carrier": 4})
        recovery.desk.partner.carrier = recovery.desk.partner.repeatable
        await recovery.block(4)
        await recovery.block(4, transient("overloaded"))
        runs = []
        for group in await recovery.groups():
            wanted = Group(process=group.process, step=group.step, partner=group.partner, fingerprint=group.fingerprint)
            runs.append(await recovery.order(group=wanted, canary=4, rate=4))
        for _ in range(10):
            await recovery.turn()
        assert sum([(await recovery.counts(run)).get("sent", 0) for run in runs]) == 4

    async def test_holds_in_every_second_whoever_drives(self, recovery: Recovery):
        """Two who do the chore at once are no faster than one."""
        await recovery.block(18)
        bulk_id = await recovery.order(canary=1, rate=6)

        async def somebody() -> None:
            while (await recovery.run(bulk_id)).finished_at is None:
                await recovery.turn()

        async def workers() -> None:
            while (await recovery.run(bulk_id)).finished_at is None:
                await recovery.work(bulk_id)

        async with asyncio.timeout(240), asyncio.TaskGroup() as group:
            for each in (somebody, somebody, workers):
                group.create_task(each())
        assert await recovery.counts(bulk_id) == {"repaired": 18}
        assert most_in_a_second(await self.begun(recovery, bulk_id)) <= 6
        assert set(Counter(recovery.desk.partner.happened).values()) == {1}


def most_in_a_second(instants: list[datetime]) -> int:
    """The largest number of instants within any second."""
    most, first = 0, 0
    for last, instant in enumerate(instants):
        while instant - instants[first] >= timedelta(seconds=1):
            first += 1
        most = max(most, last - first + 1)
    return most


class TestKilled:
    class Died(BaseException):
        pass

    async def dies_at(self, recovery: Recovery, monkeypatch, place: str) -> None:
        async def die(name: str, *_: object) -> None:
            if name == place:
                raise self.Died

        with monkeypatch.context() as patched:
            patched.setattr(bulk_drive, "failpoint", die)
            with pytest.raises(BaseExceptionGroup):
                await recovery.turn()

    @pytest.mark.parametrize("place", ["bulk.before_commit", "bulk.sent"])
    async def test_at_any_place_the_next_one_goes_on_and_each_case_is_sent_once(
        self, recovery: Recovery, monkeypatch, place
    ):
        cases = await recovery.block(3)
        bulk_id = await recovery.order(canary=3)
        await self.dies_at(recovery, monkeypatch, place)
        assert await recovery.over(bulk_id) == {"repaired": 3}
        for case in cases:
            types = await case.timeline()
            assert types.count("operation.accepted") == 2, "ship, retry"
            assert len(await case.attempts("book")) == 2

    async def test_between_the_turn_and_the_sending_the_next_one_sends(self, recovery: Recovery, monkeypatch):
        await recovery.block(2)
        bulk_id = await recovery.order()

        async def die(*_: object) -> None:
            raise self.Died

        with monkeypatch.context() as patched:
            patched.setattr(bulk_drive, "_send", die)
            with pytest.raises(BaseExceptionGroup):
                await recovery.turn()
        assert await recovery.counts(bulk_id) == {"begun": 2}
        assert await recovery.over(bulk_id) == {"repaired": 2}

    async def test_what_was_begun_and_not_sent_when_it_is_stopped_is_left(self, recovery: Recovery, monkeypatch):
        await recovery.block(2)
        bulk_id = await recovery.order()
        async with recovery.database.transaction() as session:
            await bulk_drive._take_turn(session, recovery.desk.catalogue)
        async with recovery.database.transaction() as session:
            await stop_bulk(session, bulk_id=bulk_id, actor=OPERATOR, reason="Not now")
        assert await recovery.over(bulk_id) == {"left": 2}
        assert len(recovery.desk.partner.sent) == 2
