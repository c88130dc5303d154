"""Booking: room and car are held, the deposit is taken and a voucher issued before the holds run out; or nothing is."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Self

from pydantic import ConfigDict, EmailStr, Field, model_validator

from caseward.process import (
    IMPOSSIBLE,
    NONE_NEEDED,
    SENIOR_OPERATOR,
    UNDO,
    Deadline,
    ForceCancel,
    Instant,
    Process,
    Role,
    State,
    Step,
    Strict,
    Take,
    Transition,
)
from processes.fields import Line, Money

AGENT, DESK = "booking_agent", "front_desk"
HOLD_LASTS = timedelta(
    minutes=15
)  # what hotel and car rental agreed to; without a voucher they give away what they hold
SOON = timedelta(minutes=2)  # for whoever answers later; all of them together fit into the hold
GRACE = timedelta(days=1)  # after the day of arrival began: whoever has not come by then does not come
# By the notice that the guest gives, how many per cent of the deposit go back.
REFUNDS = ((timedelta(days=14), 100), (timedelta(days=2), 50))


class Days(Strict):
    """From when until when."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"arrival": "2031-05-10", "departure": "2031-05-12"}]})

    arrival: date
    departure: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.departure <= self.arrival:
            message = "the departure must be after the arrival"
            raise ValueError(message)
        return self


class Guest(Strict):
    """Who comes."""

    name: Line
    email: EmailStr


class Booking(Days):
    """The booking as the agent takes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "guest": {"name": "Ada Berg", "email": "ada.berg@example.com"},
                    "room": "Harbour view, double",
                    "car": "Compact",
                    "arrival": "2031-05-03",
                    "departure": "2031-05-07",
                    "deposit": {"minor_units": 12050, "currency": "EUR"},
                    "card": "tok_visa_4242",
                }
            ]
        }
    )

    guest: Guest
    room: Line
    car: Line
    deposit: Money
    card: Annotated[
        str,
        Field(pattern="^tok_[A-Za-z0-9_]{1,60}$", description="The bank's token; numbers of cards never come here."),
    ]


def arrives(booking: Booking) -> datetime:
    """When the day of arrival begins."""
    return datetime.combine(booking.arrival, time(), UTC)


def refundable(booking: Booking, at: datetime) -> int:
    """How much of the deposit goes back to whom cancels then, in minor units; half of one is the guest's."""
    notice = arrives(booking) - at
    share = next((percent for least, percent in REFUNDS if notice >= least), 0)
    return (booking.deposit.minor_units * share + 50) // 100


class Held(Strict):
    """The number of a hold."""

    hold: str


class Authorised(Strict):
    """The bank's number of what the card keeps ready."""

    authorisation: str


class Captured(Strict):
    """The bank's number of what we took."""

    capture: str


class Voucher(Strict):
    """What the guest shows."""

    voucher: str


class Mailed(Strict):
    """The mail's id."""

    message_id: str


class Refunded(Strict):
    """The bank's number of what we gave back, and how much that was."""

    refund: str
    minor_units: int


HOLD_ROOM = Step(
    "hold_room",
    "Hold the room",
    partner="hotel",
    result=Held,
    undo="Give the room back",
    exhausted="undo",
    answer_within=SOON,
)
HOLD_CAR = Step(
    "hold_car",
    "Hold the car",
    partner="car_rental",
    result=Held,
    undo="Give the car back",
    exhausted="undo",
    answer_within=SOON,
)
AUTHORISE = Step(
    "authorise_deposit",
    "Authorise the deposit",
    partner="bank",
    result=Authorised,
    undo="Void the authorisation",
    owner="treasury",
    skip_roles=frozenset(),
    exhausted="undo",
    answer_within=SOON,
)
CAPTURE = Step(
    "capture_deposit",
    "Take the deposit",
    partner="bank",
    result=Captured,
    undo="Refund the deposit",
    owner="treasury",
    skip_roles=frozenset(),
    answer_within=SOON,
)
VOUCHER = Step(
    "issue_voucher",
    "Issue the voucher",
    partner="vouchers",
    result=Voucher,
    undo="Withdraw the voucher",
    answer_within=SOON,
)


