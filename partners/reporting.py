"""The authority's reporting office: takes our reports of suspicion. The same key again is the same report."""

from datetime import timedelta
from typing import ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)


class ReportFiled(Answer):
    """A report on file."""

    report: Word


class ReportWithdrawn(Answer):
    """A report that counts no more."""

    report: Word
    withdrawn: StrictBool


class Reporting(HttpGateway):
    """Idempotent."""

    name = "reporting"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("file", deadline=DEADLINE, idempotent=True)
    async def file(
        self,
        sending: Sending,
        *,
        payment: str,
        sender: str,
        payee: str,
        suspicion: str,
        minor_units: int,
        currency: str,
    ) -> ReportFiled:
        """File a report of suspicion."""
        content = {"payment": payment, "sender": sender, "payee": payee, "suspicion": suspicion}
        content |= {"minor_units": minor_units, "currency": currency}
        return await self._post(sending, "/reports", content, ReportFiled)

    @offers("withdraw", deadline=DEADLINE, idempotent=True)
    async def withdraw(self, sending: Sending, *, report: str) -> ReportWithdrawn:
        """Withdraw a report."""
        return await self._post(sending, f"/reports/{segment(report)}/withdraw", {}, ReportWithdrawn)
