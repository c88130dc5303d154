"""Mail as a destination: what the engine tells people, each message at most once.

SMTP can neither repeat nor tell, so a mail stands under the same rule as any effect: that it may go out is on record
before it does (`store.begin`). Who finds such a record and no outcome, or gets no answer, doesn't know; then the
message is parked, and a person who looks up its Message-ID at the mail server decides. Why so: ADR 24.
"""

import time
from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from caseward.db.session import Database
from caseward.errors import LeaseTooShort, PartnerFailed, PartnerSilent
from caseward.failpoints import failpoint
from caseward.outbox import store
from caseward.outbox.dispatcher import DestinationAway, NeverAgain, SomebodyElseHasIt
from caseward.outbox.store import CLAIM, Claimed
from caseward.partner import Sending

DEADLINE = timedelta(seconds=5)  # of the whole exchange with the mail server; half of a claim
LATER = timedelta(seconds=15)  # until a server that was away, or had no time, is asked again
ANYBODY = "*"  # stands in the addresses for every team and role that is not named


class Mailer(Protocol):
    """Whoever can send a mail; it answers as gateways do."""

    def send(
        self, sending: Sending, /, *, to: Sequence[str], template: str, values: Mapping[str, str | int | bool | None]
    ) -> Awaitable[object]:
        """Send a mail made from a template."""
        ...


class ToMail:
    """Delivers by SMTP, to the address that the settings name for a team or role."""

    def __init__(self, database: Database, mailer: Mailer, addresses: Mapping[str, str]) -> None:
        self._database = database
        self._mailer = mailer
        self._addresses = addresses

    async def __call__(self, messages: Sequence[Claimed]) -> None:
        """Deliver one message. Raises what dispatchers know: away, somebody else's, never again, or a refusal."""
        (message,) = messages
        if message.begun:
            raise NeverAgain("unknown: it may have gone out when whoever sent it died.")
        to = self._address(message.payload["to"])
        lease_ends = time.monotonic() + CLAIM.total_seconds()
        async with self._database.transaction() as session:
            if not await store.begin(session, message):
                raise SomebodyElseHasIt
        await failpoint("mail.begun", message.case_id)
        sending = Sending(key=mail_key(message), traceparent=_trace(), deadline=DEADLINE, send_before=lease_ends)
        try:
            await self._mailer.send(
                sending, to=[to], template=message.payload["template"], values=message.payload["values"]
            )
        except (PartnerFailed, LeaseTooShort) as refusal:
            async with self._database.transaction() as session:
                await store.not_sent(session, message)
            if isinstance(refusal, LeaseTooShort) or refusal.error_class in {"transient", "unauthorized"}:
                raise DestinationAway(f"mail: {refusal}"[:500], delay=LATER) from refusal
            raise NeverAgain(str(refusal)[:500]) from refusal
        except PartnerSilent as silence:
            raise NeverAgain(f"unknown: {silence}"[:500]) from silence
        await failpoint("mail.sent", message.case_id)

    def _address(self, name: str) -> str:
        found = self._addresses.get(name) or self._addresses.get(ANYBODY)
        if not found:
            raise NeverAgain(f"CASEWARD_MAIL_TO has no address for {name}.")
        return found.replace("{name}", name)


def mail_key(message: Claimed) -> str:
    """What the Message-ID is made from: the same for every attempt, and no other mail's, whatever the numbers do."""
    return f"{message.case_id}:mail:{message.id}"


def _trace() -> str:
    return f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
