"""A walk through a declaration: each kind of finding on a declaration that has it, with the shortest way there."""

import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caseward.checking.explore import explore, glance
from caseward.errors import DeclarationInvalid
from caseward.policy import decide_all
from caseward.process import (
    AUDITOR,
    IMPOSSIBLE,
    NONE_NEEDED,
    UNDO,
    Catalogue,
    Confirmation,
    Deadline,
    Escalate,
    ForceCancel,
    Nothing,
    Process,
    Role,
    State,
    Step,
    Strict,
    Transition,
)
from processes import CATALOGUE


class Leave(Strict):
    days: int = 1


CLERK, CHIEF = frozenset({"clerk"}), frozenset({"chief"})
BOOK = Step("book", "Book it", partner="calendar", result=Nothing, undo="Unbook it")
TELL = Step("tell", "Tell them", partner="mail", result=Nothing, undo=NONE_NEEDED)
LEAVE = Process(
    "leave",
    "Leave",
    subject=Leave,
    headline=lambda leave: f"{leave.days} days",
    owner="office",
    teams=frozenset({"office"}),
    roles=(Role("clerk", "Clerk"), Role("chief", "Chief")),
    states=(
        State("draft", "Draft", "Being written.", waiting_on="chief"),
        State("booking", "Booking", "We are booking it."),
        State("booked", "Booked", "It stands in the calendar."),
        State("cancelling", "Cancelling", "We are taking it back."),
        State("cancelled", "Cancelled", "It was withdrawn.", final=True),
    ),
    transitions=(
        Transition("open", "Ask", to="draft", roles=CLERK),
        Transition(
            "approve", "Approve", source=frozenset({"draft"}), pending="booking", to="booked", roles=CHIEF,
            steps=(BOOK, TELL),
        ),
        Transition(
            "cancel", "Cancel", source=frozenset({"draft", "booking"}), pending="cancelling", to="cancelled",
            roles=CLERK,
        ),
        Transition("give_back", "Give back", source=frozenset({"booked"}), to="cancelled", roles=CLERK),
    ),
    force_cancel=ForceCancel(pending="cancelling", to="cancelled"),
)  # fmt: skip


def with_state(name: str, /, process: Process = LEAVE, **changes: Any) -> Process:
    return replace(process, states=tuple(replace(s, **changes) if s.name == name else s for s in process.states))


def with_transition(name: str, /, process: Process = LEAVE, **changes: Any) -> Process:
    new = tuple(replace(t, **changes) if t.name == name else t for t in process.transitions)
    return replace(process, transitions=new)


def deadline(then: Any) -> Deadline:
    return Deadline(after=timedelta(days=1), then=then)


BOOKED = " (after open, approve, book succeeded, tell succeeded)"
FOR_GOOD = with_transition("approve", steps=(replace(BOOK, undo=IMPOSSIBLE), replace(TELL, exhausted="undo")))
WRONG: dict[str, tuple[Process, list[str]]] = {
    "a state nobody can leave": (
        with_transition("give_back", to="booked"),
        [
            f"leave: state booked: no transition that anybody may take leads out of it{BOOKED}",
        ],
    ),
    "a dead end": (
        with_state(
            "booked",
            with_transition("cancel", with_transition("give_back", to="draft"), to="draft"),
            waiting_on="clerk",
        ),
        [
            "leave: state draft: from here no end can be reached but by force_cancel (after open)",
            "leave: state booking: from here no end can be reached but by force_cancel (after open, approve)",
            (
                "leave: state cancelling: from here no end can be reached but by force_cancel "
                "(after open, approve, cancel)"
            ),
            f"leave: state booked: from here no end can be reached but by force_cancel{BOOKED}",
        ],
    ),
    "a partial completion without owner": (
        with_transition("approve", steps=(replace(BOOK, owner="nobody_here"), TELL)),
        ["leave: step book: partly done, and nobody decides: there is no nobody_here (after open, approve)"],
    ),
    "an effect without compensation, where a transition supersedes": (
        with_transition("approve", steps=(replace(BOOK, undo=IMPOSSIBLE), TELL)),
        ["leave: transition cancel: takes back book, which is for good (after open, approve, book succeeded, cancel)"],
    ),
    "an effect without compensation, where a step that fails undoes": (
        with_transition("cancel", FOR_GOOD, source=frozenset({"draft"})),
        [
            (
                "leave: step tell: exhausted means undo, but book of approve is for good "
                "(after open, approve, tell rejected)"
            ),
        ],
    ),
    "an effect without compensation, where a deadline undoes": (
        with_state(
            "booking",
            with_transition(
                "cancel",
                with_transition("approve", steps=(replace(BOOK, undo=IMPOSSIBLE), TELL)),
                source=frozenset({"draft"}),
            ),
            deadline=deadline(UNDO),
        ),
        [
            (
                "leave: state booking: its deadline undoes approve, but step book is for good "
                "(after open, approve, deadline of booking)"
            ),
        ],
    ),
    "a role nobody needs": (
        replace(LEAVE, roles=(*LEAVE.roles, Role("guest", "Guest"))),
        ["leave: role guest: nothing here takes it"],
    ),
    "a transition of roles that nobody has": (
        with_transition("give_back", roles=frozenset({"treasurer"})),
        [
            f"leave: state booked: no transition that anybody may take leads out of it{BOOKED}",
            "leave: transition give_back: nobody can ever take it",
        ],
    ),
    "a state that waits in vain": (
        with_state("booked", waiting_on="chief"),
        [f"leave: state booked: waits on chief, who may take no transition here{BOOKED}"],
    ),
    "a deadline without consequence": (
        with_state("draft", deadline=deadline(Escalate(AUDITOR))),
        [
            (
                "leave: state draft: its deadline escalates to auditor, who may do nothing about it here "
                "(after open, deadline of draft)"
            ),
        ],
    ),
    "a deadline without consequence, while steps run": (
        with_state("booking", deadline=deadline(Escalate("chief"))),
        [
            (
                "leave: state booking: its deadline escalates to chief, who may do nothing about it here "
                "(after open, approve, deadline of booking)"
            ),
        ],
    ),
    "a confirmation that nobody may give": (
        with_transition("give_back", confirmation=Confirmation(by=1, roles=frozenset({"treasurer"}))),
        [
            f"leave: give_back: others must confirm it, and nobody may{BOOKED}",
            f"leave: state booked: no transition that anybody may take leads out of it{BOOKED}",
            "leave: transition give_back: nobody can ever take it",
        ],
    ),
    "a state no case gets to": (
        replace(LEAVE, states=(*LEAVE.states, State("elsewhere", "Elsewhere", "Nobody comes here."))),
        ["leave: state elsewhere: no case ever gets here"],
    ),
}


