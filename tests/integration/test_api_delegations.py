"""Standing in for somebody: what is lent, for how long, who is named, and that nobody counts twice by it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.integration.office import Json, Office, Person
from tests.integration.test_api_input import problem_of


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


async def lend(person: Person, to: str, *roles: str, key: str | None = None, **more: str):
    body = {"to": to, "roles": list(roles), "until": in_days(3), "reason": "On leave", **more}
    return await person.command("/v1/delegations", body, key=key)


@pytest.fixture
def mara(office: Office) -> Person:
    return office.person(f"mara-{uuid4().hex[:6]}", "vendor_lead")


@pytest.fixture
def name() -> str:
    return f"stand-in-{uuid4().hex[:6]}"


async def name_of(person: Person) -> str:
    return (await person.get("/v1/me")).json()["id"]


class TestLending:
    async def test_whoever_stands_in_may_what_the_other_may_and_both_are_named(self, office, mara: Person, name: str):
        stand_in = office.person(name)
        proposed = await office.proposal()
        href = f"/v1/operations/{proposed['operation_id']}/confirm"
        problem_of(await stand_in.command(href, {}), 404, "operation_not_found")
        assert (await lend(mara, name, "vendor_lead")).status_code == 201
        mine = await name_of(mara)
        assert (await stand_in.get("/v1/me")).json() == {
            "id": name,
            "roles": ["vendor_lead"],
            "stands_in": {"vendor_lead": mine},
        }
        answer = await stand_in.command(href, {"reason": "For Mara"})
        assert answer.status_code in {200, 202}, answer.text
        [given] = answer.json()["confirmations"]["given"]
        assert (given["actor"]["id"], given["actor"]["on_behalf_of"]) == (name, mine)
        entries = (await office.operator.get(f"/v1/cases/{proposed['case_id']}/timeline?limit=200")).json()["entries"]
        confirmed = next(entry for entry in entries if entry["type"] == "operation.confirmed")
        assert (confirmed["actor"]["id"], confirmed["actor"]["on_behalf_of"]) == (name, mine)

    async def test_it_ends_when_it_was_to_end_or_when_somebody_ends_it(self, office, mara: Person, name: str):
        stand_in = office.person(name)
        later = await lend(mara, name, "vendor_lead", from_at=in_days(1))
        assert later.status_code == 201
        assert (await stand_in.get("/v1/me")).json()["roles"] == []
        begun = (await lend(mara, name, "vendor_lead")).json()
        assert (await stand_in.get("/v1/me")).json()["roles"] == ["vendor_lead"]
        stranger = office.requester
        problem_of(await stranger.command(f"{begun['href']}/end"), 404, "delegation_not_found")
        for person in (mara, stand_in):
            ended = (await person.command(f"{begun['href']}/end")).json()
            assert ended["ended_by"] == await name_of(mara)
        assert (await stand_in.get("/v1/me")).json()["roles"] == []

    async def test_the_same_key_is_the_same_delegation(self, mara: Person, name: str):
        until = in_days(2)
        first, second = [await lend(mara, name, "vendor_lead", key=name, until=until) for _ in range(2)]
        assert first.json() == second.json()
        problem_of(await lend(mara, name, "vendor_lead", key=name), 422, "idempotency_key_reused")

    async def test_everybody_sees_what_concerns_them(self, office, mara: Person, name: str):
        made = (await lend(mara, name, "vendor_lead")).json()["delegation_id"]
        for person, sees in (
            (mara, True),
            (office.person(name), True),
            (office.requester, False),
            (office.senior, True),
        ):
            listed = (await person.get("/v1/delegations")).json()["delegations"]
            assert (made in {each["delegation_id"] for each in listed}) == sees


class TestRefusals:
    async def test_nobody_lends_what_they_have_not_themselves(self, office, mara: Person, name: str):
        problem_of(await lend(mara, name, "vendor_requester"), 403, "role_missing")
        await lend(mara, name, "vendor_lead")
        problem_of(await lend(office.person(name), "third", "vendor_lead"), 403, "role_missing")

    async def test_nor_what_mends_cases(self, office):
        problem_of(await lend(office.senior, "somebody", "senior_operator"), 403, "role_missing")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"until": in_days(-1)},
            {"until": in_days(400)},
            {"until": "2031-05-03T00:00:00"},
            {"from_at": in_days(5)},
            {"reason": ""},
            {"roles": []},
        ],
        ids=["over", "too long", "no zone", "ends first", "no reason", "nothing"],
    )
    async def test_wrong_ones_are_named(self, mara: Person, name: str, wrong: Json):
        body = {"to": name, "roles": ["vendor_lead"], "until": in_days(3), "reason": "On leave", **wrong}
        problem_of(await mara.command("/v1/delegations", body), 422, "input_invalid")

    async def test_nobody_stands_in_for_themselves(self, mara: Person):
        problem_of(await lend(mara, await name_of(mara), "vendor_lead"), 422, "input_invalid")
