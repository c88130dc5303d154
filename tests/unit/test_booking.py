"""Booking's rules: what goes back to whom cancels, who may do what, and what each step asks of its partner."""

# ruff: noqa: E501 - the table is read across

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from activities.booking import NO_DEPOSIT, TOO_LATE, BookingSteps
from caseward.policy import Action, decide
from processes.booking import BOOKING, GRACE, Authorised, Booking, Captured, Days, Held, Refunded, refundable
from processes.fields import Money
from tests.unit.nowhere import nowhere
from tests.unit.test_policy import operation, person, situation, table

EXAMPLE = Booking.model_config["json_schema_extra"]["examples"][0]
ARRIVAL = datetime(2031, 5, 3, tzinfo=UTC)
LETTERS = {"a": "booking_agent", "d": "front_desk", "o": "operator", "s": "senior_operator"}

# Who may take which transition in which state: a agent, d front desk. In pending states (marked *) work is under way.
TRANSITIONS = """
            draft  *booking  confirmed  *rescheduling  *cancelling  checked_in  *releasing  completed  cancelled  no_show
request     a      .         .          .              .            .           .           .          .          .
reschedule  .      .         a          .              .            .           .           .          .          .
discard     a      .         .          .              .            .           .           .          .          .
cancel      .      a         a          a              .            .           .           .          .          .
check_in    .      .         d          .              .            .           .           .          .          .
no_show     .      .         d          .              .            .           .           .          .          .
complete    .      .         .          .              .            d           .           .          .          .
"""


def booking(**changes: Any) -> Booking:
    return Booking.model_validate({**EXAMPLE, **changes})


@pytest.mark.parametrize(
    ("notice", "share"),
    [
        (timedelta(days=200), 12051),
        (timedelta(days=14), 12051),
        (timedelta(days=14) - timedelta(seconds=1), 6026),  # half of an odd amount: the guest's
        (timedelta(days=2), 6026),
        (timedelta(days=2) - timedelta(seconds=1), 0),
        (timedelta(0), 0),
        (timedelta(days=-3), 0),
    ],
)
def test_what_goes_back_depends_on_the_notice_given(notice, share):
    odd = booking(deposit={"minor_units": 12051, "currency": "EUR"})
    assert refundable(odd, ARRIVAL - notice) == share


def test_who_may_do_what():
    states, rows = table(TRANSITIONS)
    for name, cells in rows.items():
        for marked, cell in zip(states, cells, strict=True):
            state = marked.removeprefix("*")
            doing = operation("request") if marked != state else None
            now = situation(state, BOOKING, operation=doing)
            may = {
                letter
                for letter, role in LETTERS.items()
                if decide(now, person(role), Action("transition", name)).allowed
            }
            assert may == set(cell.replace(".", "")), f"{name} in {state}"


class TestSubject:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"departure": "2031-05-03"},
            {"departure": "2031-05-01"},
            {"card": "4242 4242 4242 4242"},
            {"deposit": {"minor_units": 0, "currency": "EUR"}},
            {"deposit": {"minor_units": 10.5, "currency": "EUR"}},
            {"deposit": {"minor_units": 100, "currency": "EURO"}},
            {"guest": {"name": "Ada", "email": "nobody"}},
            {"state": "confirmed"},
        ],
    )
    def test_what_is_no_booking_is_refused(self, wrong):
        with pytest.raises(ValidationError):
            booking(**wrong)

    def test_is_told_by_guest_room_and_day(self):
        assert BOOKING.headline(booking()) == "Ada Berg, Harbour view, double, 03 May 2031"

    def test_new_days_change_nothing_else(self):
        revise = BOOKING.transition("reschedule").revise
        moved = revise(booking(), Days(arrival=date(2031, 6, 1), departure=date(2031, 6, 4)))
        assert moved == booking(arrival="2031-06-01", departure="2031-06-04")

    def test_the_guest_is_waited_for_until_the_day_after_arrival_began(self):
        deadline = BOOKING.state("confirmed").deadline
        assert deadline.counted_from.of(booking()) + deadline.after == ARRIVAL + GRACE


