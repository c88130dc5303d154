"""Payment review: a flagged payment is held until it is released to the payee or returned to the sender, never both."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import ConfigDict, EmailStr, Field

from caseward.process import (
    NONE_NEEDED,
    Circumstance,
    Confirmation,
    Deadline,
    Escalate,
    ForceCancel,
    Process,
    Role,
    State,
    Step,
    Strict,
    Take,
    Transition,
)
from processes.fields import Iban, Line, Money

SERVICE, DESK = "payment_service", "customer_desk"
REVIEWER, SENIOR = "payment_reviewer", "senior_reviewer"
REVIEWERS = frozenset({REVIEWER, SENIOR})
REVIEW_WITHIN = timedelta(hours=4)  # what payers are promised; then the seniors are called
ANSWER_WITHIN = timedelta(days=3)  # then it is reviewed by what is known
REVIEW_FROM = 50  # of 100; below that score nobody has to look
# From these amounts on, in minor units, nobody decides alone; where a currency is missing, none is small.
LARGE_FROM = {"CHF": 1_000_000, "EUR": 1_000_000, "GBP": 1_000_000, "USD": 1_000_000}
Text = Annotated[str, Field(min_length=3, max_length=2000)]


class Party(Strict):
    """Who pays, or is paid."""

    name: Line
    account: Iban


class Payment(Strict):
    """The payment as the service flagged it. It keeps the money until it hears from us or from the bank."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sender": {"name": "Ada Berg", "account": "DE89370400440532013000"},
                    "sender_email": "ada.berg@example.com",
                    "payee": {"name": "Nordlys Trading AS", "account": "NO9386011117947"},
                    "amount": {"minor_units": 480000, "currency": "EUR"},
                    "flagged_for": "First payment to this payee, at night",
                }
            ]
        }
    )

    sender: Party
    sender_email: EmailStr
    payee: Party
    amount: Money
    flagged_for: Line
    information: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    """What the sender told us since."""


class Grounds(Strict):
    """Why; the report to the authority quotes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grounds": "The sender says that it was not them."}]})

    grounds: Text


class Question(Strict):
    """What the sender shall be asked."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"question": "Which goods is this payment for?"}]})

    question: Text


class Information(Strict):
    """What the sender answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"information": "Two nets and a winch, invoice 417."}]})

    information: Text


def is_large(payment: Payment) -> bool:
    """Nobody decides on it alone, and no score either."""
    return payment.amount.minor_units >= LARGE_FROM.get(payment.amount.currency, 0)


class Scored(Strict):
    """How risky it is, from 0 to 100."""

    score: Annotated[int, Field(ge=0, le=100)]


class Transferred(Strict):
    """The bank's number of a transfer."""

    transfer: str


class Filed(Strict):
    """The authority's number of our report."""

    report: str


class Told(Strict):
    """The mail system's receipt."""

    message_id: str


BY_A_REVIEWER = Confirmation(by=1, roles=REVIEWERS)  # what operators say by hand may let money go
BY_TWO = Confirmation(by=1, roles=REVIEWERS, when=Circumstance(of=is_large, words="large payments"))
SCORE = Step(
    "score_payment",
    "Have the risk scored",
    partner="scoring",
    result=Scored,
    undo=NONE_NEEDED,
    owner="risk",
    skip_confirmation=BY_A_REVIEWER,
)


def transfer(name: str, title: str, undo: str) -> Step[Transferred]:
    """Money on its way. Nobody leaves that out, and nobody says alone that they did it, or its recall, by hand."""
    by_hand: dict[str, Any] = {"skip_roles": frozenset(), "skip_confirmation": BY_A_REVIEWER}
    return Step(name, title, partner="bank", result=Transferred, undo=undo, owner="treasury", **by_hand)


RELEASE_HARMLESS = transfer("release_harmless", "Release what is harmless", "Recall the release")
RELEASE = transfer("release_funds", "Release the funds to the payee", "Recall the release")
RETURN = transfer("return_funds", "Return the funds to the sender", "Recall the return")
REPORT = Step(
    "file_report",
    "Report it to the authority",
    partner="reporting",
    result=Filed,
    undo="Withdraw the report",
    owner="compliance",
    skip_roles=frozenset(),
)
TELL = Step("tell_sender", "Tell the sender", partner="mail", result=Told, undo=NONE_NEEDED)

