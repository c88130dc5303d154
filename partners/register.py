"""The register of approvals: public, kept by somebody else."""

from datetime import timedelta
from typing import Any, ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)
UNKNOWN = "effect_unknown"


class NumberReserved(Answer):
    """A number that nobody else gets."""

    number: Word


class NumberGivenBack(Answer):
    """A number that stays unused."""

    number: Word
    given_back: StrictBool


class Entered(Answer):
    """An entry that everybody can look up."""

    entry: Word


class Struck(Answer):
    """An entry that says that it holds no more."""

    entry: Word
    struck: StrictBool


class Register(HttpGateway):
    """Idempotent, and can be asked by key."""

    name = "register"
    answers: ClassVar = {
        "reserve_number": NumberReserved,
        "give_back": NumberGivenBack,
        "enter": Entered,
        "strike": Struck,
    }

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Ask what happened under the key."""
        return await self._ask(sending, f"/effects/{segment(sending.key)}", call, unknown=UNKNOWN)

    @offers("reserve_number", deadline=DEADLINE, idempotent=True, probe=True)
    async def reserve_number(self, sending: Sending, *, holder: str) -> NumberReserved:
        """Reserve a number for what is about to be approved."""
        return await self._post(sending, "/numbers", {"holder": holder}, NumberReserved)

    @offers("give_back", deadline=DEADLINE, idempotent=True, probe=True)
    async def give_back(self, sending: Sending, *, number: str) -> NumberGivenBack:
        """Give a number back."""
        return await self._post(sending, f"/numbers/{segment(number)}/give-back", {}, NumberGivenBack)

    @offers("enter", deadline=DEADLINE, idempotent=True, probe=True)
    async def enter(self, sending: Sending, *, number: str, holder: str, scope: str) -> Entered:
        """Enter an approval under its number."""
        return await self._post(sending, "/entries", {"number": number, "holder": holder, "scope": scope}, Entered)

    @offers("strike", deadline=DEADLINE, idempotent=True, probe=True)
    async def strike(self, sending: Sending, *, entry: str) -> Struck:
        """Strike an entry."""
        return await self._post(sending, f"/entries/{segment(entry)}/strike", {}, Struck)
