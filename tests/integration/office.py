"""The API in this process, served over real HTTP on a real Postgres; people who speak to it; and a stand-in worker."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import httpx2
import uvicorn
from sqlalchemy import func, select

from api.app import create_app
from api.console import Console
from api.tokens import Verifier
from api.uploads import Uploads
from api.webhooks import Signatures
from caseward.activity import Call, EffectRunner
from caseward.cases import operations
from caseward.cases.callbacks import PartnerEvent, receive
from caseward.db.session import Database
from caseward.db.tables import Base, Message, Operation
from caseward.errors import PartnerFailed
from caseward.messages import FinishCall, StepCall
from caseward.objects import Objects
from caseward.partner import Sending, offers
from caseward.process import Catalogue, Step
from cli.tokens import sign_token
from dev.stack import Stack
from processes.vendor_onboarding import VENDOR_ONBOARDING, Vendor
from settings import Settings
from tests.integration.parcel_return import PARCEL_RETURN

Json = dict[str, Any]
VENDOR: Json = Vendor.model_config["json_schema_extra"]["examples"][0]
CATALOGUE = Catalogue([VENDOR_ONBOARDING, PARCEL_RETURN])
numbers = count(1)
CONSOLE = Console(demo_sign_in=True)
DOCUMENT_LIMIT = 2_000_000  # bytes: beyond what waits in memory, and beyond what any other body may have
CALLBACK_SECRET, PREVIOUS_SECRET = uuid4().hex, uuid4().hex  # masters, from which each partner's own is derived


def new_key() -> str:
    return f"V-{next(numbers)}-{uuid4().hex[:8]}"


class Partner:
    """Does what it is asked, or refuses for good."""

    name = "partner"

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses

    @offers("act", deadline=timedelta(seconds=5), idempotent=True)
    async def act(self, sending: Sending) -> str:
        if self.refuses:
            raise PartnerFailed("rejected", "closed", "Closed")
        return sending.key

    async def probe(self, sending: Sending, call: str) -> None: ...

    def serve(self, step: Step[Any]) -> Callable[[Call[Any]], Awaitable[Any]]:
        """An activity for the step; what exactly it results in is no matter here."""

        async def activity(call: Call[Any]) -> Any:
            await call.send(self.act)
            return step.result.model_construct()

        return activity


class Person:
    """Somebody with a token. Answers are raw responses: what a test looks at is their status."""

    def __init__(self, url: str, authorization: str | None) -> None:
        self.headers = {"Authorization": authorization} if authorization else {}
        self.http = httpx2.AsyncClient(base_url=url, headers=self.headers, timeout=30, trust_env=False)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=_named(headers))

    async def command(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> httpx2.Response:
        sent = {"Idempotency-Key": key or uuid4().hex, **_named(headers)}
        return await self.http.post(path, headers=sent, **({} if body is None else {"json": body}))

    async def open(self, business_key: str | None = None, *, key: str | None = None, **headers: str) -> httpx2.Response:
        body = {"business_key": business_key or new_key(), "subject": VENDOR}
        return await self.command("/v1/vendor-onboarding", body, key=key, **headers)

    async def take(self, case: Json, transition: str, body: Any = None, **how: Any) -> httpx2.Response:
        path = f"/v1/{case['process'].replace('_', '-')}/{case['case_id']}/{transition.replace('_', '-')}"
        return await self.command(path, body, **how)

    async def override(self, case: Json, override: str, **body: Any) -> httpx2.Response:
        path = f"/v1/cases/{case['case_id']}/overrides/{override.replace('_', '-')}"
        return await self.command(path, {"reason": "Agreed by phone", **body})

    async def case(self, case: Json) -> Json:
        answer = await self.get(f"/v1/cases/{case['case_id']}")
        assert answer.status_code == 200, answer.text
        return answer.json()


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Office:
    """The API under test, and all that stands around it."""

    url: str
    settings: Settings
    stack: Stack
    database: Database
    app: Any
    people: dict[tuple[str, ...], Person] = field(default_factory=dict)

    def person(self, name: str, *roles: str) -> Person:
        if (name, *roles) not in self.people:
            token = sign_token(self.settings, actor=name, roles=roles)
            self.people[name, *roles] = Person(self.url, f"Bearer {token}")
        return self.people[name, *roles]

    def bearing(self, token: str | None) -> Person:
        """Somebody with this very token, or none."""
        return self.people.setdefault(("", str(token)), Person(self.url, token and f"Bearer {token}"))

    @property
    def requester(self) -> Person:
        return self.person("requester-1", "vendor_requester")

    @property
    def reviewer(self) -> Person:
        return self.person("reviewer-1", "vendor_reviewer")

    @property
    def operator(self) -> Person:
        return self.person("operator-1", "operator")

    @property
    def senior(self) -> Person:
        return self.person("senior-1", "senior_operator")

    @property
    def lead(self) -> Person:
        return self.person("lead-1", "vendor_lead")

    async def proposal(self) -> Json:
        """A screening done by hand, as its operation: a review lead must confirm it."""
        case = await self.draft()
        submitted = await self.requester.take(case, "submit")
        await self.perform(submitted.json(), rejected_at="screen_sanctions")
        proposed = await self.senior.override(case, "mark_done", result={"reference": "By hand", "hits": 0})
        assert (proposed.status_code, proposed.json()["state"]) == (202, "proposed"), proposed.text
        return proposed.json()

    async def draft(self) -> Json:
        answer = await self.requester.open()
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def in_review(self) -> Json:
        case = await self.draft()
        submitted = await self.requester.take(case, "submit")
        assert submitted.status_code == 202, submitted.text
        await self.perform(submitted.json(), to_state="in_review")
        return await self.requester.case(case)

    async def perform(self, operation: Json, *, to_state: str | None = None, rejected_at: str | None = None) -> None:
        """Do what the worker would: each step by the engine's own functions, then the end."""
        async with self.database.transaction() as session:
            row = await session.get_one(Operation, UUID(operation["operation_id"]))
        transition = CATALOGUE[row.process].transition(row.name)
        assert transition is not None
        runner = EffectRunner(self.database, CATALOGUE)
        for step in transition.steps:
            call = StepCall(row.process, str(row.case_id), str(row.id), row.fence, step.name, f"{row.id}:{step.name}")
            partner = Partner(refuses=step.name == rejected_at)
            answer = await runner.run(CATALOGUE[row.process], partner.serve(step), call)
            if partner.refuses:
                assert answer.state == "blocked", answer
                return
            assert answer.state == "settled", answer
        call = FinishCall(row.process, str(row.case_id), str(row.id), row.fence, to_state)
        async with self.database.transaction() as session:
            finished = await operations.finish(session, CATALOGUE, call)
        assert finished.state == "finished", finished

    async def rows(self) -> dict[str, int]:
        """How many rows each table has, and the sum of all versions: what a refusal must not change."""
        async with self.database.transaction() as session:
            counted = {
                table.name: await session.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
            }
            cases = Base.metadata.tables["cases"]
            counted["versions"] = int(await session.scalar(select(func.sum(cases.c.version))) or 0)
            return counted

    async def bulk_run(self, case: Json) -> str:
        """A run over this case alone, which nobody drives."""
        order = {"override": "retry", "reason": "Let us see", "case_ids": [case["case_id"]]}
        answer = await self.operator.command("/v1/bulk", order)
        assert answer.status_code == 202, answer.text
        return answer.json()["bulk_id"]

    async def park_a_message(self, case: Json) -> int:
        async with self.database.transaction() as session:
            message = Message(
                destination="temporal", case_id=UUID(case["case_id"]), operation_id=None, payload={}, parked=True
            )
            session.add(message)
            await session.flush()
            return message.id

    async def park_a_callback(self, partner: str = "bank", **news: Any) -> str:
        """A signed event that no case waits for, as the API takes it in; its id."""
        event = PartnerEvent(
            **{"partner": partner, "event_id": f"evt-{uuid4()}", "effect_key": f"unknown-{uuid4()}", **news},
            call="pay",
            outcome="succeeded",
            answer={"paid": True},
        )
        assert await receive(self.database, CATALOGUE, event)
        return event.event_id


@asynccontextmanager
async def office_on(settings: Settings):
    """Postgres with our tables, and the API in front of it."""
    async with AsyncExitStack() as parts:
        stack = await parts.enter_async_context(Stack(settings, only=("postgres", "migrations")))
        database = Database.connect(stack.database_url)
        parts.push_async_callback(database.close)
        verifier = Verifier(settings.jwks_file, issuer=settings.token_issuer, audience=settings.token_audience)
        uploads = Uploads(Objects.connect(settings.documents_url), DOCUMENT_LIMIT)
        app = create_app(database, CATALOGUE, verifier, Signatures(CALLBACK_SECRET, PREVIOUS_SECRET), uploads, CONSOLE)
        config = uvicorn.Config(app, port=settings.api_port, lifespan="on", access_log=False, log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        while not server.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.01)
        office = Office(f"http://127.0.0.1:{settings.api_port}", settings, stack, database, app)
        yield office
        for person in office.people.values():
            await person.http.aclose()
        app.state.wiring.notices.close()
        server.should_exit = True
        await serving
