"""The bank: whom we pay, whose cards we take, what we hold. Not idempotent, but it tells what it did under a key."""

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


class DepositAuthorised(Answer):
    """An amount that a card keeps ready for us."""

    authorisation: Word


class AuthorisationVoided(Answer):
    """What was left of an authorisation is the card holder's again."""

    authorisation: Word
    voided: StrictBool


class DepositCaptured(Answer):
    """Money that we took."""

    capture: Word


class DepositRefunded(Answer):
    """Money that we gave back."""

    refund: Word


class FundsSent(Answer):
    """Money that we held, on its way to somebody's account."""

    transfer: Word


class FundsRecalled(Answer):
    """A transfer whose money is with us again."""

    transfer: Word
    recalled: StrictBool


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
        "authorise": DepositAuthorised,
        "void": AuthorisationVoided,
        "capture": DepositCaptured,
        "refund": DepositRefunded,
        "release_funds": FundsSent,
        "return_funds": FundsSent,
        "recall": FundsRecalled,
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

    @offers("authorise", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def authorise(
        self, sending: Sending, *, card: str, minor_units: int, currency: str, reference: str
    ) -> DepositAuthorised:
        """Have a card, by its token, keep an amount ready."""
        content = {"card": card, "minor_units": minor_units, "currency": currency, "reference": reference}
        return await self._post(sending, "/authorisations", content, DepositAuthorised)

    @offers("void", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def void(self, sending: Sending, *, authorisation: str) -> AuthorisationVoided:
        """Let go of what is left of an authorisation; of one captured in full nothing is."""
        return await self._post(sending, f"/authorisations/{segment(authorisation)}/void", {}, AuthorisationVoided)

    @offers("capture", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def capture(
        self, sending: Sending, *, authorisation: str, minor_units: int, currency: str, reference: str
    ) -> DepositCaptured:
        """Take an authorised amount."""
        content = {"minor_units": minor_units, "currency": currency, "reference": reference}
        path = f"/authorisations/{segment(authorisation)}/capture"
        return await self._post(sending, path, content, DepositCaptured)

    @offers("refund", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def refund(
        self, sending: Sending, *, capture: str, minor_units: int, currency: str, reference: str
    ) -> DepositRefunded:
        """Give a captured amount back, or a part of it."""
        content = {"minor_units": minor_units, "currency": currency, "reference": reference}
        return await self._post(sending, f"/captures/{segment(capture)}/refund", content, DepositRefunded)

    @offers("release_funds", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def release_funds(
        self, sending: Sending, *, payment: str, account: str, minor_units: int, currency: str
    ) -> FundsSent:
        """Send the money of a held payment to the payee."""
        content = {"account": account, "minor_units": minor_units, "currency": currency}
        return await self._post(sending, f"/payments/{segment(payment)}/release", content, FundsSent)

    @offers("return_funds", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def return_funds(
        self, sending: Sending, *, payment: str, account: str, minor_units: int, currency: str
    ) -> FundsSent:
        """Send the money of a held payment back to the sender."""
        content = {"account": account, "minor_units": minor_units, "currency": currency}
        return await self._post(sending, f"/payments/{segment(payment)}/return", content, FundsSent)

    @offers("recall", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def recall(self, sending: Sending, *, transfer: str) -> FundsRecalled:
        """Get a transfer's money back; refused where the account's holder does not give it back."""
        return await self._post(sending, f"/transfers/{segment(transfer)}/recall", {}, FundsRecalled)

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Ask what the bank did under the key."""
        return await self._ask(sending, f"/effects/{segment(sending.key)}", call, unknown="effect_unknown")
