"""Asking the API: who asks and where from the environment, how an answer ends the command, and which case is meant."""

import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlencode
from uuid import UUID

import typer

from cli.exits import AWAY, MISUSED, NOT_FOUND, NOT_SIGNED_IN, exit_code
from cli.show import complain, document

if TYPE_CHECKING:
    from cli.client import Client, Refused

Json = dict[str, Any]
NO_TOKEN = (
    "There is no token: set CASEWARD_TOKEN.",
    "On the embedded stack: export CASEWARD_TOKEN=$(caseward token --actor operator-1 --role operator)",
)
LARGEST_PAGE = 200

AsJson = Annotated[bool, typer.Option("--json", help="Print the server's document.")]
CaseRef = Annotated[
    str, typer.Argument(metavar="CASE", help="Its id or business key, or the id of one of its operations or effects.")
]


def ask(work: "Callable[[Client], Awaitable[int | None]]", *, as_json: bool = False) -> None:
    """Do it as the holder of the token; what it returns is the exit code."""
    import asyncio  # noqa: PLC0415

    import httpx2  # noqa: PLC0415

    from cli.client import Client, Refused  # noqa: PLC0415

    token, url = os.environ.get("CASEWARD_TOKEN", "").strip(), api_url()
    if not token:
        fail(NOT_SIGNED_IN, *NO_TOKEN)
    if not token.isascii() or not token.isprintable():
        fail(NOT_SIGNED_IN, "CASEWARD_TOKEN holds something that is no token.")

    async def asked() -> int | None:
        async with Client(url, token) as client:
            return await work(client)

    try:
        code = asyncio.run(asked())
    except Refused as refused:
        _refused(refused, as_json=as_json)
    except (httpx2.TransportError, httpx2.InvalidURL) as fault:
        fail(AWAY, f"The API at {url} can't be reached, or broke off: {fault or type(fault).__name__}")
    except ValueError as fault:
        if not isinstance(fault, UnicodeDecodeError) and type(fault).__name__ != "JSONDecodeError":
            raise
        fail(AWAY, f"What answers at {url} is not the API of Caseward.")
    if code:
        raise typer.Exit(code)


def api_url() -> str:
    """CASEWARD_API_URL; else where the embedded stack has it."""
    if given := os.environ.get("CASEWARD_API_URL"):
        return given  # reading all settings takes longer than most answers
    from settings import Settings  # noqa: PLC0415

    return Settings.read().api_url


AGO = re.compile(r"(\d{1,5}) ?(s|min|h|d)")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def instant(said: str) -> datetime:
    """A time as people type it: as in ISO 8601, here where it names no zone, or how long ago. Raises ValueError."""
    ago = AGO.fullmatch(said)
    if ago:
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(said).astimezone()
    except OverflowError as fault:
        message = f"{said} is too far away"
        raise ValueError(message) from fault


def fail(code: int, *words: object) -> NoReturn:
    """Say why, and end."""
    complain(*words)
    raise typer.Exit(code)


def _refused(refused: "Refused", *, as_json: bool) -> NoReturn:
    problem, code = refused.problem, exit_code(refused.status)
    if as_json:
        document(problem)
        raise typer.Exit(code)
    complain(f"{problem.get('code')}: {problem.get('detail') or problem.get('title')}")
    for reason in problem.get("reasons") or ():
        if reason["message"] != problem.get("detail"):
            complain(f"  {reason['code']}: {reason['message']}")
    if code == NOT_SIGNED_IN:
        complain("Set CASEWARD_TOKEN to a new token.", NO_TOKEN[1])
    if problem.get("code") == "version_stale":
        complain("It has changed since it was read: look at it again.")
    raise typer.Exit(code)


def address(path: str, **wanted: object) -> str:
    """With the parameters that have a value."""
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in wanted.items()
        if value is not None
    }
    return f"{path}?{urlencode(given)}" if given else path


async def pages(client: "Client", href: str, field: str, *, most: int | None = None) -> Json:
    """One document of all pages, or of as many as hold `most`; `next` is that of the last one read."""
    whole: Json = await client.get(href)
    while whole["next"] and (most is None or len(whole[field]) < most):
        page = await client.get(whole["next"])
        whole |= {**page, field: [*whole[field], *page[field]]}
    return whole


async def find_case(client: "Client", reference: str) -> Json:
    """The case document. Of several cases with one business key it is the open one. Ends the command otherwise."""
    from cli.client import Refused  # noqa: PLC0415

    if is_id(reference):
        try:
            return await client.case(str(UUID(reference)))
        except Refused as refused:
            if refused.code != "case_not_found":
                raise
    rows = (await pages(client, address("/v1/cases", business_key=reference, limit=LARGEST_PAGE), "cases"))["cases"]
    if not rows and is_id(reference.partition(":")[0]):
        rows = (await client.get(address("/v1/cases", q=reference)))["cases"]
    if not rows:
        fail(NOT_FOUND, f"No case that you may see has this id or business key: {reference}")
    still_open = [row for row in rows if row["condition"] != "done"]
    meant = still_open or rows[:1]  # the newest change comes first
    if len(meant) > 1:
        fail(
            MISUSED,
            f"{len(meant)} open cases have the business key {reference}. Say which by its id:",
            *(f"  {row['case_id']}  {row['process']}, {row['state_title']}" for row in meant),
        )
    if len(rows) > 1:
        complain(f"{len(rows)} cases have had this business key; this is {meant[0]['case_id']}.")
    return await client.get(meant[0]["href"])


def is_id(text: str) -> bool:
    """It looks like one of the server's own."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
