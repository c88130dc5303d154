"""The `caseward` command. Exit codes: see cli/exits.py; where a command speaks to no API, 1 is "something is wrong"
and 3 "not set up here".

Heavy imports stand inside the commands: `caseward --help` should not wait for a catalogue it doesn't read.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.acting import acting
from cli.bulk import bulk
from cli.cases import case
from cli.exits import WORDS
from cli.numbers import numbers
from cli.outbox import outbox
from cli.pauses import pauses
from cli.processes import process
from cli.review import review
from cli.timeline import timeline
from cli.work import work

if TYPE_CHECKING:
    from caseward.process import Process

WRONG, MISUSED, NOT_SET_UP = 1, 2, 3
NAME = "caseward"

cli = typer.Typer(
    name=NAME,
    help="Caseward, from a terminal.",
    epilog=WORDS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print the locals, secrets among them
)

for unnamed in (work, acting, pauses):  # their commands stand beside ours
    cli.add_typer(unnamed)
cli.add_typer(case, name="case")
cli.add_typer(bulk, name="bulk")
cli.add_typer(process, name="process")
cli.add_typer(outbox, name="outbox")
cli.add_typer(timeline, name="timeline")
cli.command()(numbers)
cli.command()(review)


@cli.callback()
def caseward() -> None:
    """Caseward, from a terminal."""


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


@cli.command()
def token(
    actor: Annotated[str, typer.Option(help="Who the holder is, for example reviewer-1.")],
    role: Annotated[list[str], typer.Option(help="In what capacity; may be given several times.")],
    ttl: Annotated[int, typer.Option(min=1, max=30 * 24 * 60, help="Minutes until it ends.")] = 12 * 60,
) -> None:
    """Print a bearer token for the embedded stack."""
    from cli.tokens import sign_token  # noqa: PLC0415
    from settings import Settings  # noqa: PLC0415

    settings = Settings.read()
    if settings.env == "production":
        _fail("In production the identity provider issues tokens.", NOT_SET_UP)
    try:
        print(sign_token(settings, actor=actor, roles=role, lasts=timedelta(minutes=ttl)))
    except FileNotFoundError:
        _fail(f"There is no key below {settings.data_dir}: start the stack once (make run).", NOT_SET_UP)


@cli.command()
def check(
    process: Annotated[str | None, typer.Argument(help="One process; all of them if left out.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A git revision or a saved file: refuse what its open cases can't follow.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the declarations as they are now in this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the faults as JSON.")] = False,  # noqa: FBT002 - an option of the command
) -> None:
    """Walk a case to every situation that a declaration allows, and print what is wrong with the way to it."""
    from caseward.checking.compat import breaks  # noqa: PLC0415
    from caseward.checking.describe import describe  # noqa: PLC0415
    from caseward.checking.explore import explore  # noqa: PLC0415
    from caseward.errors import DeclarationInvalid  # noqa: PLC0415
    from cli.revision import NotReadable, declarations_at  # noqa: PLC0415

    try:
        from processes import CATALOGUE  # noqa: PLC0415
    except DeclarationInvalid as invalid:
        named = [fault for fault in invalid.faults if process is None or fault.startswith(f"{process}:")]
        _print_faults(named, as_json=as_json)
        if not named:
            print(f"{process}: not checked any further, other processes have faults", file=sys.stderr)
        raise typer.Exit(WRONG) from None
    wanted = None if process is None else process.replace("-", "_")
    now = describe(CATALOGUE)
    found: list[str] = []
    before = None
    if against is not None:
        try:
            before = declarations_at(against, root=Path(__file__).parents[1])
        except NotReadable as unreadable:
            _fail(str(unreadable), MISUSED)
        found = [each for each in breaks(before, now) if wanted is None or each.startswith(f"{wanted}:")]
    known = {*CATALOGUE, *(before["processes"] if before else ())}
    if wanted is not None and wanted not in known:
        _fail(f"There is no process {process}; there are {', '.join(CATALOGUE)}.", MISUSED)
    checked = [declared for name, declared in CATALOGUE.items() if wanted in (None, name)]
    explored = {declared.name: explore(declared) for declared in checked}
    found += [str(finding) for each in explored.values() for finding in each.findings]
    if save is not None:
        save.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    if as_json:
        print(json.dumps({"faults": found, "explored": {name: asdict(each) for name, each in explored.items()}}))
    else:
        _print_faults(found, as_json=False)
        for declared in checked:
            walked = explored[declared.name]
            verdict = f"{len(walked.findings)} found" if walked.findings else "sound"
            print(f"{declared.name}: {verdict} ({_size(declared)}; {walked.counts})")
    if found:
        raise typer.Exit(WRONG)


def _print_faults(found: list[str], *, as_json: bool) -> None:
    for line in [json.dumps({"faults": found})] if as_json else found:
        print(line)


def _size(declared: "Process") -> str:
    counted = {"states": declared.states, "transitions": declared.transitions, "steps": declared.steps}
    return ", ".join(f"{len(things)} {what}" for what, things in counted.items())


@cli.command()
def drill(process: Annotated[str, typer.Argument(help="Which process to play.")]) -> None:
    """Play every step under every fault, with every answer operators may give; 1 where a promise is broken."""
    # It takes a stack of its own, and this package knows none: the same as `python -m dev.drill`.
    ended = subprocess.run([sys.executable, "-m", "dev.drill", process], check=False)  # noqa: S603 - our own command
    raise typer.Exit(ended.returncode if ended.returncode >= 0 else WRONG)


def run() -> None:
    """The entry point of the installed command."""
    cli(prog_name=NAME)


if __name__ == "__main__":
    run()
