"""Compliance approval's rules: who may do what, whom it takes to approve, and what each step asks of its partner."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from activities.compliance_approval import NO_NUMBER, ComplianceApprovalSteps
from caseward.policy import Action, decide, decide_document
from caseward.process import Finding, Verdict
from caseward.situation import Actor, DocumentView
from processes.compliance_approval import (
    COMPLIANCE_APPROVAL,
    Application,
    Certificate,
    Numbered,
)
from tests.unit.nowhere import nowhere
from tests.unit.test_policy import operation, person, situation, table

EXAMPLE = Application.model_config["json_schema_extra"]["examples"][0]
LETTERS = {
    "a": "compliance_applicant",
    "l": "legal_approver",
    "r": "risk_approver",
    "o": "compliance_officer",
    "s": "senior_operator",
}
PENDING = {"checking": "submit", "certifying": "approve", "revoking": "revoke", "withdrawing": "withdraw"}

# Who may take which transition in which state: a applicant, l legal, r risk, o officer. Marked *: work is under way.
TRANSITIONS = """
                 draft *checking in_review changes_requested *certifying approved under_review *revoking revoked refused
submit           a     .         .         a                 .           .        .            .         .       .
approve          .     .         lr        .                 .           .        .            .         .       .
request_changes  .     .         lro       .                 .           .        .            .         .       .
refuse           .     .         lro       .                 .           .        .            .         .       .
review_again     .     .         .         .                 .           o        .            .         .       .
renew            .     .         .         .                 .           .        lr           .         .       .
revoke           .     .         .         .                 .           o        o            .         .       .
withdraw         a     a         a         a                 a           .        .            .         .       .
reopen           .     .         .         .                 .           .        .            .         a       a
"""


def at(state: str, **more: Any):
    doing = operation(PENDING[state]) if state in PENDING else None
    return situation(state, COMPLIANCE_APPROVAL, operation=doing, **more)


def test_who_may_do_what():
    states, rows = table(TRANSITIONS)
    for name, cells in rows.items():
        for marked, cell in zip(states, cells, strict=True):
            now = at(marked.removeprefix("*"))
            may = {
                letter
                for letter, role in LETTERS.items()
                if decide(now, person(role), Action("transition", name)).allowed
            }
            assert may == set(cell.replace(".", "")), f"{name} in {marked}"


def test_who_may_add_evidence_and_when():
    [kind] = COMPLIANCE_APPROVAL.documents.kinds
    taken = {
        state.name for state in COMPLIANCE_APPROVAL.states if decide_document(at(state.name), _applicant, kind).allowed
    }
    assert taken == {"draft", "changes_requested", "in_review"}
    assert not decide_document(at("draft"), person("legal_approver"), kind).allowed


_applicant = person("compliance_applicant")


def test_whoever_applied_does_not_approve():
    both = Actor("mara", frozenset({"compliance_applicant", "legal_approver"}))
    now = at("in_review", acted={"submit": frozenset({"mara"})})
    assert [r.code for r in decide(now, both, Action("transition", "approve")).reasons] == ["four_eyes"]


@pytest.mark.parametrize("role", ["legal_approver", "risk_approver", "security_approver"])
@pytest.mark.parametrize(("state", "name"), [("in_review", "approve"), ("under_review", "renew")])
def test_one_more_is_needed_whoever_begins(role: str, state: str, name: str):
    assert decide(at(state), person(role), Action("transition", name)).further == 1


class Asked:
    """A call whose partner answers as the test says; it remembers what was asked of whom."""

    def __init__(self, answer: dict[str, Any] | None = None, **standing: Any) -> None:
        self.subject, self.business_key = Application.model_validate(EXAMPLE), "CA-17"
        self.accepted_at = datetime(2031, 5, 3, tzinfo=UTC)
        self.document = DocumentView(
            id=uuid4(), kind="evidence", name="audit.pdf", media_type="application/pdf", size=4, sha256="a" * 64
        )
        self.documents = (self.document,)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._answer, self._standing = answer or {}, standing

    def standing(self, step: Any) -> Any:
        return self._standing.get(step.name)

    async def send(self, method: Any, **arguments: Any) -> Any:
        self.sent.append((method.__name__, arguments))
        return type("Answer", (), self._answer)


class TestSteps:
    @pytest.fixture
    def steps(self) -> ComplianceApprovalSteps:
        return ComplianceApprovalSteps(nowhere())

    async def test_a_document_is_looked_at_by_its_content(self, steps):
        call = Asked({"finding": None, "message": None, "pages": 3})
        assert await steps.validate_document(call) == Verdict(accepted=True, pages=3)
        assert call.sent == [("check", {"sha256": "a" * 64})]

    async def test_what_speaks_against_it_is_told(self, steps):
        call = Asked({"finding": "encrypted", "message": "It is encrypted.", "pages": None})
        finding = Finding(code="encrypted", message="It is encrypted.")
        assert await steps.validate_document(call) == Verdict(accepted=False, findings=(finding,))

    async def test_the_certificate_names_what_it_rests_on(self, steps):
        call = Asked({"sha256": "b" * 64, "size": 9}, reserve_number=Numbered(number="CA-1"))
        assert await steps.make_certificate(call) == Certificate(number="CA-1", sha256="b" * 64, size=9)
        [(_, arguments)] = call.sent
        assert f"audit.pdf: SHA-256 {'a' * 64}" in arguments["lines"]
        assert arguments["issued_at"] == "2031-05-03T00:00:00+00:00"

    async def test_without_a_number_there_is_neither_entry_nor_certificate(self, steps):
        call = Asked()
        assert await steps.enter_in_register(call) is NO_NUMBER
        assert await steps.make_certificate(call) is NO_NUMBER
        assert call.sent == []

    async def test_the_number_is_mailed_where_there_is_one(self, steps):
        for certificate, number in ((Certificate(number="CA-1", sha256="b" * 64, size=9), "CA-1"), (None, None)):
            call = Asked({"message_id": "M-1"}, make_certificate=certificate)
            await steps.send_certificate(call)
            assert call.sent[0][1]["values"]["number"] == number
