"""Bulk recovery: what is blocked in groups, and one override over a whole group."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response
from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from api.bodies import Storable
from api.deps import CurrentActor, OperatingActor, OverseeingActor, Sealed, Session, Wired, header_parameters
from api.responses import LOCATION, problems, success
from api.routes_cases import MAX_NUMBER, Limit, Text
from caseward.bulk import ItemState, RunState
from caseward.cases.blocked import blocked_groups
from caseward.cases.bulk import BulkOrder, Group, continue_bulk, order_bulk, stop_bulk
from caseward.cases.bulk_queries import RUNS_A_PAGE, get_bulk, list_bulk, list_items
from caseward.cases.queries import MAX_PAGE
from caseward.documents.bulk import BulkDocument, BulkGroups, BulkItemList, BulkList
from caseward.overrides import OVERRIDES, Why
from caseward.process import Strict

router = APIRouter(prefix="/v1/bulk", tags=["Bulk"])

MAX_CASES = 5000  # named one by one; a group may be larger
_CASES = (
    "Of the group only these; without a group these cases. An id of no case, or of none of the group's process, is "
    "refused; a case that has left the group meanwhile is left out, and counted in the run's `chosen`; where all have, "
    "nothing is ordered (`nothing_blocked`)."
)
_EXAMPLE: dict[str, Any] = {
    "override": "retry",
    "reason": "The bank mended it, ticket 4711",
    "group": {
        "process": "vendor_onboarding",
        "step": "open_payee",
        "partner": "bank",
        "fingerprint": "0123456789ab",
    },
    "canary": 5,
    "rate": 20,
}


class GroupChosen(Strict):
    """One of the groups that `GET /v1/bulk/groups` lists, by these four."""

    process: Text
    step: Text | None = None
    partner: Text | None = None
    fingerprint: Text
    until: Annotated[
        AwareDatetime | None, Field(description="Only what was blocked by then: the group's `latest`, as it was seen.")
    ] = None

    def as_group(self) -> Group:
        """For the command."""
        return Group(
            process=self.process, step=self.step, partner=self.partner, fingerprint=self.fingerprint, until=self.until
        )


class Order(Strict):
    """One override over a group, over some of its cases, or over cases whatever blocks them."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    override: Annotated[str, Field(max_length=50, description=f"One of {', '.join(OVERRIDES)}; not a replay.")]
    reason: Why
    group: GroupChosen | None = None
    case_ids: Annotated[
        tuple[UUID, ...],
        Field(max_length=MAX_CASES, description=_CASES),
    ] = ()
    input: Annotated[
        dict[str, Any], Field(description="What the override takes beside reason, step and item, the same for all.")
    ] = Field(default_factory=dict)
    canary: Annotated[int, Field(ge=1, le=100, description="How many are tried first.")] = 5
    rate: Annotated[
        int | None, Field(ge=1, le=1000, description="Cases a second, at most; never above what the partner takes.")
    ] = None
    stop_after: Annotated[
        int, Field(ge=1, le=50, description="Failures, among the first ones or the last 50, at which it stops.")
    ] = 3
    look: Annotated[bool, Field(description="Wait after the first ones until somebody says go on.")] = False

    @model_validator(mode="after")
    def _either_or(self) -> "Order":
        if self.group is None and not self.case_ids:
            message = "name a group or cases"
            raise ValueError(message)
        if self.group is not None and not self.case_ids and "case_ids" in self.model_fields_set:
            message = "case_ids names nothing: leave it out to order for the whole group"
            raise ValueError(message)
        return self

    def as_order(self) -> BulkOrder:
        """For the command."""
        return BulkOrder(
            override=self.override,
            reason=self.reason,
            group=None if self.group is None else self.group.as_group(),
            case_ids=tuple(dict.fromkeys(self.case_ids)),
            input=self.input,
            canary=self.canary,
            rate=self.rate,
            stop_after=self.stop_after,
            look=self.look,
        )


