"""The business registry: whether a tax id is registered, and to whom."""

from datetime import timedelta
from typing import ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Text

DEADLINE = timedelta(seconds=5)  # the registry answers in well under one


class TaxIdChecked(Answer):
    """What the registry knows of a tax id."""

    registered: StrictBool
    registered_name: Text | None = None


class Registry(HttpGateway):
    """Idempotent: the same key again is the same check."""

    name = "registry"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("check_tax_id", deadline=DEADLINE, idempotent=True)
    async def check_tax_id(self, sending: Sending, *, country: str, tax_id: str, legal_name: str) -> TaxIdChecked:
        """Look up a tax id."""
        content = {"country": country, "tax_id": tax_id, "legal_name": legal_name}
        return await self._post(sending, "/tax-id-checks", content, TaxIdChecked)