def mail(name: str, title: str) -> Step[Mailed]:
    """The booking holds without it: a mail that nobody can send, or tell whether it went out, is left out."""
    return Step(name, title, partner="mail", result=Mailed, undo=NONE_NEEDED, exhausted="proceed")


CONFIRM = mail("send_confirmation", "Mail the guest")
NEW_DAYS = mail("send_new_days", "Mail the guest the new days")
REFUND = Step(
    "refund_deposit",
    "Refund what the terms allow",
    partner="bank",
    result=Refunded,
    undo=IMPOSSIBLE,
    owner="treasury",
    skip_roles=frozenset({SENIOR_OPERATOR}),
    answer_within=SOON,
)

BOOKING = Process(
    "booking",
    "Booking",
    subject=Booking,
    headline=lambda booking: f"{booking.guest.name}, {booking.room}, {booking.arrival:%d %b %Y}",
    owner="reservations",
    teams=frozenset({"reservations", "treasury"}),
    roles=(Role(AGENT, "Booking agent"), Role(DESK, "Front desk")),
    states=(
        State("draft", "Draft", "The booking is being put together; nothing is held yet.", waiting_on=AGENT),
        State(
            "booking",
            "Booking",
            "We are holding room and car and taking the deposit.",
            deadline=Deadline(after=HOLD_LASTS, then=UNDO),
        ),
        State(
            "confirmed",
            "Confirmed",
            "Room and car are booked. The guest is expected.",
            waiting_on=DESK,
            deadline=Deadline(
                after=GRACE, then=Take("no_show"), counted_from=Instant(of=arrives, words="the day of arrival")
            ),
        ),
        State(
            "rescheduling",
            "Rescheduling",
            "We are holding room and car for the new days; the old days stand until we have them.",
            deadline=Deadline(after=HOLD_LASTS, then=UNDO),
        ),
        State("cancelling", "Cancelling", "We are giving back room, car and what the terms allow of the deposit."),
        State("checked_in", "Checked in", "The guest is here.", waiting_on=DESK),
        State("releasing", "Releasing", "The guest did not come. We are giving back room and car."),
        State("completed", "Completed", "The guest has left.", final=True),
        State("cancelled", "Cancelled", "The booking was cancelled.", final=True),
        State("no_show", "No show", "The guest did not come; the deposit stays with us.", final=True),
    ),
    transitions=(
        Transition("open", "Draft a booking", to="draft", roles=frozenset({AGENT})),
        Transition(
            "request",
            "Request",
            source=frozenset({"draft"}),
            pending="booking",
            to="confirmed",
            roles=frozenset({AGENT}),
            steps=(HOLD_ROOM, HOLD_CAR, AUTHORISE, CAPTURE, VOUCHER, CONFIRM),
        ),
        Transition(
            "reschedule",
            "Reschedule",
            source=frozenset({"confirmed"}),
            pending="rescheduling",
            to="confirmed",
            roles=frozenset({AGENT}),
            steps=(HOLD_ROOM, HOLD_CAR, VOUCHER, NEW_DAYS),
            undoes=(HOLD_ROOM, HOLD_CAR, VOUCHER),
            input=Days,
            revise=lambda booking, days: booking.model_copy(update=dict(days)),
        ),
        Transition("discard", "Discard", source=frozenset({"draft"}), to="cancelled", roles=frozenset({AGENT})),
        Transition(
            "cancel",
            "Cancel",
            source=frozenset({"booking", "confirmed", "rescheduling"}),
            pending="cancelling",
            to="cancelled",
            roles=frozenset({AGENT}),
            steps=(REFUND,),
            undoes=(HOLD_ROOM, HOLD_CAR, VOUCHER),
        ),
        Transition("check_in", "Check in", source=frozenset({"confirmed"}), to="checked_in", roles=frozenset({DESK})),
        Transition(
            "no_show",
            "Did not come",
            source=frozenset({"confirmed"}),
            pending="releasing",
            to="no_show",
            roles=frozenset({DESK}),
            undoes=(HOLD_ROOM, HOLD_CAR),
        ),
        Transition("complete", "Check out", source=frozenset({"checked_in"}), to="completed", roles=frozenset({DESK})),
    ),
    force_cancel=ForceCancel(pending="cancelling", to="cancelled"),
)
