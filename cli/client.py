"""A thin client of the API: commands with their keys, reads, and waiting for what should come."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

Json = dict[str, Any]
POLL = timedelta(milliseconds=50)


class Refused(Exception):
    """The API refused; `problem` is its problem document."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable code of the refusal."""
        return str(self.problem.get("code"))


class Client:
    """Speaks as one actor. Use as `async with Client(url, token) as client:`."""

    def __init__(self, api_url: str, token: str, *, timeout: timedelta = timedelta(seconds=70)) -> None:
        self._http = httpx2.AsyncClient(
            base_url=api_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout.total_seconds(),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def open(self, process: str, business_key: str, subject: Json, *, key: str | None = None) -> Json:
        """Open a case; answers the case document. Raises Refused."""
        body = {"business_key": business_key, "subject": subject}
        return await self.post(f"/v1/{process.replace('_', '-')}", body, key=key)

    async def take(
        self, case: Json, transition: str, given: Json | None = None, *, reason: str | None = None, **send: Any
    ) -> Json:
        """Take a transition at the address that the case document offers; answers the operation document."""
        return await self.post(
            href_of(case, "transition", transition), {"input": given or {}, "reason": reason}, **send
        )

    async def override(self, case: Json, override: str, *, reason: str, send: Json | None = None, **given: Any) -> Json:
        """Request an override; answers the operation document."""
        href = href_of(case, "override", override)
        return await self.post(href, {"reason": reason, **given}, **(send or {}))

    async def post(
        self, href: str, body: Json, *, key: str | None = None, wait: int | None = None, if_match: str | None = None
    ) -> Json:
        """Send a command; the same `key` again is the same command. Raises Refused."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        if if_match is not None:
            headers["If-Match"] = if_match
        return read(await self._http.post(href, json=body, headers=headers))

    async def upload(
        self, case: Json, kind: str, name: str, content: bytes, *, replaces: str | None = None, key: str | None = None
    ) -> Json:
        """Add a document to a case; answers its document. The same `key` again is the same command. Raises Refused."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        href, parameters = f"/v1/cases/{case['case_id']}/documents", {"kind": kind, "name": name}
        if replaces is not None:
            parameters["replaces"] = replaces
        return read(await self._http.post(href, params=parameters, content=content, headers=headers))

    async def get(self, href: str, **parameters: Any) -> Json:
        """Read a document. Raises Refused."""
        return read(await self._http.get(href, params=parameters or None))  # an empty mapping would drop the href's own

    async def download(self, href: str) -> AsyncIterator[bytes]:
        """A document in parts, as it comes. Raises Refused, and httpx2.TransportError where it breaks off."""
        async with self._http.stream("GET", href) as response:
            if not response.is_success:
                await response.aread()
                read(response)
            async for part in response.aiter_bytes():
                yield part

    async def events(self, href: str, *, after: int) -> AsyncGenerator[httpx2.ServerSentEvent]:
        """Server-sent events since the last one known, until the server ends them. Raises Refused."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        async with self._http.stream("GET", href, headers=headers) as response:
            if not response.is_success:
                await response.aread()
                read(response)
            async for event in httpx2.EventSource(response):
                yield event

    async def case(self, case_id: str) -> Json:
        """The case document."""
        return await self.get(f"/v1/cases/{case_id}")

    async def operation(self, operation_id: str) -> Json:
        """The operation document."""
        return await self.get(f"/v1/operations/{operation_id}")

    async def timeline(self, case_id: str) -> list[Json]:
        """Every entry, in order."""
        href: str | None = f"/v1/cases/{case_id}/timeline"
        entries: list[Json] = []
        while href:
            page = await self.get(href)
            entries += page["entries"]
            href = page["next"]
        return entries

    async def until(
        self, case_id: str, wanted: Callable[[Json], bool], *, within: timedelta = timedelta(minutes=5)
    ) -> Json:
        """The case document as soon as it is as wanted. Raises TimeoutError with the last one seen."""
        give_up_at = time.monotonic() + within.total_seconds()
        case: Json = {}
        while time.monotonic() < give_up_at:
            try:
                case = await self.case(case_id)
            except (httpx2.TransportError, Refused) as fault:  # the API may be down just now
                if isinstance(fault, Refused) and fault.status != 503:  # noqa: PLR2004 - "come back later"
                    raise
            else:
                if wanted(case):
                    return case
            await asyncio.sleep(POLL.total_seconds())
        message = f"case {case_id} is {case.get('state')}/{case.get('condition')}: {case.get('condition_info')}"
        raise TimeoutError(message)


def href_of(case: Json, kind: str, name: str) -> str:
    """Where the case document says that an action is taken."""
    return next(action["href"] for action in case["actions"] if (action["kind"], action["name"]) == (kind, name))


def read(response: httpx2.Response) -> Json:
    """The document of an answer. Raises Refused."""
    if response.is_success:
        return response.json()
    try:
        problem = response.json()
    except ValueError:
        problem = {"code": "no_problem_document", "detail": response.text[:200]}
    raise Refused(response.status_code, problem)
