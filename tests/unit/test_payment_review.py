"""Payment review's rules: who may do what, which payments need two, and that no body sends money that is out."""

# ruff: noqa: E501 - the table is read across

from typing import Any

import pytest
from pydantic import ValidationError

from activities.payment_review import PEOPLE_DECIDE, THERE_ALREADY, PaymentReviewSteps
from caseward.errors import PartnerFailed
from caseward.policy import Action, decide
from processes.payment_review import (
    PAYMENT_REVIEW,
    Filed,
    Information,
    Payment,
    Scored,
    Told,
    Transferred,
    is_large,
)
from tests.unit.nowhere import nowhere
from tests.unit.test_policy import operation, person, situation, table

EXAMPLE = Payment.model_config["json_schema_extra"]["examples"][0]
LETTERS = {
    "p": "payment_service",
    "d": "customer_desk",
    "r": "payment_reviewer",
    "s": "senior_reviewer",
    "o": "operator",
}

# Who may take which transition in which state. In pending states (marked *) work is under way.
TRANSITIONS = """
                     *scoring  in_review  awaiting_information  *releasing  *returning  *reopening  *withdrawing  released  returned  withdrawn
approve              .         rs         .                     .           .           .           .             .         .         .
reject               .         rs         .                     rs          .           .           .             .         .         .
request_information  .         rs         .                     .           .           .           .             .         .         .
provide_information  .         .          d                     .           .           .           .             .         .         .
review_anyway        .         .          rs                    .           .           .           .             .         .         .
reopen               .         .          .                     .           .           .           .             s         s         .
withdraw             p         p          p                     .           .           .           .             .         .         .
"""


def payment(**changes: Any) -> Payment:
    return Payment.model_validate({**EXAMPLE, **changes})


def of(minor_units: int, currency: str = "EUR") -> Payment:
    return payment(amount={"minor_units": minor_units, "currency": currency})


def test_who_may_do_what():
    states, rows = table(TRANSITIONS)
    for name, cells in rows.items():
        for marked, cell in zip(states, cells, strict=True):
            state = marked.removeprefix("*")
            doing = operation("approve") if marked != state else None
            now = situation(state, PAYMENT_REVIEW, operation=doing, subject=payment())
            may = {
                letter
                for letter, role in LETTERS.items()
                if decide(now, person(role), Action("transition", name)).allowed
            }
            assert may == set(cell.replace(".", "")), f"{name} in {state}"


@pytest.mark.parametrize(
    ("minor_units", "currency", "large"),
    [
        (999_999, "EUR", False),
        (1_000_000, "EUR", True),
        (1_000_000, "USD", True),
        (1, "JPY", True),  # whoever wants small ones there has to say what that is
    ],
)
def test_nobody_decides_alone_on_a_large_payment(minor_units, currency, large):
    subject = of(minor_units, currency)
    assert is_large(subject) is large
    for name in ("approve", "reject"):
        decision = decide(
            situation("in_review", PAYMENT_REVIEW, subject=subject),
            person("payment_reviewer"),
            Action("transition", name),
        )
        assert (decision.allowed, decision.further) == (True, int(large))


class TestSubject:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"amount": {"minor_units": 0, "currency": "EUR"}},
            {"amount": {"minor_units": 10.5, "currency": "EUR"}},
            {"payee": {"name": "X", "account": "NO9386011117948"}},
            {"sender_email": "nobody"},
            {"state": "released"},
            {"information": ["?"]},
        ],
    )
    def test_what_is_no_payment_is_refused(self, wrong):
        with pytest.raises(ValidationError):
            payment(**wrong)

    def test_what_the_sender_tells_is_added(self):
        revise = PAYMENT_REVIEW.transition("provide_information").revise
        once = revise(payment(), Information(information="Two nets."))
        twice = revise(once, Information(information="And a winch."))
        assert twice == payment(information=("Two nets.", "And a winch."))

    def test_is_told_by_both_sides(self):
        assert PAYMENT_REVIEW.headline(payment()) == "Ada Berg to Nordlys Trading AS"


