"""Numbers: how the business has run, as plots; each is a table too."""

from fastapi import Request, Response

from api.console import Place
from api.console.door import Operator, console_router
from api.console.pages import page
from api.console.plots import WORDS
from api.deps import OVERSEES, Wired
from api.errors import ProcessNotFound
from api.routes_numbers import Days
from caseward.cases.numbers import get_numbers
from caseward.documents.numbers import Numbers

router = console_router()
PLACE = Place("Numbers", "/console/numbers", OVERSEES.roles)

PERIODS = ((1, "a day"), (7, "a week"), (30, "a month"))


async def numbers_of(wiring: Wired, *, days: int, process: str | None = None, visits: bool = True) -> Numbers:
    """As the API answers them. Raises ProcessNotFound."""
    if process is not None and process not in wiring.catalogue:
        raise ProcessNotFound
    async with wiring.database.transaction() as session:
        return await get_numbers(session, wiring.catalogue, days=days, process=process, visits=visits)


@router.get("/console/numbers")
async def numbers(
    request: Request, wiring: Wired, actor: Operator, days: Days = 7, process: str | None = None
) -> Response:
    """Every process, or one. Raises ActionNotAllowed."""
    await OVERSEES(actor)
    name = process.replace("-", "_") if process else None
    found = await numbers_of(wiring, days=days, process=name)
    processes = wiring.catalogue.values()
    return page(request, "numbers.html", numbers=found, chosen=name, periods=PERIODS, processes=processes, **WORDS)
