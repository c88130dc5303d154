"""The voucher office: it can neither repeat nor tell, so an unanswered voucher is a question for a person."""

from datetime import timedelta
from typing import ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)


class VoucherIssued(Answer):
    """A voucher, which makes the holds it names firm."""

    voucher: Word


class VoucherWithdrawn(Answer):
    """A voucher that is good for nothing any more."""

    voucher: Word
    withdrawn: StrictBool


class Vouchers(HttpGateway):
    """Issues again whatever it is told again."""

    name = "vouchers"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}
    fresh_connections: ClassVar = True

    @offers("issue", deadline=DEADLINE)
    async def issue(self, sending: Sending, *, guest: str, room: str | None, car: str | None) -> VoucherIssued:
        """Issue a voucher for held rooms and cars, by the numbers of their holds."""
        return await self._post(sending, "/vouchers", {"guest": guest, "room": room, "car": car}, VoucherIssued)

    @offers("withdraw", deadline=DEADLINE)
    async def withdraw(self, sending: Sending, *, voucher: str) -> VoucherWithdrawn:
        """Withdraw a voucher."""
        return await self._post(sending, f"/vouchers/{segment(voucher)}/withdraw", {}, VoucherWithdrawn)
