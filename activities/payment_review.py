"""The steps of payment review: each a pure function of its call around one send."""

from typing import Any

from caseward.activity import Call, NotNeeded, effect, undo
from caseward.errors import PartnerFailed
from caseward.process import Step
from partners import Partners
from processes.payment_review import (
    RELEASE,
    RELEASE_HARMLESS,
    REPORT,
    RETURN,
    REVIEW_FROM,
    SCORE,
    TELL,
    Filed,
    Payment,
    Scored,
    Told,
    Transferred,
    is_large,
)

RELEASES = (RELEASE_HARMLESS, RELEASE)
PEOPLE_DECIDE = NotNeeded("people decide on it")
THERE_ALREADY = NotNeeded("the money is there already: nobody got it back")


class PaymentReviewSteps:
    """Payment review's side of each partner."""

    def __init__(self, partners: Partners) -> None:
        self.scoring = partners.scoring
        self.bank = partners.bank
        self.reporting = partners.reporting
        self.mail = partners.mail

    @effect(SCORE)
    async def score_payment(self, call: Call[Payment]) -> Scored:
        """By what the service knows of both sides."""
        payment = call.subject
        scored = await call.send(
            self.scoring.score,
            payment=call.business_key,
            payee=payment.payee.name,
            account=payment.payee.account,
            **_amount(payment),
        )
        return Scored(score=scored.score)

    @effect(RELEASE_HARMLESS)
    async def release_harmless(self, call: Call[Payment]) -> Transferred | NotNeeded:
        """Nothing large, nothing risky, and nothing that nobody scored."""
        scored = call.standing(SCORE)
        if scored is None or scored.score >= REVIEW_FROM or is_large(call.subject):
            return PEOPLE_DECIDE
        return await self._release(call)

    @undo(RELEASE_HARMLESS)
    async def recall_harmless(self, call: Call[Payment], released: Transferred) -> None:
        """The money is with us again."""
        await call.send(self.bank.recall, transfer=released.transfer)

    @effect(RELEASE)
    async def release_funds(self, call: Call[Payment]) -> Transferred | NotNeeded:
        """A reviewer said so."""
        return THERE_ALREADY if _out(call, *RELEASES) else await self._release(call)

    @undo(RELEASE)
    async def recall_release(self, call: Call[Payment], released: Transferred) -> None:
        """The money is with us again."""
        await call.send(self.bank.recall, transfer=released.transfer)

    async def _release(self, call: Call[Payment]) -> Transferred:
        _keep_to_one_side(_out(call, RETURN))
        payment = call.subject
        sent = await call.send(
            self.bank.release_funds, payment=call.business_key, account=payment.payee.account, **_amount(payment)
        )
        return Transferred(transfer=sent.transfer)

    @effect(RETURN)
    async def return_funds(self, call: Call[Payment]) -> Transferred | NotNeeded:
        """To the account that it came from."""
        if _out(call, RETURN):
            return THERE_ALREADY
        _keep_to_one_side(_out(call, *RELEASES))
        payment = call.subject
        sent = await call.send(
            self.bank.return_funds, payment=call.business_key, account=payment.sender.account, **_amount(payment)
        )
        return Transferred(transfer=sent.transfer)

    @undo(RETURN)
    async def recall_return(self, call: Call[Payment], returned: Transferred) -> None:
        """The money is with us again."""
        await call.send(self.bank.recall, transfer=returned.transfer)

    @effect(REPORT)
    async def file_report(self, call: Call[Payment]) -> Filed:
        """The authority wants both sides, and why it was flagged."""
        payment = call.subject
        filed = await call.send(
            self.reporting.file,
            payment=call.business_key,
            sender=payment.sender.name,
            payee=payment.payee.name,
            suspicion=payment.flagged_for,
            **_amount(payment),
        )
        return Filed(report=filed.report)

    @undo(REPORT)
    async def withdraw_report(self, call: Call[Payment], filed: Filed) -> None:
        """It stays on file there, as withdrawn."""
        await call.send(self.reporting.withdraw, report=filed.report)

    @effect(TELL)
    async def tell_sender(self, call: Call[Payment]) -> Told:
        """Only that the money is back: of a report nobody may be told."""
        mailed = await call.send(
            self.mail.send,
            to=[call.subject.sender_email],
            template="payment_returned",
            values={"payment": call.business_key},
        )
        return Told(message_id=mailed.message_id)


def _amount(payment: Payment) -> dict[str, Any]:
    return payment.amount.model_dump()


def _out(call: Call[Payment], *ways: Step[Transferred]) -> Transferred | None:
    """A transfer of the money that was not recalled."""
    return next((gone for step in ways if (gone := call.standing(step))), None)


def _keep_to_one_side(gone: Transferred | None) -> None:
    """Where somebody left a recall out, the other side gets nothing before treasury has the money back."""
    if gone is not None:
        raise PartnerFailed("rejected", "money_is_out", f"Transfer {gone.transfer} was never recalled.")
