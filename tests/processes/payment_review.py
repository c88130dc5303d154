"""What the recovery suites must know of payment review beside its declaration."""

from collections.abc import Iterator, Sequence

from processes.payment_review import PAYMENT_REVIEW
from tests.playbook import EXAMPLE_OF, Json, Playbook

EXAMPLE = EXAMPLE_OF(PAYMENT_REVIEW)
GROUNDS: Json = {"grounds": "The sender says that it was not them."}


def payment(name: str, payee: str = "", minor_units: int = 480000) -> Json:
    """A payment whose payee is named as the case, so that a partner's fault can be aimed at it."""
    amount = {"minor_units": minor_units, "currency": "EUR"}
    return {**EXAMPLE, "payee": {**EXAMPLE["payee"], "name": f"{payee}{name}"}, "amount": amount}


def money_is_out_once(ledger: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Never both released and returned, nor either of them twice: a transfer is recalled before the next one."""
    out: dict[str, str] = {}
    of: dict[str, str] = {}
    # Only what a partner outside did has a number, and offices of our own move no money.
    moved = [done for done in ledger if done["call"] in {"release_funds", "return_funds", "recall"}]
    for done in sorted(moved, key=lambda done: done["number"]):
        if done["call"] != "recall":
            payment, transfer = done["request"]["payment"], done["answer"]["transfer"]
            if payment in out:
                yield done["key"], f"{done['call']} of {payment} while {out[payment]} was out"
            out[payment], of[transfer] = f"{done['call']} {done['key']}", payment
        else:
            out.pop(of.get(done["request"]["transfer"], ""), None)


PLAYBOOK = Playbook(
    process=PAYMENT_REVIEW,
    people={
        "service": ("payment_service",),
        "desk": ("customer_desk",),
        "reviewer": ("payment_reviewer",),
        "senior": ("senior_reviewer",),
    },
    # The second is released without anybody; nobody decides on the third alone.
    subjects=(payment, lambda name: payment(name, "Well known "), lambda name: payment(name, minor_units=1_500_000)),
    takes={
        "open": "service",
        "approve": "reviewer",
        "reject": "reviewer",
        "request_information": "reviewer",
        "provide_information": "desk",
        "review_anyway": "reviewer",
        "reopen": "senior",
        "withdraw": "service",
    },
    inputs={
        "reject": lambda _case: GROUNDS,
        "reopen": lambda _case: GROUNDS,
        "request_information": lambda _case: {"question": "Which goods is this payment for?"},
        "provide_information": lambda _case: {"information": "Two nets and a winch."},
    },
    onward={
        "in_review": "approve",
        "awaiting_information": "provide_information",
        "released": "reopen",
        "returned": "reopen",
    },
    calls={
        "score_payment": "score",
        "release_harmless": "release_funds",
        "release_harmless:undo": "recall",
        "release_funds": "release_funds",
        "release_funds:undo": "recall",
        "return_funds": "return_funds",
        "return_funds:undo": "recall",
        "file_report": "file",
        "file_report:undo": "withdraw",
        "tell_sender": "send",
    },
    named_in=frozenset({"score", "release_funds", "return_funds", "file", "send"}),
    answers_later=frozenset({"bank"}),
    main="reject",
    middle="file_report",
    last="tell_sender",
    by_hand={"score_payment": {"score": 81}},
    confirmer="senior",
    promise=money_is_out_once,
)
