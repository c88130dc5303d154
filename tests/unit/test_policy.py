"""Policy: who may do what where, as tables a reviewer can read, and as a property over situations of every kind."""

# ruff: noqa: E501 - the tables are read across

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caseward.errors import Reason
from caseward.overrides import OVERRIDES
from caseward.policy import Action, decide, decide_all, decide_opening
from caseward.process import IMPOSSIBLE, Process
from caseward.situation import Actor, EffectView, OperationView, PauseView, Situation
from processes.vendor_onboarding import VENDOR_ONBOARDING

NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
CASE, OPERATION, LATEST = UUID(int=1), UUID(int=2), UUID(int=3)
STATES = [state.name for state in VENDOR_ONBOARDING.states]
PENDING = VENDOR_ONBOARDING.pending_states
LETTERS = {"q": "vendor_requester", "r": "vendor_reviewer", "l": "vendor_lead", "o": "operator", "s": "senior_operator"}
ROLES = (*LETTERS.values(), "auditor")

# Who may take which transition in which state: q requester, r reviewer, l review lead. In pending states (marked *) an
# operation is in flight.
TRANSITIONS = """
                 draft  *screening  in_review  changes_requested  *activating  active  *suspending  suspended  *reinstating  *cancelling  rejected  cancelled
submit           q      .           .          .                  .            .       .            .          .             .            .         .
resubmit         .      .           .          q                  .            .       .            .          .             .            .         .
approve          .      .           rl         .                  .            .       .            .          .             .            .         .
request_changes  .      .           rl         .                  .            .       .            .          .             .            .         .
reject           .      .           rl         .                  .            .       .            .          .             .            .         .
cancel           ql     ql          ql         ql                 ql           .       .            .          .             .            .         .
suspend          .      .           .          .                  .            rl      .            .          .             .            .         .
reinstate        .      .           .          .                  .            .       .            l          .             .            .         .
reopen           .      .           .          .                  .            .       .            .          .             .            ql        ql
"""

# Who may do which override in which situation (o operator, s senior operator), or the code of the refusal everybody gets.
OVERRIDES_TABLE = """
situation                 retry           skip             mark_done        undo              replay            force_cancel pause         resume
at rest, nothing done     nothing_open    nothing_open     nothing_open     nothing_to_undo   nothing_to_replay s      os            not_paused
at rest after approve     nothing_open    nothing_open     nothing_open     os                s                 s      os            not_paused
closed by reject          nothing_open    nothing_open     nothing_open     os                already_final     already_final already_final not_paused
not begun                 nothing_open    nothing_open     nothing_open     os                s                 s      os            not_paused
running                   attempt_running attempt_running  attempt_running  os                s                 s      os            not_paused
retrying                  os              os               os               os                s                 s      os            not_paused
waiting for a partner     os              os               os               os                s                 s      os            not_paused
blocked                   os              os               os               os                s                 s      os            not_paused
blocked at the payee      os              s                s                os                s                 s      os            not_paused
blocked at the screening  os              skip_forbidden   s                os                s                 s      os            not_paused
two blocked side by side  step_ambiguous  step_ambiguous   step_ambiguous   os                s                 s      os            not_paused
blocked beside running    os              os               os               os                s                 s      os            not_paused
the story is blocked      os              nothing_open     nothing_open     os                s                 s      os            not_paused
being taken back          nothing_open    nothing_open     nothing_open     already_undoing   already_undoing   s      os            not_paused
compensation blocked      os              s                s                already_undoing   already_undoing   s      os            not_paused
being cancelled by force  nothing_open    nothing_open     nothing_open     already_undoing   already_undoing   already_cancelling os            not_paused
"""


def person(*roles: str, name: str = "somebody") -> Actor:
    return Actor(name, frozenset(roles))


