"""Answers of commands: read after the commit, at once or when the outcome is there."""

import time
from dataclasses import dataclass
from datetime import timedelta

import structlog
from fastapi import Response

from api.deps import Wiring
from api.notices import Notice
from caseward.cases.commands import Accepted
from caseward.cases.envelope import Envelope
from caseward.cases.queries import Standing, get_case, get_operation, get_standing
from caseward.documents.case import CaseDocument
from caseward.documents.operation import OperationDocument
from caseward.situation import FINISHED

POLL = timedelta(seconds=1)  # the net below the notices, which a cut connection may lose
# Where a person or a partner has to move first, waiting longer is no use.
ENDS_A_WAIT = frozenset({"blocked", "waiting", "paused"})


@dataclass(frozen=True)
class Answering:
    """Who gets the answer, and how long they would wait for it."""

    wiring: Wiring
    envelope: Envelope
    wait: timedelta | None

    async def operation(self, response: Response, accepted: Accepted) -> OperationDocument:
        """The operation as it stands: 200 when it has an outcome, else 202."""
        await self._outcome(accepted)
        async with self.wiring.database.transaction() as session:
            document = await get_operation(
                session, self.wiring.catalogue, operation_id=accepted.operation_id, actor=self.envelope.actor
            )
            standing = await get_standing(session, case_id=accepted.case_id)
        response.status_code = 200 if document.state in FINISHED else 202
        response.headers["Location"] = f"/v1/operations/{accepted.operation_id}"
        self._finish(response, standing.etag, accepted)
        return document

    async def case(self, response: Response, accepted: Accepted) -> CaseDocument:
        """The case that was opened."""
        await self._outcome(accepted)
        async with self.wiring.database.transaction() as session:
            document = await get_case(
                session, self.wiring.catalogue, case_id=accepted.case_id, actor=self.envelope.actor
            )
        response.headers["Location"] = f"/v1/cases/{accepted.case_id}"
        self._finish(response, document.etag, accepted)
        return document

    def _finish(self, response: Response, version: str, accepted: Accepted) -> None:
        structlog.get_logger("api").info(
            "command_answered",
            operation_id=str(accepted.operation_id),
            case_id=str(accepted.case_id),
            version=version,
            repeated=accepted.repeated,
            actor=self.envelope.actor.id,
            traceparent=self.envelope.traceparent,
        )
        response.headers["ETag"] = etag(version)
        if self.wait is not None:
            response.headers["Preference-Applied"] = f"wait={int(self.wait.total_seconds())}"

    async def _outcome(self, accepted: Accepted) -> None:
        """Wait until the operation has an outcome, can't get one soon, or the time is over."""
        if self.wait is None:
            return
        notices = self.wiring.notices
        end = time.monotonic() + self.wait.total_seconds()
        mine = str(accepted.operation_id)

        def worth_a_look(notice: Notice) -> bool:
            return notice.operation_id != mine or notice.condition in ENDS_A_WAIT

        with notices.watch(accepted.case_id, worth_a_look) as watch:
            while not _settled(await self._look(accepted)) and not notices.closing:
                left = timedelta(seconds=end - time.monotonic())
                if left <= timedelta(0):
                    return
                await watch.changed(min(left, POLL))

    async def _look(self, accepted: Accepted) -> Standing:
        async with self.wiring.database.transaction() as session:
            return await get_standing(session, case_id=accepted.case_id, operation_id=accepted.operation_id)


def _settled(standing: Standing) -> bool:
    return standing.operation_state in FINISHED | {"proposed"} or standing.condition in ENDS_A_WAIT


def etag(version: str) -> str:
    """The version, with the numbers of the pauses that apply, as an entity tag."""
    return f'"{version}"'
