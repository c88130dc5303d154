"""Overrides sent past the API, with the stock CLI of Temporal: the same command, the same policy, the same timeline."""

import asyncio
import json
import sysconfig
from pathlib import Path

import pytest_asyncio

from caseward.messages import workflow_id
from tests.faults.company import Company

TEMPORAL = Path(sysconfig.get_path("scripts")) / "temporal"


@pytest_asyncio.fixture(loop_scope="session")
async def blocked(company: Company) -> dict:
    """A case whose payee the bank refused."""
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1)
    await company.approve(case)
    return await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked")


class TestAnOverrideByTheStockCli:
    async def test_an_update_that_settings_allow_is_accepted_and_answers(self, company: Company, blocked: dict):
        payload = {"override": "retry", "step": "open_payee", "reason": "The bank is open again", "actor": "max"}
        code, said = await temporal(company, "update", "execute", blocked, "--name", "override", payload=payload)
        assert code == 0, said
        await company.settled(blocked, "active")
        entries = await company.operator.timeline(blocked["case_id"])
        accepted = next(
            e for e in entries if e["type"] == "operation.accepted" and e["data"]["action"] == "Try again now"
        )
        assert accepted["actor"] == {"id": "temporal", "role": "operator", "via": "temporal", "on_behalf_of": None}
        assert "max" in accepted["reason"]

    async def test_a_signal_that_settings_allow_is_accepted(self, company: Company, blocked: dict):
        payload = {"override": "retry", "reason": "The bank is open again"}
        code, said = await temporal(company, "signal", blocked, "--name", "override", payload=payload)
        assert code == 0, said
        await company.operator.until(blocked["case_id"], lambda now: now["state"] == "active")

    async def test_what_settings_do_not_allow_is_refused_and_told(self, company: Company, blocked: dict):
        payload = {"override": "skip", "step": "open_payee", "reason": "Never mind"}
        code, said = await temporal(company, "update", "execute", blocked, "--name", "override", payload=payload)
        assert code != 0
        assert "not_by_signal" in said
        await temporal(company, "signal", blocked, "--name", "override", payload=payload)
        await refusals(company, blocked, 2)
        assert (await company.operator.case(blocked["case_id"]))["condition"] == "blocked"
        await company.operator.override(blocked, "skip", reason="Paid by cheque")
        await company.settled(blocked, "active")

    async def test_nonsense_is_refused_and_the_case_goes_on(self, company: Company, blocked: dict):
        for payload in ("nonsense", {"reason": "which?"}, {"override": "retry"}, {"override": "retry", "x": 1}):
            code, said = await temporal(company, "signal", blocked, "--name", "override", payload=payload)
            assert code == 0, said
        await refusals(company, blocked, 4)
        await company.operator.override(blocked, "skip", reason="Paid by cheque")
        await company.settled(blocked, "active")


class TestWhatAPersonFindsThere:
    async def test_queries_tell_what_is_pending_and_blocked(self, company: Company, blocked: dict):
        case = await company.operator.case(blocked["case_id"])
        async with asyncio.timeout(120):  # the database knows first
            while (status := await query(company, blocked, "status"))["condition"] != "blocked":
                pass
        assert status["state"] == "activating"
        assert {"subject", "title", "actions"} & set(status) == set()
        assert status["condition_info"]["recovery_owner"] == case["condition_info"]["recovery_owner"] == "treasury"
        assert [step["name"] for step in await query(company, blocked, "blocked")] == ["open_payee"]
        assert [step["name"] for step in await query(company, blocked, "pending")] == ["open_payee", "send_welcome"]
        details = await query(company, blocked, "__temporal_workflow_metadata")
        assert "Treasury decides" in details["currentDetails"]
        await company.operator.override(blocked, "skip", reason="Paid by cheque")
        await company.settled(blocked, "active")

    async def test_search_finds_it_by_owner(self, company: Company, blocked: dict):
        wanted = f'CasewardRecoveryOwner="treasury" AND CasewardBusinessKey="{blocked["business_key"]}"'
        said = ""
        async with asyncio.timeout(120):  # the index follows within a second or so
            while blocked["case_id"] not in said:
                code, said = await run(company, "workflow", "list", "--query", wanted, "-o", "json")
                assert code == 0, said
        await company.operator.override(blocked, "skip", reason="Paid by cheque")
        await company.settled(blocked, "active")


async def refusals(company: Company, case: dict, count: int) -> None:
    """Wait until so many refusals stand in the timeline."""
    entries: list[dict] = []
    async with asyncio.timeout(120):
        while sum(entry["type"] == "override.refused" for entry in entries) < count:
            entries = await company.operator.timeline(case["case_id"])


async def query(company: Company, case: dict, name: str):
    code, said = await run(
        company,
        "workflow",
        "query",
        "-w",
        workflow_id("vendor_onboarding", case["case_id"]),
        "--type",
        name,
        "-o",
        "json",
    )
    assert code == 0, said
    return json.loads(said)["queryResult"][0]


async def temporal(company: Company, *words, payload) -> tuple[int, str]:
    """`temporal workflow …` on a case's workflow; the case stands among the words."""
    command = [word for word in words if isinstance(word, str)]
    case = next(word for word in words if isinstance(word, dict))
    identity = ["-w", workflow_id("vendor_onboarding", case["case_id"]), "--input", json.dumps(payload)]
    return await run(company, "workflow", *command, *identity)


async def run(company: Company, *words: str) -> tuple[int, str]:
    where = ("--address", company.stack.temporal_address, "--namespace", "caseward")
    process = await asyncio.create_subprocess_exec(
        str(TEMPORAL), *words, *where, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
