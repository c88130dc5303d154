"""Exit codes: what a script may rely on. One for each kind of end, whatever the command."""

from http import HTTPStatus

DONE, REFUSED, MISUSED, NOT_SIGNED_IN, NOT_FOUND, AWAY, UNFINISHED, BLOCKED = range(8)

WORDS = (
    "Exit codes: 0 done; 1 refused by policy or state; 2 called wrongly; 3 not signed in; 4 not found; "
    "5 the API is away; 6 accepted, but not finished within --wait; 7 ended blocked."
)


def exit_code(status: int) -> int:
    """What a refusal of this HTTP status ends a command with."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AWAY
    return _OF.get(status, MISUSED)


_OF: dict[int, int] = {
    HTTPStatus.UNAUTHORIZED: NOT_SIGNED_IN,
    HTTPStatus.FORBIDDEN: REFUSED,
    HTTPStatus.NOT_FOUND: NOT_FOUND,
    HTTPStatus.CONFLICT: REFUSED,
    HTTPStatus.PRECONDITION_FAILED: REFUSED,
}
