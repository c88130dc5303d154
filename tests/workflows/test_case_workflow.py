"""The workflow of a case, with the real stories and the real sandbox, against a scripted engine."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.worker import Worker

from caseward.messages import (
    PERFORM,
    AdmitAnswer,
    FinishAnswer,
    FinishCall,
    LoadAnswer,
    News,
    Perform,
    StepAnswer,
)
from caseward.workflow.sandbox import runner
from tests.unit.test_policy import SITUATIONS, situation
from tests.workflows.engine import WITHIN, Engine, our_fault
from workflows.vendor_onboarding import VendorOnboarding

SIDES = ("check_tax_id", "screen_sanctions", "verify_account")
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


class TestStories:
    async def test_steps_come_one_after_the_other(self, engine: Engine):
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("finish")
        assert engine.asked == ["create_in_erp", "open_payee", "send_welcome", "finish"]

    async def test_every_call_carries_operation_fence_and_key(self, engine: Engine):
        await engine.send(engine.order("approve", 7))
        await engine.until_asked("finish")
        call = engine.calls[1]
        assert (call.operation_id, call.fence, call.step) == ("operation-7", 7, "open_payee")
        assert (call.effect_key, call.direction, call.settle_only) == ("operation-7:open_payee", "do", False)

    async def test_side_by_side_all_begin_before_any_ends(self, engine: Engine):
        gates = [engine.gate(side) for side in SIDES]
        await engine.send(engine.order("submit", 2))
        for side in SIDES:
            await engine.until_asked(side)
        assert engine.ended == []
        for gate in gates:
            gate.set()
        await engine.until_asked("finish")
        assert set(engine.asked[:3]) == set(SIDES)

    async def test_the_story_goes_on_only_after_every_side(self, engine: Engine):
        slow = engine.gate("verify_account")
        await engine.send(engine.order("submit", 2))
        await engine.until_asked("verify_account")
        await asyncio.sleep(0)
        assert "finish" not in engine.asked
        slow.set()
        await engine.until_asked("finish")

    @pytest.mark.parametrize(
        ("step", "result", "leads_to"),
        [
            ("check_tax_id", {"registered": False}, "changes_requested"),
            ("verify_account", {"reference": "B1", "match": "none"}, "changes_requested"),
            ("verify_account", {"reference": "B1", "match": "close"}, "in_review"),
            ("screen_sanctions", {"reference": "S1", "hits": 3}, "in_review"),
            ("check_tax_id", None, "in_review"),
        ],
    )
    @pytest.mark.parametrize("transition", ["submit", "resubmit"])
    async def test_a_story_decides_by_results_where_it_leads(self, engine: Engine, transition, step, result, leads_to):
        left_out = engine.left_out()
        engine.answers(step, engine.answer("settled", happened=True, result=result) if result else left_out)
        await engine.send(engine.order(transition, 2))
        await engine.until_asked("finish")
        assert engine.calls[-1].to_state == leads_to

    async def test_operations_come_one_after_the_other(self, engine: Engine):
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("finish")
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish", 2)
        await engine.send(engine.order("reinstate", 4))
        await engine.until_asked("finish", 3)
        assert engine.asked[4:] == [
            "block_in_erp",
            "suspend_payee",
            "finish",
            "resume_payee",
            "unblock_in_erp",
            "finish",
        ]

    async def test_one_without_steps_only_tells_how_the_case_stands(self, engine: Engine):
        handle = await engine.send(
            engine.order("open", 1, finished=True, story=False), news=engine.news(situation("draft"))
        )
        assert (await handle.query("status"))["state"] == "draft"
        assert engine.asked == []


class TestRetrying:
    async def test_the_next_attempt_comes_when_it_is_due(self, engine: Engine):
        engine.answers("create_in_erp", engine.answer("retrying", delay=60.0), engine.answer("retrying", delay=120.0))
        await engine.send(engine.order("approve", 2))
        begun = await engine.now()
        await engine.until_asked("create_in_erp", 3, clock=10 * SECOND)
        assert timedelta(minutes=3) <= await engine.now() - begun <= timedelta(minutes=4)
        await engine.until_asked("finish")
        assert engine.asked[:4] == ["create_in_erp", "create_in_erp", "create_in_erp", "open_payee"]

    async def test_is_cut_short_by_somebody(self, engine: Engine):
        engine.answers("create_in_erp", engine.answer("retrying", delay=86400.0))
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("create_in_erp")
        await engine.send(engine.nudge("retry", "create_in_erp"))
        await engine.until_asked("finish")
        assert engine.asked.count("create_in_erp") == 2

    async def test_a_partner_that_acknowledged_is_asked_again_like_that(self, engine: Engine):
        engine.answers("open_payee", engine.answer("waiting", delay=5.0), engine.answer("waiting", delay=5.0))
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("open_payee", 3, clock=SECOND)
        await engine.until_asked("finish")

    async def test_our_own_outage_is_tried_again_without_end(self, engine: Engine):
        engine.answers("create_in_erp", *[our_fault() for _ in range(4)])
        engine.answers("finish", our_fault(), our_fault())
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("finish", 3, clock=SECOND)
        assert engine.asked.count("create_in_erp") == 5

    async def test_one_side_may_wait_while_the_others_go_on(self, engine: Engine):
        engine.answers("screen_sanctions", engine.answer("blocked"))
        engine.answers("check_tax_id", engine.answer("retrying", delay=60.0))
        await engine.send(engine.order("submit", 2))
        for side in SIDES:
            await engine.until_asked(side)
        await engine.until_asked("check_tax_id", 2, clock=10 * SECOND)
        assert engine.asked.count("screen_sanctions") == 1
        await engine.send(engine.nudge("mark_done", "screen_sanctions"))
        await engine.until_asked("finish")


class TestBlocked:
    async def blocked(self, engine: Engine):
        engine.answers("create_in_erp", engine.answer("blocked"))
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("create_in_erp")

    async def settled(self, engine: Engine) -> None:
        """The workflow has worked off what was sent so far."""
        await engine.handle.query("status")

    async def test_waits_for_somebody_however_long(self, engine: Engine):
        await self.blocked(engine)
        await engine.time_passes(timedelta(days=30))
        await self.settled(engine)
        assert engine.asked == ["create_in_erp"]
        await engine.send(engine.nudge("retry", "create_in_erp"))
        await engine.until_asked("finish")

    async def test_help_for_another_step_is_no_help(self, engine: Engine):
        await self.blocked(engine)
        for elsewhere in ("open_payee", "create_in_erp:undo", None):
            await engine.send(engine.nudge("retry", elsewhere))
        await self.settled(engine)
        assert engine.asked == ["create_in_erp"]

    async def test_old_help_is_no_help(self, engine: Engine):
        await self.blocked(engine)
        await engine.send(engine.nudge("retry", "create_in_erp", version=1))
        await self.settled(engine)
        assert engine.asked == ["create_in_erp"]

    async def test_help_that_came_before_the_answer_it_was_meant_for_counts(self, engine: Engine):
        """The dispatcher was quicker than the worker's reply: the workflow hears of the help first."""
        blocked = engine.answer("blocked")
        opened = engine.gate("create_in_erp", then=blocked)
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("create_in_erp")
        await engine.send(engine.nudge("retry", "create_in_erp"))
        await self.settled(engine)
        opened.set()
        await engine.until_asked("finish")
        assert engine.asked.count("create_in_erp") == 2

    async def test_help_from_before_the_block_does_not_count_twice(self, engine: Engine):
        await self.blocked(engine)
        engine.answers("create_in_erp", engine.answer("blocked"))
        nudge = engine.nudge("retry", "create_in_erp")
        engine._answers["create_in_erp"].clear()
        engine.answers("create_in_erp", engine.answer("blocked"))
        await engine.send(nudge)
        await engine.until_asked("create_in_erp", 2)
        await engine.send(nudge)
        await self.settled(engine)
        assert engine.asked == ["create_in_erp", "create_in_erp"]


