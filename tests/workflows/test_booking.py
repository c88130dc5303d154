"""The stories of booking, with their deadlines, and what a story does that takes back what was done before."""

from datetime import timedelta

import pytest

from caseward.messages import StepAnswer, TakeBackAnswer
from processes.booking import BOOKING, HOLD_LASTS
from tests.unit.test_policy import operation, situation
from tests.workflows.engine import Engine, our_fault

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


class TestStories:
    async def test_a_request_holds_side_by_side_then_takes_the_money_then_gives_the_voucher(self, booking: Engine):
        gates = [booking.gate(side) for side in ("hold_room", "hold_car")]
        await booking.send(booking.order("request", 2))
        for side in ("hold_room", "hold_car"):
            await booking.until_asked(side)
        assert booking.ended == []
        for gate in gates:
            gate.set()
        await booking.until_asked("finish")
        assert booking.asked[2:] == [
            "authorise_deposit",
            "capture_deposit",
            "issue_voucher",
            "send_confirmation",
            "finish",
        ]

    async def test_a_reschedule_has_the_new_days_before_it_gives_up_the_old_ones(self, booking: Engine):
        booking.answers("take back", booking.took_back("issue_voucher", "hold_car", "hold_room"))
        await booking.send(booking.order("reschedule", 4))
        await booking.until_asked("finish")
        assert set(booking.asked[:2]) == {"hold_room", "hold_car"}
        assert booking.asked[2:] == [
            "issue_voucher",
            "take back",
            "issue_voucher:undo",
            "hold_car:undo",
            "hold_room:undo",
            "send_new_days",
            "finish",
        ]
        told = next(call for call in booking.calls if getattr(call, "steps", None))
        assert (told.operation_id, told.fence, told.steps) == (
            "operation-4",
            4,
            ["issue_voucher", "hold_car", "hold_room"],
        )
        undone = [call.effect_key for call in booking.calls if getattr(call, "direction", None) == "undo"]
        assert undone == [
            "operation-1:issue_voucher:undo",
            "operation-1:hold_car:undo",
            "operation-1:hold_room:undo",
        ]

    async def test_a_cancel_refunds_last(self, booking: Engine):
        booking.answers("take back", booking.took_back("hold_car", "hold_room"))
        await booking.send(booking.order("cancel", 4))
        await booking.until_asked("finish")
        assert booking.asked == ["take back", "hold_car:undo", "hold_room:undo", "refund_deposit", "finish"]

    async def test_a_no_show_only_takes_back(self, booking: Engine):
        booking.answers("take back", booking.took_back("hold_car", "hold_room"))
        await booking.send(booking.order("no_show", 4))
        await booking.until_asked("finish")
        assert booking.asked == ["take back", "hold_car:undo", "hold_room:undo", "finish"]


class TestHoldExpiry:
    async def request(self, booking: Engine, *, step: str):
        """Requested, and this step's partner takes its time."""
        due = (await booking.now() + HOLD_LASTS).isoformat()

        async def waiting(_call) -> StepAnswer:
            news = booking.news(deadline_at=due, visit=3)
            return StepAnswer("waiting", version=news.version, news=news)

        booking.answers(step, waiting)
        news = booking.news(deadline_at=due, visit=3)
        await booking.send(booking.order("request", 2), news=news)
        await booking.until_asked(step)

    async def test_after_fifteen_minutes_what_was_done_is_undone(self, booking: Engine):
        await self.request(booking, step="capture_deposit")
        await booking.time_passes(14 * MINUTE)
        assert "deadline" not in booking.asked

        async def undoing(_call):
            return booking.news(situation("booking", BOOKING, operation=operation("undo", "override")))

        booking.answers("deadline", undoing)
        await booking.time_passes(2 * MINUTE)
        await booking.until_asked("deadline")
        owed = [
            booking.offset("capture_deposit", 2, settled=False),
            booking.offset("authorise_deposit", 2),
            booking.offset("hold_car", 2),
            booking.offset("hold_room", 2),
        ]
        await booking.send(booking.order("undo", 3, offsets=owed))
        await booking.until_asked("finish")
        # The bank may be at it: what became of the deposit comes out first, and then it is given back.
        assert booking.asked[-6:] == [
            "capture_deposit?",
            "capture_deposit:undo",
            "authorise_deposit:undo",
            "hold_car:undo",
            "hold_room:undo",
            "finish",
        ]
        assert "issue_voucher" not in booking.asked

    async def test_a_booking_that_is_confirmed_in_time_is_left_alone(self, booking: Engine):
        await self.request(booking, step="hold_room")
        await booking.send(booking.nudge("callback", "hold_room"))  # the hotel confirms
        await booking.until_asked("finish")
        await booking.time_passes(20 * MINUTE)
        await booking.handle.query("status")
        assert "deadline" not in booking.asked


