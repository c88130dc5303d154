"""Replay: first the plan, then exactly that; what people decided survives unless what they decided on has changed."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from caseward.cases import queries
from caseward.cases.commands import Accepted
from caseward.cases.confirming import confirm_proposal
from caseward.documents.replay import ReplayPlan
from caseward.errors import ActionNotAllowed, CommandRefused, InputInvalid
from caseward.process import IMPOSSIBLE, NONE_NEEDED, Confirmation, State, Transition
from tests.integration.desk import Desk, Handle, all_at_once, envelope
from tests.integration.parcels import (
    AT_ONCE,
    CHIEF,
    CLERK,
    OPERATOR,
    SENIOR,
    Correction,
    LostReply,
    parcels,
    person,
    rejected,
    silent,
    step,
)

CHECK = step("check_address", undo=NONE_NEEDED)
BOOK = step("book_carrier")
PAY = step("pay_postage", partner="askable")

# A check, then somebody else's approval of what was checked, then work that rests on it.
_BASE = parcels(name="approved")
APPROVED = parcels(
    name="approved",
    states=(
        *_BASE.states,
        State("checking", "Checking", "We are checking the address."),
        State("checked", "Checked", "Somebody else decides.", waiting_on="chief"),
    ),
    transitions=(
        *(t for t in _BASE.transitions if t.name not in {"ship", "ship_corrected", "correct"}),
        Transition(
            "submit",
            "Submit",
            source=frozenset({"draft"}),
            pending="checking",
            to=("checked", "draft"),
            roles=frozenset({"clerk"}),
            steps=(CHECK,),
        ),
        Transition(
            "ship",
            "Approve and ship",
            source=frozenset({"checked"}),
            pending="shipping",
            to="shipped",
            roles=frozenset({"chief"}),
            steps=(BOOK, PAY),
            four_eyes=frozenset({"submit"}),
        ),
        Transition(
            "correct",
            "Correct",
            source=frozenset({"shipped", "checked"}),
            to=("shipped"),
            roles=frozenset({"clerk"}),
            input=Correction,
            revise=lambda _parcel, correction: correction.parcel,
        ),
    ),
)


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database, parcels(CHECK, BOOK, PAY, name="replayed"))


@pytest.fixture
def office(database) -> Desk:
    return Desk(database, APPROVED)


async def plan(case: Handle, step_name: str) -> ReplayPlan:
    async with case.desk.database.sessions() as session:
        return await queries.get_plan(session, case.desk.catalogue, case_id=case.id, step=step_name, actor=SENIOR)


async def replay(case: Handle, step_name: str, **given):
    plan_hash = given.pop("plan_hash", None) or (await plan(case, step_name)).plan_hash
    return await case.override("replay", SENIOR, step=step_name, plan_hash=plan_hash, **given)


def told(planned: ReplayPlan) -> list[str]:
    return [f"{each.action} {each.step}" for each in planned.steps]


async def shipped(desk: Desk) -> Handle:
    case = await desk.open()
    await case.take("ship")
    assert await case.work() == "finished"
    return case


async def approved(office: Desk) -> Handle:
    case = await office.open()
    await case.take("submit")
    assert await case.work("checked") == "finished"
    await case.take("ship", CHIEF)
    assert await case.work() == "finished"
    return case


class TestThePlan:
    async def test_says_what_is_reused_offset_and_run_and_changes_nothing(self, desk):
        case = await shipped(desk)
        before = await case.dump()
        planned = await plan(case, "pay_postage")
        assert told(planned) == [
            "offset pay_postage:undo",
            "reuse check_address",
            "reuse book_carrier",
            "run pay_postage",
        ]
        assert (planned.pending, planned.leads_to) == ("shipping", ["shipped"])
        assert await case.dump() == before

    async def test_offsets_the_latest_first(self, desk):
        case = await shipped(desk)
        assert told(await plan(case, "book_carrier"))[:2] == ["offset pay_postage:undo", "offset book_carrier:undo"]

    async def test_names_what_stays_because_nothing_takes_it_back(self, desk):
        case = await shipped(desk)
        planned = await plan(case, "check_address")
        again = next(each for each in planned.steps if each.step == "check_address")
        assert (again.action, again.stays) == ("run", (await case.effect("check_address")).key)

    async def test_is_the_same_until_the_case_moves(self, desk):
        case = await shipped(desk)
        planned = await plan(case, "pay_postage")
        assert (await plan(case, "pay_postage")).plan_hash == planned.plan_hash
        await case.take("take_back")
        assert (await plan(case, "check_address")).plan_hash != planned.plan_hash

    async def test_is_the_same_in_whatever_order_postgres_keeps_what_was_done(self, desk):
        desk.partner.next(rejected(), rejected())
        case = await desk.open()
        await case.take("ship")
        for step_name in ("check_address", "book_carrier"):
            await case.work()
            await case.override("skip", step=step_name)
        assert await case.work() == "finished"
        planned = await plan(case, "pay_postage")
        async with desk.database.transaction() as session:
            # The rows lie in the order of their keys from here on: what was booked before what was checked.
            await session.execute(text("CLUSTER effects USING pk_effects"))
            await session.execute(text("ALTER TABLE effects SET WITHOUT CLUSTER"))
        again = await plan(case, "pay_postage")
        assert [each.step for each in again.decisions if each.kind == "override"] == ["check_address", "book_carrier"]
        assert again.plan_hash == planned.plan_hash

    @pytest.mark.parametrize("step_name", ["nonsense", "pay_postage:undo"])
    async def test_of_a_step_that_there_is_not_is_refused(self, desk, step_name):
        case = await shipped(desk)
        with pytest.raises(InputInvalid):
            await plan(case, step_name)

    async def test_of_a_step_that_has_not_begun_is_refused(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("check_address")
        with pytest.raises(InputInvalid, match="has not begun"):
            await plan(case, "pay_postage")

    async def test_of_a_case_where_nothing_was_done_is_refused(self, desk):
        case = await desk.open()
        with pytest.raises(ActionNotAllowed) as refused:
            await plan(case, "check_address")
        assert refused.value.first_code == "nothing_to_replay"


class TestAReplay:
    async def test_does_exactly_what_the_plan_says(self, desk):
        case = await shipped(desk)
        old = (await case.effect("pay_postage")).key
        accepted = await replay(case, "pay_postage")
        assert (await case.row()).state == "shipping"
        assert await case.work() == "finished"
        new = f"{accepted.operation_id}:pay_postage"
        assert desk.partner.happened[-2:] == [f"{old}:undo", new]
        assert sorted(desk.partner.happened) == sorted({*desk.partner.happened}), "nothing twice"
        row = await case.row()
        assert (row.state, row.condition, row.latest_id) == ("shipped", "done", accepted.operation_id)
        document = await case.operation_document(accepted.operation_id)
        shown = [(each.name, each.state) for each in document.steps]
        assert shown == [
            ("check_address", "succeeded"),
            ("book_carrier", "succeeded"),
            ("pay_postage", "succeeded"),
            ("pay_postage:undo", "succeeded"),
        ]
        assert [each["action"] for each in document.plan["steps"]] == ["offset", "reuse", "reuse", "run"]
        assert {"operation.planned", "operation.accepted", "operation.completed"} <= set(await case.timeline())

    async def test_is_refused_when_the_case_has_moved_since_the_plan(self, desk):
        case = await shipped(desk)
        planned = await plan(case, "pay_postage")
        await replay(case, "book_carrier")
        await case.work()
        before = await case.dump()
        with pytest.raises(ActionNotAllowed) as refused:
            await replay(case, "pay_postage", plan_hash=planned.plan_hash)
        assert refused.value.first_code == "plan_stale"
        assert await case.dump() == before

    async def test_of_two_at_once_one_is_made(self, desk):
        case = await shipped(desk)
        planned = await plan(case, "pay_postage")
        made = await all_at_once(*(replay(case, "pay_postage", plan_hash=planned.plan_hash) for _ in range(5)))
        assert len([each for each in made if isinstance(each, ActionNotAllowed)]) == 4
        await case.work()
        assert len(desk.partner.happened) == 5

    async def test_of_an_operation_in_flight_supersedes_it(self, desk):
        desk.partner.next(None, None, rejected())
        case = await desk.open()
        first = await case.take("ship")
        assert await case.work() == "blocked"
        planned = await plan(case, "book_carrier")
        assert told(planned) == [
            "offset book_carrier:undo",
            "reuse check_address",
            "run book_carrier",
            "run pay_postage",
        ]
        second = await replay(case, "book_carrier")
        assert (await case.operation(first.operation_id)).state == "superseded"
        assert await case.work() == "finished"
        assert (await case.row()).state == "shipped"
        keys = [key.partition(":")[2] for key in desk.partner.happened]
        assert keys == ["check_address", "book_carrier", "book_carrier:undo", "book_carrier", "pay_postage"]
        assert (await case.operation(second.operation_id)).state == "completed"

    async def test_first_finds_out_what_became_of_the_unknown(self, desk):
        desk.partner.next(None, None, LostReply())
        case = await desk.open()
        await case.take("ship")
        await case.work()
        planned = await plan(case, "pay_postage")
        assert planned.steps[0].unknown
        await replay(case, "pay_postage")
        await case.time_passes(timedelta(minutes=1))
        assert await case.work() == "finished"
        keys = [key.partition(":")[2] for key in desk.partner.happened]
        assert keys == ["check_address", "book_carrier", "pay_postage", "pay_postage:undo", "pay_postage"]

    async def test_keeps_a_decision_before_the_step_and_voids_one_behind_it(self, desk):
        desk.partner.next(rejected(), None, rejected())
        case = await desk.open()
        await case.take("ship")
        await case.work()
        await case.override("skip", step="check_address")
        await case.work()
        await case.override("skip", step="pay_postage")
        assert await case.work() == "finished"
        planned = await plan(case, "book_carrier")
        decisions = {each.step: each.kept for each in planned.decisions if each.kind == "override"}
        assert decisions == {"check_address": True, "pay_postage": False}
        await replay(case, "book_carrier")
        assert await case.work() == "finished"
        keys = [key.partition(":")[2] for key in desk.partner.happened]
        assert keys == ["book_carrier", "book_carrier:undo", "book_carrier", "pay_postage"]

    async def test_can_be_taken_back_with_all_that_it_reused(self, desk):
        case = await shipped(desk)
        first = (await case.row()).latest_id
        second = await replay(case, "pay_postage")
        await case.work()
        await case.override("undo")
        assert await case.work() == "finished"
        row = await case.row()
        assert (row.state, row.condition) == ("draft", "waiting")
        standing = [key for key in desk.partner.happened if not key.endswith(":undo")]
        for key in standing:
            if not key.endswith("check_address"):
                assert f"{key}:undo" in desk.partner.happened
        for operation_id in (first, second.operation_id):
            assert (await case.operation(operation_id)).state == "undone"

    async def test_can_be_replayed_again(self, desk):
        case = await shipped(desk)
        for step_name in ("pay_postage", "book_carrier", "pay_postage"):
            await replay(case, step_name)
            assert await case.work() == "finished"
        standing = {key.removesuffix(":undo") for key in desk.partner.happened if key.endswith(":undo")}
        left = [key.split(":")[1] for key in desk.partner.happened if not key.endswith(":undo") and key not in standing]
        assert left == ["check_address", "book_carrier", "pay_postage"]
        assert len(desk.partner.happened) == len(set(desk.partner.happened))

    async def test_is_superseded_by_a_cancel_that_takes_all_back(self, desk):
        case = await shipped(desk)
        await replay(case, "pay_postage")
        await case.take("cancel", CHIEF)
        assert await case.work() == "finished"
        assert (await case.row()).state == "cancelled"
        for key in [key for key in desk.partner.happened if not key.endswith(("undo", "check_address"))]:
            assert f"{key}:undo" in desk.partner.happened

    async def test_is_stopped_by_a_step_that_cannot_be_taken_back(self, database):
        desk = Desk(database, parcels(CHECK, step("seal", partner="both", undo=IMPOSSIBLE), BOOK, name="sealed"))
        case = await shipped(desk)
        with pytest.raises(ActionNotAllowed) as refused:
            await plan(case, "check_address")
        assert refused.value.first_code == "undo_impossible"
        assert told(await plan(case, "book_carrier"))[-1] == "run book_carrier"

    async def test_takes_a_senior_operator(self, desk):
        case = await shipped(desk)
        planned = await plan(case, "pay_postage")
        with pytest.raises(ActionNotAllowed) as refused:
            await case.override("replay", OPERATOR, step="pay_postage", plan_hash=planned.plan_hash)
        assert refused.value.first_code == "role_missing"


class TestAnApproval:
    async def test_survives_a_replay_of_what_was_checked_before_it(self, office):
        case = await approved(office)
        done = list(office.partner.happened)
        planned = await plan(case, "check_address")
        assert [(each.name, each.kept) for each in planned.decisions] == [("submit", True), ("ship", True)]
        assert (told(planned), planned.leads_to) == (["run check_address"], ["shipped"])
        accepted = await replay(case, "check_address")
        assert (await case.row()).state == "checking"
        assert await case.work("checked") == "finished"
        row = await case.row()
        assert (row.state, row.condition) == ("shipped", "done")
        assert office.partner.happened == [*done, f"{accepted.operation_id}:check_address"]
        assert row.latest_id != accepted.operation_id, "an undo still means the approval"

    async def test_falls_when_the_check_leads_elsewhere_this_time(self, office):
        case = await approved(office)
        approval = (await case.row()).latest_id
        await replay(case, "check_address")
        assert await case.work("draft") == "finished"
        row = await case.row()
        assert (row.state, row.condition) == ("draft", "waiting")
        keys = [key.partition(":")[2] for key in office.partner.happened]
        assert keys[-2:] == ["pay_postage:undo", "book_carrier:undo"]
        assert (await case.operation(approval)).state == "undone"
        assert "operation.diverged" in await case.timeline()

    async def test_falls_when_what_was_approved_has_changed(self, office):
        case = await approved(office)
        approval = (await case.row()).latest_id
        await case.take("correct", parcel={"to": "Bergen", "weight": 2.0})
        planned = await plan(case, "check_address")
        kept = {each.name: each.kept for each in planned.decisions}
        assert (kept["ship"], planned.leads_to) == (False, ["checked", "draft"])
        assert told(planned) == ["offset pay_postage:undo", "offset book_carrier:undo", "run check_address"]
        await replay(case, "check_address")
        assert await case.work("checked") == "finished"
        assert (await case.row()).state == "checked"
        assert (await case.operation(approval)).state == "undone"
        assert office.partner.sent[-1].content["to"] == "Bergen"

    async def test_does_not_carry_other_data_than_it_saw(self, office):
        case = await approved(office)
        await case.take("correct", parcel={"to": "Bergen", "weight": 2.0})
        with pytest.raises(ActionNotAllowed) as refused:
            await plan(case, "book_carrier")
        assert refused.value.first_code == "approval_void"

    async def test_whoever_replays_does_not_count_as_its_approver(self, office):
        case = await approved(office)
        await replay(case, "check_address")
        await case.work("checked")
        async with office.database.sessions() as session:
            now = await queries.get_case(session, office.catalogue, case_id=case.id, actor=CLERK)
        assert now.state == "shipped"


async def test_a_replay_of_what_later_work_rests_on_is_refused(database):
    more = parcels(CHECK, BOOK, name="entangled")
    insure = Transition(
        "insure",
        "Insure",
        source=frozenset({"shipped"}),
        pending="shipping",
        to="shipped",
        roles=frozenset({"clerk"}),
        steps=(step("insure_parcel"),),
    )
    desk = Desk(database, parcels(CHECK, BOOK, name="entangled", transitions=(*more.transitions, insure)))
    case = await shipped(desk)
    await case.take("insure")
    assert await case.work() == "finished"
    with pytest.raises(ActionNotAllowed) as refused:
        await plan(case, "book_carrier")
    assert refused.value.first_code == "replay_entangled"


async def test_a_mail_that_may_have_gone_out_is_named_before_it_goes_out_again(database):
    mail = step("mail", partner="stubborn", undo=NONE_NEEDED, retry=AT_ONCE)
    desk = Desk(database, parcels(BOOK, mail, name="mailed"))
    desk.partner.next(None, silent())
    case = await desk.open()
    await case.take("ship")
    assert await case.work() == "blocked"
    planned = await plan(case, "mail")
    again = planned.steps[-1]
    assert (again.action, again.unknown, again.stays) == ("run", True, (await case.effect("mail")).key)


class TestAReplayThatOthersConfirm:
    @pytest.fixture
    async def case(self, database) -> Handle:
        one_senior = Confirmation(by=1, roles=frozenset({"senior_operator"}))
        process = parcels(CHECK, BOOK, PAY, name="replayed_by_two", confirmations={"replay": one_senior})
        return await shipped(Desk(database, process))

    async def confirm(self, case: Handle, proposed: Accepted) -> Accepted:
        async with case.desk.database.transaction() as session:
            return await confirm_proposal(
                session,
                case.desk.catalogue,
                operation_id=proposed.operation_id,
                reason=None,
                envelope=envelope(person("senior_operator", name="susi-senior")),
            )

    async def test_does_what_its_plan_said_once_they_have(self, case):
        old, happened = (await case.effect("pay_postage")).key, len(case.desk.partner.happened)
        proposed = await replay(case, "pay_postage")
        assert ((await case.row()).state, (await case.operation(proposed.operation_id)).state) == (
            "shipped",
            "proposed",
        )
        await self.confirm(case, proposed)
        assert await case.work() == "finished"
        assert case.desk.partner.happened[happened:] == [f"{old}:undo", f"{proposed.operation_id}:pay_postage"]

    async def test_does_nothing_when_the_case_moved_meanwhile(self, case):
        proposed = await replay(case, "pay_postage")
        await case.take("take_back")
        before = len(case.desk.partner.happened)
        with pytest.raises(CommandRefused):
            await self.confirm(case, proposed)
        assert len(case.desk.partner.happened) == before
