"""The console, put together."""

from http import HTTPStatus
from types import ModuleType

from fastapi import APIRouter, FastAPI, Response
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from api.console import (
    Console,
    Place,
    act,
    answer,
    bulk,
    bulk_order,
    callbacks,
    case,
    documents,
    numbers,
    opening,
    pauses,
    processes,
    sign_in,
    views,
    work,
)
from api.console.door import console_router, public_router
from api.console.pages import FILES
from api.tokens import Verifier

# Every page, in the order of the navigation; what is named like a run stands before the runs.
PAGES: tuple[ModuleType, ...] = (
    *(work, views, case, documents, act, answer),
    *(bulk_order, bulk, pauses, callbacks, processes, opening, numbers),
)
A_YEAR = 365 * 24 * 3600  # seconds: another content has another address


def add_console(app: FastAPI, console: Console, verifier: Verifier) -> None:
    """The console's pages, and `/` as the way to them."""
    app.state.console, app.state.verifier = console, verifier
    app.state.places = [module.PLACE for module in PAGES if isinstance(getattr(module, "PLACE", None), Place)]
    public = public_router()
    for path in ("/", "/console", "/console/"):
        public.get(path)(home)
    public.get("/console/static/{name:path}")(static_file)
    routers: list[APIRouter] = [
        public,
        sign_in.public,
        sign_in.router,
        documents.uploads,
        *(module.router for module in PAGES),
    ]
    rest = console_router()
    rest.get("/console/{rest:path}")(nothing)
    for router in (*routers, rest):
        app.include_router(router)


async def home() -> Response:
    """To what needs somebody."""
    return RedirectResponse(sign_in.HOME, HTTPStatus.SEE_OTHER)


async def static_file(name: str) -> Response:
    """A file that every page needs."""
    file = FILES.get(name)
    if file is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    kept = {"Cache-Control": f"public, max-age={A_YEAR}, immutable"}
    return Response(file.content, media_type=file.media_type, headers=kept)


async def nothing() -> Response:
    """Nothing is there, said by a page."""
    raise HTTPException(HTTPStatus.NOT_FOUND)
