"""What every request passes before any route: a trace, its holder's identity, a bound on its size; and what every
answer gets: security headers, and a problem document where nothing else was said.

Authentication stands here and not in the routes, so that a route that forgets it is closed instead of open, and so
that nobody's body is read before we know whose it is.
"""

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestRefused, accident, refusal
from api.tokens import Verifier
from caseward.trace import continue_trace

MAX_BODY = 256 * 1024  # bytes; the largest subject with all its documents has a tenth of it
GUARDED = "/v1"
STREAMED = re.compile(r"/(?:v1|console)/cases/[^/]+/documents")  # read piece by piece, up to a limit of its own
SIGNED = re.compile(r"/v1/partners/[^/]+/callbacks")  # partners have no tokens: the route checks their signature


class Front:
    """The outermost layer of our own, inside of Starlette's last resort only."""

    def __init__(self, app: ASGIApp, verifier: Verifier, spellings: Mapping[str, str]) -> None:
        self.app = app
        self.verifier = verifier
        self.spellings = spellings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["traceparent"] = continue_trace(headers.get("traceparent"))
        guarded = scope["path"] == GUARDED or scope["path"].startswith(GUARDED + "/")
        started = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _seal(MutableHeaders(scope=message), guarded=guarded)
            await send(message)

        try:
            if guarded and not _signed(scope):
                state["identity"] = self.verifier.identify(headers.getlist("authorization"))
                scope["path"] = self._canonical(scope["path"])
            bounded = scope["method"] != "GET" and not _bounds_itself(scope)
            await self.app(scope, _limited(receive, headers) if bounded else receive, sealed)
        except RequestRefused as refused:
            await refusal(scope, refused)(scope, receive, sealed)
        except Exception as fault:
            answer = accident(scope, fault)
            if started:
                raise  # too late for an answer: the connection is cut, so that nobody takes half of one for a whole
            await answer(scope, receive, sealed)

    def _canonical(self, path: str) -> str:
        """The path with hyphens, where somebody spelt a process or an action as it stands in documents."""
        parts = path.split("/")  # "", "v1", process, case id, transition; or "cases", id, "overrides", override
        if len(parts) > 2 and parts[2] not in {"processes", "schemas"}:  # noqa: PLR2004 - see above
            for position in {2, len(parts) - 1}:
                parts[position] = self.spellings.get(parts[position], parts[position])
        return "/".join(parts)


def _signed(scope: Scope) -> bool:
    return scope["method"] == "POST" and SIGNED.fullmatch(scope["path"]) is not None


def _bounds_itself(scope: Scope) -> bool:
    return scope["method"] == "POST" and STREAMED.fullmatch(scope["path"]) is not None


def _seal(headers: MutableHeaders, *, guarded: bool) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    if guarded:
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


def _limited(receive: Receive, headers: Headers) -> Receive:
    """`receive` that stops reading beyond the bound, whether the size was announced or not."""
    announced = headers.get("content-length", "0")
    too_large = announced.isdecimal() and int(announced) > MAX_BODY
    total = 0

    async def limited() -> Message:
        nonlocal total
        if too_large:
            raise HTTPException(413)  # the one exception that FastAPI lets through while it reads a body
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > MAX_BODY:
                raise HTTPException(413)
        return message

    return limited