class TestTakeover:
    async def test_of_a_waiting_step_ends_it_and_offsets_first(self, engine: Engine):
        engine.blocks("open_payee")
        await engine.send(engine.order("approve", 2))
        await engine.until_blocked("open_payee")
        offsets = [engine.offset("open_payee", 2, settled=False), engine.offset("create_in_erp", 2)]
        engine.answers("open_payee?", engine.left_out())
        await engine.send(engine.order("cancel", 3, story=False, offsets=offsets))
        await engine.until_asked("finish")
        assert engine.asked == ["create_in_erp", "open_payee", "open_payee?", "create_in_erp:undo", "finish"]
        finish = engine.calls[-1]
        assert (finish.operation_id, finish.fence) == ("operation-3", 3)

    async def test_of_an_acting_step_waits_for_its_outcome(self, engine: Engine):
        superseded = StepAnswer("superseded")
        acting = engine.gate("open_payee", then=superseded)
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("open_payee")
        cancel = engine.order("cancel", 3, story=False, offsets=[engine.offset("create_in_erp", 2)])
        await engine.send(cancel)
        await engine.handle.query("status")
        assert "create_in_erp:undo" not in engine.asked, "nothing is offset beside a running effect"
        acting.set()
        await engine.until_asked("finish")
        assert engine.ended.index("open_payee") < engine.ended.index("create_in_erp:undo")
        assert "send_welcome" not in engine.asked

    async def test_of_sides_waits_for_every_one_of_them(self, engine: Engine):
        gates = {side: engine.gate(side, then=StepAnswer("superseded")) for side in SIDES}
        await engine.send(engine.order("submit", 2))
        for side in SIDES:
            await engine.until_asked(side)
        await engine.send(engine.order("cancel", 3, story=False))
        for side, gate in gates.items():
            await engine.handle.query("status")
            assert "finish" not in engine.asked, f"{side} is still acting"
            gate.set()
        await engine.until_asked("finish")

    async def test_the_activity_may_be_told_first(self, engine: Engine):
        """The step's own transaction saw the raised fence before the dispatcher's signal came."""
        engine.answers("create_in_erp", StepAnswer("superseded"))
        undo = engine.order("undo", 3, offsets=[])
        engine.answers("load", LoadAnswer(engine.news(SITUATIONS["being taken back"]), undo))
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("finish")
        assert engine.asked == ["create_in_erp", "load", "finish"]
        assert engine.calls[-1].fence == 3
        await engine.send(undo)
        await engine.handle.query("status")
        # A local activity runs again where a signal came in the middle of its task.
        assert set(engine.asked[3:]) <= {"finish"}, "the signal that came later told nothing new"

    async def test_offsets_come_before_the_new_story(self, engine: Engine):
        offsets = [engine.offset("suspend_payee", 2), engine.offset("block_in_erp", 2)]
        await engine.send(engine.order("reinstate", 3, offsets=offsets))
        await engine.until_asked("finish")
        assert engine.asked == ["suspend_payee:undo", "block_in_erp:undo", "resume_payee", "unblock_in_erp", "finish"]

    async def test_what_turns_out_to_have_happened_is_taken_back(self, engine: Engine):
        await engine.send(engine.order("undo", 3, offsets=[engine.offset("open_payee", 2, settled=False)]))
        await engine.until_asked("finish")
        assert engine.asked == ["open_payee?", "open_payee:undo", "finish"]
        finding_out, taking_back = engine.calls[:2]
        assert (finding_out.settle_only, finding_out.direction) == (True, "do")
        assert (taking_back.settle_only, taking_back.direction) == (False, "undo")
        assert taking_back.effect_key == "operation-2:open_payee:undo"

    async def test_a_compensation_can_block_and_be_helped(self, engine: Engine):
        engine.answers("open_payee:undo", engine.answer("blocked"))
        await engine.send(engine.order("undo", 3, offsets=[engine.offset("open_payee", 2)]))
        await engine.until_asked("open_payee:undo")
        await engine.send(engine.nudge("retry", "open_payee:undo", fence=3))
        await engine.until_asked("finish")

    async def test_a_takeover_of_a_takeover_leaves_the_rest_to_the_newest(self, engine: Engine):
        engine.blocks("open_payee:undo")
        first = [engine.offset("open_payee", 2), engine.offset("create_in_erp", 2)]
        await engine.send(engine.order("undo", 3, offsets=first))
        await engine.until_blocked("open_payee:undo")
        await engine.send(engine.order("force_cancel", 4, offsets=first))
        await engine.until_asked("finish")
        assert engine.asked == ["open_payee:undo", "open_payee:undo", "create_in_erp:undo", "finish"]
        assert [call.operation_id for call in engine.calls][:2] == ["operation-3", "operation-4"]


