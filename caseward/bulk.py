"""Bulk runs as plain rules: what makes blocked cases alike, when a run goes on, and when it stops by itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

RunState = Literal["canary", "looking", "ramping", "stopped", "completed"]
ItemState = Literal[
    "frozen",  # on the list
    "begun",  # its turn has come
    "sent",  # the override is accepted, and no outcome is known yet
    "acknowledged",  # the partner took it and will do it later
    "proposed",  # somebody else has to confirm it; the run does no more about it
    "repaired",
    "blocked_again",
    "refused",  # by the policy, or for its input
    "moved",  # the case had moved on, before its turn or after it
    "left",  # the run was stopped before its turn
]
ITEM_STATES: tuple[ItemState, ...] = get_args(ItemState)
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
FAILURES: frozenset[ItemState] = frozenset({"blocked_again", "refused"})
UNDER_WAY: frozenset[ItemState] = frozenset({"begun", "sent", "acknowledged"})
# What is on its way to a partner; the acknowledged has arrived there.
IN_FLIGHT: frozenset[ItemState] = frozenset({"begun", "sent"})
RECENT = 50  # outcomes among which the failures of a ramping run are counted


def fingerprint(
    address: str | None, partner: str | None, cause: str | None, error_class: str | None, error_code: str | None
) -> str:
    """What blocked cases have in common when one decision could mend them all; never of a message's free words."""
    content = json.dumps([address, partner, cause, error_class, error_code])
    return hashlib.sha256(content.encode()).hexdigest()[:12]  # 48 bits: groups number in dozens


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What was ordered."""

    canary: int
    rate: int
    stop_after: int
    look: bool


@dataclass(frozen=True)
class Move:
    """What a run does next: its state, how many cases begin, and why it stopped."""

    state: RunState
    begin: int = 0
    because: str | None = None


def next_move(state: RunState, bounds: Bounds, counts: Mapping[str, int], *, recent_failures: int, room: int) -> Move:
    """What follows from the outcomes so far. `room` is how many may begin now without exceeding any rate."""
    if state in {"stopped", "completed", "looking"}:
        return Move(state)
    frozen, failures = counts.get("frozen", 0), sum(counts.get(name, 0) for name in FAILURES)
    under_way = sum(counts.get(name, 0) for name in UNDER_WAY)
    if state == "ramping":
        if recent_failures >= bounds.stop_after:
            return Move("stopped", because=f"{recent_failures} of the last {RECENT} failed.")
        if not frozen:
            return Move("ramping" if under_way else "completed")
        return Move("ramping", min(frozen, room))
    learnt = failures + counts.get("repaired", 0) + counts.get("proposed", 0)  # who had moved tells nothing
    tried = learnt + under_way
    over = not under_way and (tried >= bounds.canary or not frozen)
    if failures >= min(bounds.stop_after, bounds.canary) or (over and learnt and failures == learnt):
        return Move("stopped", because=f"{failures} of the first {tried} failed.")
    if not over:
        return Move("canary", max(0, min(bounds.canary - tried, frozen, room)))
    if not frozen:
        return Move("completed")
    return Move("looking" if bounds.look else "ramping")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where an accepted override stands, as the ledger has it."""

    override: str
    takes_over: bool
    operation_state: str
    operation_blocked: bool = False
    """Something that the operation itself drives is blocked."""
    effect_state: str | None = None
    """Of the effect that it helps; None where it has none."""
    effect_decision: str | None = None
    story_state: str | None = None
    """Of the operation whose story it helps, where it helps no effect."""
    story_blocked: bool = False
    story_went_on: bool = False


def verified(now: Standing) -> ItemState | None:
    """What became of the case, read from what stands; None while nothing is known."""
    if now.operation_state == "proposed":
        return "proposed"
    if now.operation_state in {"superseded", "declined", "expired"}:
        return "moved"
    if now.takes_over:
        done: ItemState | None = "repaired" if now.operation_state == "completed" else None
        return "blocked_again" if now.operation_blocked else done
    if now.override != "retry":
        return "repaired" if now.operation_state == "completed" else None
    if now.effect_state is None:
        return _of_story(now)
    if now.effect_state == "settled":
        return _RETRIED.get(now.effect_decision, "repaired")
    return _OF_EFFECT.get(now.effect_state)


# Given up means that the partner failed again, and the step lets the operation go on without it.
_RETRIED: dict[str | None, ItemState] = {"voided": "moved", "given_up": "blocked_again"}
_OF_EFFECT: dict[str, ItemState] = {"blocked": "blocked_again", "waiting": "acknowledged"}


def _of_story(now: Standing) -> ItemState | None:
    if now.story_blocked:
        return "blocked_again"
    if now.story_state in {"superseded", "undoing", "undone"}:
        return "moved"
    return "repaired" if now.story_state == "completed" or now.story_went_on else None
