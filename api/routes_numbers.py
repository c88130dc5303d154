"""How the business runs, in numbers."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import OverseeingActor, Session, Wired
from api.errors import ProcessNotFound
from api.responses import problems
from api.routes_cases import Text
from caseward.cases.numbers import MOST_DAYS, get_numbers
from caseward.documents.numbers import Numbers

router = APIRouter(prefix="/v1/numbers", tags=["Numbers"])

Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="How far back.")]


@router.get("", operation_id="get_numbers", responses=problems(401, 403, 404, 422, 503))
async def numbers(
    session: Session,
    wiring: Wired,
    _: OverseeingActor,
    days: Days = 7,
    process: Annotated[Text | None, Query(description="One process; without it all.")] = None,
) -> Numbers:
    """Where cases stand and get stuck, how long states and operations take, what is done twice, how partners answer."""
    name = process.replace("-", "_") if process is not None else None
    if name is not None and name not in wiring.catalogue:
        raise ProcessNotFound
    return await get_numbers(session, wiring.catalogue, days=days, process=name)