class TestFinishing:
    async def test_what_landed_late_is_taken_back_before_the_end(self, engine: Engine):
        engine.answers("finish", FinishAnswer("offsets", 9, offsets=[engine.offset("open_payee", 2)]))
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish", 2)
        assert engine.asked == ["block_in_erp", "suspend_payee", "finish", "open_payee:undo", "finish"]

    async def test_a_broken_postcondition_waits_for_help_and_the_story_is_told_again(self, engine: Engine):
        news = engine.news(SITUATIONS["the story is blocked"])
        engine.answers("finish", FinishAnswer("blocked", news.version, news=news))
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")
        await engine.send(engine.nudge("retry", None, fence=3))
        await engine.until_asked("finish", 2)
        assert engine.asked == ["block_in_erp", "suspend_payee", "finish"] * 2

    async def test_of_what_was_superseded_reads_how_the_case_stands(self, engine: Engine):
        engine.answers("finish", FinishAnswer("superseded", 9))
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("load")


class TestStoriesThatFail:
    async def test_block_for_engineering_and_are_told_again(self, engine: Engine):
        engine.answers("check_tax_id", engine.answer("settled", happened=True, result={"registered": "who knows"}))
        await engine.send(engine.order("submit", 2))
        await engine.until_asked("block")
        block = engine.calls[-1]
        assert (block.cause, block.fence) == ("story_failed", 2)
        assert block.message == "ValidationError"
        await engine.send(engine.nudge("retry", None))
        await engine.until_asked("finish")
        assert engine.asked.count("check_tax_id") == 2

    async def test_a_missing_one_blocks_too(self, engine: Engine):
        await engine.send(engine.order("teleport", 2))
        await engine.until_asked("block")
        assert (engine.calls[-1].cause, "teleport" in engine.calls[-1].message) == ("story_missing", True)

    async def test_can_be_undone(self, engine: Engine):
        await engine.send(engine.order("teleport", 2))
        await engine.until_asked("block")
        await engine.send(engine.order("undo", 3))
        await engine.until_asked("finish")

    async def test_never_let_a_value_of_a_step_into_the_history(self, engine: Engine):
        name = "Northwind Tools GmbH"
        engine.answers("check_tax_id", engine.answer("settled", happened=True, result={"registered": name}))
        await engine.send(engine.order("submit", 2))
        await engine.until_asked("block")
        assert name not in engine.calls[-1].message


