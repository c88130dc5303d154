"""What the recovery suites must know of booking beside its declaration."""

from processes.booking import BOOKING
from tests.playbook import EXAMPLE_OF, Json, Playbook

EXAMPLE = EXAMPLE_OF(BOOKING)


def stay(name: str, **changes: object) -> Json:
    """A guest named as the case, so that a partner's fault can be aimed at it."""
    return {**EXAMPLE, "guest": {**EXAMPLE["guest"], "name": name}, **changes}


PLAYBOOK = Playbook(
    process=BOOKING,
    people={"agent": ("booking_agent",), "desk": ("front_desk",)},
    # The hotel has no room for the second, and the third's card is declined: both come back to the draft.
    subjects=(stay, lambda name: stay(name, room="Sold out"), lambda name: stay(name, card="tok_declined")),
    takes={
        "open": "agent",
        "request": "agent",
        "reschedule": "agent",
        "discard": "agent",
        "cancel": "agent",
        "check_in": "desk",
        "no_show": "desk",
        "complete": "desk",
    },
    inputs={"reschedule": lambda _case: {"arrival": "2031-05-10", "departure": "2031-05-12"}},
    onward={"draft": "request", "confirmed": "reschedule", "checked_in": "complete"},
    calls={
        "hold_room": "hold_room",
        "hold_room:undo": "release_room",
        "hold_car": "hold_car",
        "hold_car:undo": "release_car",
        "authorise_deposit": "authorise",
        "authorise_deposit:undo": "void",
        "capture_deposit": "capture",
        "capture_deposit:undo": "refund",
        "issue_voucher": "issue",
        "issue_voucher:undo": "withdraw",
        "refund_deposit": "refund",
        "send_confirmation": "send",
        "send_new_days": "send",
    },
    named_in=frozenset({"hold_room", "hold_car", "authorise", "capture", "refund", "issue", "send"}),
    answers_later=frozenset({"hotel", "bank"}),
    main="request",
    middle="capture_deposit",
    last="issue_voucher",
    supersedes="cancel",
    results={"refund_deposit": lambda answer: {"refund": answer["refund"], "minor_units": 12050}},
)
