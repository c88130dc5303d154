"""Every process has a playbook that fits its declaration, so that no recovery suite leaves one out."""

import pytest

from tests.faults.scenarios import scenarios_of
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS


@pytest.fixture(params=PLAYBOOKS.values(), ids=list(PLAYBOOKS))
def playbook(request) -> Playbook:
    return request.param


def test_somebody_takes_every_transition(playbook: Playbook):
    process = playbook.process
    assert set(playbook.takes) == {transition.name for transition in process.transitions}
    for name, who in playbook.takes.items():
        assert playbook.transition(name).roles & set(playbook.everybody[who]), f"{who} may not {name}"


def test_every_resting_state_is_reached(playbook: Playbook):
    for state in playbook.process.states:
        if state.name not in playbook.process.pending_states:
            assert playbook.way(state.name) is not None


def test_every_step_and_compensation_has_its_call(playbook: Playbook):
    steps = playbook.process.steps.values()
    assert set(playbook.calls) == {step.name for step in steps} | {f"{s.name}:undo" for s in steps if s.compensable}


def test_the_matrix_has_a_row_for_every_transition_and_override(playbook: Playbook):
    rows = [scenario.name for scenario in scenarios_of(playbook)]
    assert len(set(rows)) == len(rows)
    for transition in playbook.process.transitions:
        assert any(row.startswith(f"{playbook.name}: {transition.name}") for row in rows), transition.name
    for override in ("retry", "skip", "mark_done", "undo", "replay", "force_cancel", "pause", "resume", "bulk"):
        assert any(row.startswith(f"{playbook.name}: {override}") for row in rows), override


def test_vendor_onboarding_is_killed_at_every_row_it_ever_was():
    rows = {
        scenario.name.removeprefix("vendor_onboarding: ") for scenario in scenarios_of(PLAYBOOKS["vendor_onboarding"])
    }
    assert rows >= {
        "open",
        "submit",
        "approve",
        "callback, twice",
        "request_changes",
        "reopen",
        "suspend",
        "retry",
        "retry by signal",
        "bulk: retry",
        "skip",
        "mark_done over an unknown",
        "undo of what is blocked",
        "undo of what is done",
        "replay of what is blocked",
        "replay of what is done",
        "force_cancel",
        "superseding: cancel over a running step",
        "confirm: by hand, said two",
        "pause: at rest",
        "resume: held up before a step",
        "workflow terminated",
        "compensation, retried",
    }
