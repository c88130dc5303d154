"""The declarations, for screens and for people."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.declarations import ProcessDocument, ProcessList, process_document, process_list, schemas
from api.deps import CurrentActor, Holder
from api.errors import ProcessNotFound, SchemaNotFound
from api.responses import problems
from caseward.documents.people import Me
from caseward.process import Catalogue

Name = Annotated[str, Path(max_length=200)]


def process_routes(catalogue: Catalogue) -> APIRouter:
    """Made once: declarations don't change while the process runs."""
    router = APIRouter(prefix="/v1", tags=["Declarations"])
    listed = process_list(catalogue)
    documents = {name: process_document(process) for name, process in catalogue.items()}
    known = schemas(catalogue)

    async def get_processes(_: Holder) -> ProcessList:
        """Every process that runs here."""
        return listed

    async def get_process(_: Holder, process: Name) -> ProcessDocument:
        """One process as declared: states, transitions, steps, roles, overrides."""
        found = documents.get(process.replace("-", "_"))
        if found is None:
            raise ProcessNotFound
        return found

    async def get_schema(_: Holder, name: Name) -> dict[str, Any]:
        """A JSON Schema: `override.retry`, `{process}.{transition}`, `{process}.subject`, `{process}.{step}.result`."""
        if name not in known:
            raise SchemaNotFound
        return known[name]

    async def get_me(actor: CurrentActor) -> Me:
        """The actor as the server sees it."""
        stands_in = dict(actor.lent)
        return Me(id=actor.id, roles=sorted(actor.roles), stands_in=stands_in)

    router.get("/processes", operation_id="list_processes", responses=problems(401))(get_processes)
    router.get("/processes/{process}", operation_id="get_process", responses=problems(401, 404, 422))(get_process)
    router.get("/schemas/{name}", operation_id="get_schema", responses=problems(401, 404, 422))(get_schema)
    router.get("/me", operation_id="get_me", responses=problems(401, 503))(get_me)
    return router
