"""Failpoints: named places where a test may have the process killed, as a power cut would.

`name[:n]` kills at once, `name[:n]!` freezes as SIGSTOP does. `name[:n]@file` is for many at once: whoever reaches the
place (each case at its n-th time) is written into the file and waits there, until somebody outside kills the process;
who stands there already passes. The times before stand in the file too, for the process that comes after the killed
one. `*@file` only writes down who passes where. Neither does anything before the file exists: making it springs the
trap.
"""

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

NAMES = frozenset(
    {
        "command.before_commit",
        "command.after_commit",
        "callback.before_commit",
        "callback.after_commit",
        "outbox.claimed",
        "outbox.signalled",
        "mail.begun",
        "mail.sent",
        "effect.reserved",
        "effect.acted",
        "effect.settled",
        "bulk.before_commit",
        "bulk.sent",
        "operation.before_finish",
        "operation.finished",
        "reconciler.woken",
    }
)
EVERYWHERE = "*"
NOBODY = "-"  # stands in the file for who reaches a place that knows of no case
PASSED = ":passed"  # stands behind the place in the file, where it was not yet the n-th time

_armed: dict[str, int] = {}
_signal = signal.SIGKILL
_book: Path | None = None
_waiting: set[str] = set()
_reached: Counter[tuple[str, str]] = Counter()


def arm(specification: str) -> None:
    """Arm `name[:n]`, `name[:n]!` or `name[:n]@file`. ValueError if there is no such name."""
    global _book, _signal  # noqa: PLW0603 - one process, one order
    place, _, file = specification.partition("@")
    name, _, nth = place.removesuffix("!").partition(":")
    if name not in NAMES and not (name == EVERYWHERE and file):
        message = f"no failpoint {name!r}; there are {', '.join(sorted(NAMES))}"
        raise ValueError(message)
    _book = Path(file) if file else None
    if _book is not None and _book.exists():
        for line in _book.read_text().splitlines():
            reached, _, case = line.partition(" ")
            if reached.endswith(PASSED):
                _reached[name, case] += 1
            else:
                _waiting.add(case)
    _signal = signal.SIGSTOP if place.endswith("!") else signal.SIGKILL
    _armed[name] = int(nth or 1)


async def failpoint(name: str, *cases: object) -> None:
    """Die or wait here, if armed. Unarmed it costs one look into an empty dictionary."""
    if not _armed:
        return
    if _book is not None and os.path.exists(_book):  # noqa: ASYNC240, PTH110 - a test's file
        await _wait(_book, name, [str(case) for case in cases] or [NOBODY])
    elif _book is None and name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), _signal)


async def _wait(book: Path, name: str, cases: list[str]) -> None:
    if EVERYWHERE in _armed:
        _write(book, name, cases)
        return
    if name not in _armed:
        return
    new = [case for case in cases if case not in _waiting or case == NOBODY]
    for case in new:
        _reached[name, case] += 1
    caught = [case for case in new if case == NOBODY or _reached[name, case] >= _armed[name]]
    _write(book, name + PASSED, [case for case in new if case not in caught])
    if caught:
        _waiting.update(caught)
        _write(book, name, caught)
        while True:  # no timeout of ours gets us out of here: what comes is SIGKILL
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


def _write(book: Path, name: str, cases: list[str]) -> None:
    with book.open("a") as file:
        file.writelines(f"{name} {case}\n" for case in cases)
