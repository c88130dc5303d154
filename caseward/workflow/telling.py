"""What a workflow shows: from the status document to the words, lists and attributes in Temporal's Web UI."""

from typing import Any

from caseward.messages import StepCall
from caseward.process import Process
from caseward.situation import UNDO_SUFFIX, step_title

SETTLED = frozenset({"succeeded", "not_needed", "skipped", "marked_done", "given_up", "voided", "undone"})


def address(call: StepCall) -> str:
    """How documents and overrides name the step of a call."""
    return call.step + UNDO_SUFFIX if call.direction == "undo" and not call.settle_only else call.step


def summary(process: Process, call: StepCall) -> str:
    """One line for the activity in the Web UI."""
    step = process.steps.get(call.step)
    if step is None:
        return address(call)
    title = step_title(step, "undo" if call.direction == "undo" else "do")
    return f"Find out: {title}" if call.settle_only else title


def attributes(status: dict[str, Any]) -> tuple[str, str, str | None]:
    """State, condition and recovery owner, for search.

    What its workflow knows to be accepted it is about to begin, so `queued` is `running` here, and while all goes well
    nobody has to decide. That leaves one change of the index at an operation's begin and one at its end.
    """
    if not status:
        return "", "", None
    if status["condition"] in {"queued", "running"}:
        return status["state"], "running", None
    return status["state"], status["condition"], status["condition_info"]["recovery_owner"]


def steps(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of the operation in flight."""
    operation = status.get("operation")
    return list(operation["steps"]) if operation else []


def pending_steps(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that are not settled."""
    return [step for step in steps(status) if step["state"] not in SETTLED]


def blocked_steps(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that wait for a decision."""
    return [step for step in steps(status) if step["state"] == "blocked"]


def details(status: dict[str, Any]) -> str:
    """The case's standing in Markdown: what a person reads first in the Web UI."""
    state, now = status["state_info"], status["condition_info"]
    lines = [
        f"### {state['title']}: {state['meaning']}",
        f"**{status['condition'].upper()}** since {now['since']}: {now['sentence']}",
    ]
    if now["last_error"]:
        lines.append(f"Last error: `{now['last_error']['code']}`")
    if now["next_attempt_at"]:
        lines.append(f"Next attempt at {now['next_attempt_at']}, after {now['attempts']}")
    if now["recovery_owner"]:
        lines.append(f"Who decides next: **{now['recovery_owner']}**")
    if state["deadline_at"]:
        lines.append(f"Deadline {state['deadline_at']}")
    shown = steps(status)
    if shown:
        lines.append(f"Operation `{status['operation']['name']}` `{status['operation']['operation_id']}`:")
        lines.append("\n".join(f"- {step['title']}: **{step['state']}** ({step['partner']})" for step in shown))
    lines.append(f"Version {status['version']} of case `{status['case_id']}`")
    return "\n\n".join(lines)
