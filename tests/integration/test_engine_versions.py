"""A case that outlives its code: newer declarations, steps that are no more, a year between two commands."""

from dataclasses import replace
from datetime import timedelta

import pytest

from caseward.cases import effects
from caseward.messages import StepAnswer, StepCall
from caseward.process import NONE_NEEDED, Process
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import (
    BOOK,
    CLERK,
    LABEL,
    OPERATOR,
    PAY,
    SENIOR,
    acknowledged,
    parcels,
    rejected,
    silent,
    step,
    transient,
)
from tests.integration.test_engine_operations import codes

A_YEAR = timedelta(days=365)


def under(case: Handle, process: Process) -> Handle:
    """The same case, and the same partner, under a newer version of the declaration."""
    newer = Desk(case.desk.database, process, partner=case.desk.partner)
    return Handle(newer, case.id)


async def step_missing(case: Handle, address: str, *, effect_key: str | None = None, **more) -> StepAnswer:
    """What the workflow of a version without the step asks for."""
    call: StepCall = await case.call(address, effect_key=effect_key, **more)
    async with case.desk.database.transaction() as session:
        answer = await effects.open_step(session, case.desk.catalogue, call)
    assert isinstance(answer, StepAnswer)
    return answer


class TestAYearLater:
    async def test_a_closed_case_is_reopened_and_goes_by_the_newer_story(self, database):
        case = await Desk(database, parcels(BOOK)).open()
        await case.take("ship")
        assert await case.work() == "finished"
        await case.override("force_cancel")
        assert await case.work() == "finished"
        await case.time_passes(A_YEAR)
        insured = step("insure")
        newer = under(case, parcels(BOOK, insured, LABEL))
        await newer.take("reopen")
        await newer.take("ship")
        assert [s.name for s in (await newer.document()).operation.steps] == ["book_carrier", "insure", "print_label"]
        assert await newer.work() == "finished"
        assert ((await newer.row()).state, await newer.chain_break()) == ("shipped", None)
        booked = [key for key in case.desk.partner.happened if key.endswith(":book_carrier")]
        assert len(booked) == 2, "each operation has its own effect"

    async def test_an_older_operation_of_a_removed_step_is_shown_as_it_was(self, database):
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        shipped = await case.take("ship")
        assert await case.work() == "finished"
        newer = under(case, parcels(BOOK))
        document = await newer.operation_document(shipped.operation_id)
        shown = [(each.name, each.state) for each in document.steps]
        assert shown == [("book_carrier", "succeeded"), ("print_label", "succeeded")]


