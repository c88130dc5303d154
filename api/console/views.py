"""The page of one's own views: a filter of the work is saved under a name, named anew, and forgotten."""

from urllib.parse import parse_qsl

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from api.console.door import Form, FormMalformed, SignedIn, console_router
from api.console.pages import page
from api.console.saved import MOST_VIEWS, ViewRefused, delete_view, rename_view, save_view
from api.console.sessions import Session
from api.console.work import SAVE_AT, Filter, address, own_views
from api.deps import Wired, Wiring

router = console_router()
LONGEST = 60  # characters of a name: it stands in a row with others


@router.get(SAVE_AT)
async def views(request: Request, wiring: Wired, signed_in: SignedIn) -> Response:
    """All of them, those too whose filter is none any more."""
    return await _page(request, wiring, signed_in)


@router.post(SAVE_AT)
async def save(request: Request, wiring: Wired, signed_in: SignedIn, form: Form) -> Response:
    """Save a filter, in the place of what had the name. What is refused comes back with what was typed."""
    wanted = _filter(form.get("filter", ""))
    try:
        name = _name(form.get("name", ""))
        async with wiring.database.transaction() as session:
            await save_view(session, signed_in.actor.id, name, wanted.named)
    except ViewRefused as refused:
        return await _page(request, wiring, signed_in, refused=refused, unsaved=wanted, typed=form.get("name", ""))
    return RedirectResponse(address(wanted), 303)


@router.post(f"{SAVE_AT}/rename")
async def rename(request: Request, wiring: Wired, signed_in: SignedIn, form: Form) -> Response:
    """Another name for one of them."""
    try:
        name = _name(form.get("to", ""))
        async with wiring.database.transaction() as session:
            await rename_view(session, signed_in.actor.id, _name(form.get("name", "")), to=name)
    except ViewRefused as refused:
        return await _page(request, wiring, signed_in, refused=refused)
    return RedirectResponse(SAVE_AT, 303)


@router.post(f"{SAVE_AT}/delete")
async def delete(wiring: Wired, signed_in: SignedIn, form: Form) -> Response:
    """Forget one of them."""
    async with wiring.database.transaction() as session:
        await delete_view(session, signed_in.actor.id, _name(form.get("name", "")))
    return RedirectResponse(SAVE_AT, 303)


async def _page(
    request: Request,
    wiring: Wiring,
    signed_in: Session,
    *,
    refused: ViewRefused | None = None,
    unsaved: Filter | None = None,
    typed: str = "",
) -> Response:
    async with wiring.database.transaction() as session:
        views = await own_views(session, signed_in.actor)
    shown = {"views": views, "most": MOST_VIEWS, "longest": LONGEST, "unsaved": unsaved, "typed": typed}
    return page(request, "views.html", status=refused.status if refused else 200, refused=refused, **shown)


def _name(text: str) -> str:
    """Raises ViewRefused."""
    name = text.strip()
    if not (0 < len(name) <= LONGEST and name.isprintable()):
        raise ViewRefused(f"A name has 1 to {LONGEST} characters, none of which is invisible.")
    return name


def _filter(text: str) -> Filter:
    """What stood in the address. Raises FormMalformed."""
    try:
        wanted = Filter.model_validate(dict(parse_qsl(text, strict_parsing=True)))
    except (ValueError, ValidationError) as fault:
        raise FormMalformed from fault
    if not wanted.named:
        raise FormMalformed
    return wanted
