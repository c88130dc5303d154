"""Work: what needs a person now."""

from fastapi import Request, Response

from api.console import Place
from api.console.door import Operator, console_router
from api.console.pages import page

router = console_router()
PLACE = Place("Work", "/console/work")


@router.get("/console/work")
async def work(request: Request, actor: Operator) -> Response:
    """What needs this actor, or anybody."""
    return page(request, "work.html", actor=actor)
