"""How a page is made: templates, static files, and the words for instants and names."""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

STATIC = Path(str(files("api.console") / "static"))
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    media_type: str
    digest: str


def _read_static() -> dict[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    for file in sorted(STATIC.rglob("*")):
        if file.suffix in MEDIA_TYPES:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            found[file.relative_to(STATIC).as_posix()] = StaticFile(content, MEDIA_TYPES[file.suffix], digest)
    return found


# Read once: what is sent is what was there when the process began.
FILES = _read_static()


def static(name: str) -> str:
    """The address of a static file; another content has another address."""
    return f"/console/static/{name}?v={FILES[name].digest}"


def words(name: str | None) -> str:
    """A stored name as people read it."""
    return (name or "").replace("_", " ").replace("-", " ")


def sentence_case(text: str) -> str:
    """With a capital letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def instant(at: datetime) -> str:
    """An instant for people who look closer."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(at: datetime, now: datetime | None = None) -> str:
    """How long ago, or how long until: two of its units would be one too many."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    size = abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if size >= length:
            amount = f"{int(size // length)} {unit}"
            break
    else:
        amount = f"{int(size)} s"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


class Verbatim(str):
    """What a form must send back as it is, whatever it looks like."""

    __slots__ = ()


def readable(value: Any) -> Any:
    """Text that stays where it stands: control and direction characters show as escapes."""
    if not isinstance(value, str) or isinstance(value, (Markup, Verbatim)) or value.isprintable():
        return value
    return "".join(each if _harmless(each) else each.encode("unicode_escape").decode() for each in value)


def _harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def pretty(value: Any) -> str:
    """JSON as people can read it."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)


def limit(size: int) -> str:
    """A bound on bytes, in the unit in which it is a whole number."""
    for unit, length in (("MiB", 2**20), ("MB", 10**6), ("KiB", 2**10), ("kB", 10**3)):
        if size >= length and size % length == 0:
            return f"{size // length} {unit}"
    return f"{size} bytes"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=readable,
    )
    environment.filters |= {
        "words": words,
        "sentence_case": sentence_case,
        "instant": instant,
        "age": age,
        "limit": limit,
        "pretty": pretty,
        "verbatim": Verbatim,
    }
    environment.globals["static"] = static  # pyright: ignore[reportArgumentType]
    return environment


ENVIRONMENT = _environment()


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The template, with who is signed in and where they can go."""
    session = getattr(request.state, "session", None)
    # Whoever stands in for others may go where these may; a page that asked for no actor has their own roles.
    actor = getattr(request.state, "actor", session and session.actor)
    text = ENVIRONMENT.get_template(template).render(
        session=session,
        places=[place for place in request.app.state.places if actor and place.open_to(actor.roles)],
        here=request.url.path,
        request_url=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        console=request.app.state.console,
        now=datetime.now(UTC),
        **context,
    )
    return HTMLResponse(text, status)
