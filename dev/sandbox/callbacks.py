"""Callbacks: the partners' signed news of work they acknowledged, in the Standard Webhooks format, at least once."""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx2

from dev.sandbox.ledger import Event, Ledger, Promise

# About a minute in all: long enough for an API that restarts.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

log = logging.getLogger(__name__)


def master_secret(data_dir: Path, configured: str | None) -> bytes:
    """The secret from the settings, or the one of this folder: made at the first start, for its owner's eyes alone."""
    if configured:
        return configured.encode()
    file = data_dir / "callback-secret"
    if not file.exists():
        fresh = data_dir / "callback-secret.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32))
        fresh.rename(file)  # a kill leaves no half secret behind
    return file.read_bytes()


def partner_secret(master: bytes, partner: str) -> bytes:
    """Each partner's own secret, so that none can speak for another."""
    return hmac.digest(master, f"caseward-callback:{partner}".encode(), hashlib.sha256)


def signed_headers(secret: bytes, event_id: str, body: bytes, *, now: float) -> dict[str, str]:
    """The headers by which a receiver knows who wrote this, and when."""
    stamp = str(int(now))
    signature = hmac.digest(secret, f"{event_id}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        "content-type": "application/json",
    }


class Later:
    """Keeps promises when their time has come, and calls back until somebody listens."""

    def __init__(self, ledger: Ledger, *, api_url: str, master: bytes) -> None:
        self._ledger = ledger
        self._master = master
        self._client = httpx2.AsyncClient(base_url=api_url, trust_env=False, follow_redirects=False, timeout=5.0)
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Take up what the last process of this partner left undone."""
        for event in self._ledger.owed_events():
            self._begin(self._deliver(event))
        for promise in self._ledger.open_promises():
            self.expect(promise)

    def expect(self, promise: Promise) -> None:
        """Do it when its time has come."""
        self._begin(self._keep(promise))

    def keep_now(self, promise: Promise) -> None:
        """Do it at once; whoever waits for its time will find it done."""
        event = self._ledger.keep(promise.seq)
        if event is not None:
            self._begin(self._deliver(event))

    async def aclose(self) -> None:
        """Stop; what is undone stands in the ledger for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("acknowledged work failed", exc_info=error)

    async def _keep(self, promise: Promise) -> None:
        await asyncio.sleep(max(0.0, promise.due_at - time.time()))
        event = self._ledger.keep(promise.seq)
        if event is not None:
            await self._deliver(event)

    async def _deliver(self, event: Event) -> None:
        owed = event.owed
        for pause in (*PAUSES, None):
            while owed and await self._call_back(event):
                owed -= 1
            if not owed:
                return
            if pause is not None:
                await asyncio.sleep(pause)
        self._ledger.give_up(event.event_id)
        log.warning("callback %s of %s found no listener", event.event_id, event.partner)

    async def _call_back(self, event: Event) -> bool:
        body = event.body.encode()
        # Signed afresh each time: receivers refuse stamps that are minutes old.
        headers = signed_headers(partner_secret(self._master, event.partner), event.event_id, body, now=time.time())
        try:
            answer = await self._client.post(f"/v1/partners/{event.partner}/callbacks", content=body, headers=headers)
            delivered = answer.is_success
        except httpx2.TransportError:
            delivered = False
        self._ledger.note_delivery(event.event_id, delivered=delivered)
        return delivered
