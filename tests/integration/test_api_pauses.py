"""Pauses over HTTP: who may, what is answered, and what the case document says."""

from uuid import uuid4

import pytest

from tests.integration.office import Office

MOVING = {"partner": "bank", "reason": "They are moving house", "deadlines": "frozen"}


async def test_a_partner_is_paused_listed_and_resumed(office: Office):
    paused = await office.operator.command("/v1/pauses", MOVING)
    assert paused.status_code == 200, paused.text
    pause = paused.json()
    assert (pause["scope"], pause["name"], pause["state"], pause["deadlines"]) == (
        "partner",
        "bank",
        "paused",
        "frozen",
    )
    assert (pause["by"]["id"], pause["reason"]) == ("operator-1", "They are moving house")
    listed = (await office.person("auditor-1", "auditor").get("/v1/pauses")).json()["pauses"]
    assert [each["name"] for each in listed if each["state"] == "paused"] == ["bank"]
    assert {each["name"] for each in listed} >= {"bank", "erp", "mail", "vendor_onboarding", "parcel_return"}
    resumed = await office.senior.command(pause["href"], {"reason": "They are back", "rate": 7})
    assert (resumed.status_code, resumed.json()["state"], resumed.json()["rate"]) == (200, "resuming", 7)
    again = await office.senior.command(pause["href"], {"reason": "They are back"})
    assert (again.status_code, again.json()["code"]) == (409, "not_paused")


async def test_pausing_twice_is_a_conflict_and_the_same_key_the_same_pause(office: Office):
    key = uuid4().hex
    first = await office.operator.command("/v1/pauses", MOVING, key=key)
    repeated = await office.operator.command("/v1/pauses", MOVING, key=key)
    assert first.json() == repeated.json()
    other = await office.operator.command("/v1/pauses", {**MOVING, "partner": "erp"}, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    twice = await office.operator.command("/v1/pauses", MOVING)
    assert (twice.status_code, twice.json()["code"]) == (409, "already_paused")


async def test_under_a_paused_process_nothing_is_opened_and_the_etag_moves(office: Office):
    case = await office.draft()
    before = (await office.requester.get(f"/v1/cases/{case['case_id']}")).headers["etag"]
    assert before == '"1"'
    pause = (await office.operator.command("/v1/pauses", {"process": "vendor-onboarding", "reason": "Audit"})).json()
    refused = await office.requester.open()
    assert (refused.status_code, refused.json()["code"]) == (409, "paused")
    shown = await office.requester.get(f"/v1/cases/{case['case_id']}")
    assert (shown.headers["etag"], shown.json()["etag"]) == ('"1.1"', "1.1")
    assert (shown.json()["condition"], shown.json()["condition_info"]["reason"]) == ("paused", "Audit")
    submit = next(action for action in shown.json()["actions"] if action["name"] == "submit")
    assert (submit["allowed"], submit["reasons"][0]["code"]) == (False, "paused")
    taken = await office.requester.take(case, "submit")
    assert (taken.status_code, taken.json()["code"]) == (409, "paused")
    stale = await office.requester.take(case, "submit", If_Match=before)
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1.1"')
    paused = await office.operator.get(f"/v1/cases?condition=paused&business_key={case['business_key']}")
    assert [row["case_id"] for row in paused.json()["cases"]] == [case["case_id"]]
    waiting = await office.operator.get(f"/v1/cases?condition=waiting&business_key={case['business_key']}")
    assert waiting.json()["cases"] == []
    await office.operator.command(pause["href"], {"reason": "Audit is over"})
    submitted = await office.requester.take(case, "submit", If_Match='"1.2"')
    assert submitted.status_code == 202, submitted.text


async def test_a_case_is_paused_at_either_address(office: Office):
    case = await office.draft()
    paused = await office.operator.command("/v1/pauses", {"case_id": case["case_id"], "reason": "A claim"})
    assert (paused.status_code, paused.json()["scope"], paused.json()["pause_id"]) == (200, "case", case["case_id"])
    shown = await office.operator.case(case)
    assert (shown["condition"], shown["condition_info"]["by"]) == ("paused", "operator-1")
    twice = await office.operator.override(case, "pause")
    assert (twice.status_code, twice.json()["code"]) == (409, "already_paused")
    resumed = await office.operator.override(case, "resume")
    assert (resumed.status_code, resumed.json()["state"]) == (200, "completed")
    again = await office.operator.override(case, "pause", deadlines="frozen")
    assert again.status_code == 200, again.text
    ended = await office.operator.command(f"/v1/pauses/{case['case_id']}/resume", {"reason": "Settled"})
    assert (ended.status_code, ended.json()["state"]) == (200, "open")


@pytest.mark.parametrize(
    "body",
    [
        {"reason": "Nothing is named"},
        {"process": "vendor_onboarding", "partner": "bank", "reason": "Two are named"},
        {"partner": "nobody", "reason": "There is none"},
        {"process": "nothing", "reason": "There is none"},
        {"partner": "bank", "reason": "", "deadlines": "running"},
        {"partner": "bank", "reason": "Moving", "deadlines": "elsewhere"},
        {"partner": "bank", "reason": "Moving", "until": "tomorrow"},
    ],
)
async def test_what_does_not_fit_is_refused_and_changes_nothing(office: Office, body):
    await office.operator.get("/v1/pauses")
    before = await office.rows()
    answer = await office.operator.command("/v1/pauses", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid"), answer.text
    assert await office.rows() == before


async def test_an_unknown_pause_is_not_found(office: Office):
    for answer in (
        await office.operator.get(f"/v1/pauses/{uuid4()}"),
        await office.operator.command(f"/v1/pauses/{uuid4()}/resume", {"reason": "They are back"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "pause_not_found")
    missing = await office.operator.command("/v1/pauses", {"case_id": str(uuid4()), "reason": "A claim"})
    assert (missing.status_code, missing.json()["code"]) == (404, "case_not_found")
