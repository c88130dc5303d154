"""Processes: each declaration as a picture, with where its cases are and get stuck, and how its partners are."""

from fastapi import Request, Response
from markupsafe import Markup

from api.console import Place
from api.console.door import Operator, console_router
from api.console.numbers import PERIODS, numbers_of
from api.console.pages import age, page
from api.console.plots import WORDS
from api.declarations import process_document
from api.deps import OVERSEES, Wired, Wiring
from api.errors import ProcessNotFound
from api.routes_numbers import Days
from caseward.cases.queries import openings
from caseward.diagram import diagram
from caseward.documents.numbers import ProcessNumbers
from caseward.process import Process

router = console_router()
PLACE = Place("Processes", "/console/processes")


@router.get("/console/processes")
async def processes(request: Request, wiring: Wired, actor: Operator) -> Response:
    """Every process; with numbers for those who may see them."""
    numbers = await numbers_of(wiring, days=1, visits=False) if OVERSEES.lets(actor) else None
    async with wiring.database.transaction() as session:
        opens = await openings(session, wiring.catalogue, actor=actor)
    shown = {"processes": wiring.catalogue.values(), "opens": opens, "numbers": numbers}
    return page(request, "processes.html", **shown, **WORDS)


@router.get("/console/processes/{name}")
async def process(request: Request, wiring: Wired, actor: Operator, name: str, days: Days = 7) -> Response:
    """One of them. Raises ProcessNotFound."""
    declared = find_process(wiring, name)
    numbers = await numbers_of(wiring, days=days, process=declared.name) if OVERSEES.lets(actor) else None
    told = numbers.processes[0] if numbers else None
    async with wiring.database.transaction() as session:
        opens = (await openings(session, wiring.catalogue, actor=actor))[declared.name]
    return page(
        request,
        "process.html",
        process=process_document(declared),
        opening=declared.opening,
        opens_at=f"/console/processes/{declared.path}/open",
        opens=opens,
        drawing=picture(declared, told),
        numbers=numbers,
        told=told,
        days=days,
        periods=PERIODS,
        **WORDS,
    )


def find_process(wiring: Wiring, name: str) -> Process:
    """The declaration of this name, however it is spelt. Raises ProcessNotFound."""
    declared = wiring.catalogue.get(name.replace("-", "_"))
    if declared is None:
        raise ProcessNotFound
    return declared


def picture(process: Process, told: ProcessNumbers | None) -> Markup:
    """The declaration, with how many cases are in each state and since when."""
    notes: dict[str, str] = {}
    for row in told.states if told else ():
        if row.cases and row.oldest_since is not None:
            since = age(row.oldest_since).removesuffix(" ago")
            stuck = f", {row.stuck} stuck" if row.stuck else ""
            notes[row.state] = f"{row.cases} here{stuck}, the oldest {since}"
    alarming = {row.state for row in told.states if row.stuck} if told else set[str]()
    return Markup(diagram(process, notes=notes, alarming=alarming, styled=False))  # noqa: S704 - it escapes what it draws
