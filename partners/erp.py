"""The ERP: our vendor master data."""

from datetime import timedelta
from typing import ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)


class VendorCreated(Answer):
    """A vendor in the ERP."""

    vendor_number: Word


class VendorActivity(Answer):
    """Whether a vendor is active now."""

    vendor_number: Word
    active: StrictBool


class VendorBlocking(Answer):
    """Whether a vendor is blocked for payments now."""

    vendor_number: Word
    blocked: StrictBool


class Erp(HttpGateway):
    """Idempotent: the same key again is the same posting."""

    name = "erp"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("create_vendor", deadline=DEADLINE, idempotent=True)
    async def create_vendor(
        self, sending: Sending, *, legal_name: str, country: str, tax_id: str, iban: str
    ) -> VendorCreated:
        """Create a vendor."""
        content = {"legal_name": legal_name, "country": country, "tax_id": tax_id, "iban": iban}
        return await self._post(sending, "/vendors", content, VendorCreated)

    @offers("deactivate_vendor", deadline=DEADLINE, idempotent=True)
    async def deactivate_vendor(self, sending: Sending, *, vendor_number: str) -> VendorActivity:
        """Take a vendor out of use; the ERP never deletes one."""
        return await self._post(sending, f"/vendors/{segment(vendor_number)}/deactivate", {}, VendorActivity)

    @offers("block_vendor", deadline=DEADLINE, idempotent=True)
    async def block_vendor(self, sending: Sending, *, vendor_number: str) -> VendorBlocking:
        """Block payments to a vendor."""
        return await self._post(sending, f"/vendors/{segment(vendor_number)}/block", {}, VendorBlocking)

    @offers("unblock_vendor", deadline=DEADLINE, idempotent=True)
    async def unblock_vendor(self, sending: Sending, *, vendor_number: str) -> VendorBlocking:
        """Allow payments to a vendor again."""
        return await self._post(sending, f"/vendors/{segment(vendor_number)}/unblock", {}, VendorBlocking)