class Asked:
    """A call whose partner answers as the test says; it remembers what was asked of whom."""

    def __init__(self, answer: dict[str, str] | None = None, **standing: Any) -> None:
        self.subject, self.business_key = booking(), "BK-17"
        self.accepted_at = ARRIVAL - timedelta(days=3)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._answer, self._standing = answer or {}, standing

    def standing(self, step: Any) -> Any:
        return self._standing.get(step.name)

    async def send(self, method: Any, **arguments: Any) -> Any:
        self.sent.append((method.__name__, arguments))
        return type("Answer", (), self._answer)


class TestSteps:
    @pytest.fixture
    def steps(self) -> BookingSteps:
        return BookingSteps(nowhere())

    async def test_a_hold_ends_when_the_request_has_had_its_time(self, steps):
        call = Asked({"hold": "RM-1"})
        assert await steps.hold_room(call) == Held(hold="RM-1")
        assert call.sent == [
            (
                "hold",
                {
                    "room": "Harbour view, double",
                    "guest": "Ada Berg",
                    "arrival": "2031-05-03",
                    "departure": "2031-05-07",
                    "until": "2031-04-30T00:15:00+00:00",
                },
            )
        ]

    async def test_the_deposit_is_taken_from_what_was_authorised(self, steps):
        call = Asked({"capture": "CA-1"}, authorise_deposit=Authorised(authorisation="AU-1"))
        assert await steps.capture_deposit(call) == Captured(capture="CA-1")
        [(_, arguments)] = call.sent
        assert (arguments["authorisation"], arguments["minor_units"], arguments["currency"]) == ("AU-1", 12050, "EUR")

    async def test_nothing_is_taken_where_nothing_was_authorised(self, steps):
        call = Asked()
        assert (await steps.capture_deposit(call)).reason == "nothing was authorised"
        assert call.sent == []

    async def test_the_voucher_names_the_newest_holds(self, steps):
        call = Asked({"voucher": "VC-1"}, hold_room=Held(hold="RM-2"), hold_car=Held(hold="CR-2"))
        await steps.issue_voucher(call)
        assert call.sent == [("issue", {"guest": "Ada Berg", "room": "RM-2", "car": "CR-2"})]

    async def test_a_cancel_gives_back_what_the_terms_say(self, steps):
        call = Asked({"refund": "RF-1"}, capture_deposit=Captured(capture="CA-1"))
        assert await steps.refund_by_notice(call) == Refunded(refund="RF-1", minor_units=6025)
        assert call.sent[0][1]["minor_units"] == 6025

    async def test_a_cancel_at_short_notice_gives_back_nothing(self, steps):
        call = Asked(capture_deposit=Captured(capture="CA-1"))
        call.accepted_at = ARRIVAL
        assert await steps.refund_by_notice(call) is TOO_LATE
        assert call.sent == []

    async def test_where_no_deposit_stands_nothing_is_given_back(self, steps):
        call = Asked()
        assert await steps.refund_by_notice(call) is NO_DEPOSIT
        assert call.sent == []

    @pytest.mark.parametrize(("refunded", "rest"), [(0, 12050), (6025, 6025), (12050, None)])
    async def test_never_more_goes_back_than_was_taken(self, steps, refunded, rest):
        before = Refunded(refund="RF-1", minor_units=refunded) if refunded else None
        call = Asked({"refund": "RF-2"}, refund_deposit=before)
        await steps.refund_all(call, Captured(capture="CA-1"))
        assert [arguments["minor_units"] for _, arguments in call.sent] == ([] if rest is None else [rest])


def test_money_has_its_currency():
    assert booking().deposit == Money(minor_units=12050, currency="EUR")
