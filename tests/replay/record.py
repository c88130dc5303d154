"""Record a history of every story: `python -m tests.replay.record`, after a change that old histories may not follow.

Plays each scenario on a real stack and keeps what Temporal wrote, for `test_histories.py` to replay.
"""

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client as TemporalClient

from caseward.messages import workflow_id
from dev.service import port_is_free
from settings import Settings
from tests.faults.company import EXAMPLE, Company, company_on

HISTORIES = Path(__file__).parent / "histories"
GROUNDS = {"grounds": "The trade register extract is older than three months."}
Json = dict[str, Any]
Scene = Callable[[Company], Awaitable[Json]]
SCENES: dict[str, Scene] = {}


def scene(play: Scene) -> Scene:
    SCENES[play.__name__] = play
    return play


@scene
async def submit_and_approve(company: Company) -> Json:
    case = await company.in_review()
    await company.approve(case)
    return await company.settled(case, "active")


@scene
async def resubmit_a_correction(company: Company) -> Json:
    wrong = {**EXAMPLE, "tax_id": "DE000000000"}
    case = await company.requester.open("vendor_onboarding", "replay-correction", wrong)
    await company.requester.take(case, "submit")
    await company.requester.until(case["case_id"], lambda now: now["state"] == "changes_requested")
    await company.requester.take(case, "resubmit", {"vendor": EXAMPLE})
    return await company.settled(case, "in_review")


@scene
async def request_changes_and_reject(company: Company) -> Json:
    case = await company.in_review()
    await company.reviewer.take(case, "request_changes", GROUNDS)
    await company.requester.take(case, "resubmit", {"vendor": EXAMPLE})
    await company.settled(case, "in_review")
    await company.reviewer.take(case, "reject", GROUNDS)
    return await company.settled(case, "rejected")


@scene
async def suspend_and_reinstate(company: Company) -> Json:
    case = await submit_and_approve(company)
    await company.reviewer.take(case, "suspend", GROUNDS)
    await company.settled(case, "suspended")
    await company.lead.take(case, "reinstate")
    return await company.settled(case, "active")


@scene
async def cancel_while_activating(company: Company) -> Json:
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="slow", times=1, seconds=1)
    await company.approve(case)
    await company.requester.until(case["case_id"], running("open_payee"))
    await company.requester.take(case, "cancel")
    return await company.settled(case, "cancelled")


@scene
async def undo_an_approval(company: Company) -> Json:
    case = await submit_and_approve(company)
    await company.operator.override(case, "undo", reason="The wrong vendor")
    return await company.settled(case, "in_review")


@scene
async def force_cancel_while_retrying(company: Company) -> Json:
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="error", times=2)
    await company.approve(case)
    await company.requester.until(case["case_id"], lambda now: now["condition"] == "retrying")
    await company.operator.override(case, "force_cancel", reason="The vendor is insolvent")
    return await company.settled(case, "cancelled")


@scene
async def retry_skip_and_mark_done(company: Company) -> Json:
    case = await company.in_review()
    for partner, call, times in (("erp", "create_vendor", 2), ("bank", "open_payee", 1), ("mail", "send", 1)):
        await company.fault(partner=partner, call=call, mode="reject", times=times)
    await company.approve(case)
    await blocked_at(company, case, "create_in_erp")
    await company.operator.override(
        case, "retry", reason="The ERP is open again", step="create_in_erp", send={"wait": 20}
    )
    await blocked_at(company, case, "create_in_erp")
    await company.operator.override(
        case, "mark_done", reason="Typed in by hand", step="create_in_erp", result={"vendor_number": "V-1"}
    )
    await blocked_at(company, case, "open_payee")
    await company.operator.override(case, "skip", reason="Paid by cheque", step="open_payee")
    await blocked_at(company, case, "send_welcome")
    await company.operator.override(case, "skip", reason="Told by phone", step="send_welcome")
    return await company.settled(case, "active")


@scene
async def an_override_by_signal_and_update(company: Company) -> Json:
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="reject", times=2)
    await company.approve(case)
    await blocked_at(company, case, "open_payee")
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id("vendor_onboarding", case["case_id"]))
    refused = {"override": "force_cancel", "reason": "by signal"}
    await handle.signal("override", refused)
    retry = {"override": "retry", "reason": "by update", "actor": "somebody"}
    await handle.execute_update("override", {**retry, "step": "open_payee"})
    await blocked_at(company, case, "open_payee")
    await handle.signal("override", {**retry, "reason": "by signal"})
    return await company.requester.until(case["case_id"], lambda now: now["state"] == "active")


@scene
async def the_bank_loses_a_reply(company: Company) -> Json:
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="lose_reply", times=1)
    await company.approve(case)
    return await company.settled(case, "active")


async def blocked_at(company: Company, case: Json, step: str) -> Json:
    def wanted(now: Json) -> bool:
        return now["condition"] == "blocked" and now["condition_info"]["step"] == step

    return await company.operator.until(case["case_id"], wanted, within=timedelta(seconds=60))


def running(step: str) -> Callable[[Json], bool]:
    def wanted(now: Json) -> bool:
        steps = now["operation"]["steps"] if now["operation"] else []
        return any(shown["name"] == step and shown["state"] == "running" for shown in steps)

    return wanted


async def record(settings: Settings) -> None:
    HISTORIES.mkdir(exist_ok=True)
    async with company_on(settings) as company:
        for name, play in SCENES.items():
            case = await play(company)
            assert not await company.violations()
            temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
            handle = temporal.get_workflow_handle(workflow_id("vendor_onboarding", case["case_id"]))
            history = await handle.fetch_history()
            (HISTORIES / f"{name}.json").write_text(history.to_json())
            print(f"{name}: {len(history.events)} events")  # noqa: T201 - a command for people


if __name__ == "__main__":
    free = [port for port in random.sample(range(10000, 15000), 50) if port_is_free(port)]
    with tempfile.TemporaryDirectory(prefix="caseward-record-") as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        asyncio.run(
            record(
                Settings(
                    _env_file=None,
                    env="test",
                    data_dir=Path(folder) / "data",
                    api_port=free[0],
                    temporal_port=free[1],
                    temporal_ui_port=free[2],
                    sandbox_port=free[3],
                )
            )
        )
    sys.stdout.flush()
    os._exit(0)  # Temporal's client may abort an ordinary interpreter exit
