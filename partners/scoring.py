"""The scoring service: how risky a payment is. The same key again is the same score."""

from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway

DEADLINE = timedelta(seconds=5)


class RiskScored(Answer):
    """From 0, harmless, to 100."""

    score: Annotated[int, Field(ge=0, le=100, strict=True)]


class Scoring(HttpGateway):
    """Idempotent."""

    name = "scoring"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("score", deadline=DEADLINE, idempotent=True)
    async def score(
        self, sending: Sending, *, payment: str, payee: str, account: str, minor_units: int, currency: str
    ) -> RiskScored:
        """Score a payment."""
        content = {"payment": payment, "payee": payee, "account": account}
        content |= {"minor_units": minor_units, "currency": currency}
        return await self._post(sending, "/scores", content, RiskScored)
