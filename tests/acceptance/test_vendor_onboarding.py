"""Vendor onboarding on the whole stack, over HTTP, as services and operators see it."""

from uuid import uuid4

import httpx2
import pytest

from cli.client import Refused
from cli.tokens import sign_token
from tests.faults.company import PATIENCE, Company


class TestWhoKnowsOnlyTheDocument:
    async def test_walks_a_case_from_open_to_its_end_with_the_examples_as_they_stand(self, company: Company):
        document = await anonymous(company, "/openapi.json")
        requester, reviewer = (
            token(company, "walker-1", "vendor_requester"),
            token(company, "walker-2", "vendor_reviewer"),
        )

        opened = await send(company, document, "vendor_onboarding_open", requester, replace={"business_key": key()})
        case_id = opened["case_id"]
        for operation, bearer, state in (
            ("vendor_onboarding_submit", requester, "in_review"),
            ("vendor_onboarding_request_changes", reviewer, "changes_requested"),
            ("vendor_onboarding_resubmit", requester, "in_review"),
            ("vendor_onboarding_approve", reviewer, "active"),
            ("vendor_onboarding_suspend", reviewer, "suspended"),
        ):
            await send(company, document, operation, bearer, case_id=case_id)
            case = await company.operator.until(case_id, lambda now, state=state: now["state"] == state)
        assert case["condition"] == "done"


class TestAPartnerThatMisbehaves:
    """What becomes of an approval when the bank does each thing that partners do."""

    @pytest.mark.parametrize(
        ("mode", "more", "outcomes"),
        [
            ("error", {}, ["failed", "succeeded"]),
            ("slow", {"seconds": 0.5}, ["succeeded"]),
            ("lose_reply", {}, ["unknown", "succeeded"]),
            ("acknowledge", {"seconds": 0.5}, ["acknowledged"]),  # its callback comes before anybody asks
            ("callback_never", {}, ["acknowledged", "succeeded"]),
        ],
    )
    async def test_and_the_vendor_is_active_in_the_end(
        self, company: Company, mode: str, more: dict[str, float], outcomes: list[str]
    ):
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode=mode, times=1, **more)
        operation = await company.approve(case)
        await company.requester.until(case["case_id"], lambda now: now["state"] == "active", within=PATIENCE)
        assert await attempts(company, operation, "open_payee") == outcomes
        assert len(await company.ledger(key=f"{operation['operation_id']}:open_payee")) == 1

    async def test_a_lost_request_is_sent_again_only_when_it_surely_did_not_arrive(self, company: Company):
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode="lose_request", times=1)
        operation = await company.approve(case)
        await company.requester.until(case["case_id"], lambda now: now["state"] == "active", within=PATIENCE)
        tried = await attempts(company, operation, "open_payee")
        assert tried[0] == "unknown"
        assert tried[-1] == "succeeded"
        assert len(await company.ledger(key=f"{operation['operation_id']}:open_payee")) == 1

    async def test_a_mail_that_nobody_can_tell_about_waits_for_a_person(self, company: Company):
        case = await company.in_review()
        await company.fault(partner="mail", call="send", mode="lose_reply", times=1)
        await company.approve(case)
        blocked = await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked")
        assert blocked["condition_info"]["cause"] == "unknown"
        assert blocked["condition_info"]["recovery_owner"] == "vendor_desk"
        with pytest.raises(Refused) as refused:
            await company.operator.override(blocked, "skip", reason="Never mind")
        assert (refused.value.status, refused.value.code) == (422, "input_invalid")
        await company.operator.override(
            blocked, "mark_done", reason="They answered it", result={"message_id": "seen"}, send={"wait": 20}
        )
        await company.settled(case, "active")


class TestTakingBack:
    async def test_undo_offsets_newest_first_and_leads_back(self, company: Company):
        case = await company.in_review()
        approval = await company.approve(case)
        await company.settled(case, "active")
        undo = await company.operator.override(case, "undo", reason="The wrong vendor", send={"wait": 60})
        await company.settled(case, "in_review")
        undo = await company.operator.operation(undo["operation_id"])
        assert undo["state"] == "completed"
        assert [step["name"] for step in undo["steps"]] == ["open_payee:undo", "create_in_erp:undo"]
        assert (await company.operator.case(case["case_id"]))["state"] == "in_review"
        assert (await company.operator.operation(approval["operation_id"]))["state"] == "undone"
        for step in ("open_payee", "create_in_erp"):
            assert len(await company.ledger(key=f"{approval['operation_id']}:{step}:undo")) == 1

    async def test_force_cancel_stops_a_retrying_approval_and_closes_the_case(self, company: Company):
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode="error", times=None, match=case["title"][:8])
        approval = await company.approve(case)
        await company.operator.until(case["case_id"], lambda now: now["condition"] == "retrying")
        done = await company.operator.override(case, "force_cancel", reason="The vendor is insolvent")
        closed = await company.settled(case, "cancelled")
        await company.clear_faults()
        assert (await company.operator.operation(done["operation_id"]))["state"] == "completed"
        assert closed["state_info"]["final"] is True
        assert (await company.operator.operation(approval["operation_id"]))["state"] == "superseded"
        assert len(await company.ledger(key=f"{approval['operation_id']}:create_in_erp:undo")) == 1
        assert await company.ledger(key=f"{approval['operation_id']}:open_payee") == []

    async def test_everything_still_adds_up(self, company: Company):
        assert await company.violations() == []


def key() -> str:
    return f"A-{uuid4().hex[:10]}"


def token(company: Company, actor: str, *roles: str) -> str:
    return sign_token(company.settings, actor=actor, roles=roles)


async def anonymous(company: Company, path: str) -> dict:
    async with httpx2.AsyncClient(base_url=company.settings.api_url, trust_env=False, timeout=60) as http:
        return (await http.get(path)).raise_for_status().json()


async def send(
    company: Company, document: dict, operation_id: str, bearer: str, *, replace: dict | None = None, **path
):
    """Do what the document says, with its own example."""
    address, described = next(
        (address, methods["post"])
        for address, methods in document["paths"].items()
        if methods.get("post", {}).get("operationId") == operation_id
    )
    examples = described["requestBody"]["content"]["application/json"]["examples"]
    body = {**next(iter(examples.values()))["value"], **(replace or {})}
    async with httpx2.AsyncClient(base_url=company.settings.api_url, trust_env=False, timeout=60) as http:
        headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": str(uuid4())}
        response = await http.post(address.format(**path), json=body, headers=headers)
    assert response.status_code in {200, 201, 202}, response.text
    return response.json()


async def attempts(company: Company, operation: dict, step: str) -> list[str]:
    shown = await company.operator.operation(operation["operation_id"])
    return [attempt["outcome"] for s in shown["steps"] if s["name"] == step for attempt in s["attempts"]]
