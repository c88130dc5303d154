"""The sanctions screening."""

from datetime import timedelta
from typing import ClassVar

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Text, Word

DEADLINE = timedelta(seconds=5)


class Hit(Answer):
    """A name on a list that resembles ours."""

    list: Text
    name: Text


class Screened(Answer):
    """The result of a screening; no hits = clear."""

    reference: Word
    hits: tuple[Hit, ...]


class Screening(HttpGateway):
    """Idempotent: the same key again is the same screening."""

    name = "screening"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("screen", deadline=DEADLINE, idempotent=True)
    async def screen(self, sending: Sending, *, legal_name: str, country: str) -> Screened:
        """Screen a company against the lists."""
        return await self._post(sending, "/screenings", {"legal_name": legal_name, "country": country}, Screened)
