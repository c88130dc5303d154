"""Offices of our own house: they work on the object store, and leave a receipt there for all that they do.

The receipt is written once, under the effect's key, as the last thing: it is what makes them idempotent, what a probe
reads, and what a ledger would be to a partner outside.
"""

from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from caseward.errors import PartnerFailed, PartnerSilent
from caseward.objects import Objects
from caseward.partner import Sending

A = TypeVar("A", bound=BaseModel)


class HouseAnswer(BaseModel):
    """What an office of ours answers, as its receipt keeps it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HouseGateway:
    """The mechanics that every office shares."""

    name: ClassVar[str]

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:  # noqa: ARG002 - a key has one call
        """The receipt's answer; None where there is no receipt."""
        try:
            receipt = await self.objects.noted(sending.key)
        except Exception as fault:
            raise self._away() from fault
        return receipt["answer"] if receipt else None

    async def _done(self, sending: Sending, answer: type[A]) -> A | None:
        found = await self.probe(sending, "")
        return None if found is None else answer.model_validate(found)

    async def _keep(self, sending: Sending, call: str, request: dict[str, Any], answer: A) -> A:
        """Leave the receipt; where there is an earlier one, its answer is the answer."""
        receipt = {"partner": self.name, "call": call, "key": sending.key, "request": request}
        try:
            stands = await self.objects.note(sending.key, {**receipt, "answer": answer.model_dump(mode="json")})
        except Exception as fault:
            raise PartnerSilent("object_store_away", "The object store did not say whether it has it.") from fault
        return type(answer).model_validate(stands["answer"])

    def _away(self) -> PartnerFailed:
        return PartnerFailed("transient", "object_store_away", "The object store can't be reached.")
