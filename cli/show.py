"""What people see: tables and lines on a terminal, the same without colours and cuts in a pipe, documents for scripts.

What comes from outside is text: nothing in it is markup, and nothing in it can speak to the terminal.
"""

import json
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPED = 10_000  # columns: nothing is wrapped or cut for whoever is no terminal
COLOURED = frozenset({"State", "Condition"})
STYLES = {
    "blocked": "bold red",
    "blocked_again": "bold red",
    "paused": "magenta",
    "probing": "magenta",
    "undoing": "yellow",
    "retrying": "yellow",
    "proposed": "yellow",
    "waiting": "cyan",
    "running": "blue",
    "completed": "green",
    "succeeded": "green",
    "repaired": "green",
    "done": "green",
}


def plain(value: object) -> str:
    """As text that stays on its line and where it stands: control and direction characters show as escapes."""
    return "".join(
        each if each.isprintable() or unicodedata.category(each) == "Zs" else each.encode("unicode_escape").decode()
        for each in str(value)
    )


def console(*, stderr: bool = False) -> "Console":
    """Where people read."""
    from rich.console import Console  # noqa: PLC0415

    made = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
    if not made.is_terminal:
        made.width = PIPED
    return made


def cell(value: object, style: str | None = None) -> "Text":
    """A value as it is shown."""
    from rich.text import Text  # noqa: PLC0415

    return Text("" if value is None else plain(value), style=style or "")


def lines(*rows: object, to: "Console | None" = None, style: str | None = None) -> None:
    """Each on a line of its own, wrapped between words."""
    on = to or console()
    for row in rows:
        on.print(cell(row, style), overflow="fold")


def whole(row: object, *, indent: int = 0, to: "Console | None" = None) -> None:
    """A line to be copied: never broken, however narrow the terminal."""
    (to or console()).print(cell(" " * indent + str(row)), soft_wrap=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, ids: Collection[str] = (), to: "Console | None" = None
) -> None:
    """Columns named in `ids` are never wrapped; the others give way."""
    from rich.table import Table  # noqa: PLC0415

    on = to or console()
    filled = [
        [
            cell(value, STYLES.get(str(value)) if name in COLOURED else None)
            for name, value in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        width = max((row[number].cell_len for row in filled), default=0) if name in ids else None
        made.add_column(name, overflow="fold", min_width=width)
    for row in filled:
        made.add_row(*row)
    with on.capture() as captured:
        on.print(made)
    drawn = captured.get()
    if not on.is_terminal:
        drawn = "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"
    on.file.write(drawn)


def document(value: Any, *, compact: bool = False) -> None:
    """The server's document, for scripts. ASCII, so that it is safe on a terminal too."""
    print(json.dumps(value) if compact else json.dumps(value, indent=2), flush=compact)


def complain(*rows: object) -> None:
    """What went wrong, beside what was asked for."""
    sys.stdout.flush()
    for row in rows:
        print(plain(row), file=sys.stderr)


def words(name: object) -> str:
    """A name as people say it."""
    return str(name).replace("_", " ")


def moment(instant: str | None) -> str:
    """In the zone of whoever reads."""
    return "" if instant is None else f"{datetime.fromisoformat(instant).astimezone():%Y-%m-%d %H:%M:%S}"


def age(instant: str) -> str:
    """How long ago."""
    return span(datetime.now(UTC) - datetime.fromisoformat(instant))


def due(instant: str | None) -> str:
    """How long until then, or since then."""
    if instant is None:
        return ""
    left = datetime.fromisoformat(instant) - datetime.now(UTC)
    return f"in {span(left)}" if left > timedelta(0) else f"{span(-left)} over"


def span(length: timedelta) -> str:
    """In the largest unit that fits."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def who(actor: dict[str, Any] | None) -> str:
    """Somebody, for whom they stood in, and by which door where not by the API."""
    if actor is None:
        return ""
    named = actor["id"] if not actor.get("on_behalf_of") else f"{actor['id']} for {actor['on_behalf_of']}"
    return named if actor["via"] in ("api", actor["id"]) else f"{named} by {actor['via']}"