def effect(step: str = "create_in_erp", state: str = "blocked", **changes) -> EffectView:
    fields = {
        "key": f"{OPERATION}:{step}",
        "operation_id": OPERATION,
        "step": step,
        "item": None,
        "direction": "do",
        "partner": "erp",
        "recovery_owner": "erp_support",
        "state": state,
        "outcome": "failed",
        "decision": None,
        "cause": "rejected" if state == "blocked" else None,
        "error": None,
        "result": None,
        "attempt_count": 1,
        "next_attempt_at": None,
        "answer_by": None,
        "since": NOW,
        "offset": False,
        "ruled_out": False,
    }
    return EffectView(**(fields | changes))


def operation(name: str = "approve", kind: str = "transition", state: str = "running", **changes) -> OperationView:
    tells = name if kind == "transition" else None
    fields = {"id": OPERATION, "tells": tells, "accepted_at": NOW, "blocked": None}
    return OperationView(kind=kind, name=name, state=state, **(fields | changes))


def situation(state: str = "activating", process: Process = VENDOR_ONBOARDING, **changes) -> Situation:
    fields = {"case_id": CASE, "state_since": NOW, "deadline_at": None, "escalated_to": None, "version": 7}
    return Situation(process=process, state=state, **(fields | changes))


def in_state(state: str) -> Situation:
    """The case at rest, or with the work of a pending state in flight."""
    return situation(state, operation=operation()) if state in PENDING else situation(state)


BLOCKED = {"cause": "story_failed", "since": NOW.isoformat(), "error": {"message": "KeyError"}}
UNDO, FORCE = operation("undo", "override"), operation("force_cancel", "override")
NO_REPLAY = Reason("nothing_to_replay", "No step of this case was done that could be done again.")
SITUATIONS: dict[str, Situation] = {
    "at rest, nothing done": situation("draft", latest=operation("open", state="completed"), no_replay=(NO_REPLAY,)),
    "at rest after approve": situation("active", latest=operation("approve", state="completed")),
    "closed by reject": situation("rejected", latest=operation("reject", state="completed")),
    "not begun": situation(operation=operation(state="accepted")),
    "running": situation(operation=operation(), effects=(effect(state="running"),)),
    "retrying": situation(operation=operation(), effects=(effect(state="retrying"),)),
    "waiting for a partner": situation(operation=operation(), effects=(effect(state="waiting"),)),
    "blocked": situation(operation=operation(), effects=(effect(),)),
    "blocked at the payee": situation(operation=operation(), effects=(effect("open_payee"),)),
    "blocked at the screening": situation(
        "screening", operation=operation("submit"), effects=(effect("screen_sanctions"),)
    ),
    "two blocked side by side": situation(operation=operation(), effects=(effect(), effect("send_welcome"))),
    "blocked beside running": situation(operation=operation(), effects=(effect(), effect("send_welcome", "running"))),
    "the story is blocked": situation(operation=operation(blocked=BLOCKED)),
    "being taken back": situation(operation=UNDO, effects=(effect(state="settled"),)),
    "compensation blocked": situation(operation=UNDO, effects=(effect(state="settled"), effect(direction="undo"))),
    "being cancelled by force": situation("cancelling", operation=FORCE),
}


def table(text: str) -> tuple[list[str], dict[str, list[str]]]:
    header, *rows = [line for line in text.strip("\n").splitlines() if line.strip()]
    columns = header.split()
    named = {}
    for row in rows:
        cells = row.split()[-len(columns) :]
        named[row[: row.index("  ")].strip()] = cells
    return columns, named


