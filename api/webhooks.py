"""Signatures of what partners send us: Standard Webhooks over the raw bytes, each partner with a secret of its own."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import structlog
from starlette.datastructures import Headers

from api.errors import SignatureInvalid

TOLERANCE = timedelta(minutes=5)  # between the partner's clock and ours; older ones may be replays
MAX_ID = 200  # characters of a webhook-id
MAX_SIGNATURES = 10  # a partner that rotates its keys sends two


class Signatures:
    """Knows the secrets, present and previous, from which each partner's own is derived.

    Without a configured one, that of the partner sandbox of this data folder: made at its first start.
    """

    def __init__(self, secret: str | None = None, previous: str | None = None, *, file: Path | None = None) -> None:
        self._configured = tuple(one.encode() for one in (secret, previous) if one)
        self._file = file

    def check_headers(self, headers: Headers, *, now: float | None = None) -> str:
        """The event's id, where the headers are complete and the stamp is fresh. Raises SignatureInvalid.

        Called before the body is read: what could not be accepted anyhow costs nobody memory.
        """
        event_id = _single(headers, "webhook-id")
        if not event_id or len(event_id) > MAX_ID or not event_id.isascii() or not event_id.isprintable():
            raise SignatureInvalid("webhook-id is missing or malformed")
        stamp = _single(headers, "webhook-timestamp")
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 12):  # noqa: PLR2004 - a year of six digits
            raise SignatureInvalid("webhook-timestamp is missing or malformed")
        if abs((time.time() if now is None else now) - int(stamp)) > TOLERANCE.total_seconds():
            raise SignatureInvalid("webhook-timestamp is too far from our clock")
        if not _single(headers, "webhook-signature"):
            raise SignatureInvalid("webhook-signature is missing")
        return event_id

    def check_body(self, headers: Headers, body: bytes, *, partner: str) -> None:
        """One of the signatures is the partner's, over these very bytes. Raises SignatureInvalid."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        given = list(_given(headers["webhook-signature"]))
        accepted = False
        for master in self._masters():
            secret = partner_secret(master, partner)
            expected = hmac.digest(secret, signed, hashlib.sha256)
            # Every pair is compared, so that time tells nothing about which one it was.
            for signature in given:
                accepted |= hmac.compare_digest(expected, signature)
        if not accepted:
            raise SignatureInvalid("no signature fits")

    def _masters(self) -> tuple[bytes, ...]:
        if self._configured:
            return self._configured
        try:
            if self._file is not None:
                return (self._file.read_bytes(),)  # anew each time: a new data folder makes a new one
        except OSError:
            pass
        structlog.get_logger("api").error("callback_secret_missing", file=str(self._file))
        return ()


def partner_secret(master: bytes, partner: str) -> bytes:
    """Each partner's own secret, so that none can speak for another."""
    return hmac.digest(master, f"caseward-callback:{partner}".encode(), hashlib.sha256)


def _single(headers: Headers, name: str) -> str:
    found = headers.getlist(name)
    return found[0] if len(found) == 1 else ""


def _given(header: str) -> Iterator[bytes]:
    """Every signature of a version that we know."""
    for part in header.split(" ")[:MAX_SIGNATURES]:
        version, _, encoded = part.partition(",")
        if version == "v1":
            try:
                yield base64.b64decode(encoded, validate=True)
            except (ValueError, binascii.Error):
                continue
