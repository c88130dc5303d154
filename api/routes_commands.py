"""Commands: one typed route per process and transition, and one per override and claim, made from the declarations."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel

from api.answers import Answering
from api.bodies import Storable, example, opening_body, requires_something, transition_body
from api.deps import Sealed, Wait, Wired, header_parameters
from api.responses import OPENING, command
from caseward.cases.commands import open_case, request_claim, request_override, request_transition
from caseward.claims import CLAIM_TITLES, CLAIM_WORDS, ClaimInput
from caseward.documents.case import CaseDocument
from caseward.documents.operation import OperationDocument
from caseward.overrides import OVERRIDES, Override
from caseward.process import Catalogue, Process, Transition, hyphenated

ON_A_CASE = header_parameters("Idempotency-Key", "If-Match", "Prefer")


def command_routes(catalogue: Catalogue) -> APIRouter:
    """Every command there is."""
    router = APIRouter(prefix="/v1")
    for process in catalogue.values():
        _add_opening(router, process)
        for transition in process.transitions:
            if not transition.opens:
                _add_transition(router, process, transition)
    for name in CLAIM_TITLES:
        _add_claim(router, name)
    for override in OVERRIDES.values():
        _add_override(router, override)
    return router


def _add_opening(router: APIRouter, process: Process) -> None:
    async def open_(wiring: Wired, envelope: Sealed, wait: Wait, response: Response, body: Any) -> CaseDocument:
        async with wiring.command() as session:
            accepted = await open_case(
                session,
                wiring.catalogue,
                process=process.name,
                business_key=body.business_key,
                subject=body.subject,
                envelope=envelope,
            )
        return await Answering(wiring, envelope, wait).case(response, accepted)

    router.add_api_route(
        f"/{process.path}",
        taking(open_, opening_body(process)),
        methods=["POST"],
        status_code=201,
        operation_id=f"{process.name}_{process.opening.name}",
        summary=process.opening.title,
        description=f"Opens a case of {process.title}.",
        tags=[process.title],
        responses=OPENING,
        openapi_extra=header_parameters("Idempotency-Key", "Prefer"),
    )


def _add_transition(router: APIRouter, process: Process, transition: Transition) -> None:
    async def request(
        wiring: Wired, envelope: Sealed, wait: Wait, response: Response, case_id: UUID, body: Any
    ) -> OperationDocument:
        async with wiring.command() as session:
            accepted = await request_transition(
                session,
                wiring.catalogue,
                process=process.name,
                case_id=case_id,
                transition=transition.name,
                input=body.input,
                reason=body.reason,
                envelope=envelope,
            )
        return await Answering(wiring, envelope, wait).operation(response, accepted)

    sources = ", ".join(sorted(process.state(name).title for name in transition.source))
    targets = " or ".join(process.state(name).title for name in transition.targets)
    router.add_api_route(
        f"/{process.path}/{{case_id}}/{hyphenated(transition.name)}",
        taking(request, transition_body(process, transition), optional=not requires_something(transition.input)),
        methods=["POST"],
        operation_id=f"{process.name}_{transition.name}",
        summary=transition.title,
        description=f"From {sources} to {targets}.",
        tags=[process.title],
        responses=command(),
        openapi_extra=ON_A_CASE,
    )


def _add_claim(router: APIRouter, name: str) -> None:
    async def request(
        wiring: Wired, envelope: Sealed, wait: Wait, response: Response, case_id: UUID, body: Any
    ) -> OperationDocument:
        async with wiring.command() as session:
            accepted = await request_claim(
                session, wiring.catalogue, case_id=case_id, claim=name, input=body, envelope=envelope
            )
        return await Answering(wiring, envelope, wait).operation(response, accepted)

    router.add_api_route(
        f"/cases/{{case_id}}/{name}",
        taking(request, ClaimInput, optional=True),
        methods=["POST"],
        operation_id=f"{name}_case",
        summary=CLAIM_TITLES[name],
        description=CLAIM_WORDS[name],
        tags=["Cases"],
        responses=command(),
        openapi_extra=ON_A_CASE,
    )


def _add_override(router: APIRouter, override: Override) -> None:
    async def request(
        wiring: Wired, envelope: Sealed, wait: Wait, response: Response, case_id: UUID, body: Any
    ) -> OperationDocument:
        async with wiring.command() as session:
            accepted = await request_override(
                session, wiring.catalogue, case_id=case_id, override=override.name, input=body, envelope=envelope
            )
        return await Answering(wiring, envelope, wait).operation(response, accepted)

    router.add_api_route(
        f"/cases/{{case_id}}/overrides/{hyphenated(override.name)}",
        taking(request, override.input),
        methods=["POST"],
        operation_id=f"override_{override.name}",
        summary=override.title,
        description=inspect.getdoc(override.input),
        tags=["Overrides"],
        responses=command(),
        openapi_extra=ON_A_CASE,
    )


def taking(endpoint: Callable[..., Any], model: type[BaseModel], *, optional: bool = False) -> Callable[..., Any]:
    """The endpoint with `body` of this very type, and with its example."""
    signature = inspect.signature(endpoint)
    # Beside the schema too, where tools look for it.
    shown: dict[str, Any] = {"example": {"summary": "Works as it stands", "value": example(model)}}
    annotation = Annotated[model, Storable, Body(openapi_examples=shown)]
    body = signature.parameters["body"].replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY)
    if optional:
        body = body.replace(default=model())
    others = [parameter for name, parameter in signature.parameters.items() if name != "body"]
    endpoint.__signature__ = signature.replace(parameters=[*others, body])  # pyright: ignore[reportFunctionMemberAccess]
    return endpoint
