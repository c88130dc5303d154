"""What scenes are made of: people with their roles, partners that misbehave, and a case that says how it stands."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import httpx2

from cli.client import Client
from cli.tokens import sign_token
from dev.screen import show
from dev.stack import Stack
from processes import CATALOGUE

Json = dict[str, Any]
PATIENCE = timedelta(minutes=2)


@dataclass
class Day:
    """The people of the demo, and what happens to them. Use as `async with Day(stack) as day:`."""

    stack: Stack
    began_at: float = field(default_factory=time.monotonic)
    left_for_you: list[str] = field(default_factory=list[str])
    """What whoever watches may repair when the day is over."""
    _people: dict[str, Client] = field(default_factory=dict[str, Client])
    _leaving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.partners = await self._leaving.enter_async_context(
            httpx2.AsyncClient(base_url=self.stack.settings.sandbox_url, trust_env=False)
        )
        self.operator = await self.person("operator-1", "operator", "senior_operator")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leaving.aclose()

    async def person(self, name: str, *roles: str) -> Client:
        """Somebody with these roles, the same one under the same name."""
        if name not in self._people:
            token = sign_token(self.stack.settings, actor=name, roles=roles)
            client = Client(self.stack.settings.api_url, token)
            self._people[name] = await self._leaving.enter_async_context(client)
        return self._people[name]

    def scene(self, title: str) -> None:
        """Print a headline."""
        show(f"\n{title}")

    def say(self, what: str) -> None:
        """Print what somebody does."""
        show(f"           {what}")

    async def open(self, who: Client, process: str, **changes: Any) -> Json:
        """Open a case with the example of its process, changed."""
        business_key = f"{process.split('_', maxsplit=1)[0].upper()}-{uuid4().hex[:6]}"
        case = await who.open(process, business_key, {**example_of(process), **changes})
        self.say(f"{case['title']}: case {case['case_id']}, {business_key}")
        return case

    async def take(self, who: str, roles: tuple[str, ...], case: Json, transition: str, **given: Any) -> Json:
        """Somebody takes a transition."""
        operation = await (await self.person(who, *roles)).take(case, transition, given)
        self.say(f"{who} takes {transition}: operation {operation['operation_id']} is {operation['state']}")
        return operation

    async def fault(self, **fault: Any) -> None:
        """Tell a partner to misbehave."""
        times = f", {fault['times']} time(s)" if fault.get("times") else ", until it is mended"
        self.say(f"from now on {fault['partner']}.{fault['call']}: {fault['mode']}{times}")
        (await self.partners.post("/_control/faults", json=fault)).raise_for_status()

    async def mend(self) -> None:
        """Let all partners be well again."""
        self.say("the partners are well again")
        (await self.partners.delete("/_control/faults")).raise_for_status()

    async def watch(self, case: Json, wanted: Callable[[Json], bool]) -> Json:
        """Print every sentence that the case says of itself until it is as wanted."""
        said = ""

        def listen(now: Json) -> bool:
            nonlocal said
            sentence = f"{now['state']:<18} {now['condition']:<9} {now['condition_info']['sentence']}"
            if sentence != said:
                said = sentence
                show(f"  {time.monotonic() - self.began_at:6.1f} s  {sentence}")
            return wanted(now)

        return await self.operator.until(case["case_id"], listen, within=PATIENCE)

    async def comes_to(self, case: Json, state: str) -> Json:
        """Watch until it rests in this state."""
        return await self.watch(case, lambda now: now["state"] == state and now["operation"] is None)

    async def blocks(self, case: Json) -> Json:
        """Watch until somebody must decide."""
        return await self.watch(case, lambda now: now["condition"] == "blocked")

    async def show_ledger(self, operation: Json, step: str) -> None:
        """What the partner itself says it did."""
        key = f"{operation['operation_id']}:{step}"
        entries = (await self.partners.get("/_control/ledger", params={"key": key})).raise_for_status().json()
        final = await self.operator.operation(operation["operation_id"])
        tries = next(s["attempts"] for s in final["steps"] if s["name"] == step)
        outcomes = ", ".join(attempt["outcome"] for attempt in tries)
        self.say(f"attempts: {outcomes}; the partner's ledger has it {len(entries)} time(s)")


def example_of(process: str) -> Json:
    """The subject that the process gives as an example."""
    return CATALOGUE[process].subject.model_json_schema()["examples"][0]


def step_state(case: Json, step: str) -> str | None:
    """How a step of the operation in flight stands."""
    steps: list[Json] = case["operation"]["steps"] if case["operation"] else []
    return next((shown["state"] for shown in steps if shown["name"] == step), None)
