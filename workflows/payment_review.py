"""The stories of payment review."""

from caseward.workflow.case import CaseWorkflow, stories_of
from processes.payment_review import PAYMENT_REVIEW, RELEASE, RELEASE_HARMLESS, REPORT, RETURN, SCORE, TELL


@stories_of(PAYMENT_REVIEW)
class PaymentReviews(CaseWorkflow):
    """From a flag to money in the right hands."""

    async def open(self) -> str:
        """What is harmless needs nobody."""
        await self.step(SCORE)
        return "released" if await self.step(RELEASE_HARMLESS) else "in_review"

    async def approve(self) -> None:
        """The payee gets it."""
        await self.step(RELEASE)

    async def reject(self) -> None:
        """The sender has it back before anybody hears of it."""
        await self.step(RETURN)
        await self.step(REPORT)
        await self.step(TELL)

    async def reopen(self) -> None:
        """Whoever decides anew decides over money that is with us."""
        await self.undo(REPORT, RETURN, RELEASE, RELEASE_HARMLESS)
