"""Postgres away, the API killed, the API asked to stop: what a client sees, and that a retry by key mends it."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from caseward.db.session import Database
from caseward.db.tables import Case
from cli.tokens import sign_token
from dev.service import ROOT
from dev.stack import Stack
from tests.integration.office import Office, Person, new_key


class TestPostgresAway:
    async def test_everything_says_so_and_goes_on_when_it_is_back(self, office: Office):
        case, business_key, key = await office.draft(), new_key(), uuid4().hex
        await office.stack.stop_service("postgres")
        try:
            for answer in (
                await office.requester.open(business_key, key=key),
                await office.requester.take(case, "submit"),
                await office.requester.get(f"/v1/cases/{case['case_id']}"),
                await office.requester.get("/v1/cases"),
                await office.requester.get("/v1/me"),
                await office.requester.get(f"/v1/cases/{case['case_id']}/stream"),
                await office.bearing(None).get("/health/ready"),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
                for word in ("psycopg", "127.0.0.1", "postgres", "sqlalchemy"):
                    assert word not in answer.text
            assert (await office.bearing(None).get("/health/live")).status_code == 200
            assert (await office.requester.get("/v1/processes")).status_code == 200
        finally:
            await office.stack.start_service("postgres")
        assert (await office.requester.open(business_key, key=key)).status_code == 201
        assert (await office.bearing(None).get("/health/ready")).status_code == 200

    async def test_killed_in_the_middle_of_commands_each_key_is_done_once(self, office: Office):
        keys = [(new_key(), uuid4().hex) for _ in range(20)]
        sending = [asyncio.create_task(office.requester.open(name, key=key)) for name, key in keys]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        await office.stack.kill("postgres")
        first = [await answer for answer in sending]
        assert {answer.status_code for answer in first} <= {201, 503}
        await office.stack.start_service("postgres")
        opened = [await office.requester.open(business_key, key=key) for business_key, key in keys]
        assert {answer.status_code for answer in opened} == {201}
        for before, after in zip(first, opened, strict=True):
            if before.is_success:
                assert before.json()["case_id"] == after.json()["case_id"]
        for business_key, _ in keys:
            listed = (await office.requester.get(f"/v1/cases?business_key={business_key}")).json()["cases"]
            assert len(listed) == 1

    async def test_an_unmigrated_database_is_not_ready(self, office: Office):
        state = office.app.state
        kept = state.wiring
        try:  # a version with one more revision than the database has
            state.wiring = replace(kept, revisions=("9999", *kept.revisions))
            answer = await office.bearing(None).get("/health/ready")
        finally:
            state.wiring = kept
        assert (answer.status_code, answer.json()["code"]) == (503, "database_not_migrated")


class Server:
    """`python -m api` as a process of its own."""

    def __init__(self, stack: Stack, database: Database) -> None:
        self.stack = stack
        self.database = database
        token = sign_token(stack.settings, actor="requester-1", roles=["vendor_requester"])
        self.requester = Person(stack.settings.api_url, f"Bearer {token}")

    async def fails_at(self, failpoint: str) -> None:
        await self.stack.stop_service("api")
        await self.stack.start_service("api", {"CASEWARD_FAILPOINT": failpoint})

    async def back(self) -> None:
        await self.stack.stop_service("api")
        await self.stack.start_service("api")

    async def cases(self, business_key: str) -> int:
        async with self.database.transaction() as session:
            query = select(func.count()).select_from(Case).where(Case.business_key == business_key)
            return await session.scalar(query) or 0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(settings_for, tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("server") / "data")
    async with Stack(settings, only=("postgres", "migrations", "api")) as stack:
        database = Database.connect(stack.database_url, pool_size=2)
        server = Server(stack, database)
        yield server
        await server.requester.http.aclose()
        await database.close()


class TestKilled:
    @pytest.mark.parametrize(("failpoint", "stands"), [("command.before_commit", 0), ("command.after_commit", 1)])
    async def test_around_the_commit_the_same_key_finds_or_makes_the_one_case(self, server: Server, failpoint, stands):
        await server.fails_at(failpoint)
        business_key, key = new_key(), uuid4().hex
        with pytest.raises(httpx2.TransportError):
            await server.requester.open(business_key, key=key)
        assert await server.cases(business_key) == stands
        await server.back()
        answers = [await server.requester.open(business_key, key=key) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert await server.cases(business_key) == 1


class TestAskedToStop:
    async def test_who_waits_is_answered_streams_end_and_it_is_quick(self, server: Server):
        await server.back()
        case = (await server.requester.open()).json()
        other = (await server.requester.open()).json()
        async with server.requester.http.stream("GET", f"/v1/cases/{other['case_id']}/stream") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "id: 1"
            waiting = asyncio.create_task(server.requester.take(case, "submit", Prefer="wait=60"))
            async with asyncio.timeout(60):
                while (await server.requester.case(case))["operation"] is None:
                    await asyncio.sleep(0.01)
            api = server.stack.children["api"]
            stopping = asyncio.create_task(server.stack.stop_service("api"))
            assert (await waiting).status_code == 202
            assert [line async for line in lines][-1] == "", "the last event is whole"
            await stopping
        assert api.exit_code == 0
        log = api.said()
        assert all(json.loads(line) for line in log.splitlines())
        assert "Traceback" not in log
        assert "ERROR" not in log.upper().replace("UVICORN.ERROR", "")
        await server.stack.start_service("api")


class TestCommandLine:
    def caseward(self, server: Server, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **server.stack.environment, **changed}
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    async def test_its_token_is_accepted(self, server: Server):
        made = self.caseward(server, "token", "--actor", "ada", "--role", "operator", "--role", "auditor")
        assert made.returncode == 0, made.stderr
        person = Person(server.stack.settings.api_url, f"Bearer {made.stdout.strip()}")
        assert (await person.get("/v1/me")).json() == {
            "id": "ada",
            "roles": ["auditor", "operator"],
            "stands_in": {},
        }
        await person.http.aclose()

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("token", "--actor", "ada"), 2),
            (("token", "--role", "operator"), 2),
            (("check",), 0),
            (("check", "vendor-onboarding"), 0),
            (("check", "nothing"), 2),
            (("dance",), 2),
        ],
    )
    async def test_its_exit_code_says_how_it_went(self, server: Server, arguments, code):
        assert self.caseward(server, *arguments).returncode == code

    async def test_without_keys_it_says_what_to_do(self, server: Server, tmp_path):
        token = ("token", "--actor", "ada", "--role", "operator")
        made = self.caseward(server, *token, CASEWARD_DATA_DIR=str(tmp_path))
        assert (made.returncode, made.stdout) == (3, "")
        assert "make run" in made.stderr