class TestTransitions:
    def test_the_table_names_every_state_and_every_transition(self):
        columns, rows = table(TRANSITIONS)
        assert [column.lstrip("*") for column in columns] == STATES
        assert {column.lstrip("*") for column in columns if column.startswith("*")} == PENDING
        assert list(rows) == [transition.name for transition in VENDOR_ONBOARDING.transitions if not transition.opens]

    @pytest.mark.parametrize("name", table(TRANSITIONS)[1])
    def test_in_every_state_for_every_role(self, name):
        columns, rows = table(TRANSITIONS)
        for column, cell in zip(columns, rows[name], strict=True):
            now, may = in_state(column.lstrip("*")), {LETTERS[letter] for letter in cell if letter in LETTERS}
            for role in ROLES:
                decision = decide(now, person(role), Action("transition", name))
                assert decision.allowed == (role in may), f"{name} in {column} by {role}: {decision.reasons}"
                assert (decision.role == role) == (role in VENDOR_ONBOARDING.transition(name).roles)

    def test_in_the_wrong_state_says_where_it_starts(self):
        reasons = decide(in_state("active"), person("vendor_reviewer"), Action("transition", "approve")).reasons
        assert [(r.code, r.message) for r in reasons] == [
            ("wrong_state", "Approve needs In review; the case is Active.")
        ]

    def test_while_work_is_under_way_says_what_has_to_wait(self):
        reasons = decide(in_state("activating"), person("vendor_reviewer"), Action("transition", "reject")).reasons
        assert [(r.code, r.message) for r in reasons] == [
            ("operation_in_flight", "Reject has to wait: the case is activating.")
        ]

    def test_while_something_is_taken_back_in_a_state_at_rest_nothing_starts(self):
        now = situation("in_review", operation=UNDO)
        for name in ("approve", "cancel", "submit"):
            codes = [r.code for r in decide(now, person(*ROLES), Action("transition", name)).reasons]
            assert codes == ["operation_in_flight"]

    def test_without_the_role_the_role_comes_first(self):
        reasons = decide(in_state("active"), person("auditor"), Action("transition", "approve")).reasons
        assert [reason.code for reason in reasons] == ["role_missing", "wrong_state"]
        assert reasons[0].message == "Approve: that takes the role vendor review lead or vendor reviewer."

    @pytest.mark.parametrize("earlier", ["open", "submit", "resubmit"])
    def test_whoever_asked_may_not_approve(self, earlier):
        now = replace(in_state("in_review"), acted={earlier: frozenset({"mara"})})
        both = person("vendor_requester", "vendor_reviewer", name="mara")
        assert [r.code for r in decide(now, both, Action("transition", "approve")).reasons] == ["four_eyes"]
        assert decide(now, both, Action("transition", "reject")).allowed
        assert decide(now, person("vendor_reviewer"), Action("transition", "approve")).allowed

    @pytest.mark.parametrize("name", ["open", "fly", ""])
    def test_what_there_is_not_is_denied(self, name):
        decision = decide(in_state("draft"), person(*ROLES), Action("transition", name))
        assert [reason.code for reason in decision.reasons] == ["unknown_action"]

    def test_opening_takes_its_role(self):
        assert decide_opening(VENDOR_ONBOARDING, person("vendor_requester")).allowed
        denied = decide_opening(VENDOR_ONBOARDING, person("vendor_reviewer", "senior_operator"))
        assert [reason.code for reason in denied.reasons] == ["role_missing"]


