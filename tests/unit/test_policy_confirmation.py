"""Policy of confirmation: what becomes a proposal, who may confirm or decline it, and what makes it stale."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caseward.documents.case import CaseFacts, case_document, status_document
from caseward.policy import Action, bound_to, decide, decide_confirming, decide_declining, stale
from caseward.process import Circumstance, Confirmation, Process
from caseward.situation import Actor, Given, ProposalView, Situation
from processes.vendor_onboarding import VENDOR_ONBOARDING, Vendor
from tests.unit.test_policy import NOW, ROLES, SITUATIONS, effect, operation, person, situation

LEADS = Confirmation(by=2, roles=frozenset({"vendor_lead"}))
SENIOR = Confirmation(by=1, roles=frozenset({"senior_operator"}))
VENDOR = Vendor.model_validate(Vendor.model_config["json_schema_extra"]["examples"][0])


def declaring(process: Process = VENDOR_ONBOARDING, **by_name: Confirmation) -> Process:
    """With confirmations of these transitions, steps and overrides."""
    transitions = tuple(
        replace(
            t,
            confirmation=by_name.get(t.name),
            steps=tuple(replace(s, skip_confirmation=by_name.get(s.name)) for s in t.steps),
        )
        for t in process.transitions
    )
    overrides = ("retry", "skip", "mark_done", "undo", "replay", "force_cancel")
    return replace(process, transitions=transitions, confirmations={n: by_name[n] for n in overrides if n in by_name})


GUARDED = declaring(approve=LEADS, create_in_erp=SENIOR, force_cancel=SENIOR)
IN_REVIEW = situation("in_review", GUARDED, fence=4, subject_revision=2)
BLOCKED = replace(SITUATIONS["blocked"], process=GUARDED, fence=5)
APPROVE, SKIP = Action("transition", "approve"), Action("override", "skip", "create_in_erp")


def proposal(now: Situation, action: Action, confirmation: Confirmation, *, confirmed_by=(), **changes) -> ProposalView:
    target = next((e for e in now.effects if e.address == action.step), None)
    given = tuple(Given(actor_id=name, role=None, via="api", reason=None, at=NOW) for name in confirmed_by)
    fields = {
        "id": UUID(int=9),
        "kind": action.kind,
        "name": action.name,
        "step": action.step,
        "item": action.item,
        "proposer": Actor("paul", frozenset({"vendor_reviewer" if action.kind == "transition" else "operator"})),
        "reason": "Because",
        "input": {},
        "bound": bound_to(now, target),
        "confirmation": confirmation,
        "given": given,
        "proposed_at": NOW,
        "expires_at": NOW + confirmation.expires,
    }
    return ProposalView(**(fields | changes))


def standing(now: Situation, *proposals: ProposalView) -> Situation:
    return replace(now, proposals=proposals)


def codes(decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


APPROVAL = proposal(IN_REVIEW, APPROVE, LEADS)
LEAVING_OUT = proposal(BLOCKED, SKIP, SENIOR)


class TestProposing:
    def test_a_transition_with_confirmation_is_only_proposed(self):
        decision = decide(IN_REVIEW, person("vendor_reviewer"), APPROVE)
        assert (decision.allowed, decision.further, decision.confirmation) == (True, 2, LEADS)
        assert decide(IN_REVIEW, person("vendor_reviewer"), Action("transition", "reject")).confirmation is None

    def test_a_step_guards_leaving_out_marking_done_and_the_same_of_its_compensation(self):
        undone = replace(BLOCKED, effects=(effect(state="settled"), effect(direction="undo")))
        for now, step in ((BLOCKED, "create_in_erp"), (undone, "create_in_erp:undo")):
            for name in ("skip", "mark_done"):
                assert decide(now, person("senior_operator"), Action("override", name, step)).further == 1
            assert decide(now, person("operator"), Action("override", "retry", step)).further == 0

    def test_the_steps_own_goes_before_the_overrides(self):
        now = replace(BLOCKED, process=declaring(create_in_erp=SENIOR, skip=LEADS))
        assert decide(now, person("operator"), SKIP).confirmation is SENIOR
        other = replace(now, effects=(effect("send_welcome"),))
        assert decide(other, person("operator"), Action("override", "skip")).confirmation is LEADS
        assert decide(other, person("operator"), Action("override", "mark_done")).confirmation is LEADS

    def test_doing_a_confirmed_transition_again_takes_its_confirmation(self):
        now = situation("active", GUARDED, latest=operation("approve", state="completed"))
        again = decide(now, person("senior_operator"), Action("override", "replay"))
        assert again.confirmation is LEADS

    @pytest.mark.parametrize(("role", "further"), [("operator", 1), ("senior_operator", 0)])
    def test_where_the_proposer_counts_so_many_fewer_are_needed(self, role, further):
        counting = replace(SENIOR, proposer_counts=True)
        now = replace(BLOCKED, process=declaring(create_in_erp=counting))
        decision = decide(now, person(role), SKIP)
        assert (decision.further, decision.confirmation is None) == (further, further == 0)

    def test_an_equal_one_that_stands_is_the_reason_against_another(self):
        now = standing(BLOCKED, LEAVING_OUT)
        assert codes(decide(now, person("operator"), SKIP)) == ["proposal_stands"]
        assert codes(decide(now, person("operator"), Action("override", "skip"))) == ["proposal_stands"]
        assert decide(now, person("operator"), Action("override", "mark_done", "create_in_erp")).allowed
        moved = standing(replace(BLOCKED, fence=6), LEAVING_OUT)
        assert decide(moved, person("operator"), SKIP).allowed, "a stale one is in nobody's way"


class TestConfirming:
    def test_takes_one_of_the_roles(self):
        now = standing(IN_REVIEW, APPROVAL)
        for role in ROLES:
            decision = decide_confirming(now, person(role), APPROVAL)
            assert decision.allowed == (role == "vendor_lead"), role
        assert decide_confirming(now, person("vendor_lead"), APPROVAL).role == "vendor_lead"

    def test_is_not_for_whoever_proposed_it(self):
        now = standing(IN_REVIEW, APPROVAL)
        assert codes(decide_confirming(now, person("vendor_lead", name="paul"), APPROVAL)) == ["four_eyes"]

    def test_is_not_for_whoever_may_not_take_it_by_four_eyes(self):
        now = standing(replace(IN_REVIEW, acted={"submit": frozenset({"mara"})}), APPROVAL)
        assert codes(decide_confirming(now, person("vendor_lead", name="mara"), APPROVAL)) == ["four_eyes"]

    def test_is_once_for_each(self):
        once = proposal(IN_REVIEW, APPROVE, LEADS, confirmed_by=["mara"])
        now = standing(IN_REVIEW, once)
        assert codes(decide_confirming(now, person("vendor_lead", name="mara"), once)) == ["already_confirmed"]
        assert decide_confirming(now, person("vendor_lead", name="ned"), once).allowed

    def test_is_not_for_the_engine_and_not_for_signals(self):
        now = standing(BLOCKED, LEAVING_OUT)
        for nobody in (
            Actor("temporal", frozenset({"senior_operator"}), "temporal"),
            Actor("mara", frozenset({"senior_operator"}), "temporal"),
            Actor("system", frozenset({"senior_operator"})),
        ):
            assert codes(decide_confirming(now, nobody, LEAVING_OUT)) == ["not_somebody"]
            assert codes(decide_declining(now, nobody, LEAVING_OUT)) == ["not_somebody"]

    def test_decides_afresh_for_whoever_proposed_it(self):
        acted = standing(replace(IN_REVIEW, acted={"submit": frozenset({"paul"})}), APPROVAL)
        assert codes(decide_confirming(acted, person("vendor_lead"), APPROVAL)) == ["four_eyes"]
        running = standing(replace(BLOCKED, effects=(effect(state="running"),)))
        stands = proposal(running, SKIP, SENIOR)
        assert codes(decide_confirming(standing(running, stands), person("senior_operator"), stands)) == [
            "attempt_running"
        ]

    def test_hands_on_the_effect_it_is_about(self):
        decision = decide_confirming(standing(BLOCKED, LEAVING_OUT), person("senior_operator"), LEAVING_OUT)
        assert decision.target == BLOCKED.effects[0]


class TestStale:
    @pytest.mark.parametrize(
        "changes",
        [
            {"fence": 6},
            {"subject_revision": 2},
            {"operation": replace(operation(), id=UUID(int=77))},
            {"operation": None},
            {"effects": ()},
            {"effects": (effect(attempt_count=2),)},
            {"effects": (effect(state="retrying"),)},
            {"process": declaring(create_in_erp=replace(SENIOR, by=2))},
            {"process": declaring()},
        ],
        ids=[
            "another fence",
            "another revision",
            "another operation",
            "no operation",
            "no effect",
            "one attempt more",
            "tried again",
            "more people needed",
            "nobody needed",
        ],
    )
    def test_once_anything_it_is_about_has_changed(self, changes):
        assert not stale(BLOCKED, LEAVING_OUT)
        now = standing(replace(BLOCKED, **changes), LEAVING_OUT)
        assert stale(now, LEAVING_OUT)
        assert codes(decide_confirming(now, person("senior_operator"), LEAVING_OUT)) == ["proposal_stale"]
        assert decide_declining(now, person("senior_operator"), LEAVING_OUT).allowed

    def test_once_it_does_not_say_any_more_what_was_proposed(self):
        assert stale(BLOCKED, replace(LEAVING_OUT, intact=False))

    def test_not_by_what_it_is_not_about(self):
        elsewhere = (*BLOCKED.effects, effect("send_welcome", attempt_count=9))
        assert not stale(replace(BLOCKED, effects=elsewhere, version=99, escalated_to="vendor_lead"), LEAVING_OUT)

    @given(days=st.integers(-1000, 1000))
    def test_the_clock_has_no_say(self, days):
        late = replace(LEAVING_OUT, expires_at=NOW + timedelta(days=days))
        assert decide_confirming(standing(BLOCKED, late), person("senior_operator"), late).allowed


class TestDeclining:
    def test_is_for_whoever_may_confirm_and_whoever_proposed(self):
        now = standing(IN_REVIEW, APPROVAL)
        assert decide_declining(now, person("vendor_lead"), APPROVAL).allowed
        assert decide_declining(now, person("vendor_reviewer", name="paul"), APPROVAL).allowed
        assert codes(decide_declining(now, person("vendor_reviewer"), APPROVAL)) == ["role_missing"]


class TestDocument:
    FACTS = CaseFacts(
        business_key="V-1", title="Northwind", subject={}, subject_revision=2, opened_at=NOW, changed_at=NOW
    )

    def test_shows_each_proposal_with_what_this_actor_may_answer(self):
        document = case_document(standing(IN_REVIEW, APPROVAL), self.FACTS, person("vendor_lead"), [])
        (shown,) = document.proposals
        assert (shown.title, shown.needed, shown.roles, shown.stale) == ("Approve", 2, ["vendor_lead"], False)
        assert (shown.confirm.allowed, shown.decline.allowed) == (True, True)
        approve = next(action for action in document.actions if action.name == "approve")
        assert (approve.allowed, approve.confirmations) == (False, 2)

    def test_what_temporal_may_hold_has_none(self):
        told = status_document(standing(IN_REVIEW, APPROVAL), self.FACTS, [])
        assert "proposals" not in told
        assert "paul" not in str(told)


def test_marking_the_screening_as_done_by_hand_takes_a_review_lead():
    now = SITUATIONS["blocked at the screening"]
    decision = decide(now, person("senior_operator"), Action("override", "mark_done"))
    assert (decision.allowed, decision.further) == (True, 1)
    assert decision.confirmation is not None
    assert decision.confirmation.roles == {"vendor_lead"}


class TestWhatDependsOnTheCase:
    ABROAD = Circumstance(of=lambda vendor: vendor.country != "DE", words="vendors abroad")
    NOW = situation("in_review", declaring(approve=replace(LEADS, when=ABROAD)), fence=4)

    @pytest.mark.parametrize(("country", "needed"), [("DE", None), ("NO", LEADS)])
    def test_needs_it_where_the_subject_is_so(self, country, needed):
        now = replace(self.NOW, subject=VENDOR.model_copy(update={"country": country}))
        decision = decide(now, person("vendor_reviewer"), APPROVE)
        assert (decision.allowed, decision.confirmation, decision.further) == (True, needed, 2 if needed else 0)

    def test_a_subject_that_nobody_can_read_needs_it(self):
        assert decide(self.NOW, person("vendor_reviewer"), APPROVE).confirmation == LEADS

    @pytest.mark.parametrize(("country", "is_stale"), [("DE", True), ("NO", False)])
    def test_a_proposal_stands_while_it_is_needed(self, country, is_stale):
        now = replace(self.NOW, subject=VENDOR.model_copy(update={"country": country}))
        assert stale(now, proposal(now, APPROVE, LEADS)) is is_stale

    def test_doing_it_again_needs_it_where_the_subject_is_so(self):
        senior, again = person("senior_operator"), Action("override", "replay")
        here, there = (replace(self.NOW, subject=VENDOR.model_copy(update={"country": c})) for c in ("DE", "NO"))
        assert (decide(here, senior, again).confirmation, decide(there, senior, again).confirmation) == (None, LEADS)


class TestGroups:
    """Two of three groups, the lead's always among them; whoever proposes it is one of them."""

    OF_GROUPS = Confirmation(
        by=2,
        roles=frozenset({"vendor_lead", "vendor_reviewer", "vendor_requester"}),
        groups=frozenset({"vendor_lead"}),
        proposer_counts=True,
    )
    NOW = situation("in_review", declaring(approve=OF_GROUPS), fence=4)

    def proposed(self, *given: tuple[str, str]) -> ProposalView:
        answers = tuple(Given(actor_id=name, role=role, via="api", reason=None, at=NOW) for name, role in given)
        return proposal(self.NOW, APPROVE, self.OF_GROUPS, given=answers)

    def test_nobody_takes_the_place_that_a_group_has_yet_to_fill(self):
        decision = decide_confirming(self.NOW, person("vendor_requester"), self.proposed(("paul", "vendor_reviewer")))
        assert codes(decision) == ["group_missing"]

    def test_whoever_has_the_missing_role_confirms_in_it(self):
        both = person("vendor_lead", "vendor_requester")
        decision = decide_confirming(self.NOW, both, self.proposed(("paul", "vendor_reviewer")))
        assert (decision.allowed, decision.role) == (True, "vendor_lead")

    def test_once_it_is_there_any_of_the_groups_will_do(self):
        decision = decide_confirming(self.NOW, person("vendor_requester"), self.proposed(("paul", "vendor_lead")))
        assert (decision.allowed, decision.role) == (True, "vendor_requester")

    def test_nobody_is_two_groups(self):
        both = Confirmation(
            by=2, roles=self.OF_GROUPS.roles, groups=frozenset({"vendor_lead", "vendor_reviewer"}), proposer_counts=True
        )
        now = replace(self.NOW, process=declaring(approve=both))
        paul = Actor("paul", both.groups)
        assert decide(now, paul, APPROVE).further == 1
        given = (Given(actor_id="paul", role="vendor_lead", via="api", reason=None, at=NOW),)
        proposed = proposal(now, APPROVE, both, given=given)
        assert codes(decide_confirming(now, person("vendor_lead"), proposed)) == ["group_missing"]
        assert decide_confirming(now, person("vendor_reviewer"), proposed).allowed

    def test_a_proposer_for_whom_there_is_no_room_does_not_count(self):
        lead_alone = replace(self.OF_GROUPS, by=1)
        now = replace(self.NOW, process=declaring(approve=lead_alone))
        assert decide(now, person("vendor_reviewer"), APPROVE).further == 1
        both = declaring(approve=replace(self.OF_GROUPS, roles=frozenset({"vendor_lead", "vendor_reviewer"})))
        assert decide(replace(now, process=both), person("vendor_reviewer"), APPROVE).further == 1


