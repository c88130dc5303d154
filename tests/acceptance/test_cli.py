"""The CLI on the whole stack: one command from a blocked case to its verified repair, one to say what happened."""

import asyncio
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass

import pytest_asyncio

from cli.tokens import sign_token
from tests.faults.company import PATIENCE, Company, Json

ROLES = {"operator-1": ("operator", "senior_operator"), "reviewer-1": ("vendor_reviewer",), "lead-1": ("vendor_lead",)}


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def healthy(company: Company):
    yield
    await company.clear_faults()


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


async def caseward(company: Company, line: str, *, actor: str = "operator-1") -> Done:
    """As somebody types it, in a process of its own, without a terminal."""
    settings = company.settings
    token = sign_token(settings, actor=actor, roles=ROLES[actor])
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli.main",
        *shlex.split(line, comments=True)[1:],
        env={**os.environ, "CASEWARD_API_URL": settings.api_url, "CASEWARD_TOKEN": token, "COLUMNS": "80"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE.total_seconds()):
        out, err = await running.communicate()
    return Done(running.returncode or 0, out.decode(), err.decode())


async def blocked(company: Company) -> Json:
    """The bank refuses the payee once."""
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1, match=case["business_key"])
    await company.approve(case)
    return await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)


async def test_from_a_blocked_case_to_its_verified_repair_it_is_one_command(company: Company):
    case = await blocked(company)
    shown = await caseward(company, f"caseward work --only blocked --find {case['business_key']}")
    assert shown.code == 0, shown.err
    assert case["condition_info"]["sentence"] in shown.out
    (command,) = re.findall(r"^ +(caseward override .*)$", shown.out, re.MULTILINE)

    repaired = await caseward(company, command.replace("...", "The bank mended it, ticket 4711") + " --wait 300")
    assert (repaired.code, repaired.err) == (0, ""), repaired.out
    assert f"{case['business_key']}: Active, done." in repaired.out
    key = f"{case['operation']['operation_id']}:open_payee"
    assert len(await company.ledger(key=key)) == 1
    assert (await company.operator.case(case["case_id"]))["state"] == "active"
    assert await company.violations({case["case_id"]}) == []


async def test_a_repair_that_blocks_again_is_not_called_done(company: Company):
    case = await blocked(company)
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1, match=case["business_key"])
    again = await caseward(company, f'caseward override retry {case["business_key"]} --reason "Let us see" --wait 300')
    assert again.code == 7, again
    assert "Treasury decides." in again.out


async def test_what_happened_to_a_case_is_one_command(company: Company):
    case = await blocked(company)
    entries = await company.operator.timeline(case["case_id"])
    told = await caseward(company, f"caseward case timeline {case['business_key']}")
    assert told.code == 0, told.err
    assert [entry["sentence"] for entry in entries if entry["sentence"] not in told.out] == []
    for words in ("requester-1: ", "reviewer-1: ", "account_closed", case["condition_info"]["sentence"]):
        assert words in told.out
    assert "\x1b" not in told.out


async def test_a_script_does_a_whole_day_with_documents_and_exit_codes(company: Company):
    case = await company.in_review()
    key = case["business_key"]
    rows = json.loads((await caseward(company, f"caseward work --json --find {key}", actor="reviewer-1")).out)
    assert [row["case_id"] for row in rows["waiting"]] == [case["case_id"]]
    approved = await caseward(company, f"caseward take {key} approve --json --wait 300", actor="reviewer-1")
    assert (approved.code, json.loads(approved.out)["state"]) == (0, "completed"), approved.err
    seen = await caseward(company, f"caseward case watch {key} --until active --within 300 --json")
    assert seen.code == 0
    assert json.loads(seen.out.splitlines()[-1])["data"]["state"] == "active"
    refused = await caseward(company, f"caseward take {key} approve --json", actor="reviewer-1")
    assert refused.code == 1
    assert "wrong_state" in {reason["code"] for reason in json.loads(refused.out)["reasons"]}


async def test_a_replay_shows_its_plan_and_does_nothing_unless_told(company: Company):
    case = await company.in_review()
    await company.approve(case)
    await company.settled(case, "active")
    order = f'caseward override replay {case["business_key"]} --step open_payee --reason "The IBAN was wrong"'
    asked = await caseward(company, order)
    assert asked.code == 2, asked
    assert "Close the payee at the bank" in asked.out
    done = await caseward(company, f"{order} --yes --wait 300")
    assert done.code == 0, done
    assert await company.violations({case["case_id"]}) == []


async def test_what_needs_two_people_is_proposed_and_confirmed(company: Company):
    case = await company.draft()
    await company.fault(partner="screening", call="screen", mode="reject", times=1, match=case["business_key"])
    await company.requester.take(case, "submit")
    await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)
    by_hand = json.dumps({"reference": "SCR-BY-HAND", "hits": 0})
    order = f"caseward override mark-done {case['case_id']} --reason 'Looked at both lists' --result '{by_hand}'"
    proposed = await caseward(company, order)
    assert proposed.code == 6, proposed
    assert "proposed" in proposed.out
    confirmed = await caseward(company, f"caseward confirm {case['case_id']} --wait 300", actor="lead-1")
    assert confirmed.code == 0, confirmed
    assert "In review, waiting." in confirmed.out


async def test_many_are_repaired_as_a_group_and_followed_to_the_end(company: Company):
    cases = [await blocked(company) for _ in range(3)]
    fingerprint = cases[0]["condition_info"]["fingerprint"]
    groups = await caseward(company, "caseward bulk groups --process vendor-onboarding")
    assert f"caseward bulk start retry --group {fingerprint}" in groups.out
    named = " ".join(f"--case {case['case_id']}" for case in cases)
    run = await caseward(company, f'caseward bulk start retry {named} --reason "The bank is back" --canary 2 --json')
    assert run.code == 0, run
    assert json.loads(run.out)["counts"]["repaired"] == 3
    assert "3/3 completed" in run.err, "progress, in words where there is no terminal"
    items = await caseward(company, f"caseward bulk show {json.loads(run.out)['bulk_id']} --items")
    assert all(case["case_id"] in items.out for case in cases)
    for case in cases:
        await company.settled(case, "active")
    assert await company.violations({case["case_id"] for case in cases}) == []