class TestARemovedStep:
    async def shipped(self, database) -> tuple[Handle, Handle]:
        """Done by the older version, which had a step more; as it is seen by the newer one."""
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        assert await case.work() == "finished"
        return case, under(case, parcels(BOOK))

    @pytest.mark.parametrize("override", ["undo", "force_cancel"])
    async def test_what_stands_of_it_is_not_forgotten(self, database, override):
        _, newer = await self.shipped(database)
        await newer.override(override)
        owed = (await newer.operation()).offsets
        assert [key.split(":")[1] for key in owed] == ["print_label", "book_carrier"]

    async def test_its_compensation_blocks_for_engineering_where_the_code_is_gone(self, database):
        _, newer = await self.shipped(database)
        await newer.override("undo")
        answer = await step_missing(newer, "print_label:undo")
        assert answer.state == "blocked"
        effect = await newer.effect("print_label:undo")
        assert (effect.cause, effect.recovery_owner, effect.partner) == ("step_missing", "engineering", "carrier")
        document = await newer.document()
        info = document.condition_info
        assert (document.condition, info.step, info.recovery_owner) == ("blocked", "print_label:undo", "engineering")
        assert "This version of our code has no such step" in info.sentence

    async def test_a_senior_operator_gets_it_out(self, database):
        _, newer = await self.shipped(database)
        await newer.override("undo")
        await step_missing(newer, "print_label:undo")
        assert await codes(newer.override("mark_done", OPERATOR)) == ["role_missing"]
        await newer.override("mark_done", SENIOR, step="print_label:undo")
        assert (await step_missing(newer, "print_label:undo")).state == "settled"
        assert (await newer.run("book_carrier:undo")).state == "settled"
        assert (await newer.finish()).state == "finished"
        assert (await newer.row()).state == "draft"

    async def test_what_its_partner_calls_back_is_kept_until_the_code_comes_back(self, database):
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        assert (await case.run("book_carrier")).state == "settled"
        case.desk.partner.next(acknowledged())
        assert (await case.run("print_label")).state == "waiting"
        newer = under(case, parcels(BOOK))
        await newer.hears("print_label", answer={"number": "L1"})
        effect = await newer.effect("print_label")
        assert (effect.cause, effect.recovery_owner) == ("code_error", "engineering")
        assert effect.error["message"] == "This version has no step print_label."
        await case.override("retry", step="print_label")
        assert (await case.run("print_label")).result == {"number": "L1"}
        assert await case.work() == "finished"

    async def test_the_code_comes_back_and_retry_goes_on(self, database):
        case, newer = await self.shipped(database)
        await newer.override("undo")
        await step_missing(newer, "print_label:undo")
        await newer.override("retry", OPERATOR, step="print_label:undo")
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert len(case.desk.partner.happened) == 4

    async def test_a_compensation_that_is_no_more_blocks_too(self, database):
        """The newer version says that nothing is to be taken back; what the older one promised to take back stands."""
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        assert await case.work() == "finished"
        await case.override("undo")
        newer = under(case, parcels(BOOK, replace(LABEL, undo=NONE_NEEDED)))
        assert (await step_missing(newer, "print_label:undo")).state == "blocked"

    @pytest.mark.parametrize(
        "answer",
        [transient(), rejected(), silent(), acknowledged()],
        ids=["retrying", "blocked", "unknown", "acknowledged"],
    )
    async def test_one_that_is_open_can_be_asked_about_left_out_and_superseded(self, database, answer):
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        case.desk.partner.next(None, answer)
        await case.work()
        newer = under(case, parcels(BOOK))
        document = await newer.document()
        assert document.operation.steps[-1].name == "print_label"
        assert (await newer.finish()).state == "blocked", "the story ended, and it is open"
        await newer.time_passes(timedelta(days=1))
        assert (await step_missing(newer, "print_label")).state == "blocked"
        await newer.override("retry", OPERATOR, step="print_label", happened=False)
        await newer.override("skip", SENIOR, step="print_label", happened=False)
        assert (await newer.finish()).state == "finished"

    @pytest.mark.parametrize(
        "answer",
        [transient(), rejected(), silent(), acknowledged()],
        ids=["retrying", "blocked", "unknown", "acknowledged"],
    )
    async def test_one_that_is_open_is_looked_at_when_the_case_is_cancelled(self, database, answer):
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        case.desk.partner.next(None, answer)
        await case.work()
        newer = under(case, parcels(BOOK))
        await newer.take("cancel")
        await newer.time_passes(timedelta(days=1))
        effect = await newer.effect("print_label")
        if effect.state != "settled":
            answered = await step_missing(newer, "print_label", settle_only=True, effect_key=effect.key)
            assert answered.state == "blocked"
            result = {"number": "by hand"}
            await newer.override("mark_done", SENIOR, step="print_label", result=result)
            await step_missing(newer, "print_label:undo")
            await newer.override("skip", SENIOR, step="print_label:undo")
        assert (await newer.run("book_carrier:undo")).state == "settled"
        assert (await newer.finish()).state == "finished"
        assert (await newer.row()).state == "cancelled"

    async def test_a_late_success_of_it_is_kept_and_taken_back(self, database):
        case = await Desk(database, parcels(BOOK, LABEL)).open()
        await case.take("ship")
        await case.run("book_carrier")
        begun = await case.begin("print_label")
        newer = under(case, parcels(BOOK))
        await newer.take("cancel", CLERK)
        begun.case = newer
        assert (await begun.settle("succeeded")).state == "superseded"
        assert (await newer.effect("print_label")).standing
        assert await newer.chain_break() is None

    async def test_it_is_not_answered_while_its_attempt_lives(self, database):
        case = await Desk(database, parcels(BOOK, PAY)).open()
        await case.take("ship")
        await case.run("book_carrier")
        await case.begin("pay_postage")
        newer = under(case, parcels(BOOK))
        with pytest.raises(effects.LeaseHeld):
            await step_missing(newer, "pay_postage")
