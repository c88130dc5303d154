"""The bank: whom we pay. It knows no idempotency, but it can be asked what it did under a key."""

from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)
SETTLING = timedelta(seconds=2)  # what the bank has accepted can be asked for within that time


class AccountVerified(Answer):
    """How well the holder we were told matches the account's."""

    reference: Word
    match: Literal["full", "close", "none"]


class PayeeOpened(Answer):
    """A payee at the bank."""

    payee_id: Word


class PayeeClosed(Answer):
    """A payee that gets nothing any more."""

    payee_id: Word
    closed: StrictBool


class PayeeSuspension(Answer):
    """Whether a payee is suspended now."""

    payee_id: Word
    suspended: StrictBool


class Bank(HttpGateway):
    """Never repeat blindly: ask first."""

    name = "bank"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}
    answers: ClassVar = {
        "verify_account": AccountVerified,
        "open_payee": PayeeOpened,
        "close_payee": PayeeClosed,
        "suspend_payee": PayeeSuspension,
        "resume_payee": PayeeSuspension,
    }

    @offers("verify_account", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def verify_account(self, sending: Sending, *, iban: str, holder: str) -> AccountVerified:
        """Verify who holds an account."""
        return await self._post(sending, "/account-verifications", {"iban": iban, "holder": holder}, AccountVerified)

    @offers("open_payee", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def open_payee(self, sending: Sending, *, iban: str, holder: str) -> PayeeOpened:
        """Open a payee, so that payments to the account may be made."""
        return await self._post(sending, "/payees", {"iban": iban, "holder": holder}, PayeeOpened)

    @offers("close_payee", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def close_payee(self, sending: Sending, *, payee_id: str) -> PayeeClosed:
        """Close a payee for good."""
        return await self._post(sending, f"/payees/{segment(payee_id)}/close", {}, PayeeClosed)

    @offers("suspend_payee", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def suspend_payee(self, sending: Sending, *, payee_id: str) -> PayeeSuspension:
        """Let a payee get nothing for now."""
        return await self._post(sending, f"/payees/{segment(payee_id)}/suspend", {}, PayeeSuspension)

    @offers("resume_payee", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def resume_payee(self, sending: Sending, *, payee_id: str) -> PayeeSuspension:
        """End a payee's suspension."""
        return await self._post(sending, f"/payees/{segment(payee_id)}/resume", {}, PayeeSuspension)

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Ask what the bank did under the key."""
        return await self._ask(sending, f"/effects/{segment(sending.key)}", call, unknown="effect_unknown")
