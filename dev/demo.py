"""The demo: the stack, and a working day played on it, each step printed as it happens; serves until Ctrl-C."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import httpx2

from cli.client import Client
from cli.tokens import sign_token
from dev.__main__ import run
from dev.errors import StackError
from dev.screen import show, show_addresses
from dev.stack import Stack
from processes.vendor_onboarding import Vendor
from settings import Settings

Json = dict[str, Any]
PATIENCE = timedelta(minutes=2)


@dataclass
class Day:
    """The people of the demo, and what happens to them."""

    stack: Stack
    requester: Client
    reviewer: Client
    operator: Client
    partners: httpx2.AsyncClient
    began_at: float = field(default_factory=time.monotonic)
    vendors: int = 0

    async def play(self) -> None:
        """The scenes, one after the other."""
        await self.a_vendor_becomes_active()
        await self.the_erp_fails_three_times()
        await self.the_bank_refuses_and_an_operator_repairs()
        await self.the_bank_does_it_and_drops_the_reply()
        await self.the_worker_is_killed_in_the_middle()

    async def a_vendor_becomes_active(self) -> None:
        """Nothing goes wrong."""
        self.scene("A vendor is drafted, checked, approved by a second person, and set up at bank and ERP")
        case = await self.in_review("Northwind Tools GmbH")
        await self.approve(case)
        await self.watch(case, lambda now: now["state"] == "active")
        show(f"           first vendor active {time.monotonic() - self.began_at:.1f} s after the stack was up")

    async def the_erp_fails_three_times(self) -> None:
        """An outage that passes: everybody sees `retrying`, nobody has to do anything."""
        self.scene("The ERP answers 500 three times, then works")
        case = await self.in_review("Lakeside Paper AG")
        await self.fault(partner="erp", call="create_vendor", mode="error", times=3)
        await self.approve(case)
        await self.watch(case, lambda now: now["state"] == "active")

    async def the_bank_refuses_and_an_operator_repairs(self) -> None:
        """A person has to decide: the step names whose decision it is, an override carries it out."""
        self.scene("The bank refuses the payee; treasury opens it by hand, an operator marks the step as done")
        case = await self.in_review("Harbour Logistics SE")
        await self.fault(partner="bank", call="open_payee", mode="reject", times=1)
        await self.approve(case)
        blocked = await self.watch(case, lambda now: now["condition"] == "blocked")
        step = blocked["condition_info"]["step"]
        show(f"           operator-1 marks {step} as done: opened by hand at the branch")
        done = await self.operator.override(
            blocked,
            "mark_done",
            reason="Treasury opened the payee at the branch, slip 4711",
            step=step,
            result={"payee_id": "PY-BY-HAND-4711"},
            send={"wait": 10},
        )
        show(f"           override {done['operation_id']} is {done['state']}")
        await self.watch(case, lambda now: now["state"] == "active")

    async def the_bank_does_it_and_drops_the_reply(self) -> None:
        """Nobody knows, so nobody repeats: the bank is asked first."""
        self.scene("The bank opens the payee and drops the reply: unknown, asked for, not done twice")
        case = await self.in_review("Meadow Foods BV")
        await self.fault(partner="bank", call="open_payee", mode="lose_reply", times=1)
        operation = await self.approve(case)
        await self.watch(case, lambda now: now["state"] == "active")
        await self.show_ledger(operation, "open_payee")

    async def the_worker_is_killed_in_the_middle(self) -> None:
        """SIGKILL while the bank is at it; the next worker goes on where this one was."""
        self.scene("The worker is killed while the bank is at it, and starts again")
        case = await self.in_review("Summit Steel SA")
        await self.fault(partner="bank", call="open_payee", mode="slow", times=1)
        operation = await self.approve(case)
        await self.watch(case, lambda now: step_state(now, "open_payee") == "running")
        show("           kill -9 worker")
        await self.stack.kill("worker")
        await self.watch(case, lambda now: now["state"] == "active")
        await self.show_ledger(operation, "open_payee")

    # --- what the scenes are made of ----------------------------------------------------------------------------------

    def scene(self, title: str) -> None:
        """Print a headline."""
        show(f"\n{title}")

    async def in_review(self, legal_name: str) -> Json:
        """Draft and submit a vendor; wait until its checks are done."""
        self.vendors += 1
        business_key = f"VENDOR-{self.vendors}-{uuid4().hex[:6]}"
        case = await self.requester.open("vendor_onboarding", business_key, vendor(legal_name))
        show(f"           requester-1 drafts {legal_name} as {business_key}: case {case['case_id']}")
        await self.requester.take(case, "submit")
        return await self.watch(case, lambda now: now["state"] == "in_review")

    async def approve(self, case: Json) -> Json:
        """A second person says yes."""
        operation = await self.reviewer.take(case, "approve")
        show(f"           reviewer-1 approves: operation {operation['operation_id']} is {operation['state']}")
        return operation

    async def fault(self, **fault: Any) -> None:
        """Tell a partner to misbehave."""
        show(f"           from now on {fault['partner']}.{fault['call']}: {fault['mode']}, {fault['times']} time(s)")
        (await self.partners.post("/_control/faults", json=fault)).raise_for_status()

    async def watch(self, case: Json, wanted: Callable[[Json], bool]) -> Json:
        """Print every sentence that the case says of itself until it is as wanted."""
        said = ""

        def listen(now: Json) -> bool:
            nonlocal said
            sentence = f"{now['state']:<11} {now['condition']:<9} {now['condition_info']['sentence']}"
            if sentence != said:
                said = sentence
                show(f"  {time.monotonic() - self.began_at:6.1f} s  {sentence}")
            return wanted(now)

        return await self.operator.until(case["case_id"], listen, within=PATIENCE)

    async def show_ledger(self, operation: Json, step: str) -> None:
        """What the partner itself says it did."""
        key = f"{operation['operation_id']}:{step}"
        entries = (await self.partners.get("/_control/ledger", params={"key": key})).raise_for_status().json()
        final = await self.operator.operation(operation["operation_id"])
        tries = next(s["attempts"] for s in final["steps"] if s["name"] == step)
        outcomes = ", ".join(attempt["outcome"] for attempt in tries)
        show(f"           attempts: {outcomes}; the partner's ledger has it {len(entries)} time(s)")


def vendor(legal_name: str) -> Json:
    """The example vendor under another name."""
    examples = cast("dict[str, Any]", Vendor.model_config.get("json_schema_extra"))["examples"]
    example: Json = examples[0]
    return {**example, "legal_name": legal_name, "bank_account": {**example["bank_account"], "holder": legal_name}}


def step_state(case: Json, step: str) -> str | None:
    """How a step of the operation in flight stands."""
    steps: list[Json] = case["operation"]["steps"] if case["operation"] else []
    return next((shown["state"] for shown in steps if shown["name"] == step), None)


async def serve(stack: Stack) -> None:
    """Start, play the day, then serve."""
    show("Starting Caseward; the first start makes a database.")
    await stack.start(announce=lambda part: show(f"  starting {part}"))
    async with AsyncExitStack() as parts:
        supervising = asyncio.create_task(stack.supervise(announce=lambda line: show(f"           {line}")))
        parts.callback(supervising.cancel)

        async def person(actor: str, *roles: str) -> Client:
            token = sign_token(stack.settings, actor=actor, roles=roles)
            return await parts.enter_async_context(Client(stack.settings.api_url, token))

        day = Day(
            stack=stack,
            requester=await person("requester-1", "vendor_requester"),
            reviewer=await person("reviewer-1", "vendor_reviewer"),
            operator=await person("operator-1", "operator", "senior_operator"),
            partners=await parts.enter_async_context(
                httpx2.AsyncClient(base_url=stack.settings.sandbox_url, trust_env=False)
            ),
        )
        await day.play()
        show("\nThe day is over; look around. Each case tells its story in Temporal's Web UI. Ctrl-C stops all.\n")
        show_addresses(stack)
        await supervising


def main() -> int:
    """Run the demo; exit code 0 when it was stopped by a person."""
    try:
        return asyncio.run(run(Stack(Settings.read()), serve))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
