"""The `caseward` command. Exit codes: 0 done, 1 something is wrong, 2 called wrongly, 3 not set up here.

Heavy imports stand inside the commands: `caseward --help` should not wait for a catalogue it doesn't read.
"""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.timeline import timeline

if TYPE_CHECKING:
    from caseward.process import Process

WRONG, MISUSED, NOT_SET_UP = 1, 2, 3
NAME = "caseward"

cli = typer.Typer(
    name=NAME,
    help="Caseward, from a terminal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print the locals, secrets among them
)

cli.add_typer(timeline, name="timeline")


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
def check(process: Annotated[str | None, typer.Argument(help="One process; all of them if left out.")] = None) -> None:
    """Look for faults in the declarations of processes, and print each."""
    from caseward.errors import DeclarationInvalid  # noqa: PLC0415

    try:
        from processes import CATALOGUE  # noqa: PLC0415
    except DeclarationInvalid as invalid:
        named = [fault for fault in invalid.faults if process is None or fault.startswith(f"{process}:")]
        for fault in named:
            print(fault)
        if not named:
            print(f"{process}: not checked any further, other processes have faults", file=sys.stderr)
        raise typer.Exit(WRONG) from None
    if process is not None and process.replace("-", "_") not in CATALOGUE:
        _fail(f"There is no process {process}; there are {', '.join(CATALOGUE)}.", MISUSED)
    for name, declared in CATALOGUE.items():
        if process is None or name == process.replace("-", "_"):
            print(f"{name}: sound ({_size(declared)})")


def _size(declared: "Process") -> str:
    counted = {"states": declared.states, "transitions": declared.transitions, "steps": declared.steps}
    return ", ".join(f"{len(things)} {what}" for what, things in counted.items())


def run() -> None:
    """The entry point of the installed command."""
    cli(prog_name=NAME)


if __name__ == "__main__":
    run()
