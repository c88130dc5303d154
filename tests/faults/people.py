"""People at a real API who look before they act, and hold it to its word: offered is accepted, anything else refused.

They tell the truth: before they say what a partner did, they look into its ledger.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2

from cli.tokens import sign_token
from settings import Settings

Json = dict[str, Any]
PATIENCE = timedelta(seconds=300)
UNAVAILABLE, STALE = 503, 412


class PolicyBroken(AssertionError):
    """The API did not do what its case document said."""


@dataclass(frozen=True)
class Sent:
    """An accepted command, and what it was answered."""

    person: "Person"
    href: str
    body: Json
    key: str
    operation_id: str


class Person:
    """One actor with the roles of their token."""

    def __init__(self, settings: Settings, actor: str, *roles: str) -> None:
        self.name = actor
        headers = {"Authorization": f"Bearer {sign_token(settings, actor=actor, roles=roles)}"}
        self._http = httpx2.AsyncClient(base_url=settings.api_url, headers=headers, timeout=20, trust_env=False)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def see(self, case_id: str) -> tuple[Json, str]:
        """The case document and its ETag."""
        answer = await self._insist("GET", f"/v1/cases/{case_id}")
        assert answer.is_success, answer.text
        return answer.json(), answer.headers["etag"]

    async def read(self, href: str) -> Json:
        answer = await self._insist("GET", href)
        assert answer.is_success, answer.text
        return answer.json()

    async def ask(self, href: str, body: Json) -> httpx2.Response:
        """A question that changes nothing, though it is posted."""
        return await self._insist("POST", href, json=body)

    async def send(self, href: str, body: Json, *, key: str, if_match: str | None = None) -> httpx2.Response:
        """A command, under the same key until it is answered."""
        headers = {"Idempotency-Key": key} | ({"If-Match": if_match} if if_match else {})
        return await self._insist("POST", href, json=body, headers=headers)

    async def _insist(self, method: str, href: str, **request: Any) -> httpx2.Response:
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                answer = await self._http.request(method, href, **request)
            except httpx2.TransportError:
                if time.monotonic() > give_up_at:
                    raise
            else:
                if answer.status_code != UNAVAILABLE or time.monotonic() > give_up_at:
                    return answer
            await asyncio.sleep(0.1)

    async def act(self, case_id: str, action: Json, body: Json, if_match: str) -> Sent | None:
        """Take an action as it was seen; None where the case has changed meanwhile, or it was refused as announced.

        Raises PolicyBroken.
        """
        key = str(uuid4())
        answer = await self.send(action["href"], body, key=key, if_match=if_match)
        if answer.status_code == STALE:
            return None
        told = answer.json()
        said = f"{self.name}: {action['name']} {action['step'] or ''} on {case_id} at {if_match}, {body}"
        if action["allowed"]:
            if not answer.is_success:
                raise PolicyBroken(f"{said} was offered and refused: {answer.status_code} {told}")
            return Sent(self, action["href"], body, key, told["operation_id"])
        if answer.is_success:
            raise PolicyBroken(f"{said} was not offered ({action['reasons']}) and accepted: {told}")
        announced = [reason["code"] for reason in action["reasons"]]
        if [reason["code"] for reason in told["reasons"]] != announced or told["code"] != announced[0]:
            raise PolicyBroken(f"{said} should have been refused for {announced}: {told}")
        return None

    async def repeat(self, sent: Sent) -> None:
        """The same command under the same key is the same operation; with other content it is refused."""
        again = await self.send(sent.href, sent.body, key=sent.key, if_match='"1"')
        if not again.is_success or again.json()["operation_id"] != sent.operation_id:
            raise PolicyBroken(f"{sent.key} gave {sent.operation_id}, and then {again.status_code} {again.text}")
        other = await self.send(sent.href, {**sent.body, "reason": "Another reason"}, key=sent.key)
        if other.status_code != 422 or other.json()["code"] != "idempotency_key_reused":
            raise PolicyBroken(f"{sent.key} was given to another command: {other.status_code} {other.text}")


def offered(case: Json, kind: str, name: str, step: str | None = None) -> Json | None:
    """The action as the document has it, allowed or not."""
    found = [a for a in case["actions"] if (a["kind"], a["name"]) == (kind, name)]
    return next((action for action in found if action["step"] == step), None)


def open_steps(case: Json) -> list[Json]:
    """The steps of the operation in flight that are begun and not settled."""
    steps = case["operation"]["steps"] if case["operation"] else []
    return [step for step in steps if step["state"] in {"running", "retrying", "waiting", "paused", "blocked"}]
