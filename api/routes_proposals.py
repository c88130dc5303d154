"""Proposals: what waits for confirmation is confirmed or declined under the address of its operation."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from api.answers import Answering
from api.bodies import Confirming, Declining
from api.deps import Sealed, Wait, Wired
from api.responses import command
from api.routes_commands import ON_A_CASE, taking
from caseward.cases.confirming import confirm_proposal, decline_proposal
from caseward.documents.operation import OperationDocument


async def confirm(
    wiring: Wired, envelope: Sealed, wait: Wait, response: Response, operation_id: UUID, body: Any
) -> OperationDocument:
    """Confirm what somebody else proposed; the last confirmation it needs accepts it."""
    async with wiring.command() as session:
        accepted = await confirm_proposal(
            session, wiring.catalogue, operation_id=operation_id, reason=body.reason, envelope=envelope
        )
    return await Answering(wiring, envelope, wait).operation(response, accepted)


async def decline(
    wiring: Wired, envelope: Sealed, wait: Wait, response: Response, operation_id: UUID, body: Any
) -> OperationDocument:
    """Decline what was proposed, or withdraw what you proposed yourself."""
    async with wiring.command() as session:
        accepted = await decline_proposal(
            session, wiring.catalogue, operation_id=operation_id, reason=body.reason, envelope=envelope
        )
    return await Answering(wiring, envelope, wait).operation(response, accepted)


router = APIRouter(prefix="/v1/operations/{operation_id}", tags=["Operations"], responses=command())
router.add_api_route(
    "/confirm",
    taking(confirm, Confirming, optional=True),
    methods=["POST"],
    operation_id="confirm_operation",
    openapi_extra=ON_A_CASE,
)
router.add_api_route(
    "/decline", taking(decline, Declining), methods=["POST"], operation_id="decline_operation", openapi_extra=ON_A_CASE
)
