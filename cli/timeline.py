"""`caseward timeline`: verify what the database says, take it away as a file, keep heads to compare with later.

The chain is recomputed here, from the entries as they are stored, and not by whoever stores them.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from caseward.evidence import Chain, Finding
    from cli.client import Client

WRONG, MISUSED, NOT_SET_UP = 1, 2, 3
ROLE = "auditor"

timeline = typer.Typer(help="Verify timelines, and take them away as evidence.", no_args_is_help=True)

Token = Annotated[
    str | None,
    typer.Option(envvar="CASEWARD_TOKEN", help="A bearer token; for the embedded stack it signs its own if left out."),
]


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


@timeline.command()
def verify(
    case_ids: Annotated[list[str] | None, typer.Argument(metavar="[CASE_ID]...", help="Which cases.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every case there is.")] = False,
    file: Annotated[
        list[Path] | None, typer.Option(help="An evidence file, examined offline; may be repeated.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A checkpoint: shows a chain that was made anew.")] = None,
    token: Token = None,
) -> None:
    """Name every entry that was edited, removed, inserted or moved. Exit code 1 where there is one."""
    kept = _read_checkpoint(against) if against else {}
    if file and (every or case_ids):
        _fail("Either files or cases of the API.", MISUSED)
    if not file and not every and not case_ids and not kept:
        _fail("Say which: CASE_ID, --all, --file or --against.", MISUSED)
    report = _Report(kept)
    if file:
        for path in file:
            report.take(_read_evidence(path))
    else:
        _run(_verify(_token(token), report, case_ids or [], every=every))
    report.end(complete=every or (not file and not case_ids))


@timeline.command()
def export(case_id: Annotated[str, typer.Argument(help="Which case.")], token: Token = None) -> None:
    """Print a case as an evidence file: `caseward timeline export CASE_ID > case.json`."""
    _run(_export(_token(token), case_id))


@timeline.command()
def checkpoint(token: Token = None) -> None:
    """Verify every case and print its head, to be kept where nobody who can write to the database can write.

    `caseward timeline verify --against FILE` proves later that everything up to these heads is what it was.
    """
    from caseward.evidence import checkpoint as made_of  # noqa: PLC0415

    report = _Report({})
    _run(_verify(_token(token), report, [], every=True))
    print(json.dumps(made_of(report.whole, made_at=datetime.now(UTC).isoformat()), indent=1))
    report.end(complete=True, to=sys.stderr)


def _run(work: Coroutine[Any, Any, None]) -> None:
    import httpx2  # noqa: PLC0415

    from cli.client import Refused  # noqa: PLC0415

    try:
        asyncio.run(work)
    except Refused as refused:
        _fail(str(refused), WRONG)
    except httpx2.TransportError as fault:
        _fail(f"The API broke off or can't be reached: {fault}", WRONG)


class _Report:
    """What was found, case by case."""

    def __init__(self, kept: dict[str, tuple[int, bytes]]) -> None:
        self.kept = kept
        self.whole: list[Chain] = []
        self.broken: dict[str, list[Finding] | str] = {}
        self.missed: set[str] = set(kept)

    def take(self, chain: "Chain") -> None:
        """Examine one case."""
        from caseward.evidence import compare, examine  # noqa: PLC0415

        found = examine(chain)
        if chain.case_id in self.kept:
            self.missed.discard(chain.case_id)
            length, head = self.kept[chain.case_id]
            found += compare(chain, length=length, head=head)
        if found:
            self.broken[chain.case_id] = found
        else:
            self.whole.append(chain)

    def gone(self, case_id: str) -> None:
        """The API knows no such case."""
        self.missed.discard(case_id)
        self.broken[case_id] = "was in the checkpoint, and is gone" if case_id in self.kept else "there is no such case"

    def end(self, *, complete: bool, to: Any = None) -> None:
        """Print it; the exit code is the verdict."""
        for case_id in sorted(self.missed) if complete else ():
            self.gone(case_id)
        for case_id, found in sorted(self.broken.items()):
            sentences = [found] if isinstance(found, str) else [finding.sentence for finding in found]
            for sentence in sentences:
                print(f"{case_id}: {sentence}", file=to)
        entries = sum(chain.length for chain in self.whole)
        print(f"{len(self.whole)} whole ({entries} entries), {len(self.broken)} broken", file=to)
        if self.broken:
            raise typer.Exit(WRONG)


async def _verify(token: str, report: _Report, case_ids: list[str], *, every: bool) -> None:
    from caseward.evidence import NotEvidence, read_evidence  # noqa: PLC0415
    from cli.client import Refused  # noqa: PLC0415

    async with _client(token) as client:
        wanted = _all_cases(client) if every else _each(case_ids or sorted(report.kept))
        async for case_id in wanted:
            try:
                report.take(read_evidence(json.loads(b"".join([part async for part in _evidence(client, case_id)]))))
            except Refused as refused:
                if refused.code != "case_not_found":
                    raise
                report.gone(case_id)
            except NotEvidence as fault:
                report.broken[case_id] = str(fault)


async def _all_cases(client: "Client") -> AsyncIterator[str]:
    """Every case once, though cases move to the front of the list while it is read."""
    seen: set[str] = set()
    known_until = datetime.min.replace(tzinfo=UTC)
    while True:
        newest, found = known_until, False
        async for row in _pages(client):
            changed_at = datetime.fromisoformat(row["changed_at"])
            if changed_at < known_until:
                break  # nothing behind it has moved since
            newest = max(newest, changed_at)
            if row["case_id"] not in seen:
                seen.add(row["case_id"])
                found = True
                yield row["case_id"]
        if not found:
            return
        known_until = newest


async def _pages(client: "Client") -> AsyncIterator[dict[str, Any]]:
    href: str | None = "/v1/cases?limit=200"
    while href:
        page = await client.get(href)
        for row in page["cases"]:
            yield row
        href = page["next"]


async def _each(case_ids: list[str]) -> AsyncIterator[str]:
    for case_id in case_ids:
        yield case_id


async def _export(token: str, case_id: str) -> None:
    async with _client(token) as client:
        async for part in _evidence(client, case_id):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


def _evidence(client: "Client", case_id: str) -> AsyncIterator[bytes]:
    return client.download(f"/v1/cases/{case_id}/evidence")


def _client(token: str) -> "Client":
    from cli.client import Client  # noqa: PLC0415
    from settings import Settings  # noqa: PLC0415

    return Client(Settings.read().api_url, token)


def _token(given: str | None) -> str:
    from cli.tokens import sign_token  # noqa: PLC0415
    from settings import Settings  # noqa: PLC0415

    if given:
        return given
    settings = Settings.read()
    if settings.env == "production":
        _fail("In production the identity provider issues tokens: --token or CASEWARD_TOKEN.", NOT_SET_UP)
    try:
        return sign_token(settings, actor="cli-auditor", roles=[ROLE])
    except FileNotFoundError:
        _fail(f"There is no key below {settings.data_dir}: start the stack once (make run).", NOT_SET_UP)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as fault:
        _fail(f"{path}: {fault}", MISUSED)


def _read_evidence(path: Path) -> "Chain":
    from caseward.evidence import NotEvidence, read_evidence  # noqa: PLC0415

    try:
        return read_evidence(_read_json(path))
    except NotEvidence as fault:
        _fail(f"{path}: {fault}", WRONG)


def _read_checkpoint(path: Path) -> dict[str, tuple[int, bytes]]:
    from caseward.evidence import NotEvidence, read_checkpoint  # noqa: PLC0415

    try:
        return read_checkpoint(_read_json(path))
    except NotEvidence as fault:
        _fail(f"{path}: {fault}", WRONG)
