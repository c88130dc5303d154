"""The one condition of a case: the most urgent of what is happening, with who decides next and since when."""

from dataclasses import replace
from datetime import timedelta
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caseward.situation import condition
from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.unit.test_policy import BLOCKED, NOW, effect, operation, situation, situations

URGENCY = ("paused", "blocked", "retrying", "waiting", "running")
SIDES = {
    "paused": effect("send_welcome", "paused", outcome=None, attempt_count=0, paused_by="partner:mail"),
    "blocked": effect("check_tax_id", "blocked", recovery_owner="vendor_desk", cause="rejected"),
    "retrying": effect("screen_sanctions", "retrying", recovery_owner="compliance"),
    "waiting": effect("verify_account", "waiting", partner="bank", recovery_owner="treasury"),
    "running": effect("create_in_erp", "running"),
}


def of(*effects, **changes):
    return condition(situation(operation=operation(), effects=effects, **changes))


class TestPrecedence:
    @pytest.mark.parametrize("pair", list(combinations(URGENCY, 2)), ids=" before ".join)
    def test_the_more_urgent_of_two_side_by_side(self, pair):
        urgent, other = (SIDES[name] for name in pair)
        for effects in permutations((urgent, other)):
            assert (of(*effects).name, of(*effects).step) == (pair[0], urgent.step)

    def test_of_all_at_once_in_any_order(self):
        for effects in permutations(SIDES.values()):
            assert of(*effects).step == SIDES["paused"].step

    def test_of_two_alike_the_one_that_has_waited_longer(self):
        later = replace(SIDES["blocked"], step="verify_account", since=NOW + timedelta(seconds=1))
        assert of(later, SIDES["blocked"]).step == "check_tax_id"

    def test_settled_steps_have_no_say(self):
        settled = replace(SIDES["blocked"], state="settled")
        assert of(settled, SIDES["running"]).name == "running"

    @pytest.mark.parametrize("state", ["retrying", "waiting", "running"])
    def test_undoing_comes_before_everything_but_blocked(self, state):
        undo = operation("undo", "override", offsetting=True)
        compensation = replace(SIDES[state], direction="undo")
        now = condition(situation(operation=undo, effects=(compensation,)))
        assert (now.name, now.step) == ("undoing", f"{compensation.step}:undo")
        blocked = replace(SIDES["blocked"], direction="undo")
        assert condition(situation(operation=undo, effects=(compensation, blocked))).name == "blocked"

    def test_a_transition_that_takes_back_what_it_superseded_is_undoing(self):
        cancel = operation("cancel", offsetting=True)
        assert condition(situation("cancelling", operation=cancel)).name == "undoing"
        assert condition(situation("cancelling", operation=operation("cancel"))).name == "running"

    def test_a_story_that_cannot_go_on_is_blocked_for_engineering(self):
        now = of(SIDES["retrying"])
        blocked = condition(situation(operation=operation(blocked=BLOCKED), effects=(SIDES["retrying"],)))
        assert now.name == "retrying"
        assert (blocked.name, blocked.cause, blocked.recovery_owner) == ("blocked", "story_failed", "engineering")
        assert blocked.since == NOW

    def test_accepted_and_not_begun_is_queued(self):
        queued = condition(situation(operation=operation(state="accepted")))
        assert (queued.name, queued.recovery_owner, queued.since) == ("queued", "vendor_desk", NOW)

    def test_between_two_steps_it_is_running(self):
        between = condition(situation(operation=operation(), effects=(replace(SIDES["running"], state="settled"),)))
        assert (between.name, between.recovery_owner) == ("running", "vendor_desk")


class TestAtRest:
    @pytest.mark.parametrize("state", [s for s in VENDOR_ONBOARDING.states if s.waiting_on], ids=lambda s: s.name)
    def test_a_state_that_waits_names_who_owes_the_move(self, state):
        now = condition(situation(state.name))
        assert (now.name, now.waiting_on, now.recovery_owner) == ("waiting", state.waiting_on, state.waiting_on)

    def test_after_an_escalation_it_waits_on_that_role(self):
        now = condition(situation("in_review", escalated_to="vendor_lead"))
        assert (now.waiting_on, now.sentence) == ("vendor_lead", "Waiting for a vendor review lead.")

    @pytest.mark.parametrize("state", ["active", "suspended", "rejected", "cancelled"])
    def test_where_nobody_owes_anything_it_is_done(self, state):
        assert condition(situation(state)).name == "done"

    def test_the_deadline_is_shown_where_somebody_can_meet_it(self):
        deadline = NOW + timedelta(days=2)
        assert condition(situation("in_review", deadline_at=deadline)).deadline_at == deadline


class TestSentences:
    @pytest.mark.parametrize(
        ("shown", "sentence"),
        [
            (
                effect("open_payee", "blocked", partner="bank", recovery_owner="treasury", cause="rejected"),
                "The partner bank refused: Open the payee at the bank. Treasury decides.",
            ),
            (
                effect("open_payee", "blocked", partner="bank", recovery_owner="treasury", cause="unknown"),
                "Nobody can tell whether the partner bank did it: Open the payee at the bank. Treasury decides.",
            ),
            (
                effect("open_payee", "retrying", partner="bank", outcome="unknown"),
                "Nobody can tell yet whether the partner bank did it: Open the payee at the bank. We find out.",
            ),
            (
                effect("open_payee", "waiting", partner="bank", outcome="acknowledged"),
                "The partner bank took the request and has not finished: Open the payee at the bank.",
            ),
            (effect("open_payee", "running"), "Running: Open the payee at the bank."),
            (
                effect("open_payee", "blocked", direction="undo", cause="exhausted", recovery_owner="erp_support"),
                "The partner erp kept failing: Close the payee at the bank. Erp support decides.",
            ),
            (
                effect("a_step_that_was_removed", "blocked", cause="of a later version"),
                "The partner erp could not do it: a_step_that_was_removed. Erp support decides.",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_say_what_who_and_who_decides(self, shown, sentence):
        assert of(shown).sentence == sentence


class TestEverySituation:
    @given(now=situations())
    def test_unfinished_work_always_has_somebody_who_decides_and_a_since(self, now):
        current = condition(now)
        assert current.sentence.endswith(".")
        assert current.since is not None
        if now.operation is not None:
            assert current.recovery_owner
            assert current.name != "done"

    @given(now=situations())
    def test_blocked_is_hidden_by_a_pause_only(self, now):
        held = now.held_by is not None or any(effect.state == "paused" for effect in now.effects)
        blocked = (
            not held
            and now.operation is not None
            and (now.operation.blocked is not None or any(effect.state == "blocked" for effect in now.effects))
        )
        assert (condition(now).name == "blocked") == blocked

    @given(now=situations())
    def test_paused_is_shown_before_all_else_unless_the_case_is_closed(self, now):
        over = now.operation is None and now.process.state(now.state).final
        waits = any(effect.state == "paused" for effect in now.effects)
        assert (condition(now).name == "paused") == (not over and (now.held_by is not None or waits))
        if condition(now).name == "paused":
            assert condition(now).recovery_owner == "operator"

    @given(now=situations(), order=st.randoms(use_true_random=False))
    def test_the_order_of_the_steps_does_not_matter(self, now, order):
        shuffled = list(now.effects)
        order.shuffle(shuffled)
        ties = {(effect.state, effect.since) for effect in now.effects}
        if len(ties) == len(now.effects):
            assert condition(replace(now, effects=tuple(shuffled))) == condition(now)