class TestSignals:
    async def test_doubled_and_old_ones_change_nothing(self, engine: Engine):
        approve, suspend = engine.order("approve", 3), engine.order("suspend", 4)
        await engine.send(approve)
        await engine.until_asked("finish")
        await engine.send(suspend)
        await engine.until_asked("finish", 2)
        before = list(engine.asked)
        await engine.send(approve, suspend, engine.order("cancel", 2))
        await engine.send(suspend)
        await engine.handle.query("status")
        assert engine.asked == before

    async def test_of_several_the_highest_fence_is_obeyed_in_any_order(self, engine: Engine):
        orders = [engine.order("approve", 3), engine.order("suspend", 5), engine.order("reinstate", 4)]
        await engine.send(*orders)
        await engine.until_asked("finish")
        assert engine.asked == ["block_in_erp", "suspend_payee", "finish"]

    async def test_older_news_never_replace_newer(self, engine: Engine):
        handle = await engine.send(
            engine.order("open", 1, finished=True, story=False), news=engine.news_at(8, situation("active"))
        )
        await engine.send(engine.nudge("retry"), news=engine.news_at(7, situation("draft")))
        status = await handle.query("status")
        assert (status["state"], status["version"]) == ("active", 8)

    async def test_those_before_the_first_task_are_not_lost(self, engine: Engine, engines):
        """The worker was away while three commands were dispatched."""
        queue, engines.task_queue = engines.task_queue, f"{engines.task_queue}-later"
        handle = await engine.send(engine.order("approve", 2))
        await engine.send(engine.nudge("retry", "create_in_erp"))
        await engine.send(engine.order("cancel", 3, story=False, offsets=[engine.offset("create_in_erp", 2)]))
        later, engines.task_queue = engines.task_queue, queue
        async with Worker(
            engines.client,
            task_queue=later,
            workflows=[VendorOnboarding],
            activities=engines.activities(),
            workflow_runner=runner(),
        ):
            await engine.until_asked("finish")
            asked = list(engine.asked)
            await engine.end()
            await asyncio.wait_for(handle.result(), WITHIN)
        assert asked == ["create_in_erp:undo", "finish"]

    async def test_a_fence_that_somebody_made_up_does_not_deafen_it(self, engine: Engine):
        engine.answers("create_in_erp", StepAnswer("superseded"))
        engine.answers("load", LoadAnswer(engine.news(situation("active")), None, fence=2))
        await engine.send(engine.order("approve", 1_000_000))
        await engine.until_asked("load")
        await engine.until_heard()
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")
        assert engine.asked == ["create_in_erp", "load", "block_in_erp", "suspend_payee", "finish"]

    async def test_news_that_somebody_made_up_are_not_believed(self, engine: Engine):
        handle = await engine.send(engine.order("open", 1, finished=True, story=False))
        await handle.signal(PERFORM, Perform([], News(99, {"state": 7})))
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")

    async def test_a_mere_wake_reads_how_the_case_stands(self, engine: Engine):
        engine.answers("load", LoadAnswer(engine.news(), engine.order("suspend", 4)))
        await engine.send()
        await engine.until_asked("finish")
        assert engine.asked == ["load", "block_in_erp", "suspend_payee", "finish"]

    async def test_a_wake_while_it_reads_makes_it_read_again(self, engine: Engine):
        opened = engine.gate("load")
        await engine.send()
        await engine.until_asked("load")
        await engine.send()
        opened.set()
        await engine.until_asked("load", 2)

    async def test_help_alone_in_a_new_run_reads_how_the_case_stands(self, engine: Engine):
        await engine.send(engine.nudge("retry", "open_payee"))
        await engine.until_asked("load")

    @pytest.mark.parametrize(
        "arguments",
        [[], [None], ["nonsense"], [{"orders": 7}], [{"orders": [{"fence": "x"}]}], [{}]],
        ids=str,
    )
    async def test_a_malformed_one_does_not_stop_the_workflow(self, engine: Engine, arguments):
        handle = await engine.send(engine.order("open", 1, finished=True, story=False))
        await handle.signal(PERFORM, args=arguments)
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")