class TestStandingIn:
    """Whoever stands in for somebody speaks for two, and two words of the same person are one."""

    MARA, CARL = Actor("mara", frozenset({"vendor_lead"})), Actor("carl", frozenset({"vendor_lead"}))
    BEN = Actor("ben", frozenset({"vendor_lead"}), lent=(("vendor_lead", "mara"),))
    EVE = Actor("eve", frozenset({"vendor_lead"}), lent=(("vendor_lead", "mara"),))

    def given(self, actor: Actor) -> ProposalView:
        role = "vendor_lead"
        person_for = actor.on_behalf_of(role)
        answer = Given(actor_id=actor.id, role=role, via="api", reason=None, at=NOW, on_behalf_of=person_for)
        return proposal(IN_REVIEW, APPROVE, LEADS, given=(answer,))

    def test_they_may_confirm(self):
        assert decide_confirming(IN_REVIEW, self.BEN, APPROVAL).allowed

    def test_after_them_neither_they_nor_who_lent_nor_another_of_theirs(self):
        for actor in (self.BEN, self.MARA, self.EVE):
            assert codes(decide_confirming(IN_REVIEW, actor, self.given(self.BEN))) == ["already_confirmed"]
        assert decide_confirming(IN_REVIEW, self.CARL, self.given(self.BEN)).allowed

    def test_nor_they_after_who_lent(self):
        assert codes(decide_confirming(IN_REVIEW, self.BEN, self.given(self.MARA))) == ["already_confirmed"]

    def test_whoever_has_the_role_themselves_speaks_for_themselves(self):
        own = Actor("ben", frozenset({"vendor_lead", "vendor_reviewer"}), lent=(("vendor_reviewer", "mara"),))
        decision = decide_confirming(IN_REVIEW, own, self.given(self.MARA))
        assert (decision.allowed, own.on_behalf_of(decision.role)) == (True, None)

    def test_nobody_confirms_what_was_proposed_for_them_or_by_whom_they_stand_in_for(self):
        by_mara = replace(APPROVAL, proposer=Actor("mara", frozenset({"vendor_reviewer"})))
        assert codes(decide_confirming(IN_REVIEW, self.BEN, by_mara)) == ["four_eyes"]
        for_mara = Actor("ben", frozenset({"vendor_reviewer"}), lent=(("vendor_reviewer", "mara"),))
        assert codes(decide_confirming(IN_REVIEW, self.MARA, replace(APPROVAL, proposer=for_mara))) == ["four_eyes"]

    def test_whoever_acted_before_does_not_come_in_by_another(self):
        now = situation("in_review", acted={"submit": frozenset({"mara"})})
        stand_in = Actor("ben", frozenset({"vendor_reviewer"}), lent=(("vendor_reviewer", "mara"),))
        assert codes(decide(now, stand_in, APPROVE)) == ["four_eyes"]
        assert decide(now, Actor("ben", frozenset({"vendor_reviewer"})), APPROVE).allowed
