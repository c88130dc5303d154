"""`caseward review`: the sheet on which backend, frontend and operations agree before anybody builds."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from caseward.process import Process

WRONG, MISUSED = 1, 2
FOLDER = Path("docs/processes")


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def review(
    process: Annotated[str | None, typer.Argument(help="Which process.")] = None,
    form: Annotated[Literal["markdown", "html"], typer.Option("--format", help="What it is written in.")] = "markdown",
    output: Annotated[
        Path | None,
        typer.Option(help="Write it to this file, Markdown's picture beside it; with --all, to this folder."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every process, in every form, into a folder.")] = False,  # noqa: FBT002 - an option of the command
) -> None:
    """Print the sheet of a process: its states, who may do what, what runs, what can go wrong, what operators can."""
    from caseward.checking.sheet import sheet  # noqa: PLC0415
    from caseward.diagram import diagram  # noqa: PLC0415
    from caseward.errors import DeclarationInvalid  # noqa: PLC0415

    if every == (process is not None):
        _fail("Name one process, or say --all.", MISUSED)
    try:
        from processes import CATALOGUE  # noqa: PLC0415
    except DeclarationInvalid as invalid:
        _fail("\n".join(invalid.faults), WRONG)
    if process is None:
        folder = output or FOLDER
        for declared in CATALOGUE.values():
            for name, text in files(declared):
                _write(folder / name, text)
        return
    declared = CATALOGUE.get(process.replace("-", "_"))
    if declared is None:
        _fail(f"There is no process {process}; there are {', '.join(CATALOGUE)}.", MISUSED)
    text = sheet(declared, form)
    if output is None:
        print(text, end="")
        return
    _write(output, text)
    if form == "markdown":
        _write(output.with_name(f"{declared.name}.svg"), diagram(declared))


def files(process: "Process") -> Iterator[tuple[str, str]]:
    """What is kept of a process's sheet: the name of each file, and its content."""
    from caseward.checking.sheet import sheet  # noqa: PLC0415
    from caseward.diagram import diagram  # noqa: PLC0415

    yield f"{process.name}.md", sheet(process, "markdown")
    yield f"{process.name}.html", sheet(process, "html")
    yield f"{process.name}.svg", diagram(process)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as refused:
        _fail(f"{path} can't be written: {refused.strerror}", MISUSED)
