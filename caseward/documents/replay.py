"""The plan of a replay."""

from typing import Literal
from uuid import UUID

from caseward.documents.parts import Document


class PlannedStep(Document):
    """What a replay does about one step."""

    step: str
    item: str | None = None
    title: str
    action: Literal["run", "reuse", "offset"]
    effect: str | None = None
    """The effect that is reused or offset."""
    stays: str | None = None
    """The effect of the same step that stays beside the new one, because nothing takes it back."""
    unknown: bool = False
    """Nobody knows yet whether it happened: finding out comes first, where somebody can be asked."""


class PlannedDecision(Document):
    """A decision of people that a replay meets. A transition's is kept while the story leads where it led before."""

    kind: str
    name: str
    title: str
    step: str | None = None
    operation_id: UUID | None = None
    actor: str | None = None
    kept: bool


class ReplayPlan(Document):
    """What a replay would do, in the order in which it would; it changes nothing."""

    case_id: UUID
    version: int
    fence: int
    operation_id: UUID
    """The operation whose story is told again."""
    tells: str
    title: str
    from_step: str
    subject_revision: int
    steps: list[PlannedStep]
    decisions: list[PlannedDecision]
    pending: str
    leads_to: list[str]
    plan_hash: str