class TestOverridesSentToTheWorkflow:
    async def started(self, engine: Engine):
        return await engine.send(engine.order("open", 1, finished=True, story=False))

    async def test_a_signal_is_admitted_by_the_same_command(self, engine: Engine):
        handle = await self.started(engine)
        payload = {"override": "retry", "reason": "Seen here", "step": "open_payee", "key": "k1"}
        await handle.signal("override", payload)
        await engine.until_asked("admit")
        assert (engine.calls[-1].payload, engine.calls[-1].key) == (payload, "temporal:k1")

    async def test_without_a_key_each_gets_one_of_its_own(self, engine: Engine):
        handle = await self.started(engine)
        for _ in range(2):
            await handle.signal("override", {"override": "retry", "reason": "Seen here"})
        await engine.until_asked("admit", 2)
        assert len({call.key for call in engine.calls}) == 2

    @pytest.mark.parametrize(
        "arguments",
        [[], [None], ["text"], [7], [["a", "list"]], [{}], [{"override": None}], [{"a": 1}, {"b": 2}], [{"key": 5}]],
        ids=str,
    )
    async def test_a_malformed_signal_does_not_stop_the_workflow(self, engine: Engine, arguments):
        handle = await self.started(engine)
        await handle.signal("override", args=arguments)
        await handle.signal("override", {"override": "retry", "reason": "Seen here", "key": "after"})
        async with asyncio.timeout(WITHIN):
            while "temporal:after" not in [getattr(call, "key", None) for call in engine.calls]:
                await engine.until_asked("admit", engine.asked.count("admit") + 1)
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")

    async def test_signals_are_admitted_while_a_story_runs(self, engine: Engine):
        engine.answers("create_in_erp", engine.answer("blocked"))
        handle = await engine.send(engine.order("approve", 2))
        await engine.until_asked("create_in_erp")
        await handle.signal("override", {"override": "retry", "reason": "Seen here"})
        await engine.until_asked("admit")

    async def test_an_update_answers_the_operation(self, engine: Engine):
        handle = await self.started(engine)
        answer = await handle.execute_update("override", {"override": "retry", "reason": "Seen here"})
        assert answer == {"accepted": True, "operation_id": "operation-9"}

    async def test_an_update_that_is_refused_says_why(self, engine: Engine):
        problem = {"code": "not_by_signal", "detail": "Take it back: not by a signal, by settings."}
        engine.answers("admit", AdmitAnswer(accepted=False, problem=problem))
        handle = await self.started(engine)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update("override", {"override": "undo", "reason": "Seen here"})
        assert (refused.value.cause.type, refused.value.cause.message) == ("not_by_signal", problem["detail"])

    @pytest.mark.parametrize("payload", [None, "text", {}, {"override": 7}, ["retry"]], ids=str)
    async def test_an_update_that_is_none_is_refused_before_anything_is_written(self, engine: Engine, payload):
        handle = await self.started(engine)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update("override", payload)
        assert refused.value.cause.type == "input_invalid"
        assert "admit" not in engine.asked


