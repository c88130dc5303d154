"""The workflow keeps the deadline of the state, at rest and while a pending state's steps run, over weeks."""

import asyncio
from datetime import timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus

from caseward.messages import StepAnswer
from tests.unit.test_policy import SITUATIONS, situation
from tests.workflows.engine import WITHIN, Engine, our_fault

DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
ACTIVATING = SITUATIONS["running"]


async def pending(engine: Engine, *, weeks: int = 3, visit: int = 5):
    """News of a pending state whose time is over in some weeks."""
    due = (await engine.now() + weeks * WEEK).isoformat()
    return lambda: engine.news(ACTIVATING, deadline_at=due, visit=visit)


def waiting(news, delay: float | None = None) -> StepAnswer:
    return StepAnswer("waiting", version=news.version, delay=delay, news=news)


def being_taken_back(engine: Engine):
    async def answer(_call):
        return engine.news(SITUATIONS["being taken back"])

    return answer


class TestOfAPendingState:
    async def test_passes_while_a_step_waits_for_its_partner_for_weeks(self, engine: Engine):
        news = await pending(engine)
        engine.answers("create_in_erp", waiting(news()))
        await engine.send(engine.order("approve", 2), news=news())
        await engine.until_asked("create_in_erp")
        await engine.time_passes(3 * WEEK - DAY)
        assert engine.asked == ["create_in_erp"]
        await engine.time_passes(2 * DAY)
        await engine.until_asked("deadline")
        assert engine.calls[-1].visit == 5

    async def test_an_undo_by_it_ends_the_story_and_takes_back(self, engine: Engine):
        news = await pending(engine)

        async def later(_call):
            return waiting(news())

        engine.answers("open_payee", later)
        engine.answers("deadline", being_taken_back(engine))
        await engine.send(engine.order("approve", 2), news=news())
        await engine.until_asked("open_payee")
        await engine.time_passes(4 * WEEK)
        await engine.until_asked("deadline")
        offsets = [engine.offset("open_payee", 2, settled=False), engine.offset("create_in_erp", 2)]
        engine.answers("open_payee?", engine.left_out())
        await engine.send(engine.order("undo", 3, offsets=offsets))
        await engine.until_asked("finish")
        assert engine.asked[-3:] == ["open_payee?", "create_in_erp:undo", "finish"]
        assert engine.asked.count("deadline") == 1

    async def test_is_forgotten_when_the_work_is_done_in_time(self, engine: Engine):
        news = await pending(engine)
        engine.answers("create_in_erp", waiting(news(), delay=WEEK.total_seconds()))
        await engine.send(engine.order("approve", 2), news=news())
        await engine.until_asked("create_in_erp", 2, clock=2 * DAY)
        await engine.until_asked("finish")
        await engine.time_passes(5 * WEEK)
        await engine.handle.query("status")
        assert "deadline" not in engine.asked

    async def test_one_timer_keeps_it_however_much_is_heard_meanwhile(self, engine: Engine):
        news = await pending(engine)
        engine.answers("create_in_erp", *[waiting(news(), delay=3600.0) for _ in range(10)])
        engine.answers("open_payee", waiting(news(), delay=3600.0))
        await engine.send(engine.order("approve", 2), news=news())
        await engine.until_asked("open_payee", clock=timedelta(hours=1))
        history = await engine.handle.fetch_history()
        long = [
            event
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED
            and event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta() > DAY
        ]
        assert len(long) == 1

    async def test_a_later_visit_has_a_timer_of_its_own(self, engine: Engine):
        early, late = await pending(engine, weeks=1, visit=5), await pending(engine, weeks=3, visit=9)
        first = early()
        engine.answers("create_in_erp", waiting(late()))
        await engine.send(engine.order("approve", 2), news=first)
        await engine.until_asked("create_in_erp")
        await engine.time_passes(2 * WEEK)
        await engine.handle.query("status")
        assert "deadline" not in engine.asked
        await engine.time_passes(2 * WEEK)
        await engine.until_asked("deadline")
        assert engine.calls[-1].visit == 9

    async def test_one_that_was_frozen_is_not_asked_for(self, engine: Engine):
        """A pause takes the instant away; a resume brings a later one."""
        news = await pending(engine, weeks=1)
        engine.answers("create_in_erp", waiting(news()))
        await engine.send(engine.order("approve", 2), news=news())
        await engine.until_asked("create_in_erp")
        await engine.send(engine.nudge("retry", "elsewhere"), news=engine.news(ACTIVATING, visit=5))
        await engine.time_passes(10 * WEEK)
        await engine.handle.query("status")
        assert "deadline" not in engine.asked
        again = await pending(engine, weeks=1)
        await engine.send(engine.nudge("retry", "elsewhere"), news=again())
        await engine.time_passes(2 * WEEK)
        await engine.until_asked("deadline")


class TestOfAStateAtRest:
    async def test_takes_a_transition_after_thirty_days(self, engine: Engine):
        due = (await engine.now() + 30 * DAY).isoformat()
        news = engine.news(situation("changes_requested"), deadline_at=due, visit=4)
        await engine.send(engine.order("open", 1, finished=True, story=False), news=news)
        await engine.time_passes(29 * DAY)
        await engine.handle.query("status")
        assert engine.asked == []
        engine.answers("deadline", engine.news(SITUATIONS["running"]))
        await engine.time_passes(2 * DAY)
        await engine.until_asked("deadline")
        await engine.send(engine.order("suspend", 3))
        await engine.until_asked("finish")
        assert engine.asked == ["deadline", "block_in_erp", "suspend_payee", "finish"]

    async def test_the_run_does_not_end_while_it_is_being_asked(self, engine: Engine):
        final = engine.news_at(90, situation("rejected"), final=True)
        asking = engine.gate("deadline", then=final)
        due = (await engine.now() + timedelta(seconds=1)).isoformat()
        news = engine.news(situation("in_review"), deadline_at=due, visit=4)
        handle = await engine.send(engine.order("open", 1, finished=True, story=False), news=news)
        await engine.until_asked("deadline")
        await engine.send(engine.order("reject", 3, finished=True, story=False), news=final)
        await handle.query("status")
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        asking.set()
        await asyncio.wait_for(handle.result(), WITHIN)

    async def test_an_outage_of_ours_delays_it_and_loses_nothing(self, engine: Engine):
        engine.answers("deadline", *[our_fault() for _ in range(3)])
        due = (await engine.now() + DAY).isoformat()
        news = engine.news(situation("in_review"), deadline_at=due, visit=4)
        await engine.send(engine.order("open", 1, finished=True, story=False), news=news)
        await engine.time_passes(2 * DAY)
        await engine.until_asked("deadline", 4, clock=timedelta(seconds=1))
