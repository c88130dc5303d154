"""The application, put together: create_app(database, catalogue, verifier)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import (
    routes_bulk,
    routes_callbacks,
    routes_cases,
    routes_delegations,
    routes_documents,
    routes_health,
    routes_numbers,
    routes_pauses,
    routes_proposals,
    routes_stream,
)
from api.console import Console
from api.console.routes import add_console
from api.deps import Wiring
from api.errors import add_error_handlers
from api.front import Front
from api.notices import Notices
from api.routes_commands import command_routes
from api.routes_metrics import metrics_routes
from api.routes_processes import process_routes
from api.tokens import Verifier
from api.uploads import Uploads
from api.webhooks import Signatures
from caseward.db.migrate import revisions
from caseward.db.session import Database
from caseward.documents.problem import Problem
from caseward.objects import Objects
from caseward.overrides import OVERRIDES
from caseward.process import Catalogue, hyphenated

# The first words below /v1 that are no process.
TAKEN = frozenset(
    {
        "cases",
        "operations",
        "outbox",
        "processes",
        "schemas",
        "me",
        "pauses",
        "bulk",
        "partners",
        "callbacks",
        "claim",
        "delegations",
        "documents",
        "numbers",
    }
)
DESCRIPTION = """Cases of business processes: open them, move them, see what they wait for, mend what is half done.

A case document lists every action with whether this actor may take it now, why not, and where: follow its `href`s."""


def create_app(
    database: Database,
    catalogue: Catalogue,
    verifier: Verifier,
    signatures: Signatures | None = None,
    uploads: Uploads | None = None,
    console: Console | None = None,
) -> FastAPI:
    """The ASGI application; without `signatures` it accepts no partner's callback, without `uploads` no document, and
    without `console` it has no pages.

    Raises ValueError for a process whose path is taken.
    """
    for process in catalogue.values():
        if process.path in TAKEN:
            message = f"a process can't be called {process.name}: /v1/{process.path} is something else"
            raise ValueError(message)
    notices = Notices(database.engine.url.render_as_string(hide_password=False))
    wiring = Wiring(database, catalogue, notices, revisions(), uploads or Uploads(Objects.in_memory(), limit=0))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with notices.listening():
            yield

    app = FastAPI(
        title="Caseward",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # Swagger UI comes from a CDN, which a closed network does not reach
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.wiring = wiring
    app.state.signatures = signatures or Signatures()
    app.add_middleware(Front, verifier=verifier, spellings=_spellings(catalogue))
    add_error_handlers(app)
    for router in (
        command_routes(catalogue),
        routes_cases.router,
        routes_delegations.router,
        routes_documents.router,
        routes_bulk.router,
        routes_proposals.router,
        routes_callbacks.router,
        routes_pauses.router,
        routes_stream.router,
        process_routes(catalogue),
        routes_numbers.router,
        routes_health.router,
        metrics_routes(wiring),
    ):
        app.include_router(router)
    if console is not None:
        add_console(app, console, verifier)
    app.openapi = lambda: _openapi(app)  # pyright: ignore[reportAttributeAccessIssue]
    return app


def _spellings(catalogue: Catalogue) -> dict[str, str]:
    """From names as they stand in documents to names as they stand in paths."""
    names = [*OVERRIDES, *catalogue]
    names += [transition.name for process in catalogue.values() for transition in process.transitions]
    return {name: hyphenated(name) for name in names if "_" in name}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the problem document in it."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas["Problem"] = schema
        app.openapi_schema = document
    return app.openapi_schema
