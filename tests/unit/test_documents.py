"""Documents: the case as everybody sees it, and what of it Temporal may hold."""

from dataclasses import replace

import pytest
from hypothesis import given

from caseward.documents.case import CaseFacts, case_document, status_document
from caseward.documents.steps import step_documents
from caseward.documents.timeline import entry_sentence
from caseward.overrides import OVERRIDES
from caseward.process import Process
from caseward.situation import Actor
from caseward.workflow import telling
from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.unit.test_policy import (
    CASE,
    NOW,
    OPERATION,
    PROCESS,
    ROLES,
    SITUATIONS,
    UNDO,
    effect,
    operation,
    person,
    situation,
    situations,
)

FACTS = CaseFacts(
    business_key="V-1",
    title="Northwind Tools GmbH (DE)",
    subject={"legal_name": "Northwind Tools GmbH", "iban": "DE89370400440532013000"},
    subject_revision=1,
    opened_at=NOW,
    changed_at=NOW,
)
APPROVE = VENDOR_ONBOARDING.transition("approve")


class TestSteps:
    def test_begun_or_not_every_declared_step_is_drawn_in_its_order(self):
        shown = step_documents(VENDOR_ONBOARDING, APPROVE.steps, [effect("open_payee", "retrying")], [])
        assert [(step.name, step.state) for step in shown] == [
            ("create_in_erp", "pending"),
            ("open_payee", "retrying"),
            ("send_welcome", "pending"),
        ]

    def test_a_step_not_begun_already_says_who_would_decide(self):
        shown = step_documents(VENDOR_ONBOARDING, APPROVE.steps, [], [])
        assert [step.recovery_owner for step in shown] == ["erp_support", "treasury", "vendor_desk"]
        assert all(step.effect_key is None and step.since is None for step in shown)

    def test_what_is_to_be_taken_back_is_drawn_before_it_begins(self):
        stands = effect("create_in_erp", "settled", outcome="succeeded", cause=None)
        shown = step_documents(VENDOR_ONBOARDING, (), [stands], [stands])
        assert [(step.name, step.title, step.direction, step.state) for step in shown] == [
            ("create_in_erp", "Create the vendor in the ERP", "do", "succeeded"),
            ("create_in_erp:undo", "Deactivate the vendor in the ERP", "undo", "pending"),
        ]

    def test_a_compensation_under_way_stands_for_itself(self):
        stands = effect("create_in_erp", "settled", outcome="succeeded")
        undo = effect("create_in_erp", "blocked", direction="undo", key=f"{stands.key}:undo")
        shown = step_documents(VENDOR_ONBOARDING, (), [stands, undo], [stands])
        assert [(step.name, step.state) for step in shown][1:] == [("create_in_erp:undo", "blocked")]

    @pytest.mark.parametrize(
        ("changes", "shown"),
        [
            ({"outcome": "succeeded"}, "succeeded"),
            ({"outcome": "not_needed"}, "not_needed"),
            ({"outcome": "unknown", "decision": "skipped"}, "skipped"),
            ({"outcome": "failed", "decision": "marked_done"}, "marked_done"),
            ({"outcome": "unknown", "decision": "given_up"}, "given_up"),
            ({"outcome": "failed", "decision": "voided"}, "voided"),
            ({"outcome": "succeeded", "offset": True}, "undone"),
            ({"outcome": "succeeded", "decision": "marked_done", "offset": True}, "undone"),
        ],
    )
    def test_a_settled_step_says_how(self, changes, shown):
        assert effect("open_payee", "settled", **changes).step_state == shown


class TestCase:
    def test_names_the_address_and_the_schema_of_every_action(self):
        document = case_document(SITUATIONS["blocked"], FACTS, person("senior_operator"), [])
        by_name = {action.name: action for action in document.actions}
        assert by_name["request_changes"].href == f"/v1/vendor-onboarding/{CASE}/request-changes"
        assert by_name["request_changes"].input_schema == "/v1/schemas/vendor_onboarding.request_changes"
        assert by_name["mark_done"].href == f"/v1/cases/{CASE}/overrides/mark-done"
        assert by_name["mark_done"].input_schema == "/v1/schemas/override.mark_done"
        assert by_name["mark_done"].step == "create_in_erp"

    @given(now=situations())
    def test_can_be_shown_in_every_situation_to_everybody(self, now):
        for actor in (Actor("", frozenset()), person(*ROLES)):
            document = case_document(now, FACTS, actor, [])
            assert {action.name for action in document.actions} >= set(OVERRIDES)
            document.model_dump_json()

    def test_a_refusal_names_every_reason(self):
        document = case_document(situation("active"), FACTS, person("auditor"), [])
        approve = next(action for action in document.actions if action.name == "approve")
        assert (approve.allowed, [reason.code for reason in approve.reasons]) == (
            False,
            ["role_missing", "wrong_state"],
        )


class TestStatus:
    """What the workflow holds, shows and keeps in its history."""

    def of(self, now, process: Process = PROCESS):
        steps = step_documents(process, APPROVE.steps, now.effects, [])
        return status_document(now, FACTS, steps)

    def test_holds_no_subject_no_title_no_actions_no_results_and_no_partners_words(self):
        error = {"error_class": "rejected", "code": "account_closed", "message": "Account of A. Berg is closed"}
        now = situation(
            operation=operation(),
            effects=(
                effect("open_payee", "blocked", error=error),
                effect("create_in_erp", "settled", outcome="succeeded", result={"vendor_number": "V77"}),
            ),
        )
        status = self.of(now)
        assert {"subject", "title", "actions"}.isdisjoint(status)
        assert status["condition_info"]["last_error"] == {"error_class": "rejected", "code": "account_closed"}
        for secret in ("Northwind", "DE89", "Berg", "V77"):
            assert secret not in str(status)

    @given(now=situations())
    def test_can_be_told_in_every_situation(self, now):
        status = self.of(now)
        text = telling.details(status)
        assert status["condition"].upper() in text
        state, condition, _ = telling.attributes(status)
        assert (state, condition) == (now.state, status["condition"].replace("queued", "running"))
        names = {step["name"] for step in telling.blocked_steps(status)}
        assert names <= {step["name"] for step in telling.pending_steps(status)}

    def test_of_nothing_known_yet_is_empty(self):
        assert (telling.steps({}), telling.pending_steps({}), telling.blocked_steps({})) == ([], [], [])
        assert telling.attributes({}) == ("", "", None)

    def test_a_step_that_was_taken_back_owes_nothing(self):
        undone = effect("create_in_erp", "settled", outcome="succeeded", offset=True)
        status = self.of(situation(operation=replace(UNDO, id=OPERATION), effects=(undone,)))
        pending = [step["name"] for step in telling.pending_steps(status)]
        assert "create_in_erp" not in pending


class TestEntries:
    def test_one_of_a_later_version_shows_as_its_type(self):
        assert entry_sentence("case.teleported", {}) == "case.teleported"

    def test_one_that_lacks_a_fact_shows_as_its_type(self):
        assert entry_sentence("effect.failed", {"title": "Book"}) == "effect.failed"

    def test_teams_and_partners_are_called_as_people_call_them(self):
        told = {"title": "Hold the car", "partner": "car_rental", "recovery_owner": "erp_support"}
        assert entry_sentence("effect.happened_twice", told) == (
            "Hold the car: car rental reported a second success. Erp support has to look."
        )
