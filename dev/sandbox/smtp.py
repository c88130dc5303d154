"""The sandbox's SMTP server: a mail is the partner `mail`'s one call, its key stands in the Message-ID."""

import asyncio
import socket
import struct
from email import message_from_bytes
from email.policy import default
from typing import cast
from urllib.parse import unquote

from aiosmtpd.smtp import SMTP, Envelope, Session

from dev.sandbox.faults import Fault, Faults
from dev.sandbox.ledger import Ledger, Order
from dev.sandbox.partner import Partner, Refusal

MAX_MAIL = 1 << 20
DONE = "250 2.0.0 Taken over"
BROKEN = "451 4.3.0 Something broke on our side, nothing was done"


class Post(SMTP):
    """One connection. A server that is down hangs up before it says a word."""

    def __init__(self, office: "PostOffice") -> None:
        super().__init__(
            office, data_size_limit=MAX_MAIL, enable_SMTPUTF8=True, hostname="sandbox.test", ident="Caseward sandbox"
        )
        self._office = office

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        super().connection_made(transport)
        if self._office.is_down():
            hang_up(cast("asyncio.Transport", transport))


class PostOffice:
    """What is behind every connection; the hooks' names are aiosmtpd's."""

    def __init__(self, partner: Partner, *, ledger: Ledger, faults: Faults) -> None:
        self._partner = partner
        self._ledger = ledger
        self._faults = faults

    def is_down(self) -> bool:
        """Nobody gets in."""
        return self._faults.take_down(self._partner.name) is not None

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - theirs
        """A whole mail is here: take it over, or do what a fault says."""
        order = self._order(envelope)
        fault = self._faults.take(self._partner.name, order.call.name, order.content, order.key)
        if fault is None:
            return self._perform(order)
        return await self._faulty(fault, order, cast("asyncio.Transport", server.transport))

    async def _faulty(self, fault: Fault, order: Order, transport: asyncio.Transport) -> str:
        match fault.order.mode:
            case "error":
                return BROKEN
            case "reject":
                return f"550 5.7.1 {self._partner.refusal.message}"
            case "slow":
                answer = self._perform(order)
                await asyncio.sleep(fault.seconds)
                return answer
            case "lose_reply":
                self._perform(order)
            case _:  # lose_request and down differ in whom they hit, not in how it feels
                pass
        hang_up(transport)
        return DONE  # nobody hears it

    def _perform(self, order: Order) -> str:
        try:
            self._ledger.perform(order)
        except Refusal as refusal:
            return f"550 5.7.1 {refusal.message}"
        return DONE

    def _order(self, envelope: Envelope) -> Order:
        message = message_from_bytes(cast("bytes", envelope.content), policy=default)
        message_id = str(message["Message-ID"] or "").strip().strip("<>")
        body = message.get_body(preferencelist=("plain",))
        traceparent = message["Traceparent"]
        return Order(
            partner=self._partner,
            call=self._partner.calls[0],
            key=unquote(message_id.rpartition("@")[0]),
            content={
                "message_id": message_id,
                "sender": envelope.mail_from or "",
                "to": envelope.rcpt_tos,
                "subject": str(message["Subject"] or ""),
                "text": str(body.get_content()).replace("\r\n", "\n") if body else "",
            },
            traceparent=None if traceparent is None else str(traceparent),
        )


def hang_up(transport: asyncio.Transport) -> None:
    """Linger 0 makes the kernel send a reset: the caller sees a broken connection, not a polite end."""
    peer = cast("socket.socket | None", transport.get_extra_info("socket"))
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
