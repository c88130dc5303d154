"""The door of the console: who is signed in, that what is sent comes from our own pages, and the headers of every page.

It stands in the class of the routes, so that a page that forgets about it is closed instead of open. The cookie alone
moves nothing: a POST must also come from this very origin and carry the token of the session, in a field of its form;
in a header where a page's script sends a file as it is.

ConsoleRefused
├── NotSignedIn                 401
├── NotFromHere                 403
└── FormMalformed               400
"""

import hmac
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, cast
from urllib.parse import parse_qsl, quote

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from api.console.pages import page
from api.console.sessions import Session, find_session
from api.deps import Wiring, get_wiring
from api.errors import AWAY, DatabaseAway, RequestRefused, problem_of
from caseward.cases.delegations import standing_in
from caseward.cases.envelope import Envelope
from caseward.errors import ActionNotAllowed, CommandRefused, IdempotencyKeyInvalid
from caseward.situation import Actor

COOKIE = "__Host-caseward"  # the prefix has browsers insist on Secure, on the path / and on this very host
SAFE = frozenset({"GET", "HEAD"})
SIGN_IN = "/console/sign-in"
MAX_FIELDS = 500  # of a form; the largest generated one has a tenth of it
KEY = re.compile(r"[!-~]{1,200}")
TAG = re.compile(r"\d{1,18}(?:\.\d{1,18})?")
FORM = "application/x-www-form-urlencoded"
CSRF = "X-CSRF-Token"
# Nothing inline, nothing from elsewhere, no page of ours within another's.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Without any referrer browsers would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ConsoleRefused(RequestRefused):
    """A page was refused at the door."""


class NotSignedIn(ConsoleRefused):
    """Nobody is signed in, or not any more."""

    code: ClassVar[str] = "not_signed_in"
    status: ClassVar[int] = 401
    title: ClassVar[str] = "You are not signed in"

    def __init__(self) -> None:
        super().__init__("Your session has ended. Sign in again; nothing was changed.")


class NotFromHere(ConsoleRefused):
    """What was sent does not come from a page of this session."""

    code: ClassVar[str] = "not_from_here"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "This did not come from your page"

    def __init__(self) -> None:
        super().__init__("What was sent does not come from a page of your session. Nothing was changed.")


class FormMalformed(ConsoleRefused):
    """What was sent is no form of ours."""

    code: ClassVar[str] = "form_malformed"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "This is no form of ours"

    def __init__(self) -> None:
        super().__init__("What was sent is no form of this console. Nothing was changed.")


def console_router() -> APIRouter:
    """A router for pages of those who are signed in."""
    return APIRouter(route_class=Guarded, include_in_schema=False)


def public_router() -> APIRouter:
    """A router for the few pages that anybody may see; what they take must come from here all the same."""
    return APIRouter(route_class=Guarded, include_in_schema=False, tags=[_PUBLIC])


def upload_router() -> APIRouter:
    """A router for what a page's script sends as it is: the token comes in a header, no form is read, and whatever is
    wrong is answered as the API answers it, for the script to tell.
    """
    return APIRouter(route_class=Guarded, include_in_schema=False, tags=[_UPLOAD])


_PUBLIC, _UPLOAD = "public", "upload"


class Guarded(APIRoute):
    """A route behind the door."""

    def get_route_handler(self) -> Handler:
        """The route's own handler, with the door before it and the headers behind it."""
        inner, public, upload = super().get_route_handler(), _PUBLIC in self.tags, _UPLOAD in self.tags

        async def handle(request: Request) -> Response:
            try:
                request.state.session = None
                await _enter(request, public=public, upload=upload)
                response = await inner(request)
            except Exception as fault:  # noqa: BLE001 - the last resort too: logged in full, and no page without headers
                response = await problem_of(request, fault) if upload else _page_of(request, fault)
            seal(response.headers)
            return response

        return handle


def _page_of(request: Request, fault: Exception) -> Response:
    """What went wrong, as a page."""
    match fault:
        case NotSignedIn() if request.method in SAFE:
            return _to_sign_in(request)
        case CommandRefused() | HTTPException():
            return refusal_page(request, fault)
        case RequestValidationError():
            return refusal_page(request, HTTPException(HTTPStatus.NOT_FOUND))
        case DBAPIError() | PoolExhausted():
            return _database_fault(request, fault)
        case _:
            return _accident(request, fault)