class TestDeadlines:
    async def resting(self, engine: Engine, *, days: int = 2, visit: int = 5):
        deadline = await engine.now() + timedelta(days=days)
        news = engine.news(situation("in_review"), deadline_at=deadline.isoformat(), visit=visit)
        return await engine.send(engine.order("open", 1, finished=True, story=False), news=news)

    async def test_is_passed_when_it_has_come_and_names_the_visit(self, engine: Engine):
        await self.resting(engine)
        await engine.time_passes(timedelta(days=1, hours=23))
        assert engine.asked == []
        await engine.time_passes(timedelta(hours=2))
        await engine.until_asked("deadline")
        assert engine.calls[-1].visit == 5

    async def test_of_a_state_that_was_left_is_forgotten(self, engine: Engine):
        handle = await self.resting(engine)
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")
        await engine.time_passes(timedelta(days=3))
        await handle.query("status")
        assert "deadline" not in engine.asked

    async def test_newer_news_bring_their_own(self, engine: Engine):
        handle = await self.resting(engine, days=1)
        later = (await engine.now() + timedelta(days=5)).isoformat()
        await engine.send(engine.nudge("retry"), news=engine.news(situation("in_review"), deadline_at=later, visit=8))
        await engine.time_passes(timedelta(days=2))
        await handle.query("status")
        assert engine.asked == []
        await engine.time_passes(timedelta(days=4))
        await engine.until_asked("deadline")
        assert engine.calls[-1].visit == 8

    async def test_a_database_whose_clock_is_behind_is_not_asked_without_pause(self, engine: Engine):
        """Temporal's clock says it is time, Postgres' does not: the answer is what the workflow knew already."""
        handle = await self.resting(engine)
        status = await handle.query("status")
        unmoved = engine.news_at(status["version"], situation("in_review"))
        engine.answers("deadline", *[unmoved] * 50)
        await engine.time_passes(timedelta(days=2, minutes=1))
        await engine.until_asked("deadline", 2, clock=SECOND)
        await engine.time_passes(timedelta(minutes=1))
        await handle.query("status")
        assert 2 <= engine.asked.count("deadline") <= 30


