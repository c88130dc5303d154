"""Problem documents (RFC 9457): every refusal and every accident in one shape, with a stable code.

CommandRefused                  the engine's own tree (caseward/errors.py)
└── RequestRefused              refused at the door; may add headers
    ├── TokenMissing            401
    ├── TokenInvalid            401
    ├── SignatureInvalid        401
    ├── IfMatchMalformed        400
    ├── LastEventIdMalformed    400
    ├── ProcessNotFound         404
    ├── PartnerNotFound         404
    ├── SchemaNotFound          404
    ├── DatabaseAway            503
    └── DatabaseNotMigrated     503
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Scope

from caseward.documents.problem import Problem
from caseward.errors import ActionNotAllowed, CommandRefused, InputInvalid, VersionStale
from caseward.trace import trace_id

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = 1  # seconds; Postgres is back within half a second when it was only killed
MAX_FIELD = 200  # characters of a field's name that an answer repeats
AWAY = (OperationalError, InterfaceError, PoolExhausted)


class RequestRefused(CommandRefused):
    """A request was refused at the door."""

    headers: ClassVar[Mapping[str, str]] = {}


class TokenMissing(RequestRefused):
    """No bearer token was sent."""

    code = "token_missing"
    status = 401
    title = "Who are you?"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("Send a bearer token in the Authorization header.")


class TokenInvalid(RequestRefused):
    """The bearer token is not one of ours, or not any more."""

    code = "token_invalid"
    status = 401
    title = "The token is not accepted"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}

    def __init__(self, word: str) -> None:
        super().__init__(f"The bearer token is {word}.")


class SignatureInvalid(RequestRefused):
    """A callback is not signed by the partner that it names, or not now."""

    code = "signature_invalid"
    status = 401
    title = "The signature is not accepted"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Webhook-Signature"}

    def __init__(self, why: str) -> None:
        super().__init__(f"The callback's signature is not accepted: {why}.")


class IfMatchMalformed(RequestRefused):
    """If-Match is `*` or a list of entity tags."""

    code = "if_match_malformed"
    status = 400
    title = "If-Match is malformed"

    def __init__(self) -> None:
        super().__init__('If-Match takes the ETag of the case, such as "7", a list of them, or *.')


class LastEventIdMalformed(RequestRefused):
    """Last-Event-ID is the number of a timeline entry."""

    code = "last_event_id_malformed"
    status = 400
    title = "Last-Event-ID is malformed"

    def __init__(self) -> None:
        super().__init__("Last-Event-ID takes the number of the last timeline entry received.")


class ProcessNotFound(RequestRefused):
    """No process has this name."""

    code = "process_not_found"
    status = 404
    title = "No such process"

    def __init__(self) -> None:
        super().__init__("No process has this name here.")


class PartnerNotFound(RequestRefused):
    """No process works with a partner of this name."""

    code = "partner_not_found"
    status = 404
    title = "No such partner"

    def __init__(self) -> None:
        super().__init__("No partner has this name here.")


class SchemaNotFound(RequestRefused):
    """No schema has this name."""

    code = "schema_not_found"
    status = 404
    title = "No such schema"

    def __init__(self) -> None:
        super().__init__("No schema has this name here.")


class DatabaseAway(RequestRefused):
    """Postgres can't be reached, or is too busy to answer."""

    code = "database_away"
    status = 503
    title = "Not available for a moment"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER)}

    def __init__(self) -> None:
        super().__init__("The database can't be reached. Send the same command again, with the same Idempotency-Key.")


class DatabaseNotMigrated(RequestRefused):
    """Postgres is there, but its tables are not what this version needs."""

    code = "database_not_migrated"
    status = 503
    title = "Not ready"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER)}

    def __init__(self) -> None:
        super().__init__("The database was not migrated to this version yet.")


# What Starlette and FastAPI raise themselves.
FOREIGN: Mapping[int, tuple[str, str]] = {
    400: ("malformed_json", "The body is not well-formed JSON."),
    404: ("not_found", "Nothing is at this address."),
    405: ("method_not_allowed", "This address does not take this method; see the Allow header."),
    413: ("body_too_large", "The body is larger than 256 KiB."),
}


def problem(
    scope: Scope,
    *,
    status: int,
    code: str,
    detail: str,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """A problem document as a response; members that are None are left out."""
    traceparent = scope.get("state", {}).get("traceparent")
    document = Problem(
        type=f"urn:caseward:problem:{code}",
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        trace_id=trace_id(traceparent) if traceparent else None,
        **members,
    )
    content = document.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, headers=headers, media_type=PROBLEM_JSON)


