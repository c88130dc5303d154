"""Server-sent events: every entry once and in order, over cuts too."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from uuid import uuid4

import pytest
from sqlalchemy import text

from cli.tokens import sign_token
from tests.integration.office import Office, Person

Event = dict[str, str]


@asynccontextmanager
async def following(person: Person, case: dict, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a case, as a browser would read them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        asyncio.timeout(120),
        person.http.stream("GET", f"/v1/cases/{case['case_id']}/stream", headers=named) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.aiter_lines())


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    event: Event = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            if "data" in event:
                yield event
            event = {}


async def until(stream: AsyncIterator[Event], version: int) -> list[Event]:
    """All events up to the news of this version."""
    found = []
    async for event in stream:
        found.append(event)
        if event["event"] == "case" and json.loads(event["data"])["version"] >= version:
            return found
    return found


def numbers(found: list[Event]) -> list[int]:
    return [int(event["id"]) for event in found if event["event"] == "entry"]


class TestFollowing:
    async def test_what_was_comes_first_and_then_what_happens(self, office: Office):
        case = await office.draft()
        async with following(office.requester, case) as stream:
            past = await until(stream, 1)
            assert [event["event"] for event in past] == ["entry", "case"]
            submitted = await office.requester.take(case, "submit")
            await office.perform(submitted.json(), to_state="in_review")
            now = await office.requester.case(case)
            present = await until(stream, now["version"])
        timeline = (await office.requester.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"]
        assert numbers(past + present) == [entry["number"] for entry in timeline]
        assert [json.loads(event["data"]) for event in past + present if event["event"] == "entry"] == timeline
        assert json.loads(present[-1]["data"])["state"] == "in_review"

    async def test_who_comes_back_goes_on_where_they_were(self, office: Office):
        case = await office.in_review()
        last = len((await office.requester.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"])
        async with following(office.requester, case, Last_Event_ID=str(last - 2)) as stream:
            assert numbers(await until(stream, case["version"])) == [last - 1, last]

    async def test_who_stands_in_for_somebody_follows_as_long_as_they_do(self, office: Office):
        name = f"stand-in-{uuid4().hex}"
        owner, stand_in = office.person(f"lead-{uuid4().hex}", "vendor_lead"), office.person(name)
        case = await office.draft()
        until_then = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        body = {"to": name, "roles": ["vendor_lead"], "until": until_then, "reason": "On leave"}
        lent = (await owner.command("/v1/delegations", body)).json()
        async with following(stand_in, case) as stream:
            assert numbers(await until(stream, case["version"])) == [1]
            await owner.command(f"{lent['href']}/end")
            await office.requester.take(case, "submit")
            assert [event async for event in stream if event["event"] == "entry"] == []

    async def test_twenty_watch_and_all_see_it_at_once(self, office: Office):
        case = await office.draft()

        async def watch() -> list[int]:
            async with following(office.operator, case) as stream:
                return numbers(await until(stream, 2))

        watching = [asyncio.create_task(watch()) for _ in range(20)]
        await office.requester.take(case, "submit")
        assert {tuple(await seen) for seen in watching} == {(1, 2)}

    async def test_a_cut_listening_connection_loses_nothing(self, office: Office):
        case = await office.draft()
        async with following(office.requester, case) as stream:
            await until(stream, 1)
            await cut_listeners(office)
            await office.requester.take(case, "submit")
            assert numbers(await until(stream, 2)) == [2]

    async def test_it_ends_when_the_token_does(self, office: Office, monkeypatch):
        monkeypatch.setattr("api.routes_stream.LOOK_EVERY", timedelta(milliseconds=50))
        case = await office.draft()
        lasts = timedelta(minutes=30)
        token = sign_token(office.settings, actor="a", roles=["auditor"], lasts=lasts)
        async with following(office.bearing(token), case) as stream:
            assert numbers(await until(stream, 1)) == [1]
            monkeypatch.setattr("api.routes_stream.datetime", Ahead(lasts))
            assert [event["event"] async for event in stream] == []

    @pytest.mark.parametrize("sent", ["x", "-1", "99999999999", "1.5"])
    async def test_a_number_is_a_number(self, office: Office, sent):
        case = await office.draft()
        answer = await office.requester.get(f"/v1/cases/{case['case_id']}/stream", Last_Event_ID=sent)
        assert (answer.status_code, answer.json()["code"]) == (400, "last_event_id_malformed")


@dataclass(frozen=True)
class Ahead:
    """A clock that is ahead of ours."""

    by: timedelta

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.by


async def cut_listeners(office: Office) -> None:
    async with office.database.transaction() as session:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert (await session.execute(text(cut))).all()


class TestTimeline:
    async def test_pages_join_without_gap_or_double(self, office: Office):
        case = await office.in_review()
        path, found = f"/v1/cases/{case['case_id']}/timeline?limit=3", []
        while path:
            page = (await office.requester.get(path)).json()
            found += [entry["number"] for entry in page["entries"]]
            path = page["next"]
        whole = (await office.requester.get(f"/v1/cases/{case['case_id']}/timeline")).json()
        assert found == [entry["number"] for entry in whole["entries"]] == list(range(1, len(found) + 1))


class TestLists:
    async def test_pages_join_without_gap_or_double(self, office: Office):
        cases = [await office.draft() for _ in range(7)]
        path, found = "/v1/cases?limit=3&process=vendor_onboarding&state=draft", []
        while path and len(found) < 9:
            page = (await office.requester.get(path)).json()
            assert len(page["cases"]) <= 3
            found += [row["case_id"] for row in page["cases"]]
            path = page["next"]
        assert found[:7] == [case["case_id"] for case in reversed(cases)]
        assert len(set(found)) == len(found)

    async def test_filters_narrow(self, office: Office):
        case = await office.in_review()
        for query in (
            f"business_key={case['business_key']}",
            f"q={case['business_key'][:-1]}",
            f"q={case['case_id']}",
            f"business_key={case['business_key']}&condition=waiting&waiting_on=vendor_reviewer&state=in_review",
        ):
            listed = (await office.reviewer.get(f"/v1/cases?{query}")).json()["cases"]
            assert [row["case_id"] for row in listed] == [case["case_id"]], query
        assert (await office.reviewer.get(f"/v1/cases?q={case['case_id']}&state=draft")).json()["cases"] == []


class TestOutbox:
    async def test_a_parked_message_is_seen_and_released_once(self, office: Office):
        number = await office.park_a_message(await office.draft())
        parked, following = set(), "/v1/outbox?parked=true"
        while following:
            page = (await office.operator.get(following)).json()
            parked |= {message["message_id"] for message in page["messages"]}
            following = page["next"]
        assert number in parked
        released = await office.operator.http.post(f"/v1/outbox/{number}/requeue")
        assert (released.status_code, released.json()["parked"]) == (200, False)
        again = await office.operator.http.post(f"/v1/outbox/{number}/requeue")
        assert (again.status_code, again.json()["code"]) == (404, "message_not_found")
        waiting = (await office.operator.get("/v1/outbox?parked=false")).json()["messages"]
        assert all(not message["parked"] for message in waiting)