class TestOverrides:
    def test_the_table_names_every_override_and_every_situation(self):
        columns, rows = table(OVERRIDES_TABLE)
        assert columns == ["situation", *OVERRIDES]
        assert list(rows) == list(SITUATIONS)

    @pytest.mark.parametrize("name", SITUATIONS)
    def test_in_every_situation_for_every_role(self, name):
        now, cells = SITUATIONS[name], table(OVERRIDES_TABLE)[1][name][1:]
        for override, cell in zip(OVERRIDES, cells, strict=True):
            may = {LETTERS[letter] for letter in cell} if set(cell) <= set(LETTERS) else set()
            for role in ROLES:
                decision = decide(now, person(role), Action("override", override))
                assert decision.allowed == (role in may), f"{override} {name} by {role}: {decision.reasons}"
                if not may:
                    assert cell in {reason.code for reason in decision.reasons}
                elif not decision.allowed:
                    assert [reason.code for reason in decision.reasons] == ["role_missing"]

    def test_of_several_steps_one_is_named(self):
        now = SITUATIONS["two blocked side by side"]
        ambiguous = decide(now, person("operator"), Action("override", "retry")).reasons[0]
        assert ambiguous.message == "Several steps qualify, name one: create_in_erp, send_welcome."
        for step in ("create_in_erp", "send_welcome"):
            decision = decide(now, person("operator"), Action("override", "retry", step))
            assert (decision.allowed, decision.target.step) == (True, step)

    def test_a_compensation_has_a_name_of_its_own(self):
        now = SITUATIONS["compensation blocked"]
        assert decide(now, person("operator"), Action("override", "retry", "create_in_erp:undo")).allowed
        denied = decide(now, person("operator"), Action("override", "retry", "create_in_erp"))
        assert [reason.code for reason in denied.reasons] == ["step_not_open"]

    @pytest.mark.parametrize(("step", "item"), [("send_welcome", None), ("nonsense", None), ("create_in_erp", "7")])
    def test_a_step_that_is_not_open_is_denied(self, step, item):
        denied = decide(SITUATIONS["blocked"], person("senior_operator"), Action("override", "skip", step, item))
        assert [reason.code for reason in denied.reasons] == ["step_not_open"]

    def test_undo_ends_where_a_step_has_begun_that_cannot_be_taken_back(self):
        begun = operation(impossible_begun=True)
        for now in (situation(operation=begun), situation("active", latest=replace(begun, state="completed"))):
            denied = decide(now, person("operator"), Action("override", "undo"))
            assert [reason.code for reason in denied.reasons] == ["undo_impossible"]

    def test_undo_ends_where_earlier_work_was_taken_back(self):
        redone = operation(took_back=True)
        for now in (situation(operation=redone), situation("active", latest=replace(redone, state="completed"))):
            denied = decide(now, person("operator"), Action("override", "undo"))
            assert [reason.code for reason in denied.reasons] == ["undo_impossible"]
            assert "no way back" in denied.reasons[0].message

    @pytest.mark.parametrize("name", ["fly", "approve"])
    def test_what_there_is_not_is_denied(self, name):
        decision = decide(SITUATIONS["blocked"], person(*ROLES), Action("override", name))
        assert [reason.code for reason in decision.reasons] == ["unknown_action"]


# --- every situation there may be ------------------------------------------------------------------------------------

IMPOSSIBLE_STEP = replace(VENDOR_ONBOARDING.steps["open_payee"], undo=IMPOSSIBLE, skip_roles=frozenset())
PROCESS = replace(
    VENDOR_ONBOARDING,
    transitions=tuple(
        replace(t, steps=tuple(IMPOSSIBLE_STEP if s.name == "open_payee" else s for s in t.steps))
        for t in VENDOR_ONBOARDING.transitions
    ),
)
STEPS = (*PROCESS.steps, "a_step_that_was_removed")
CODES = {
    *("role_missing", "four_eyes", "operation_in_flight", "wrong_state", "skip_forbidden", "attempt_running"),
    *("step_not_open", "nothing_open", "step_ambiguous", "already_undoing", "nothing_to_undo", "undo_impossible"),
    *("already_cancelling", "already_final", "nothing_to_replay", "paused", "already_paused", "not_paused"),
}

effects = st.builds(
    effect,
    step=st.sampled_from(STEPS),
    state=st.sampled_from(("running", "retrying", "waiting", "paused", "blocked", "settled")),
    item=st.sampled_from((None, None, "1")),
    direction=st.sampled_from(("do", "undo")),
    outcome=st.sampled_from((None, "succeeded", "failed", "unknown", "acknowledged", "not_needed")),
    cause=st.sampled_from((None, "rejected", "unknown", "exhausted", "invalid", "no_answer", "of a later version")),
    attempt_count=st.integers(0, 5),
    since=st.datetimes(
        NOW.replace(tzinfo=None), (NOW + timedelta(days=1)).replace(tzinfo=None), timezones=st.just(UTC)
    ),
    ruled_out=st.booleans(),
)
pauses = st.builds(
    PauseView,
    key=st.sampled_from(("case", f"process:{PROCESS.name}", "partner:bank")),
    stands=st.booleans(),
    since=st.just(NOW),
    reason=st.just("Agreed by phone"),
    by=st.just("olga"),
    number=st.integers(0, 5),
)
transitions = st.sampled_from([t.name for t in PROCESS.transitions] + ["a_transition_that_was_removed"])
kinds = st.one_of(
    st.tuples(st.just("transition"), transitions),
    st.tuples(st.just("override"), st.sampled_from(("undo", "replay", "force_cancel"))),
)