@pytest.mark.parametrize(("process", "findings"), WRONG.values(), ids=WRONG)
def test_each_kind_is_found_with_the_way_to_it(process, findings):
    assert [str(each) for each in explore(process).findings] == findings


def stuck_in_replays(process: Process, monkeypatch) -> list[str]:
    """What is found where nobody may do anything about a replay that is under way."""

    def nobody_helps(now, actor):
        in_a_replay = now.operation is not None and now.operation.name == "replay"
        return () if in_a_replay else decide_all(now, actor)

    monkeypatch.setattr("caseward.checking.places.decide_all", nobody_helps)
    return [str(each) for each in explore(process).findings if "replay" in "".join(each.path)]


def taken_back(found: list[str]) -> dict[str, str]:
    """By compensation that is blocked in a replay: what came of the case since it was done."""
    ways = (each.partition(": blocked (rejected)") for each in found)
    return {where.rpartition(" ")[2]: way.partition("tell succeeded, ")[2] for where, _, way in ways if way}


def test_a_replay_takes_back_what_it_does_again_the_latest_first(monkeypatch):
    process = with_transition("approve", steps=(BOOK, replace(TELL, undo="Say it was wrong")))
    found = stuck_in_replays(process, monkeypatch)
    assert taken_back(found)["tell:undo"] == "replay from book, tell:undo rejected)"
    assert any("book:undo: blocked" in each for each in found)


def test_a_replay_goes_on_with_what_came_before_and_takes_nothing_back_that_is_for_good(monkeypatch):
    for_good = replace(BOOK, undo=IMPOSSIBLE)
    process = with_transition("approve", steps=(for_good, replace(TELL, undo="Say it was wrong")))
    found = stuck_in_replays(process, monkeypatch)
    assert taken_back(found) == {"tell:undo": "replay from tell, tell:undo rejected)"}
    assert not any("book:undo" in each for each in found)


def test_nothing_is_replayed_where_no_step_was_done_or_the_case_is_closed():
    assert explore(with_transition("approve", steps=())).replays == 0
    closes = with_state("booked", with_transition("give_back", source=frozenset({"booking"})), final=True)
    assert 0 < explore(closes).replays < explore(LEAVE).replays


def test_a_sound_declaration_is_called_so_and_how_much_was_looked_at_is_told():
    explored = explore(LEAVE)
    assert explored.findings == []
    assert min(explored.situations, explored.commands, explored.outcomes, explored.replays) > 50


@pytest.mark.parametrize("process", CATALOGUE.values(), ids=CATALOGUE)
def test_every_process_that_runs_here_is_sound(process):
    assert [str(each) for each in explore(process).findings] == []


def test_what_a_glance_finds_is_refused_at_load():
    wrong, _ = WRONG["a state nobody can leave"]
    with pytest.raises(DeclarationInvalid) as refused:
        Catalogue([wrong])
    assert list(refused.value.faults) == [
        f"leave: state booked: no transition that anybody may take leads out of it{BOOKED}"
    ]


@pytest.mark.parametrize(("process", "findings"), WRONG.values(), ids=WRONG)
def test_a_glance_finds_nothing_that_the_whole_walk_does_not(process, findings):
    def told(found):
        return {(each.kind, each.where, each.words) for each in found}

    assert told(glance(process)) <= told(explore(process).findings)


@pytest.mark.parametrize("process", CATALOGUE.values(), ids=CATALOGUE)
def test_a_glance_costs_next_to_nothing(process):
    calls = Counter[str]()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        glance(process)
    finally:
        sys.setprofile(None)
    # 20 to 50 thousand, which take 10 to 30 ms; the whole walk makes some three hundred times as many.
    assert calls["call"] < 150_000
