"""Claims over HTTP: their addresses, their answers, and how a person finds what is theirs."""

from uuid import uuid4

from tests.integration.office import Json, Office, Person, new_key

MINE = {"reason": "I know the sender"}


async def received(office: Office) -> tuple[Person, Person, Json]:
    """Two clerks, and a parcel that came back."""
    clerk, other = office.person("clerk-1", "parcel_clerk"), office.person("clerk-2", "parcel_clerk")
    body = {"business_key": new_key(), "subject": {"number": "7"}}
    answer = await clerk.command("/v1/parcel-return", body)
    assert answer.status_code == 201, answer.text
    return clerk, other, answer.json()


def href_of(case: Json, name: str) -> str:
    (action,) = (each for each in case["actions"] if each["kind"] == "claim" and each["name"] == name)
    return action["href"]


class TestAClaim:
    async def test_has_an_outcome_at_once(self, office: Office):
        clerk, other, case = await received(office)
        claimed = await clerk.command(href_of(case, "claim"), MINE, Prefer="wait=10")
        document = claimed.json()
        assert (claimed.status_code, document["state"], document["kind"]) == (200, "completed", "claim"), claimed.text
        assert claimed.headers["etag"] != f'"{case["etag"]}"'
        seen = await other.case(case)
        assert (seen["assignee"], seen["version"]) == ("clerk-1", case["version"] + 1)
        last = (await clerk.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"][-1]
        assert (last["type"], last["sentence"], last["reason"]) == (
            "case.claimed",
            "clerk-1 has claimed it.",
            MINE["reason"],
        )

    async def test_keeps_others_away_as_the_document_says(self, office: Office):
        clerk, other, case = await received(office)
        await clerk.command(href_of(case, "claim"))
        for action in (await other.case(case))["actions"]:
            if action["kind"] == "transition":
                assert [reason["code"] for reason in action["reasons"]] == ["claimed_by_other"]
                refused = await other.take(case, action["name"])
                assert (refused.status_code, refused.json()["code"]) == (409, "claimed_by_other")
        refused = await other.command(href_of(case, "claim"))
        assert (refused.status_code, refused.json()["code"]) == (409, "claimed_by_other")
        refused = await other.command(href_of(case, "unclaim"))
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
        freed = await office.operator.command(href_of(case, "unclaim"), {"reason": "On holiday"})
        assert freed.status_code == 200
        assert (await other.take(case, "refuse")).status_code == 200

    async def test_needs_a_key_and_the_version_it_names(self, office: Office):
        clerk, _, case = await received(office)
        answered = await clerk.http.post(href_of(case, "claim"))
        assert (answered.status_code, answered.json()["code"]) == (400, "idempotency_key_missing")
        answered = await clerk.command(href_of(case, "claim"), If_Match='"99"')
        assert (answered.status_code, answered.json()["code"]) == (412, "version_stale")
        key = uuid4().hex
        first = await clerk.command(href_of(case, "claim"), key=key)
        again = await clerk.command(href_of(case, "claim"), key=key)
        assert first.json() == again.json()
        other = await clerk.command(href_of(case, "claim"), MINE, key=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    async def test_is_what_the_list_filters_by(self, office: Office):
        _, _, case = await received(office)
        me = office.person(f"clerk-{uuid4().hex[:6]}", "parcel_clerk")
        await me.command(href_of(case, "claim"))
        name = (await me.get("/v1/me")).json()["id"]
        listed = (await me.get(f"/v1/cases?assignee={name}")).json()["cases"]
        assert [(row["case_id"], row["assignee"]) for row in listed] == [(case["case_id"], name)]
        assert (await me.get("/v1/cases?assignee=nobody-of-ours")).json()["cases"] == []

    async def test_is_declared(self, office: Office):
        clerk, _, case = await received(office)
        process = (await clerk.get("/v1/processes/parcel-return")).json()
        received_state = next(state for state in process["states"] if state["name"] == "received")
        assert received_state["claimable_by"] == ["parcel_clerk"]
        schema = next(action["input_schema"] for action in case["actions"] if action["kind"] == "claim")
        assert (await clerk.get(schema)).json()["properties"].keys() == {"reason"}
