"""The stories of payment review: what goes without people, and that nothing is returned before it was recalled."""

from datetime import timedelta

from caseward.messages import StepAnswer
from processes.payment_review import ANSWER_WITHIN, PAYMENT_REVIEW, REVIEW_WITHIN
from tests.unit.test_policy import situation
from tests.workflows.engine import Engine

MINUTE = timedelta(minutes=1)


class TestStories:
    async def test_what_the_score_lets_go_is_released(self, review: Engine):
        await review.send(review.order("open", 1))
        await review.until_asked("finish")
        assert review.asked == ["score_payment", "release_harmless", "finish"]
        assert review.calls[-1].to_state == "released"

    async def test_what_it_does_not_is_reviewed(self, review: Engine):
        review.answers("release_harmless", review.left_out())
        await review.send(review.order("open", 1))
        await review.until_asked("finish")
        assert review.calls[-1].to_state == "in_review"

    async def test_a_reject_returns_then_reports_then_tells(self, review: Engine):
        await review.send(review.order("reject", 2))
        await review.until_asked("finish")
        assert review.asked == ["return_funds", "file_report", "tell_sender", "finish"]

    async def test_a_reject_over_a_release_recalls_it_first(self, review: Engine):
        """The bank was at it: what became of the release comes out, and only when it is back the money is returned."""
        await review.send(review.order("reject", 3, offsets=[review.offset("release_funds", 2, settled=False)]))
        await review.until_asked("finish")
        assert review.asked[:3] == ["release_funds?", "release_funds:undo", "return_funds"]

    async def test_a_recall_that_is_refused_keeps_the_money_from_being_returned(self, review: Engine):
        review.blocks("release_funds:undo")
        await review.send(review.order("reject", 3, offsets=[review.offset("release_funds", 2)]))
        await review.until_blocked("release_funds:undo")
        assert "return_funds" not in review.asked
        await review.send(review.nudge("retry", "release_funds:undo", fence=3))
        await review.until_asked("finish")
        assert review.asked[1:3] == ["release_funds:undo", "return_funds"]

    async def test_a_reopening_takes_everything_back(self, review: Engine):
        review.answers("take back", review.took_back("file_report", "return_funds"))
        await review.send(review.order("reopen", 4))
        await review.until_asked("finish")
        assert review.asked == ["take back", "file_report:undo", "return_funds:undo", "finish"]


class TestDeadlines:
    async def rest(self, review: Engine, state: str, after: timedelta):
        due = (await review.now() + after).isoformat()
        news = review.news(situation(state, PAYMENT_REVIEW), deadline_at=due, visit=8)
        await review.send(review.order("open", 1, finished=True), news=news)

    async def test_a_review_that_nobody_makes_calls_the_seniors_after_four_hours(self, review: Engine):
        await self.rest(review, "in_review", REVIEW_WITHIN)
        await review.time_passes(REVIEW_WITHIN - MINUTE)
        assert "deadline" not in review.asked
        await review.time_passes(2 * MINUTE)
        await review.until_asked("deadline")
        assert review.calls[-1].visit == 8

    async def test_an_answer_that_never_comes_is_not_waited_for_longer_than_three_days(self, review: Engine):
        await self.rest(review, "awaiting_information", ANSWER_WITHIN)
        await review.time_passes(ANSWER_WITHIN - MINUTE)
        assert "deadline" not in review.asked
        await review.time_passes(2 * MINUTE)
        await review.until_asked("deadline")


async def test_a_bank_that_takes_its_time_holds_up_what_comes_after(review: Engine):
    async def waiting(_call) -> StepAnswer:
        return review.answer("waiting")

    review.answers("return_funds", waiting)
    await review.send(review.order("reject", 2))
    await review.until_asked("return_funds")
    await review.send(review.nudge("callback", "return_funds"))
    await review.until_asked("finish")
    assert review.asked == ["return_funds", "return_funds", "file_report", "tell_sender", "finish"]
