"""Sign-in: by an access token, as the API takes it; and, where the stack is for trying things out, as a demo person."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated

from fastapi import Query, Request, Response
from starlette.responses import RedirectResponse

from api.console.door import COOKIE, SIGN_IN, Form, SignedIn, console_router, public_router
from api.console.pages import page
from api.console.sessions import sign_in, sign_out
from api.deps import Wired
from api.errors import TokenInvalid
from caseward.process import AUDITOR, OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import Actor

router, public = console_router(), public_router()
HOME = "/console/work"
ENGINE_PEOPLE = (OPERATOR, SENIOR_OPERATOR, AUDITOR)


@dataclass(frozen=True)
class DemoPerson:
    """Somebody to be in the embedded stack."""

    id: str
    role: str
    title: str
    processes: tuple[str, ...]
    """Titles of those whose cases they see; empty where it is all of them."""


def demo_people(catalogue: Catalogue) -> Sequence[DemoPerson]:
    """One person for each role there is: those of the engine, then those of every process."""
    people = [DemoPerson(_demo_id(role), role, role.replace("_", " "), ()) for role in ENGINE_PEOPLE]
    titles = {role.name: role.title for process in catalogue.values() for role in process.roles}
    for role, title in titles.items():
        where = [process.title for process in catalogue.values() if role in {each.name for each in process.roles}]
        if role not in ENGINE_PEOPLE:
            people.append(DemoPerson(_demo_id(role), role, title, tuple(where)))
    return people


def _demo_id(role: str) -> str:
    return f"demo-{role.replace('_', '-')}"


@public.get("/console/sign-in")
async def ask(request: Request, wiring: Wired, to: Annotated[str, Query(max_length=2000)] = HOME) -> Response:
    """Who are you?"""
    return _asking(request, wiring.catalogue, to)


@public.post("/console/sign-in")
async def enter(request: Request, wiring: Wired, form: Form) -> Response:
    """A new session, with a new id, whatever was signed in before. Raises nothing: it asks again."""
    to, until = form.get("to", HOME), None
    try:
        if "person" in form:
            actor = _demo_actor(request, wiring.catalogue, form["person"])
        else:
            identity = request.app.state.verifier.identify([f"Bearer {form.get('token', '').strip()}"])
            actor, until = identity.actor, identity.expires_at
    except TokenInvalid as refused:
        return _asking(request, wiring.catalogue, to, refused=refused.detail, status=HTTPStatus.UNAUTHORIZED)
    if actor is None:
        refused = "Nobody can sign in like this here."
        return _asking(request, wiring.catalogue, to, refused=refused, status=HTTPStatus.FORBIDDEN)
    before = request.cookies.get(COOKIE)
    async with wiring.database.transaction() as session:
        if before is not None:
            await sign_out(session, before)
        signed_in = await sign_in(session, actor, until=until)
    response = RedirectResponse(_within(to), HTTPStatus.SEE_OTHER)
    response.set_cookie(COOKIE, signed_in.key, secure=True, httponly=True, samesite="lax", path="/")
    return response


@router.post("/console/sign-out")
async def leave(wiring: Wired, signed_in: SignedIn) -> Response:
    """The session is over, on the server first."""
    async with wiring.database.transaction() as session:
        await sign_out(session, signed_in.key)
    response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax", path="/")
    return response


def _demo_actor(request: Request, catalogue: Catalogue, person: str) -> Actor | None:
    """The demo person; None where there are none, or not at this address."""
    if not _demo_here(request):
        return None
    found = next((each for each in demo_people(catalogue) if each.id == person), None)
    return Actor(found.id, frozenset({found.role}), "console") if found else None


def _demo_here(request: Request) -> bool:
    """Demo people are only to be had under a number or `localhost`: a name may be anybody's who points it at us."""
    if not request.app.state.console.demo_sign_in:
        return False
    host = request.url.hostname or ""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _asking(
    request: Request, catalogue: Catalogue, to: str, *, refused: str | None = None, status: int = 200
) -> Response:
    people = demo_people(catalogue) if _demo_here(request) else ()
    return page(request, "sign_in.html", status=status, people=people, to=to, refused=refused)


def _within(to: str) -> str:
    """Where they wanted to go, if that is a page of ours."""
    return to if to.startswith("/console/") and "\\" not in to and to.isprintable() else HOME
