"""A declaration as JSON: what is kept, compared, and read from revisions of long ago.

It knows declarations by the names of their fields only and imports nothing of Caseward: `cli/revision.py` hands
this text to a Python that has an old revision before it, whose own code may know nothing of descriptions.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, cast

FORMAT = 1


def describe(catalogue: Mapping[str, Any]) -> dict[str, Any]:
    """Every process by its name, every state, transition and step by its own. New fields come by themselves."""
    return {"format": FORMAT, "processes": {name: _process(catalogue[name]) for name in catalogue}}


def _process(process: Any) -> dict[str, Any]:
    told = _plain(process)
    for kind in ("states", "transitions", "roles"):
        told[kind] = {each["name"]: each for each in told[kind]}
    told["steps"] = {name: _plain(step) for name, step in process.steps.items()}
    for transition in process.transitions:
        told["transitions"][transition.name]["steps"] = [step.name for step in transition.steps]
        # An older revision's knows of none.
        told["transitions"][transition.name]["undoes"] = [step.name for step in getattr(transition, "undoes", ())]
        told["transitions"][transition.name]["targets"] = list(transition.targets)
    told["pending_states"] = sorted(process.pending_states)
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        # By the fields' names as stored, and as they are read back.
        return cast("Any", value).model_json_schema(by_alias=False)
    if is_dataclass(value):
        return {"kind": type(value).__name__} | {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return {"enum": value.value}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each) for each in cast("frozenset[Any]", value)), key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("list[Any]", value)]
    # A function's content can't be compared; that there is one can.
    return "function" if callable(value) else value