@st.composite
def operations(draw, states=("accepted", "running")) -> OperationView:
    kind, name = draw(kinds)
    return operation(
        name,
        kind,
        draw(st.sampled_from(states)),
        blocked=draw(st.sampled_from((None, None, BLOCKED))),
        impossible_begun=draw(st.booleans()),
        took_back=draw(st.booleans()),
    )


@st.composite
def situations(draw) -> Situation:
    in_flight = draw(st.booleans())
    return situation(
        draw(st.sampled_from(STATES)),
        PROCESS,
        operation=draw(operations()) if in_flight else None,
        effects=tuple(draw(st.lists(effects, max_size=4))) if in_flight else (),
        latest=None if in_flight else draw(st.none() | operations(("completed", "undone", "superseded"))),
        pauses=tuple(draw(st.lists(pauses, max_size=3))),
        acted=draw(st.dictionaries(st.sampled_from(("open", "submit", "resubmit")), st.just(frozenset({"mara"})))),
    )


actors = st.builds(Actor, st.sampled_from(("mara", "ned")), st.frozensets(st.sampled_from((*ROLES, "stranger"))))


class TestEverySituation:
    @given(now=situations(), actor=actors)
    def test_a_refusal_has_its_reasons_and_an_allowance_has_its_role(self, now, actor):
        for action, decision in decide_all(now, actor):
            assert decision.allowed == (decision.reasons == ())
            assert {reason.code for reason in decision.reasons} <= CODES, action
            assert all(reason.message.endswith(".") for reason in decision.reasons)
            assert len({reason.code for reason in decision.reasons}) == len(decision.reasons)
            if decision.allowed:
                assert decision.role in actor.roles

    @given(now=situations(), actor=actors)
    def test_every_transition_but_the_opening_one_and_every_override_is_there(self, now, actor):
        actions = [action for action, _ in decide_all(now, actor)]
        names = [action.name for action in actions if action.kind == "transition"]
        assert names == [t.name for t in PROCESS.transitions if not t.opens]
        assert {action.name for action in actions if action.kind == "override"} == set(OVERRIDES)
        assert len(set(actions)) == len(actions) or len(now.effects) > len({(e.address, e.item) for e in now.effects})

    @given(now=situations(), actor=actors)
    def test_overrides_of_steps_are_offered_for_each_open_step(self, now, actor):
        open_now = {(effect.address, effect.item) for effect in now.effects if effect.unsettled}
        for name, override in OVERRIDES.items():
            targets = {
                (action.step, action.item)
                for action, _ in decide_all(now, actor)
                if action.name == name and (action.step is not None or action.item is not None)
            }
            assert targets == (open_now if override.per_step else set())

    @given(now=situations(), actor=actors)
    def test_what_is_offered_is_what_is_decided(self, now, actor):
        for action, offered in decide_all(now, actor):
            assert decide(now, actor, action) == offered

    @given(now=situations(), actor=actors)
    def test_more_roles_never_allow_less(self, now, actor):
        everybody = Actor(actor.id, frozenset((*ROLES, "stranger")))
        for action, decision in decide_all(now, actor):
            assert not decision.allowed or decide(now, everybody, action).allowed

    @given(now=situations(), actor=actors)
    def test_the_clock_has_no_say(self, now, actor):
        later = replace(now, state_since=NOW - timedelta(days=900), deadline_at=NOW - timedelta(days=1))
        assert list(decide_all(later, actor)) == list(decide_all(now, actor))
