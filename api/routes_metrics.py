"""What Prometheus reads. Without a token, like the health of the process: names and numbers, nothing of any case."""

import asyncio
import time
from datetime import timedelta

import structlog
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError

from api.deps import Wiring
from caseward import metrics
from caseward.cases.gauges import process_info, read_gauges
from caseward.metrics import CONTENT_TYPE, Readings

# The whole reading, connecting and the gauges' own limit included; Prometheus usually waits for 10 s.
READ_WITHIN = timedelta(seconds=8)
KEPT_FOR = timedelta(seconds=5)  # nobody can make Postgres count more often than that


class Gauges:
    """The last reading, made anew at most every few seconds, by one request at a time."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._turn = asyncio.Lock()
        self._read_at: float | None = None
        self._last: Readings = {}
        self._log = structlog.get_logger("metrics")

    async def read(self) -> Readings:
        """What Postgres says, or only that it said nothing in time."""
        async with self._turn:
            if self._read_at is None or time.monotonic() - self._read_at > KEPT_FOR.total_seconds():
                self._last = await self._read()
                self._read_at = time.monotonic()
            return self._last

    async def _read(self) -> Readings:
        always = process_info(self._wiring.catalogue)
        try:
            async with (
                asyncio.timeout(READ_WITHIN.total_seconds()),
                self._wiring.database.transaction() as session,
            ):
                found = await read_gauges(session, self._wiring.catalogue)
        except (SQLAlchemyError, TimeoutError, OSError) as fault:
            self._log.warning("gauges_unread", error=type(fault).__name__)
            return {metrics.DATABASE_UP: [((), 0)], **always}
        unread = [name for (name,), _ in found[metrics.GAUGES_UNREAD]]
        if unread:
            self._log.warning("gauges_unread", gauges=unread)
        return {metrics.DATABASE_UP: [((), 1)], **always, **found}


def metrics_routes(wiring: Wiring) -> APIRouter:
    """Made with the wiring, because the last reading is shared by all requests."""
    router = APIRouter(tags=["Health"])
    gauges = Gauges(wiring)

    @router.get(
        "/metrics",
        operation_id="metrics",
        response_class=PlainTextResponse,
        response_description="Prometheus' text format; `docs/metrics.md` explains each",
    )
    async def get_metrics() -> PlainTextResponse:
        """What this process counted, and what Postgres says now; `caseward_database_up 0` where it says nothing."""
        return PlainTextResponse(metrics.exposed(await gauges.read()), media_type=CONTENT_TYPE)

    return router
