"""What each kind of route answers, as its OpenAPI document declares it: every status, every header."""

from collections.abc import Mapping
from typing import Any

from api.errors import PROBLEM_JSON

Responses = dict[int | str, dict[str, Any]]

_TEXT = {"schema": {"type": "string"}}
ETAG = {"ETag": {"description": "The version of the case.", **_TEXT}}
NO_STORE = {"Cache-Control": {"description": "The answer depends on who asks.", **_TEXT}}
LOCATION = {"Location": {"description": "Where it is from now on.", **_TEXT}}
DOWNLOAD = {
    "Content-Disposition": {"description": "The name to save it under.", **_TEXT},
    "Repr-Digest": {"description": "Its SHA-256 (RFC 9530).", **_TEXT},
    "ETag": {"description": "The same hash as in its document: a content never changes.", **_TEXT},
}
_APPLIED = {"Preference-Applied": {"description": "The wait that was granted.", **_TEXT}}

_SAYS: Mapping[int, str] = {
    400: "A header is missing or malformed, or the body is not JSON",
    401: "No bearer token or signature, or one that is not accepted",
    403: "Another person could, this one can't",
    404: "Nothing here that this actor may see",
    409: "The case is not where this is possible; it must move first",
    412: "The case has changed since the version in If-Match",
    413: "The body is larger than what is taken here",
    415: "The content is of another type than what is taken here",
    422: "The input is wrong, or the Idempotency-Key was used for something else",
    503: "The database is away; try again",
}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": _TEXT},
    412: ETAG,
    503: {"Retry-After": _TEXT},
}


def problems(*statuses: int) -> Responses:
    """Declared refusals."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _SAYS[status], "headers": _HEADERS.get(status, {}), "content": content}
        for status in sorted(statuses)
    }


def success(status: int, description: str, *headers: Mapping[str, Any]) -> Responses:
    """The description and the headers of a success."""
    merged = {name: header for group in headers for name, header in group.items()}
    return {status: {"description": description, "headers": merged}}


_COMMAND = (400, 401, 403, 404, 409, 412, 413, 422, 503)

OPENING: Responses = {
    **success(201, "The case, opened now or by the same command before", LOCATION, ETAG, NO_STORE),
    **problems(*(status for status in _COMMAND if status not in {404, 412}), 404),
}
READING: Responses = problems(401, 404, 422, 503)
READING_CASE: Responses = {**success(200, "The case as this actor sees it", ETAG, NO_STORE), **READING}


def command(schema: str = "#/components/schemas/OperationDocument") -> Responses:
    """The answers of a command on a case."""
    document = {"application/json": {"schema": {"$ref": schema}}}
    headers = {**LOCATION, **ETAG, **_APPLIED}
    accepted = {"description": "Accepted; the outcome is to come", "headers": headers, "content": document}
    return {**success(200, "The operation has an outcome", headers), 202: accepted, **problems(*_COMMAND)}