PAYMENT_REVIEW = Process(
    "payment_review",
    "Payment review",
    subject=Payment,
    headline=lambda payment: f"{payment.sender.name} to {payment.payee.name}",
    owner="payments_desk",
    teams=frozenset({"payments_desk", "risk", "treasury", "compliance"}),
    roles=(
        Role(SERVICE, "Payment service"),
        Role(DESK, "Customer desk"),
        Role(REVIEWER, "Payment reviewer"),
        Role(SENIOR, "Senior reviewer"),
    ),
    states=(
        State("scoring", "Scoring", "The risk is being scored; what is harmless goes to the payee at once."),
        State(
            "in_review",
            "In review",
            "The money waits with us. A reviewer decides.",
            waiting_on=REVIEWER,
            claimable_by=REVIEWERS,
            deadline=Deadline(after=REVIEW_WITHIN, then=Escalate(SENIOR)),
        ),
        State(
            "awaiting_information",
            "Awaiting information",
            "The money waits with us. We have asked the sender something.",
            waiting_on=DESK,
            deadline=Deadline(after=ANSWER_WITHIN, then=Take("review_anyway")),
        ),
        State("releasing", "Releasing", "Approved. The bank is sending the money to the payee."),
        State("returning", "Returning", "Rejected. The bank is sending the money back, and the authority hears of it."),
        State("reopening", "Reopening", "Disputed. We are getting the money back before anybody decides anew."),
        State("withdrawing", "Withdrawing", "We are taking back what was done so far."),
        State("released", "Released", "The payee has the money.", final=True),
        State("returned", "Returned", "The sender has the money back.", final=True),
        State("withdrawn", "Withdrawn", "The service took the payment back; nobody got money from us.", final=True),
    ),
    transitions=(
        Transition(
            "open",
            "Flag",
            pending="scoring",
            to=("in_review", "released"),
            undone="in_review",  # whatever was decided without people, people decide then
            roles=frozenset({SERVICE}),
            steps=(SCORE, RELEASE_HARMLESS),
        ),
        Transition(
            "approve",
            "Approve",
            source=frozenset({"in_review"}),
            pending="releasing",
            to="released",
            roles=REVIEWERS,
            steps=(RELEASE,),
            confirmation=BY_TWO,
        ),
        Transition(
            "reject",
            "Reject",
            source=frozenset({"in_review", "releasing"}),  # from `releasing` it stops the release, or recalls it first
            pending="returning",
            to="returned",
            roles=REVIEWERS,
            steps=(RETURN, REPORT, TELL),
            input=Grounds,
            confirmation=BY_TWO,
        ),
        Transition(
            "request_information",
            "Request information",
            source=frozenset({"in_review"}),
            to="awaiting_information",
            roles=REVIEWERS,
            input=Question,
        ),
        Transition(
            "provide_information",
            "Provide information",
            source=frozenset({"awaiting_information"}),
            to="in_review",
            roles=frozenset({DESK}),
            input=Information,
            revise=lambda payment, given: payment.model_copy(
                update={"information": (*payment.information, given.information)}
            ),
        ),
        Transition(
            "review_anyway",
            "Review without it",
            source=frozenset({"awaiting_information"}),
            to="in_review",
            roles=REVIEWERS,
        ),
        Transition(
            "reopen",
            "Reopen after a dispute",
            source=frozenset({"released", "returned"}),
            pending="reopening",
            to="in_review",
            roles=frozenset({SENIOR}),
            undoes=(RELEASE_HARMLESS, RELEASE, RETURN, REPORT),
            input=Grounds,
        ),
        Transition(
            "withdraw",
            "Withdraw the payment",
            source=frozenset({"scoring", "in_review", "awaiting_information"}),
            pending="withdrawing",
            to="withdrawn",
            roles=frozenset({SERVICE}),
        ),
    ),
    force_cancel=ForceCancel(pending="withdrawing", to="withdrawn"),
)
