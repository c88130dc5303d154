"""The stories of compliance approval: every document looked at side by side, and nothing certified over a bad one."""

import pytest

from tests.workflows.engine import Engine

GOOD, BAD = (
    {"accepted": True, "pages": 1},
    {"accepted": False, "findings": [{"code": "encrypted", "message": "It is."}]},
)
PAPERS = ["one", "two", "three"]


async def tell(compliance: Engine, name: str, **more) -> None:
    await compliance.send(compliance.order(name, 2, **more))
    await compliance.until_asked("finish")


class TestEach:
    async def test_all_begin_before_any_ends_and_each_has_its_own_key(self, compliance: Engine):
        gates = [compliance.gate("validate_document") for _ in PAPERS]
        await compliance.send(compliance.order("submit", 2, documents=PAPERS))
        await compliance.until_asked("validate_document", len(PAPERS))
        assert compliance.ended == []
        for gate in gates:
            gate.set()
        await compliance.until_asked("finish")
        keys = {(call.item, call.effect_key) for call in compliance.calls[:-1]}
        assert keys == {(paper, f"operation-2:validate_document:{paper}") for paper in PAPERS}

    async def test_help_for_one_reaches_that_one(self, compliance: Engine):
        compliance.answers("validate_document", compliance.answer("blocked"), compliance.answer("blocked"))
        await compliance.send(compliance.order("submit", 2, documents=["one", "two"]))
        await compliance.until_asked("validate_document", 2)
        await compliance.until_heard()
        nudge = compliance.nudge("retry", "validate_document")
        await compliance.send(nudge.__class__(**{**nudge.__dict__, "item": "two"}))
        await compliance.until_asked("validate_document", 3)
        assert [call.item for call in compliance.calls if call.step == "validate_document"][2:] == ["two"]

    async def test_without_documents_there_is_nothing_to_look_at(self, compliance: Engine):
        await tell(compliance, "submit")
        assert compliance.asked == ["finish"]
        assert compliance.calls[-1].to_state == "in_review"


class TestStories:
    @pytest.mark.parametrize(
        ("results", "leads_to"),
        [((GOOD, GOOD), "in_review"), ((GOOD, BAD), "changes_requested"), ((BAD, GOOD), "changes_requested")],
    )
    async def test_a_submission_leads_to_review_only_with_what_can_be_read(self, compliance, results, leads_to):
        answers = [compliance.answer("settled", happened=True, result=result) for result in results]
        compliance.answers("validate_document", *answers)
        await tell(compliance, "submit", documents=["one", "two"])
        assert compliance.calls[-1].to_state == leads_to

    async def test_an_approval_looks_again_then_enters_then_certifies(self, compliance: Engine):
        await tell(compliance, "approve", documents=["one"])
        assert compliance.asked == [
            "validate_document",
            "reserve_number",
            "enter_in_register",
            "make_certificate",
            "send_certificate",
            "finish",
        ]
        assert compliance.calls[-1].to_state == "approved"

    async def test_nothing_is_certified_over_what_can_not_be_read(self, compliance: Engine):
        compliance.answers("validate_document", compliance.answer("settled", happened=True, result=BAD))
        await tell(compliance, "approve", documents=["one"])
        assert compliance.asked == ["validate_document", "finish"]
        assert compliance.calls[-1].to_state == "changes_requested"

    async def test_a_revocation_tells_last(self, compliance: Engine):
        compliance.answers("take back", compliance.took_back("make_certificate", "enter_in_register", "reserve_number"))
        await tell(compliance, "revoke")
        assert compliance.asked == [
            "take back",
            "make_certificate:undo",
            "enter_in_register:undo",
            "reserve_number:undo",
            "tell_revoked",
            "finish",
        ]