class Asked:
    """A call whose partner answers as the test says; it remembers what was asked of whom."""

    def __init__(self, answer: dict[str, Any] | None = None, subject: Payment | None = None, **standing: Any) -> None:
        self.subject, self.business_key = subject or payment(), "PR-17"
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._answer, self._standing = answer or {}, standing

    def standing(self, step: Any) -> Any:
        return self._standing.get(step.name)

    async def send(self, method: Any, **arguments: Any) -> Any:
        self.sent.append((method.__name__, arguments))
        return type("Answer", (), self._answer)


SENT = {"transfer": "TR-2"}
OUT = Transferred(transfer="TR-1")


class TestSteps:
    @pytest.fixture
    def steps(self) -> PaymentReviewSteps:
        return PaymentReviewSteps(nowhere())

    @pytest.mark.parametrize(
        ("score", "subject", "goes"),
        [
            (Scored(score=49), payment(), True),
            (Scored(score=50), payment(), False),
            (Scored(score=0), of(1_000_000), False),  # also where somebody said by hand that it is harmless
            (None, payment(), False),
        ],
    )
    async def test_only_what_is_scored_harmless_and_small_goes_without_anybody(self, steps, score, subject, goes):
        call = Asked(SENT, subject, score_payment=score)
        done = await steps.release_harmless(call)
        assert done == (Transferred(transfer="TR-2") if goes else PEOPLE_DECIDE)
        assert [name for name, _ in call.sent] == (["release_funds"] if goes else [])

    async def test_released_is_to_the_payee_and_returned_to_the_sender(self, steps):
        amount = {"minor_units": 480000, "currency": "EUR"}
        released, returned = Asked(SENT), Asked(SENT)
        assert await steps.release_funds(released) == await steps.return_funds(returned) == Transferred(transfer="TR-2")
        assert released.sent == [("release_funds", {"payment": "PR-17", "account": "NO9386011117947", **amount})]
        assert returned.sent == [("return_funds", {"payment": "PR-17", "account": "DE89370400440532013000", **amount})]

    @pytest.mark.parametrize(
        ("body", "out"),
        [
            ("release_harmless", "return_funds"),
            ("release_funds", "return_funds"),
            ("return_funds", "release_funds"),
            ("return_funds", "release_harmless"),
        ],
    )
    async def test_money_that_is_out_goes_to_no_other_side(self, steps, body, out):
        call = Asked(SENT, score_payment=Scored(score=1), **{out: OUT})
        with pytest.raises(PartnerFailed) as refused:
            await getattr(steps, body)(call)
        assert (refused.value.error_class, refused.value.code) == ("rejected", "money_is_out")
        assert call.sent == []

    @pytest.mark.parametrize(
        ("body", "out"),
        [
            ("release_funds", "release_funds"),
            ("release_funds", "release_harmless"),
            ("return_funds", "return_funds"),
        ],
    )
    async def test_money_that_is_there_is_not_sent_again(self, steps, body, out):
        call = Asked(SENT, **{out: OUT})
        assert await getattr(steps, body)(call) is THERE_ALREADY
        assert call.sent == []

    @pytest.mark.parametrize("body", ["recall_harmless", "recall_release", "recall_return"])
    async def test_what_is_recalled_is_that_very_transfer(self, steps, body):
        call = Asked()
        await getattr(steps, body)(call, OUT)
        assert call.sent == [("recall", {"transfer": "TR-1"})]

    async def test_a_report_says_why(self, steps):
        call = Asked({"report": "SR-1"})
        assert await steps.file_report(call) == Filed(report="SR-1")
        assert call.sent[0][1]["suspicion"] == EXAMPLE["flagged_for"]

    async def test_a_report_is_withdrawn_by_its_number(self, steps):
        call = Asked()
        await steps.withdraw_report(call, Filed(report="SR-1"))
        assert call.sent == [("withdraw", {"report": "SR-1"})]

    async def test_the_sender_hears_of_the_money_and_nothing_of_the_report(self, steps):
        call = Asked({"message_id": "M-1"})
        assert await steps.tell_sender(call) == Told(message_id="M-1")
        assert "suspicion" not in str(call.sent)
        assert "report" not in str(call.sent)

    async def test_a_score_is_asked_for_by_the_payment(self, steps):
        call = Asked({"score": 81})
        assert await steps.score_payment(call) == Scored(score=81)
        assert call.sent[0][1]["payment"] == "PR-17"
