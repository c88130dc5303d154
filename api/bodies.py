"""The bodies of commands, made from the declarations; what Postgres can't keep is refused before any schema looks."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from caseward.overrides import Why
from caseward.process import Process, Strict, Transition

MAX_DEPTH = 32  # levels of nesting; the deepest declared input has four
BusinessKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        description="What people call this case; unique among the open cases of the process.",
    ),
]
Reason = Annotated[
    str | None, Field(min_length=1, max_length=2000, description="Why; stands in the timeline for good.")
]


def storable(body: Any) -> Any:
    """`body` itself. Raises PydanticCustomError for what JSON can say and Postgres can't keep."""
    for path, depth, value in _walk(body):
        fault = _fault(value) if depth <= MAX_DEPTH else f"is nested more than {MAX_DEPTH} levels deep"
        if fault is not None:
            raise PydanticCustomError("not_storable", "{fault}", {"fault": f"The value {fault}.", "path": path})
    return body


def _walk(body: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value and every key, with its path; without recursion, so that no nesting can exhaust the stack."""
    waiting: list[tuple[str, int, Any]] = [("", 0, body)]
    while waiting:
        path, depth, value = waiting.pop()
        yield path, depth, value
        if depth > MAX_DEPTH:
            continue
        below = f"{path}." if path else ""
        if isinstance(value, dict):
            for key, inner in cast("dict[str, Any]", value).items():
                yield path, depth, key
                waiting.append((f"{below}{key}", depth + 1, inner))
        elif isinstance(value, list):
            listed = cast("list[Any]", value)
            waiting += [(f"{below}{number}", depth + 1, inner) for number, inner in enumerate(listed)]


def _fault(value: Any) -> str | None:
    if isinstance(value, str):
        if "\x00" in value:
            return "contains the character U+0000"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return "contains half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    return None


Storable = BeforeValidator(storable)


class Confirming(Strict):
    """Confirm what somebody else proposed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Checked with the reports of both lists"}]})
    reason: Reason = None


class Declining(Strict):
    """Decline what was proposed, or withdraw it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The slip is from another vendor"}]})
    reason: Why


def pascal(name: str) -> str:
    """A name as the name of a class."""
    return "".join(word.capitalize() for word in name.split("_"))


def requires_something(model: type[BaseModel]) -> bool:
    """Somebody has to fill something in."""
    return any(field.is_required() for field in model.model_fields.values())


def example(model: type[BaseModel]) -> dict[str, Any]:
    """The first example that the model declares; the empty object where nothing is required."""
    extra = model.model_config.get("json_schema_extra")
    examples = cast("dict[str, Any]", extra).get("examples") if isinstance(extra, dict) else None
    return examples[0] if examples else {}


def opening_body(process: Process) -> type[BaseModel]:
    """The body that opens a case."""

    class Opening(Strict):
        model_config = ConfigDict(
            json_schema_extra={"examples": [{"business_key": "2026-0017", "subject": example(process.subject)}]}
        )

    name = f"{pascal(process.name)}{pascal(process.opening.name)}"
    doc = f"{process.opening.title}."
    return create_model(
        name, __base__=Opening, __doc__=doc, business_key=(BusinessKey, ...), subject=(process.subject, ...)
    )


def transition_body(process: Process, transition: Transition) -> type[BaseModel]:
    """The body of a transition; `input` may be left out where nothing is required."""

    class Request(Strict):
        model_config = ConfigDict(
            json_schema_extra={"examples": [{"input": example(transition.input), "reason": "As discussed"}]}
        )

    needed = requires_something(transition.input)
    given: Any = (transition.input, ...) if needed else (transition.input, Field(default_factory=transition.input))
    name = f"{pascal(process.name)}{pascal(transition.name)}"
    return create_model(name, __base__=Request, __doc__=f"{transition.title}.", input=given, reason=(Reason, None))
