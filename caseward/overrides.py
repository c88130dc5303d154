"""The overrides: one row each, with who may, what it takes and what it does."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from caseward.process import OPERATOR, SENIOR_OPERATOR, Confirmation, Strict

Why = Annotated[str, Field(min_length=3, max_length=2000, description="Why; stands in the timeline for good.")]
StepName = Annotated[
    str | None,
    Field(max_length=200, description="The step, or `{step}:undo`; needed when several qualify."),
]
Item = Annotated[str | None, Field(max_length=200, description="The item, for a step that runs once per item.")]
NotHappened = Annotated[
    bool | None,
    Field(description="On an unknown outcome: false states that it did not happen. True is what `mark_done` says."),
]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{"reason": "Agreed with the partner by phone", **values}]})


class RetryInput(Strict):
    """Try again now, under the same effect key."""

    model_config = _example()
    reason: Why
    step: StepName = None
    item: Item = None
    happened: NotHappened = None


class SkipInput(Strict):
    """Leave the step out and go on."""

    model_config = _example()
    reason: Why
    step: StepName = None
    item: Item = None
    happened: NotHappened = None


class MarkDoneInput(Strict):
    """It was done by hand; `result` is what the step would have answered."""

    model_config = _example(result={})
    reason: Why
    step: StepName = None
    item: Item = None
    result: Annotated[dict[str, Any], Field(description="Checked against the step's result type.")] = Field(
        default_factory=dict
    )


class UndoInput(Strict):
    """Take back what was done, back to the state before."""

    model_config = _example()
    reason: Why


class ReplayInput(Strict):
    """Do again from a business step, exactly as the plan says: ask `POST /v1/cases/{case_id}/plan` for it first."""

    model_config = _example(step="open_payee", plan_hash="0" * 64)
    reason: Why
    step: Annotated[str, Field(min_length=1, max_length=200, description="The step to do again from.")]
    plan_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Of the plan that was agreed to.")]


class ForceCancelInput(Strict):
    """Stop everything, take back what was done, and close the case."""

    model_config = _example()
    reason: Why


Deadlines = Annotated[
    Literal["frozen", "running"],
    Field(description="Meanwhile deadlines stand still and move by the time of the pause, or they pass as ever."),
]


class PauseInput(Strict):
    """Let nothing new begin in this case, until somebody resumes it."""

    model_config = _example(deadlines="frozen")
    reason: Why
    deadlines: Deadlines = "running"


class ResumeInput(Strict):
    """End the case's own pause."""

    model_config = _example()
    reason: Why


@dataclass(frozen=True, kw_only=True)
class Override:
    """One override as declared."""

    name: str
    title: str
    roles: frozenset[str]
    input: type[BaseModel]
    per_step: bool
    takes_over: bool
    """It raises the fence; the others help the operation in flight."""
    confirmation: Confirmation | None = None
    """Who must confirm it where the process says nothing else."""


_OPERATORS = frozenset({OPERATOR, SENIOR_OPERATOR})

OVERRIDES: dict[str, Override] = {
    row.name: row
    for row in (
        Override(
            name="retry", title="Try again now", roles=_OPERATORS, input=RetryInput, per_step=True, takes_over=False
        ),
        Override(name="skip", title="Leave it out", roles=_OPERATORS, input=SkipInput, per_step=True, takes_over=False),
        Override(
            name="mark_done",
            title="It was done by hand",
            roles=_OPERATORS,
            input=MarkDoneInput,
            per_step=True,
            takes_over=False,
        ),
        Override(name="undo", title="Take it back", roles=_OPERATORS, input=UndoInput, per_step=False, takes_over=True),
        Override(
            name="replay",
            title="Do it again",
            roles=frozenset({SENIOR_OPERATOR}),
            input=ReplayInput,
            per_step=False,
            takes_over=True,
        ),
        Override(
            name="force_cancel",
            title="Stop and take everything back",
            roles=frozenset({SENIOR_OPERATOR}),
            input=ForceCancelInput,
            per_step=False,
            takes_over=True,
        ),
        Override(name="pause", title="Pause", roles=_OPERATORS, input=PauseInput, per_step=False, takes_over=False),
        Override(name="resume", title="Resume", roles=_OPERATORS, input=ResumeInput, per_step=False, takes_over=False),
    )
}