async def closed(engine: Engine) -> FinishAnswer:
    return engine.finished(now=situation("cancelled"), final=True)


class TestTheEnd:
    async def test_closes_in_a_final_state(self, engine: Engine):
        engine.answers("finish", lambda _: closed(engine))
        handle = await engine.send(engine.order("cancel", 3, story=False))
        await asyncio.wait_for(handle.result(), WITHIN)
        assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED

    async def test_a_final_state_reached_at_once_closes_too(self, engine: Engine):
        handle = await engine.send(
            engine.order("reject", 3, finished=True, story=False),
            news=engine.news(situation("rejected"), final=True),
        )
        await asyncio.wait_for(handle.result(), WITHIN)

    async def test_a_reopened_case_is_a_new_run(self, engine: Engine):
        first = await engine.send(
            engine.order("reject", 3, finished=True, story=False),
            news=engine.news(situation("rejected"), final=True),
        )
        await asyncio.wait_for(first.result(), WITHIN)
        first_run = await engine.run_id()
        await engine.send(engine.order("reopen", 4, finished=True, story=False), news=engine.news(situation("draft")))
        assert await engine.run_id() != first_run
        await engine.send(engine.order("submit", 5))
        await engine.until_asked("finish")

    async def test_waits_for_overrides_under_way(self, engine: Engine):
        admitting = engine.gate("admit")
        handle = await engine.send(engine.order("open", 1, finished=True, story=False))
        update = asyncio.create_task(handle.execute_update("override", {"override": "retry", "reason": "Late"}))
        await engine.until_asked("admit")
        await engine.send(
            engine.order("reject", 3, finished=True, story=False),
            news=engine.news(situation("rejected"), final=True),
        )
        await handle.query("status")
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        admitting.set()
        assert (await update)["accepted"]
        await asyncio.wait_for(handle.result(), WITHIN)

    async def test_an_opening_that_is_delivered_once_more_finds_the_case_closed(self, engine: Engine):
        """The dispatcher died before it wrote down that it had delivered it; meanwhile the draft was withdrawn."""
        engine.answers("load", LoadAnswer(engine.news_at(99, situation("cancelled"), final=True)))
        opening = engine.order("open", 1, finished=True, story=False)
        handle = await engine.send(opening, news=engine.news(situation("draft")), again=True)
        await asyncio.wait_for(handle.result(), WITHIN)
        assert engine.asked == ["load"]

    async def test_an_old_message_that_starts_a_run_of_its_own_finds_the_case_closed(self, engine: Engine):
        """Delivered, but not marked: the dispatcher died. By now the case is closed, and so is its workflow."""
        engine.answers("load", LoadAnswer(engine.news_at(99, situation("cancelled"), final=True)))
        handle = await engine.send(
            engine.order("request_changes", 3, finished=True, story=False),
            news=engine.news(situation("changes_requested")),
        )
        await asyncio.wait_for(handle.result(), WITHIN)


