"""Offsets: what of the effects may stand and has to be taken back, and what of a story a replay goes on with.

The same rules for the ledger's effects (`caseward/cases/`) and for the abstract ones of `caseward check`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from caseward.process import IMPOSSIBLE, NONE_NEEDED, Process, Step, Transition
from caseward.situation import UNDO_SUFFIX


class Done(Protocol):
    """An effect, as far as these rules look at it."""

    # A protocol does not see through the descriptors that the ledger's columns are, so it knows names and no types.
    @property
    def key(self) -> Any: ...
    @property
    def step(self) -> Any: ...
    @property
    def direction(self) -> Any: ...
    @property
    def state(self) -> Any: ...
    @property
    def outcome(self) -> Any: ...
    @property
    def decision(self) -> Any: ...
    @property
    def ruled_out_by(self) -> Any: ...
    @property
    def standing(self) -> Any: ...
    @property
    def offset_at(self) -> Any: ...
    @property
    def attempt_count(self) -> Any: ...


E = TypeVar("E", bound=Done)


def is_offset(effect: E, effects: Mapping[str, E]) -> bool:
    """Nothing remains to take back: it never happened, was offset, or somebody decided to leave its offset out."""
    if effect.state != "settled":
        return False
    if not effect.standing:
        return True
    compensation = effects.get(effect.key + UNDO_SUFFIX)
    return compensation is not None and compensation.state == "settled"


def needs_offset(process: Process, effect: Done) -> bool:
    """An undo has to look at it: it stands, or may yet turn out to have happened."""
    step = process.steps.get(effect.step)
    # Of a step that is declared no more nobody knows that it needs none.
    if effect.direction == "undo" or (step is not None and step.undo is NONE_NEEDED):
        return False
    given_up_too_soon = effect.decision == "given_up" and effect.outcome == "acknowledged"
    return effect.standing or effect.state != "settled" or effect.outcome == "unknown" or given_up_too_soon


def surely_nothing(effect: Done) -> bool:
    """It was never sent, or every attempt failed for certain: taking it over closes it."""
    did_not = effect.outcome == "failed" or effect.ruled_out_by is not None or effect.attempt_count == 0
    return effect.state not in {"settled", "running"} and did_not


def divide(story: Transition, from_step: str, of_story: Mapping[str, E]) -> tuple[dict[str, E], list[Step[Any]]]:
    """What a replay from this step goes on with, by address, and the steps of which something is done anew."""
    names = [step.name for step in story.steps]
    before = set(names[: names.index(from_step)])
    reuse = {address: effect for address, effect in of_story.items() if effect.step in before and _reusable(effect)}
    return reuse, [step for step in story.steps if _runs(step, of_story, reuse)]


def irrevocable(
    process: Process, again: Sequence[Step[Any]], of_story: Mapping[str, E], effects: Mapping[str, E]
) -> set[str]:
    """Titles of the steps that a replay would do anew, though what they did can't be taken back."""
    impossible = {step.name: step.title for step in again if step.undo is IMPOSSIBLE}
    return {
        impossible[effect.step]
        for effect in of_story.values()
        if effect.step in impossible and _may_stand(process, effect, effects)
    }


def _reusable(effect: Done) -> bool:
    """It is settled for good: it stands, was not needed, or somebody decided to do without."""
    if effect.state != "settled" or effect.decision == "voided":
        return False
    return effect.standing or effect.offset_at is None


def _runs(step: Step[Any], of_story: Mapping[str, E], reuse: Mapping[str, E]) -> bool:
    """Something of it is done anew: it was never come to, or not all of it can be gone on with."""
    addresses = [address for address, effect in of_story.items() if effect.step == step.name]
    return not addresses or any(address not in reuse for address in addresses)


def _may_stand(process: Process, effect: E, effects: Mapping[str, E]) -> bool:
    if surely_nothing(effect):
        return False
    return needs_offset(process, effect) and not is_offset(effect, effects)