def seal(headers: MutableHeaders) -> None:
    """The headers of everything that the console answers; what is kept by browsers says so itself."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)


async def _enter(request: Request, *, public: bool, upload: bool) -> None:
    """Find out who is there. Raises NotFromHere, FormMalformed, and NotSignedIn where it takes somebody."""
    form: dict[str, str] = {}
    if request.method not in SAFE:
        if not _from_here(request):
            raise NotFromHere
        form = {"csrf": request.headers.get(CSRF, "")} if upload else await _form(request)
    request.state.form = form
    key = request.cookies.get(COOKIE)
    if key is not None:
        wiring = await get_wiring(request)
        async with wiring.database.transaction() as session:
            clicked = "hx-request" not in request.headers
            request.state.session = await find_session(session, key, clicked=clicked)
    if public:
        return
    signed_in = request.state.session
    if signed_in is None:
        raise NotSignedIn
    if request.method not in SAFE and not hmac.compare_digest(form.get("csrf", "").encode(), signed_in.csrf.encode()):
        raise NotFromHere


def _from_here(request: Request) -> bool:
    """Browsers say from where a request comes, and pages can't make them lie about it."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    return request.headers.get("origin") == f"{request.url.scheme}://{request.headers.get('host')}"


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise FormMalformed
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as fault:
        raise FormMalformed from fault
    if len({name for name, _ in pairs}) < len(pairs):
        raise FormMalformed
    return dict(pairs)


def _to_sign_in(request: Request) -> Response:
    """To the page that asks who they are; what a page fetches for itself hears that it can't go on."""
    if "hx-request" in request.headers:
        return Response(status_code=HTTPStatus.UNAUTHORIZED)
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{SIGN_IN}?to={quote(wanted)}", HTTPStatus.SEE_OTHER)


def refusal_page(request: Request, refused: CommandRefused | HTTPException, **more: Any) -> Response:
    """Why it was refused, in words; `more` is what the page can say beyond that."""
    if isinstance(refused, HTTPException):
        status, code, detail, title = refused.status_code, "not_found", "Nothing is here.", "Nothing is here"
        if refused.status_code != HTTPStatus.NOT_FOUND:
            code, detail, title = "refused", str(refused.detail), HTTPStatus(refused.status_code).phrase
    else:
        allowed = refused if isinstance(refused, ActionNotAllowed) else None
        status, code = (allowed.http_status, allowed.first_code) if allowed else (refused.status, refused.code)
        detail, title = refused.detail, refused.title
    structlog.get_logger("console").info(
        "refused", code=code, path=request.scope["path"], traceparent=request.state.traceparent
    )
    return page(request, "refused.html", status=status, title=title, code=code, detail=detail, **more)


def _database_fault(request: Request, fault: Exception) -> Response:
    if isinstance(fault, DataError):
        return refusal_page(request, FormMalformed())
    if isinstance(fault, AWAY) or (isinstance(fault, DBAPIError) and fault.connection_invalidated):
        structlog.get_logger("console").warning("database_away", error=type(fault).__name__)
        answer = refusal_page(request, DatabaseAway())
        answer.headers["Retry-After"] = DatabaseAway.headers["Retry-After"]
        return answer
    return _accident(request, fault)


def _accident(request: Request, fault: Exception) -> Response:
    structlog.get_logger("console").error(
        "request_failed", path=request.scope["path"], traceparent=request.state.traceparent, exc_info=fault
    )
    detail = "Something went wrong on our side. It was logged; look at the case before you try again."
    return page(request, "refused.html", status=500, title="An accident", code="internal_error", detail=detail)


async def get_signed_in(request: Request) -> Session:
    """Who is signed in; the door has seen to it that somebody is."""
    return cast("Session", request.state.session)


SignedIn = Annotated[Session, Depends(get_signed_in)]


async def get_console_actor(request: Request) -> Actor:
    """Who asks, with the roles of those for whom they stand in."""
    wiring: Wiring = await get_wiring(request)
    async with wiring.database.transaction() as session:
        actor = await standing_in(session, cast("Session", request.state.session).actor)
    request.state.actor = actor
    return actor


Operator = Annotated[Actor, Depends(get_console_actor)]


async def get_form(request: Request) -> dict[str, str]:
    """What the form said, the door's own field left out."""
    return {name: value for name, value in request.state.form.items() if name != "csrf"}


Form = Annotated[dict[str, str], Depends(get_form)]


async def get_keyed_envelope(request: Request, actor: Operator, form: Form) -> Envelope:
    """The same envelope that the API makes of headers: the key is as old as the form."""
    key = form.get("key", "")
    if not KEY.fullmatch(key):
        raise IdempotencyKeyInvalid("The form has lost its key. Open it again.")
    return Envelope(actor=actor, idempotency_key=key, traceparent=request.state.traceparent, if_match=None)


KeyedForm = Annotated[Envelope, Depends(get_keyed_envelope)]


async def get_form_envelope(envelope: KeyedForm, form: Form) -> Envelope:
    """The same, with the tag of the case that the form showed."""
    tag = form.get("etag", "")
    if not TAG.fullmatch(tag):
        raise FormMalformed
    return replace(envelope, if_match=frozenset({tag}))


SealedForm = Annotated[Envelope, Depends(get_form_envelope)]
