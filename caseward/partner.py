"""The gateway protocol: what a partner offers for each call, and the leave under which one attempt sends.

A gateway method makes ONE outside change. It returns its own typed answer, or raises a `PartnerAnswer`:
`PartnerFailed` (nothing happened), `PartnerSilent` (can't know), `PartnerAcknowledged` (later). Anything else it
raises counts as a fault of ours after an unknown outcome.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from caseward.errors import LeaseTooShort

P = ParamSpec("P")
R = TypeVar("R")

OFFER = "caseward_offer"  # the attribute under which `offers` keeps an Offer on a gateway method


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the partner promises for one call."""

    call: str
    deadline: timedelta
    """Bound of the whole call, connecting to last byte."""
    idempotent: bool
    """The same key twice is one effect, and answers the same."""
    probe: bool
    """The partner can be asked by key whether it happened."""
    settling: timedelta
    """How long after the last possible send a "not found" is still no proof."""


def offers(
    call: str,
    *,
    deadline: timedelta,
    idempotent: bool = False,
    probe: bool = False,
    settling: timedelta = timedelta(seconds=2),
) -> Callable[
    [Callable[Concatenate[Any, "Sending", P], Awaitable[R]]], Callable[Concatenate[Any, "Sending", P], Awaitable[R]]
]:
    """Declare what the partner offers for a gateway method; `call` is its name in ledgers, logs and faults."""
    offer = Offer(call=call, deadline=deadline, idempotent=idempotent, probe=probe, settling=settling)

    def declare(
        method: Callable[Concatenate[Any, Sending, P], Awaitable[R]],
    ) -> Callable[Concatenate[Any, Sending, P], Awaitable[R]]:
        setattr(method, OFFER, offer)
        return method

    return declare


@dataclass(frozen=True, kw_only=True)
class Sending:
    """The leave of one attempt to send once: under which key and trace, and until when."""

    key: str
    """The effect key; the partner's idempotency key."""
    traceparent: str
    deadline: timedelta
    send_before: float
    """`time.monotonic()` at which the lease ends."""

    def check_lease(self) -> None:
        """Call as the last line before the socket.

        A worker that was frozen wakes up here with its lease gone, and must not send.
        """
        if time.monotonic() + self.deadline.total_seconds() > self.send_before:
            raise LeaseTooShort("lease_too_short", "The attempt's lease ended before it could send.")


class Gateway(Protocol):
    """Our side of one partner."""

    name: str

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Ask what the partner did under `sending.key`.

        Returns the answer of `call` as JSON, or None where the partner knows nothing of the key. Raises a
        `PartnerAnswer` like any call; `PartnerAcknowledged` where the partner is still at it.
        """
        ...
