"""Failpoints: named places where a test may have the process killed, as a power cut would."""

import os
import signal

NAMES = frozenset(
    {
        "command.before_commit",
        "command.after_commit",
        "outbox.claimed",
        "outbox.signalled",
        "effect.reserved",
        "effect.acted",
        "effect.settled",
        "operation.before_finish",
        "operation.finished",
    }
)

_armed: dict[str, int] = {}


def arm(specification: str) -> None:
    """Arm `name[:n]`: the process that reaches `name` for the n-th time dies by SIGKILL. ValueError if unknown."""
    name, _, nth = specification.partition(":")
    if name not in NAMES:
        message = f"no failpoint {name!r}; there are {', '.join(sorted(NAMES))}"
        raise ValueError(message)
    _armed[name] = int(nth or 1)


def failpoint(name: str) -> None:
    """Die here, if armed. Unarmed it costs one look into an empty dictionary."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