class TestNewRuns:
    async def test_between_operations_when_the_history_has_grown(self, engine: Engine, short_history):
        await engine.send(engine.order("approve", 2))
        first = await engine.run_id()
        await engine.until_asked("load")
        assert engine.asked == ["create_in_erp", "open_payee", "send_welcome", "finish", "load"]
        assert await engine.run_id() != first
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish", 2)

    async def test_never_in_the_middle_of_an_attempt(self, engine: Engine, short_history):
        acting = engine.gate("send_welcome")
        await engine.send(engine.order("approve", 2))
        first = await engine.run_id()
        await engine.until_asked("send_welcome")
        for _ in range(20):
            await engine.send(engine.nudge("retry", "open_payee"))
        assert await engine.run_id() == first
        acting.set()
        await engine.until_asked("load")
        assert engine.asked.count("send_welcome") == 1

    async def test_within_an_operation_that_waits_for_long(self, engine: Engine, short_history):
        """A partner is polled for hours: each poll is in the history, which must not grow without end."""
        engine.answers("open_payee", *[engine.answer("waiting", delay=5.0) for _ in range(20)])
        approve = engine.order("approve", 2)

        async def loaded(_ref) -> LoadAnswer:
            return LoadAnswer(engine.news(), None if "finish" in engine.asked else approve)

        engine.answers("load", *[loaded] * 40)
        await engine.send(approve)
        first = await engine.run_id()
        await engine.until_asked("finish", clock=SECOND)
        description = await engine.handle.describe()
        assert description.run_id != first
        assert description.history_length < 150
        # A task that closes the run is done again when news came meanwhile, and its finish with it, which allows that.
        assert {call.operation_id for call in engine.calls if isinstance(call, FinishCall)} == {"operation-2"}

    async def test_what_came_meanwhile_is_not_lost(self, engine: Engine, short_history):
        await engine.send(engine.order("approve", 2))
        await engine.until_asked("finish")
        suspend = engine.order("suspend", 3)

        async def loaded(_ref) -> LoadAnswer:
            """An order is in Postgres before anybody is told of it; a run that has grown leaves it to the next."""
            # A task that closes the run is done again when news came meanwhile, and the finish of `approve` with it.
            finished = {call.operation_id for call in engine.calls if isinstance(call, FinishCall)}
            return LoadAnswer(engine.news(), None if suspend.operation_id in finished else suspend, fence=3)

        engine.answers("load", *[loaded] * 5)
        await engine.send(suspend)
        await engine.until_asked("suspend_payee")
        suspended = [name for name in engine.asked if name in {"block_in_erp", "suspend_payee"}]
        assert suspended == ["block_in_erp", "suspend_payee"]


class TestWhatItShows:
    async def test_lists_open_and_blocked_steps(self, engine: Engine):
        handle = await engine.send(
            engine.order("open", 1, finished=True, story=False),
            news=engine.news(SITUATIONS["two blocked side by side"]),
        )
        assert [step["name"] for step in await handle.query("blocked")] == ["create_in_erp", "send_welcome"]
        pending = [step["name"] for step in await handle.query("pending")]
        assert pending == ["create_in_erp", "open_payee", "send_welcome"]

    async def test_details_tell_the_story_in_words(self, engine: Engine):
        handle = await engine.send(
            engine.order("open", 1, finished=True, story=False), news=engine.news(SITUATIONS["blocked at the payee"])
        )
        metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        details = metadata.current_details
        assert "**BLOCKED**" in details
        assert "Who decides next: **erp_support**" in details

    async def test_before_it_was_told_anything_it_shows_nothing(self, engine: Engine):
        opened = engine.gate("load")
        handle = await engine.send(news=engine.news_at(0))
        assert await handle.query("status") == {}
        assert await handle.query("blocked") == []
        opened.set()