class Note(Strict):
    """Why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The first ones look well"}]})

    reason: Why


_REFUSALS = (400, 401, 403, 409, 413, 422, 503)
_ORDERED = {
    **success(202, "The run; its list is frozen", LOCATION),
    **problems(*_REFUSALS),
}
_SAID = problems(400, 401, 403, 404, 409, 413, 422, 503)
_READ = problems(401, 403, 404, 422, 503)
_ORDER = {"example": {"summary": "As `GET /v1/bulk/groups` names the group", "value": _EXAMPLE}}
_NOTE = {"example": {"summary": "Works as it stands", "value": {"reason": "The first ones look well"}}}


@router.get("/groups", operation_id="list_blocked_groups", responses=problems(401, 422, 503))
async def list_groups(
    session: Session, wiring: Wired, actor: CurrentActor, process: Annotated[Text | None, Query()] = None
) -> BulkGroups:
    """What is blocked, by step, partner and error; the largest group first, only what this actor may see."""
    return await blocked_groups(session, wiring.catalogue, actor=actor, process=process)


@router.post(
    "",
    status_code=202,
    operation_id="order_bulk",
    responses=_ORDERED,
    openapi_extra=header_parameters("Idempotency-Key"),
)
async def order(
    wiring: Wired,
    envelope: Sealed,
    response: Response,
    body: Annotated[Order, Storable, Body(openapi_examples=_ORDER)],  # pyright: ignore[reportArgumentType]
) -> BulkDocument:
    """Freeze the list now and begin with the first few; the policy decides on each case at its turn."""
    async with wiring.command() as session:
        bulk_id = await order_bulk(session, wiring.catalogue, order=body.as_order(), envelope=envelope)
    async with wiring.database.transaction() as session:
        document = await get_bulk(session, bulk_id=bulk_id)
    response.headers["Location"] = f"/v1/bulk/{bulk_id}"
    return document


@router.get("", operation_id="list_bulk", responses=problems(401, 403, 422, 503))
async def list_(
    session: Session,
    _: OverseeingActor,
    state: RunState | None = None,
    process: Annotated[Text | None, Query(description="Only runs over cases of it")] = None,
    before: UUID | None = None,
    limit: Annotated[Limit, Query()] = RUNS_A_PAGE,
) -> BulkList:
    """Bulk runs, the newest first."""
    return await list_bulk(session, state=state, process=process, before=before, limit=limit)


@router.get("/{bulk_id}", operation_id="get_bulk", responses=_READ)
async def get(session: Session, _: OverseeingActor, bulk_id: UUID) -> BulkDocument:
    """The run: how many of its cases are where, what it does next, and why it stopped."""
    return await get_bulk(session, bulk_id=bulk_id)


@router.get("/{bulk_id}/items", operation_id="list_bulk_items", responses=_READ)
async def items(
    session: Session,
    _: OverseeingActor,
    bulk_id: UUID,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="The number of the last one you have")] = 0,
    limit: Annotated[Limit, Query()] = MAX_PAGE,
) -> BulkItemList:
    """The cases in their order, each with its verified outcome."""
    return await list_items(session, bulk_id=bulk_id, state=state, after=after, limit=limit)


@router.post("/{bulk_id}/continue", operation_id="continue_bulk", responses=_SAID)
async def continue_(
    wiring: Wired,
    actor: OperatingActor,
    bulk_id: UUID,
    body: Annotated[Note, Storable, Body(openapi_examples=_NOTE)],  # pyright: ignore[reportArgumentType]
) -> BulkDocument:
    """The first ones look well: go on. Doing it twice does it once, so it needs no Idempotency-Key."""
    async with wiring.command() as session:
        await continue_bulk(session, bulk_id=bulk_id, actor=actor, reason=body.reason)
    async with wiring.database.transaction() as session:
        return await get_bulk(session, bulk_id=bulk_id)


@router.post("/{bulk_id}/stop", operation_id="stop_bulk", responses=_SAID)
async def stop(
    wiring: Wired,
    actor: OperatingActor,
    bulk_id: UUID,
    body: Annotated[Note, Storable, Body(openapi_examples=_NOTE)],  # pyright: ignore[reportArgumentType]
) -> BulkDocument:
    """Leave the rest as it is; what was sent gets its outcome. Doing it twice does it once, so it needs no key."""
    async with wiring.command() as session:
        await stop_bulk(session, bulk_id=bulk_id, actor=actor, reason=body.reason)
    async with wiring.database.transaction() as session:
        return await get_bulk(session, bulk_id=bulk_id)