class TestNoShow:
    async def test_a_guest_who_has_not_come_a_day_after_the_day_of_arrival_began(self, booking: Engine):
        due = (await booking.now() + 100 * DAY).isoformat()
        confirmed = situation("confirmed", BOOKING)
        await booking.send(
            booking.order("request", 2, finished=True), news=booking.news(confirmed, deadline_at=due, visit=8)
        )
        await booking.time_passes(99 * DAY)
        assert "deadline" not in booking.asked

        async def releasing(_call):
            return booking.news(situation("releasing", BOOKING, operation=operation("no_show")))

        booking.answers("deadline", releasing)
        await booking.time_passes(2 * DAY)
        await booking.until_asked("deadline")
        assert booking.calls[-1].visit == 8
        booking.answers("take back", booking.took_back("hold_car", "hold_room"))
        await booking.send(booking.order("no_show", 3))
        await booking.until_asked("finish")
        assert booking.asked[-4:] == ["take back", "hold_car:undo", "hold_room:undo", "finish"]


class TestTakingBack:
    async def test_of_nothing_goes_on_at_once(self, booking: Engine):
        await booking.send(booking.order("cancel", 2))
        await booking.until_asked("finish")
        assert booking.asked == ["take back", "refund_deposit", "finish"]

    async def test_waits_for_whoever_can_help_one_that_is_blocked(self, booking: Engine):
        booking.answers("take back", booking.took_back("hold_car", "hold_room"))
        booking.blocks("hold_car:undo")
        await booking.send(booking.order("cancel", 2))
        await booking.until_blocked("hold_car:undo")
        assert "hold_room:undo" not in booking.asked
        await booking.send(booking.nudge("retry", "hold_car:undo"))
        await booking.until_asked("finish")
        assert booking.asked[1:4] == ["hold_car:undo", "hold_car:undo", "hold_room:undo"]

    async def test_finds_out_first_what_nobody_knows(self, booking: Engine):
        unknown = [booking.offset("hold_room", 1, settled=False)]
        booking.answers("take back", TakeBackAnswer("offsets", 3, unknown, booking.news()))
        booking.answers("hold_room?", booking.left_out())
        await booking.send(booking.order("cancel", 2))
        await booking.until_asked("finish")
        assert booking.asked == ["take back", "hold_room?", "refund_deposit", "finish"]

    async def test_of_an_operation_that_was_superseded_does_not_begin(self, booking: Engine):
        booking.answers("take back", TakeBackAnswer("superseded", 3, [], booking.news()))
        await booking.send(booking.order("cancel", 2))
        await booking.until_asked("load")
        assert booking.asked[:2] == ["take back", "load"]

    async def test_goes_on_when_the_database_is_back(self, booking: Engine):
        booking.answers("take back", our_fault(), booking.took_back("hold_room"))
        await booking.send(booking.order("no_show", 2))
        await booking.until_asked("finish")
        assert booking.asked == ["take back", "take back", "hold_room:undo", "finish"]

    async def test_of_what_is_not_declared_blocks_for_engineering(
        self, booking: Engine, monkeypatch: pytest.MonkeyPatch
    ):
        cancel = BOOKING.transition("cancel")
        assert cancel is not None
        monkeypatch.setitem(cancel.__dict__, "undoes", cancel.undoes[:1])
        await booking.send(booking.order("cancel", 2))
        await booking.until_asked("block")
        assert booking.asked == ["block"]
        assert booking.calls[-1].message == "ValueError"
