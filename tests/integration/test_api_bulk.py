"""Bulk recovery over HTTP: the groups, the order, its progress, and every case's outcome."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from caseward.cases import bulk_drive
from tests.integration.office import CATALOGUE, Json, Office, new_key

ORDER = {"override": "retry", "reason": "The bank mended it", "canary": 1, "rate": 100}


@pytest.fixture(autouse=True)
async def nobody_elses_runs(office: Office, monkeypatch):
    monkeypatch.setattr(bulk_drive, "TICK", timedelta(0))
    async with office.database.transaction() as session:
        await session.execute(text("UPDATE bulk_runs SET finished_at = now() - interval '1 min'"))


async def blocked(office: Office, how_many: int) -> list[Json]:
    """Vendors whose payee the bank refused to open."""
    cases = [await office.in_review() for _ in range(how_many)]
    for case in cases:
        approval = await office.reviewer.take(case, "approve")
        await office.perform(approval.json(), rejected_at="open_payee")
    return cases


async def chosen(office: Office, cases: list[Json]) -> Json:
    """The group in which these cases are, as an order names it."""
    shown = (await office.operator.case(cases[0]))["condition_info"]
    groups = (await office.operator.get("/v1/bulk/groups?process=vendor_onboarding")).json()["groups"]
    group = next(g for g in groups if (g["step"], g["fingerprint"]) == ("open_payee", shown["fingerprint"]))
    assert group["count"] >= len(cases)
    assert (group["cause"], group["error_code"], group["recovery_owner"]) == ("rejected", "closed", "treasury")
    return {name: group[name] for name in ("process", "step", "partner", "fingerprint")}


async def test_a_group_is_released_from_order_to_outcome(office: Office):
    cases = await blocked(office, 2)
    order = {**ORDER, "group": await chosen(office, cases), "rate": 7}
    answer = await office.operator.command("/v1/bulk", order, key="one-release")
    run = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/bulk/{run['bulk_id']}")
    assert (run["state"], run["rate"], run["counts"]["frozen"]) == ("canary", 7, run["total"])
    again = await office.operator.command("/v1/bulk", order, key="one-release")
    assert (again.status_code, again.json()["bulk_id"]) == (202, run["bulk_id"])
    other = await office.operator.command("/v1/bulk", {**order, "canary": 2}, key="one-release")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    await bulk_drive.drive(office.database, CATALOGUE)
    sent = (await office.operator.get(run["items"] + "?state=sent")).json()["items"]
    operation = (await office.operator.get(f"/v1/operations/{sent[0]['operation_id']}")).json()
    assert (operation["bulk_id"], operation["actor"]["via"]) == (run["bulk_id"], "bulk")
    transition = (await office.operator.get(f"/v1/cases/{sent[0]['case_id']}")).json()["operation"]
    await office.perform({"operation_id": transition["operation_id"]}, to_state="active")
    await bulk_drive.drive(office.database, CATALOGUE)
    seen = (await office.person("auditor-1", "auditor").get(f"/v1/bulk/{run['bulk_id']}")).json()
    assert (seen["state"], seen["counts"]["repaired"]) == ("ramping", 1)
    listed = (await office.operator.get("/v1/bulk?state=ramping")).json()["runs"]
    assert run["bulk_id"] in {each["bulk_id"] for each in listed}

    stop = f"/v1/bulk/{run['bulk_id']}/stop"
    assert (await office.operator.command(stop, {"reason": "Enough"})).json()["state"] == "stopped"
    assert (await office.operator.command(stop, {"reason": "Enough"})).status_code == 200
    refused = await office.operator.command(f"/v1/bulk/{run['bulk_id']}/continue", {"reason": "Go on"})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_looking")


async def test_what_was_blocked_later_than_somebody_looked_is_left_out(office: Office):
    cases = await blocked(office, 1)
    chosen_then = await chosen(office, cases)
    groups = (await office.operator.get("/v1/bulk/groups?process=vendor_onboarding")).json()["groups"]
    seen = next(group for group in groups if chosen_then.items() <= group.items())
    later = await blocked(office, 1)
    order = {**ORDER, "group": {**chosen_then, "until": seen["latest"]}}
    run = (await office.operator.command("/v1/bulk", order)).json()
    listed = (await office.operator.get(run["items"])).json()["items"]
    found = {item["case_id"] for item in listed}
    assert (len(found), cases[0]["case_id"] in found, later[0]["case_id"] in found) == (seen["count"], True, False)
    for process, there in (("vendor_onboarding", True), ("parcel_return", False)):
        runs = (await office.operator.get(f"/v1/bulk?process={process}")).json()["runs"]
        assert (run["bulk_id"] in {each["bulk_id"] for each in runs}) == there


async def test_an_order_over_chosen_cases_of_a_group_says_how_many_were_chosen_and_how_many_are_gone(office: Office):
    cases = await blocked(office, 3)
    group = await chosen(office, cases)
    retried = await office.operator.override(cases[0], "retry", step="open_payee")
    assert retried.status_code == 202, retried.text  # by somebody else, after it was chosen
    order = {**ORDER, "group": group, "case_ids": [case["case_id"] for case in cases[:2]]}
    answer = await office.operator.command("/v1/bulk", order)
    run = answer.json()
    assert (answer.status_code, run["total"], run["group"]) == (202, 1, group)
    assert run["chosen"] == {
        "cases": 2,
        "gone": 1,
        "sentence": "Only 2 chosen cases of the group. 1 of them was no longer blocked as seen then, and left out.",
    }
    assert (await office.operator.get(f"/v1/bulk/{run['bulk_id']}")).json()["chosen"] == run["chosen"]
    listed = (await office.operator.get(run["items"])).json()["items"]
    assert [item["case_id"] for item in listed] == [cases[1]["case_id"]]
    whole = await office.operator.command("/v1/bulk", {**ORDER, "group": group})
    assert (whole.status_code, whole.json()["chosen"]) == (202, None)


async def test_ids_that_cant_be_in_the_group_are_named_and_nothing_is_done(office: Office):
    cases = await blocked(office, 1)
    group = await chosen(office, cases)
    clerk, subject = office.person("clerk-1", "parcel_clerk"), {"number": "7"}
    parcel = (await clerk.command("/v1/parcel-return", {"business_key": new_key(), "subject": subject})).json()
    nobodys = "0199d0a0-0000-7000-8000-000000000000"
    order = {**ORDER, "group": group, "case_ids": [cases[0]["case_id"], parcel["case_id"], nobodys]}
    before = await office.rows()
    answer = await office.operator.command("/v1/bulk", order)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "input_invalid")
    assert problem["errors"] == [
        {"field": "case_ids", "message": f"The case {parcel['case_id']} is of another process."},
        {"field": "case_ids", "message": f"No case has the id {nobodys} here."},
    ]
    many = await office.operator.command("/v1/bulk", {**order, "case_ids": [str(uuid4()) for _ in range(101)]})
    assert (many.status_code, len(many.json()["errors"])) == (422, 100)
    assert many.json()["detail"].endswith(" 96 more can't be meant either.")
    assert await office.rows() == before


async def test_the_runs_of_a_process_are_also_those_over_cases_named_one_by_one(office: Office):
    vendor = (await blocked(office, 1))[0]
    clerk, subject = office.person("clerk-1", "parcel_clerk"), {"number": "7"}
    parcel = (await clerk.command("/v1/parcel-return", {"business_key": new_key(), "subject": subject})).json()

    async def named(*cases: Json) -> str:
        order = {**ORDER, "override": "pause", "case_ids": [case["case_id"] for case in cases]}
        answer = await office.operator.command("/v1/bulk", order)
        assert answer.status_code == 202, answer.text
        return answer.json()["bulk_id"]

    runs = {"vendor_onboarding": await named(vendor), "parcel_return": await named(parcel)}
    both = await named(vendor, parcel)
    for process, run in runs.items():
        listed = (await office.operator.get(f"/v1/bulk?process={process}")).json()["runs"]
        found = {each["bulk_id"] for each in listed} & {*runs.values(), both}
        assert found == {run, both}


async def test_what_an_order_needs_is_said_field_by_field(office: Office):
    wrong = (
        {"override": "retry", "reason": "Neither group nor cases"},
        {**ORDER, "case_ids": ["0199d0a0-0000-7000-8000-000000000000"], "canary": 0},
        {**ORDER, "case_ids": ["0199d0a0-0000-7000-8000-000000000000"]},
        {**ORDER, "override": "replay", "case_ids": ["0199d0a0-0000-7000-8000-000000000000"]},
        {**ORDER, "group": {"process": "vendor_onboarding", "fingerprint": "a\x00b"}},
        {**ORDER, "group": {"process": "vendor_onboarding", "fingerprint": "a"}, "case_ids": []},  # none is not all
    )
    for order in wrong:
        before = await office.rows()
        answer = await office.operator.command("/v1/bulk", order)
        assert (answer.status_code, bool(answer.json()["errors"])) == (422, True), order
        assert await office.rows() == before
    group = {"process": "vendor_onboarding", "step": "open_payee", "partner": "bank", "fingerprint": "nothing"}
    empty = await office.operator.command("/v1/bulk", {**ORDER, "group": group})
    assert (empty.status_code, empty.json()["code"]) == (409, "nothing_blocked")
    keyless = await office.operator.http.post("/v1/bulk", json=ORDER)
    assert (keyless.status_code, keyless.json()["code"]) == (400, "idempotency_key_missing")


async def test_a_run_that_does_not_exist_is_not_found(office: Office):
    nowhere = "/v1/bulk/0199d0a0-0000-7000-8000-000000000000"
    for path in (nowhere, nowhere + "/items"):
        answer = await office.operator.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "bulk_not_found")
    for path in (nowhere + "/stop", nowhere + "/continue"):
        assert (await office.operator.command(path, {"reason": "Why not"})).status_code == 404


async def test_an_address_of_two_methods_names_both_when_it_is_asked_for_a_third(office: Office):
    answer = await office.operator.http.put("/v1/bulk")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
