"""The timeline as server-sent events: every entry once and in order, and a word whenever the case changed."""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.deps import Holder, Wired, Wiring
from api.errors import LastEventIdMalformed
from api.responses import READING, problems
from api.routes_cases import MAX_NUMBER, After
from api.tokens import Identity
from caseward.cases.delegations import standing_in
from caseward.cases.queries import MAX_PAGE, Standing, get_standing, get_timeline, snapshot
from caseward.documents.timeline import EntryDocument
from caseward.errors import CaseNotFound

router = APIRouter(prefix="/v1", tags=["Cases"])

LOOK_EVERY = timedelta(seconds=5)  # the net below the notices, which a cut connection may lose
NUMBER = re.compile(r"[0-9]{1,10}")

_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The number of the last entry received; wins over `after`. Browsers send it by themselves.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}


@router.get(
    "/cases/{case_id}/stream",
    operation_id="stream_case",
    response_class=EventSourceResponse,
    responses={
        **READING,
        **problems(400),
        200: {
            "description": "Events `entry` (a timeline entry, its number as the id) and `case` (a new version)",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
    openapi_extra={"parameters": [_LAST_EVENT_ID]},
)
async def stream_case(
    request: Request, wiring: Wired, holder: Holder, case_id: UUID, after: Annotated[After, Query()] = 0
) -> EventSourceResponse:
    """Follow a case: first what happened since the entry you know, then what happens, as long as you may see it."""
    events = Following(wiring, holder, case_id, _start(request.headers.getlist("last-event-id"), after))
    await events.look()  # a case that this actor may not see is a 404, not an empty stream
    return EventSourceResponse(events.run(), ping=15, send_timeout=30)


def _start(last_event_id: list[str], after: int) -> int:
    if not last_event_id:
        return after
    number = last_event_id[-1].strip()
    if not NUMBER.fullmatch(number) or int(number) > MAX_NUMBER:
        raise LastEventIdMalformed
    return int(number)


class Following:
    """One client following one case."""

    def __init__(self, wiring: Wiring, holder: Identity, case_id: UUID, number: int) -> None:
        self._wiring = wiring
        self._holder = holder
        self._case_id = case_id
        self._number = number
        self._version = 0

    async def run(self) -> AsyncGenerator[ServerSentEvent]:
        """Events until the client goes, the server stops or the token ends; a client that comes back goes on."""
        notices = self._wiring.notices
        with notices.watch(self._case_id) as watch:
            while not notices.closing and datetime.now(UTC) < self._holder.expires_at:
                try:
                    entries, standing = await self.look()
                except (CaseNotFound, DBAPIError, PoolExhausted):
                    return
                for entry in entries:
                    yield ServerSentEvent(entry.model_dump_json(), event="entry", id=str(entry.number))
                    self._number = entry.number
                if len(entries) == MAX_PAGE:
                    continue
                if standing.version != self._version:
                    self._version = standing.version
                    yield ServerSentEvent(standing.model_dump_json(exclude_none=True), event="case")
                await watch.changed(LOOK_EVERY)

    async def look(self) -> tuple[list[EntryDocument], Standing]:
        """What is new. Raises CaseNotFound."""
        async with self._wiring.database.transaction() as session:
            await snapshot(session)  # or news of a version would come before the entries that made it
            timeline = await get_timeline(
                session,
                self._wiring.catalogue,
                case_id=self._case_id,
                actor=await standing_in(session, self._holder.actor),
                after=self._number,
                limit=MAX_PAGE,
            )
            return timeline.entries, await get_standing(session, case_id=self._case_id)