def refusal(scope: Scope, refused: CommandRefused) -> JSONResponse:
    """What the engine or the door refused, as a problem document."""
    code, status = refused.code, refused.status
    if isinstance(refused, ActionNotAllowed):
        code, status = refused.first_code, refused.http_status
    headers = dict(refused.headers) if isinstance(refused, RequestRefused) else {}
    members = {"reasons": [{"code": code, "message": refused.detail}], **refused.members}
    if isinstance(refused, VersionStale):
        headers["ETag"] = f'"{refused.members["etag"]}"'
    return problem(
        scope, status=status, code=code, detail=refused.detail, title=refused.title, headers=headers, **members
    )


def accident(scope: Scope, fault: Exception) -> JSONResponse:
    """What nobody foresaw: logged in full, answered without a word about our insides."""
    structlog.get_logger("api").error(
        "request_failed", path=scope["path"], traceparent=scope["state"]["traceparent"], exc_info=fault
    )
    detail = "Something went wrong on our side. It was logged under this trace id."
    return problem(scope, status=500, code="internal_error", detail=detail)


def add_error_handlers(app: FastAPI) -> None:
    """Every error that FastAPI's routing can meet becomes a problem document."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def problem_of(request: Request, fault: Exception) -> JSONResponse:
    """Whatever went wrong, as a problem document."""
    handler = next((each for kind, each in _HANDLERS.items() if isinstance(fault, kind)), None)
    return await handler(request, fault) if handler else accident(request.scope, fault)


async def _command_refused(request: Request, fault: Exception) -> JSONResponse:
    refused = cast("CommandRefused", fault)
    code = refused.first_code if isinstance(refused, ActionNotAllowed) else refused.code
    structlog.get_logger("api").info(
        "refused", code=code, path=request.scope["path"], traceparent=request.state.traceparent
    )
    return refusal(request.scope, refused)


async def _input_invalid(request: Request, fault: Exception) -> JSONResponse:
    errors = cast("Sequence[dict[str, Any]]", cast("RequestValidationError", fault).errors())
    broken = next((error for error in errors if error["type"] == "json_invalid"), None)
    if broken is not None:
        code, detail = FOREIGN[400]
        return problem(request.scope, status=400, code=code, detail=f"{detail} See character {broken['loc'][-1]}.")
    found = [{"field": _field(error), "message": _message(request, error)} for error in errors]
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in found[:5])
    return refusal(request.scope, InputInvalid(detail, errors=found))


def _field(error: dict[str, Any]) -> str:
    where, *rest = error["loc"]
    path = error.get("ctx", {}).get("path")  # of what the storable check found
    name = path if path is not None else ".".join(str(part) for part in rest)
    return (name or str(where)).encode("utf-8", "replace").decode()[:MAX_FIELD]


def _message(request: Request, error: dict[str, Any]) -> str:
    if error["loc"] == ("body",) and "json" not in request.headers.get("content-type", "").lower():
        return "Send JSON, with Content-Type: application/json."
    return error["msg"]


async def _foreign(request: Request, fault: Exception) -> JSONResponse:
    raised = cast("HTTPException", fault)
    code, detail = FOREIGN.get(raised.status_code, ("refused", raised.detail))
    headers = dict(raised.headers or {})
    if raised.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # Starlette knows only the first route of an address
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return problem(request.scope, status=raised.status_code, code=code, detail=detail, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """The methods of every route at the address of this request."""
    found: set[str] = set()
    waiting: list[Any] = list(request.app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
        elif route.path_regex.match(request.scope["path"]):
            found |= route.methods
    return found


async def _database_fault(request: Request, fault: Exception) -> JSONResponse:
    if isinstance(fault, AWAY) or (isinstance(fault, DBAPIError) and fault.connection_invalidated):
        structlog.get_logger("api").warning("database_away", error=type(fault).__name__)
        return refusal(request.scope, DatabaseAway())
    if isinstance(fault, DataError):  # a value that passed every schema and that Postgres has no room for
        detail = "A value is outside of what can be stored."
        return refusal(request.scope, InputInvalid(detail, errors=[{"field": "body", "message": detail}]))
    return accident(request.scope, fault)


_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Coroutine[Any, Any, JSONResponse]]] = {
    CommandRefused: _command_refused,
    RequestValidationError: _input_invalid,
    HTTPException: _foreign,
    DBAPIError: _database_fault,
    PoolExhausted: _database_fault,
}
