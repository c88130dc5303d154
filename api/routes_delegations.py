"""Delegations: somebody is away, and somebody else stands in."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body
from pydantic import AwareDatetime, ConfigDict, Field

from api.bodies import Storable
from api.deps import CurrentActor, Sealed, Session, Wired, header_parameters
from api.responses import problems, success
from caseward.cases.delegations import delegate, end_delegation, list_delegations
from caseward.documents.people import DelegationDocument, DelegationList
from caseward.overrides import Why
from caseward.process import Strict

router = APIRouter(prefix="/v1/delegations", tags=["Delegations"])

_EXAMPLE: dict[str, Any] = {
    "to": "reviewer-2",
    "roles": ["vendor_reviewer"],
    "until": "2031-05-03T00:00:00Z",
    "reason": "On leave until Monday",
}
_ORDER = {"example": {"summary": "Works as it stands", "value": _EXAMPLE}}
RoleName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9_]+$")]


class DelegationOrder(Strict):
    """Who stands in for you, in which of your roles, and how long."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    to: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    roles: Annotated[tuple[RoleName, ...], Field(min_length=1, max_length=20)]
    from_at: Annotated[AwareDatetime | None, Field(description="At once where left out")] = None
    until: AwareDatetime
    reason: Why


@router.post(
    "",
    status_code=201,
    operation_id="delegate",
    responses={**success(201, "The delegation"), **problems(400, 401, 403, 413, 422, 503)},
    openapi_extra=header_parameters("Idempotency-Key"),
)
async def begin(
    wiring: Wired,
    envelope: Sealed,
    body: Annotated[DelegationOrder, Storable, Body(openapi_examples=_ORDER)],  # pyright: ignore[reportArgumentType]
) -> DelegationDocument:
    """Let somebody act in roles of yours while you are away; all that they do in them names you both."""
    async with wiring.command() as session:
        return await delegate(
            session,
            to=body.to,
            roles=frozenset(body.roles),
            from_at=body.from_at,
            until=body.until,
            reason=body.reason,
            envelope=envelope,
        )


@router.post("/{delegation_id}/end", operation_id="end_delegation", responses=problems(401, 404, 422, 503))
async def end(wiring: Wired, actor: CurrentActor, delegation_id: UUID) -> DelegationDocument:
    """End it before its time. Doing it twice does it once, so it needs no Idempotency-Key."""
    async with wiring.command() as session:
        return await end_delegation(session, delegation_id=delegation_id, actor=actor)


@router.get("", operation_id="list_delegations", responses=problems(401, 503))
async def list_all(session: Session, actor: CurrentActor) -> DelegationList:
    """Those by you and to you; operators and auditors see all."""
    return await list_delegations(session, actor=actor)
