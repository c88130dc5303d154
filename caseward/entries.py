"""The timeline's vocabulary: one row per type of entry, with its sentence."""

from collections.abc import Callable, Mapping
from typing import Any

from caseward.process import team_title

SENTENCES: dict[str, str] = {
    "case.opened": "{title} was opened as {business_key}.",
    "case.woken": "The reconciler looked after it: {found} Its workflow was told to read how it stands.",
    "case.held": "The reconciler paused it: {found} Engineering decides.",
    "case.paused": "Paused: nothing new begins. Deadlines are {deadlines}.",
    "case.resumed": "The case's pause ended.",
    "case.claimed": "{assignee} has claimed it.",
    "case.unclaimed": "The claim of {assignee} ended.",
    "deadline.moved": "{what} was over; deadlines that stood still moved by {moved}.",
    "case.escalated": "Nobody acted in time; it now waits on {role}.",
    "case.overdue": "{state} takes too long. {recovery_owner} decides.",
    "deadline.passed": "The deadline of {state} passed.",
    "document.added": "{title} was added: {name}.",
    "document.replaced": "{title} was replaced by another: {name}.",
    "document.accepted": "{name} was looked at and is accepted.",
    "document.refused": "{name} was looked at and is refused: {findings}",
    "operation.accepted": "{action} was accepted: {from_state} to {case_state}.",
    "operation.completed": "{action} is completed: the case is {to_state}.",
    "operation.blocked": "{action} can't go on: {message}. {recovery_owner} decides.",
    "operation.unblocked": "{action} goes on: {message}.",
    "operation.proposed": "{action} was proposed; it needs confirmation ({given} of {needed} given).",
    "operation.confirmed": "{action} was confirmed ({given} of {needed}).",
    "operation.declined": "{action} was declined.",
    "operation.expired": "{action} expired: too few people confirmed it in time.",
    "operation.superseded": "{action} was superseded by {by}.",
    "operation.undoing": "{action} is being taken back.",
    "operation.undone": "{action} was taken back.",
    "operation.takes_back": "{action} takes back what was done before: {titles}.",
    "operation.planned": "{action} is done again from here: {step}.",
    "operation.diverged": "{action} led to {state} this time, so {decisions} does not stand any more.",
    "override.refused": "{override} was refused: {message}",
    "attempt.started": "{title}: attempt {attempt} began.",
    "effect.succeeded": "{title}: {partner} did it.",
    "effect.failed": "{title}: {partner} answered {code}.",
    "effect.outcome_unknown": "{title}: it is unknown whether {partner} did it ({code}).",
    "effect.ruled_out": "{title}: somebody stated that it did not happen.",
    "effect.acknowledged": "{title}: {partner} took the request and will do it later.",
    "effect.called_back": "{title}: {partner} called back: {outcome}.",
    "effect.not_needed": "{title}: not needed, {message}.",
    "effect.paused": "{title}: has to wait, {what} is paused.",
    "effect.resumed": "{title}: goes on, {what} was resumed.",
    "effect.blocked": "{title}: it can't go on ({cause}). {recovery_owner} decides.",
    "effect.skipped": "{title}: left out.",
    "effect.marked_done": "{title}: done by hand.",
    "effect.given_up": "{title}: given up, the operation goes on without it.",
    "effect.dropped": "{title}: nobody needs it any more, whatever became of it.",
    "effect.happened_twice": "{title}: {partner} reported a second success. {recovery_owner} has to look.",
    "effect.contradicted": (
        "{title}: {partner} did it, and then said that it did not happen ({code}). {recovery_owner} has to look."
    ),
    "effect.left_standing": "{title}: somebody looked, and it is left as it is.",
    "effect.voided": "{title}: it had not happened, nothing to take back.",
    "effect.landed_late": "{title}: {partner} reported success after it was given up.",
    "message.parked": "A message to {destination} could not be delivered: {message}",
    "message.requeued": "A parked message to {destination} was released.",
    "message.dismissed": "A parked message to {destination} was dismissed: it will not be delivered.",
}
# How the names of those that sentences tell of are written; they are stored as they are declared.
NAMES: Mapping[str, Callable[[str], str]] = {
    "recovery_owner": team_title,
    "partner": lambda name: name.replace("_", " "),
}


def sentence(entry_type: str, data: Mapping[str, Any]) -> str:
    """The entry in words. Raises KeyError for an unknown type or a missing fact: both are faults of the writer."""
    data = {**data, **{name: written(data[name]) for name, written in NAMES.items() if name in data}}
    if entry_type == "operation.accepted" and data["from_state"] == data["case_state"]:
        return "{action} was accepted.".format_map(data)  # a case that stays where it is
    return SENTENCES[entry_type].format_map(data)
