"""What open cases could not follow, when the declaration changes under them."""

from collections.abc import Callable, Iterator
from typing import Any

from caseward.checking.schemas import narrowings

Told = dict[str, Any]
"""A process as `describe` tells it."""


def breaks(old: Told, new: Told) -> list[str]:
    """Every change from one description to another that open cases can't follow: where, what, and why not."""
    found: list[str] = []
    for name, process in old["processes"].items():
        current = new["processes"].get(name)
        if current is None:
            found.append(f"{name}: the process is gone; its open cases have nowhere to go")
        else:
            found += [f"{name}: {change}" for rule in RULES for change in rule(process, current)]
    return found


def _states(old: Told, new: Told) -> Iterator[str]:
    for name, state in old["states"].items():
        where, now = f"state {name}", new["states"].get(name)
        if now is None:
            yield f"{where}: gone or renamed; cases may stand in it"
            continue
        if state["final"] != now["final"]:
            became = "final" if now["final"] else "not final any more"
            yield f"{where}: is {became}; cases that stand in it would be closed or opened by nobody"
        was_pending, is_pending = name in old["pending_states"], name in new["pending_states"]
        if was_pending and not is_pending:
            yield f"{where}: is no pending state any more; cases may stand in it with work under way"
        if is_pending and not was_pending:
            yield f"{where}: is a pending state now; cases may stand in it with no work under way"


def _gone(old: list[str], new: list[str]) -> list[str]:
    return [name for name in old if name not in new]


def _transitions(old: Told, new: Told) -> Iterator[str]:
    for name, transition in old["transitions"].items():
        where, now = f"transition {name}", new["transitions"].get(name)
        if now is None:
            yield f"{where}: gone or renamed; operations of it may be unfinished or proposed"
            continue
        if bool(transition["source"]) != bool(now["source"]):
            yield f"{where}: {'opens' if not now['source'] else 'no longer opens'} cases; it is another transition"
        if transition["pending"] != now["pending"] and transition["pending"]:
            yield f"{where}: its pending state was {transition['pending']}, now {now['pending']}; work may be under way"
        for target in _gone(transition["targets"], now["targets"]):
            yield f"{where}: no longer leads to {target}; an unfinished story may still return it"
        for step in _gone(transition["steps"], now["steps"]):
            yield f"{where}: step {step} is gone or renamed; an unfinished story may still need it"
        for step in _gone(transition.get("undoes", []), now.get("undoes", [])):
            yield f"{where}: no longer undoes {step}; an unfinished story may still have to"
        for narrowed in narrowings(transition["input"], now["input"]):
            yield f"{where}: input narrowed: {narrowed}"


def _force_cancel(old: Told, new: Told) -> Iterator[str]:
    cancel, now = old["force_cancel"], new["force_cancel"]
    for field in ("pending", "to"):
        if cancel[field] != now[field]:
            yield f"force_cancel: {field} was {cancel[field]}, now {now[field]}; one may be under way"


def _steps(old: Told, new: Told) -> Iterator[str]:
    for name, step in old["steps"].items():
        where, now = f"step {name}", new["steps"].get(name)
        if now is None:
            continue  # said of its transition
        if step["partner"] != now["partner"]:
            yield f"{where}: its partner was {step['partner']}, now {now['partner']}; it knows no earlier effects"
        if isinstance(step["undo"], str) and not isinstance(now["undo"], str):
            yield f"{where}: has no compensation any more; what stands could not be taken back"
        for narrowed in narrowings(step["result"], now["result"]):
            yield f"{where}: result narrowed: {narrowed}"


def _people(old: Told, new: Told) -> Iterator[str]:
    for name in old["roles"]:
        if name not in new["roles"]:
            yield f"role {name}: gone or renamed; cases may wait for it"
    for team in sorted({old["owner"], *old["teams"]} - {new["owner"], *new["teams"]}):
        yield f"team {team}: gone or renamed; blocked cases may wait for it"


def _subject(old: Told, new: Told) -> Iterator[str]:
    for narrowed in narrowings(old["subject"], new["subject"]):
        yield f"subject narrowed: {narrowed}"


RULES: tuple[Callable[[Told, Told], Iterator[str]], ...] = (
    _states,
    _transitions,
    _force_cancel,
    _steps,
    _people,
    _subject,
)
