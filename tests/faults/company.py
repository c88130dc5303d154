"""A small company on a real stack of processes: its people, its vendors, and what dies under them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx2
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from caseward.db.session import Database
from caseward.objects import Objects
from cli.client import Client, Refused, read
from cli.tokens import sign_token
from dev.stack import Stack
from settings import Settings
from tests.faults.invariants import violations
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS
from tests.processes.vendor_onboarding import EXAMPLE, PLAYBOOK

Json = dict[str, Any]
__all__ = ["EXAMPLE", "PATIENCE", "Company", "Json", "acting", "company_on"]
PATIENCE = timedelta(seconds=300)


@dataclass
class Company:
    """The people of every process, and those of vendor onboarding by name, each with a client of the API."""

    stack: Stack
    settings: Settings
    people: Mapping[str, Mapping[str, Client]]
    """By process, and by the name that its playbook gives them."""
    database: Database
    sandbox: httpx2.AsyncClient

    @property
    def requester(self) -> Client:
        return self.people[PLAYBOOK.name]["requester"]

    @property
    def reviewer(self) -> Client:
        return self.people[PLAYBOOK.name]["reviewer"]

    @property
    def lead(self) -> Client:
        return self.people[PLAYBOOK.name]["lead"]

    @property
    def operator(self) -> Client:
        """May do what operators may, on the cases of every process."""
        return self.people[PLAYBOOK.name]["operator"]

    async def insist(self, send: Callable[[str], Awaitable[Json]]) -> Json:
        """Send a command until it is answered, always under the same key, as a careful service does."""
        key = str(uuid4())
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                return await send(key)
            except (httpx2.TransportError, RPCError, Refused) as fault:
                if isinstance(fault, Refused) and fault.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.1)

    async def opened(self, playbook: Playbook, name: str = "V", *, business_key: str | None = None) -> Json:
        """A case whose subject is named as itself, so that a fault of the sandbox can be aimed at it."""
        business_key = business_key or f"{name}-{uuid4().hex[:10]}"
        who = self.people[playbook.name][playbook.takes[playbook.process.opening.name]]
        subject = playbook.subjects[0](business_key)
        return await self.insist(lambda key: who.open(playbook.name, business_key, subject, key=key))

    async def take(self, playbook: Playbook, case: Json, transition: str) -> Json:
        """A transition by whoever takes it, with its input."""
        who = self.people[playbook.name][playbook.takes[transition]]
        given = playbook.input(transition, case)
        told = await self.insist(lambda key: who.take(case, transition, given, key=key))
        return await self.confirmed(playbook, told)

    async def confirmed(self, playbook: Playbook, told: Json) -> Json:
        """What was asked for, once somebody else has confirmed it, where somebody must."""
        if told["state"] != "proposed" or playbook.confirmer is None:
            return told
        who, href = self.people[playbook.name][playbook.confirmer], f"/v1/operations/{told['operation_id']}/confirm"
        return await self.insist(lambda key: who.post(href, {"reason": "I have read it"}, key=key))

    async def brought_to(self, playbook: Playbook, state: str) -> Json:
        """A new case at rest in `state`."""
        case = await self.opened(playbook)
        if playbook.process.opening.steps:
            case = await self.settled(case, playbook.ends(playbook.process.opening.name))
        if playbook.document is not None:
            await self.insist(lambda key: self._add_document(playbook, case, key))
        for transition in playbook.way(state):
            await self.take(playbook, case, transition)
            case = await self.settled(case, playbook.ends(transition))
        return case

    async def _add_document(self, playbook: Playbook, case: Json, key: str) -> Json:
        assert playbook.process.documents is not None, f"{playbook.name} takes no documents"
        kind = playbook.process.documents.kinds[0]
        names = (name for name, roles in playbook.people.items() if kind.roles & set(roles))
        answer = await self.people[playbook.name][next(names)]._http.post(
            f"/v1/cases/{case['case_id']}/documents",
            params={"kind": kind.name, "name": "evidence.pdf"},
            content=playbook.document,
            headers={"Idempotency-Key": key},
        )
        return read(answer)

    async def draft(self, name: str = "V") -> Json:
        """A vendor of its own."""
        return await self.opened(PLAYBOOK, name)

    async def in_review(self) -> Json:
        """A vendor whose checks are done."""
        case = await self.draft()
        await self.insist(lambda key: self.requester.take(case, "submit", key=key))
        return await self.requester.until(case["case_id"], lambda now: now["state"] == "in_review", within=PATIENCE)

    async def approve(self, case: Json) -> Json:
        return await self.insist(lambda key: self.reviewer.take(case, "approve", key=key))

    async def settled(self, case: Json, state: str) -> Json:
        """Wait until the case is in `state` with nothing in flight; decide where a partner must be asked."""
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        now = case
        while time.monotonic() < give_up_at:
            now = await self.operator.until(
                case["case_id"],
                lambda doc: (doc["operation"] is None and doc["state"] == state) or doc["condition"] == "blocked",
                within=PATIENCE,
            )
            if now["condition"] != "blocked":
                return now
            await self.decide(now)
        message = f"case {case['case_id']} never came to {state}: {now['condition_info']} in {now['operation']}"
        raise TimeoutError(message)

    async def decide(self, blocked: Json) -> None:
        """What an operator does about an unknown outcome: look at the partner's side, and say so."""
        info = blocked["condition_info"]
        steps = blocked["operation"]["steps"]
        step = next(s for s in steps if s["name"] == info["step"] and s["state"] == "blocked")
        if step["outcome"] != "unknown":  # what was ordered about it has not come to its turn yet
            await asyncio.sleep(0.2)
            return
        happened = await self.ledger(key=step["effect_key"])
        if happened:
            doing = step["direction"] == "do"
            playbook, answer = PLAYBOOKS[blocked["process"]], happened[0]["answer"]
            override, given = "mark_done", {"result": playbook.result(step["name"], answer) if doing else {}}
        else:
            override, given = "retry", {"happened": False}
        with suppress(Refused):  # it moved on meanwhile, which the next look will show
            await self.insist(
                lambda key: self.operator.override(
                    blocked, override, reason="Asked the partner", step=info["step"], send={"key": key}, **given
                )
            )

    async def ledger(self, **wanted: str | int) -> list[Json]:
        """What the partners did, and then what offices of our own did: theirs are the object store's receipts.

        Those have no number, so that `after` leaves none of them out.
        """
        outside = (await self.sandbox.get("/_control/ledger", params=wanted)).raise_for_status().json()
        inside = await Objects.connect(self.settings.documents_url).receipts()
        asked = {name: value for name, value in wanted.items() if name != "after"}.items()
        return [*outside, *(each for each in inside if all(each[name] == value for name, value in asked))]

    async def fault(self, **fault: Any) -> None:
        (await self.sandbox.post("/_control/faults", json=fault)).raise_for_status()

    async def clear_faults(self) -> None:
        (await self.sandbox.delete("/_control/faults")).raise_for_status()

    async def keep_promise(self, key: str) -> None:
        """A partner that acknowledged does it now."""
        (await self.sandbox.post(f"/_control/promises/{key}")).raise_for_status()

    @contextmanager
    def frozen_worker(self) -> Iterator[None]:
        """The worker stands still meanwhile."""
        pid = self.stack.children["worker"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def violations(
        self, cases: Collection[str] | None = None, *, after: int = 0, within: timedelta = PATIENCE
    ) -> list[str]:
        """Everything that is broken, in these cases or in all, once all messages are out.

        Cases that are younger than an entry of the partners' ledger need none up to it: `after` is its number.
        """
        temporal = await TemporalClient.connect(self.stack.temporal_address, namespace="caseward")
        only = None if cases is None else {UUID(case_id) for case_id in cases}
        give_up_at = time.monotonic() + within.total_seconds()
        while True:  # the last messages only tell the workflows where their cases stand
            found = await violations(self.database, await self.ledger(after=after), temporal, only=only)
            if not found or time.monotonic() > give_up_at:
                return found
            await asyncio.sleep(0.2)


def acting(step: str) -> Callable[[Json], bool]:
    """The case's step of this name is at the partner."""

    def wanted(now: Json) -> bool:
        steps = now["operation"]["steps"] if now["operation"] else []
        return any(shown["name"] == step and shown["state"] == "running" for shown in steps)

    return wanted


@asynccontextmanager
async def company_on(settings: Settings) -> AsyncIterator[Company]:
    """A company with a stack of its own."""
    async with AsyncExitStack() as parts:
        stack = await parts.enter_async_context(Stack(settings))

        def person(actor: str, *roles: str) -> Client:
            return Client(settings.api_url, sign_token(settings, actor=actor, roles=roles))

        people = {
            name: {
                who: await parts.enter_async_context(person(f"{who}-1", *roles))
                for who, roles in playbook.everybody.items()
            }
            for name, playbook in PLAYBOOKS.items()
        }
        database = Database.connect(stack.database_url, pool_size=4)
        parts.push_async_callback(database.close)
        yield Company(
            stack=stack,
            settings=settings,
            people=people,
            database=database,
            sandbox=await parts.enter_async_context(
                httpx2.AsyncClient(base_url=settings.sandbox_url, trust_env=False, timeout=20)
            ),
        )
