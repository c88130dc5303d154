"""Proposals over HTTP: what waits for confirmation, where it is answered, and how it is found."""

import asyncio
from uuid import uuid4

import pytest

from tests.integration.office import Json, Office, Person

SEEN = {"reason": "Seen the report"}


async def answer(person: Person, operation: Json, word: str, body: Json | None = None, **how):
    return await person.command(f"/v1/operations/{operation['operation_id']}/{word}", body, **how)


async def shown(person: Person, operation: Json) -> Json:
    (proposal,) = (await person.case(operation))["proposals"]
    return proposal


class TestAProposal:
    async def test_is_accepted_without_an_outcome_and_nobody_waits_for_one(self, office: Office):
        case = await office.draft()
        submitted = await office.requester.take(case, "submit")
        await office.perform(submitted.json(), rejected_at="screen_sanctions")
        path = f"/v1/cases/{case['case_id']}/overrides/mark-done"
        body = {"reason": "Screened by hand", "result": {"reference": "H-1", "hits": 0}}
        started = asyncio.get_running_loop().time()
        proposed = await office.senior.command(path, body, Prefer="wait=60")
        assert asyncio.get_running_loop().time() - started < 30, "it waits on a person"
        assert (proposed.status_code, proposed.json()["state"], proposed.json()["accepted_at"]) == (
            202,
            "proposed",
            None,
        )
        assert (await office.senior.case(case))["condition"] == "blocked", "nothing has changed yet"

    async def test_stands_in_the_case_with_where_to_answer(self, office: Office):
        operation = await office.proposal()
        proposal = await shown(office.lead, operation)
        assert proposal["action"] == {
            "kind": "override",
            "name": "mark_done",
            "step": "screen_sanctions",
            "item": None,
        }
        assert (proposal["title"], proposal["needed"], proposal["roles"]) == (
            "It was done by hand",
            1,
            ["vendor_lead"],
        )
        assert proposal["proposer"]["id"] == "senior-1"
        assert (proposal["confirm"]["allowed"], proposal["stale"]) == (True, False)
        seniors = await shown(office.senior, operation)
        assert [reason["code"] for reason in seniors["confirm"]["reasons"]] == ["role_missing", "four_eyes"]
        confirmed = await office.lead.command(proposal["confirm"]["href"])
        assert (confirmed.status_code, confirmed.json()["state"]) == (202, "accepted")
        assert (await office.lead.case(operation))["proposals"] == []

    async def test_is_found_in_the_list_of_cases(self, office: Office):
        operation = await office.proposal()
        listed = (await office.lead.get("/v1/cases?proposals=true&limit=200")).json()["cases"]
        assert operation["case_id"] in [case["case_id"] for case in listed]
        assert {case["proposals"] for case in listed} == {1}
        page = (await office.lead.get("/v1/cases?proposals=true&limit=1")).json()
        assert page["next"] is None or "proposals=true" in page["next"]
        await answer(office.lead, operation, "decline", SEEN)
        listed = (await office.lead.get("/v1/cases?proposals=true&limit=200")).json()["cases"]
        assert operation["case_id"] not in [case["case_id"] for case in listed]
        others = (await office.lead.get("/v1/cases?proposals=false&limit=200")).json()["cases"]
        assert operation["case_id"] in [case["case_id"] for case in others]

    async def test_is_declared_for_screens(self, office: Office):
        document = (await office.lead.get("/v1/processes/vendor-onboarding")).json()
        steps = {step["name"]: step["skip_confirmation"] for step in document["steps"]}
        assert steps["send_welcome"] is None
        assert steps["screen_sanctions"] == {
            "by": 1,
            "roles": ["vendor_lead"],
            "expires_after_seconds": 86400.0,
            "proposer_counts": False,
            "groups": [],
            "when": None,
        }


class TestConfirming:
    async def test_answers_the_operation_as_it_is_then(self, office: Office):
        operation = await office.proposal()
        version = (await office.lead.case(operation))["version"]
        confirmed = await answer(office.lead, operation, "confirm", SEEN, If_Match=f'"{version}"')
        document = confirmed.json()
        assert (document["operation_id"], document["actor"]["id"]) == (operation["operation_id"], "senior-1")
        assert document["accepted_at"] is not None
        (given,) = document["confirmations"]["given"]
        assert (given["actor"]["id"], given["actor"]["role"], given["reason"]) == (
            "lead-1",
            "vendor_lead",
            "Seen the report",
        )
        assert confirmed.headers["etag"] == f'"{version + 1}"'
        timeline = (await office.lead.get(f"/v1/cases/{operation['case_id']}/timeline")).json()["entries"]
        said = {entry["type"]: entry for entry in timeline}
        assert said["operation.confirmed"]["sentence"] == "It was done by hand was confirmed (1 of 1)."
        assert said["operation.confirmed"]["actor"]["id"] == "lead-1"
        assert "effect.marked_done" in said

    async def test_the_same_answer_again_answers_the_same(self, office: Office):
        operation, key = await office.proposal(), uuid4().hex
        first = await answer(office.lead, operation, "confirm", key=key)
        again = await answer(office.lead, operation, "confirm", key=key)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json() == again.json()
        other = await answer(office.lead, operation, "confirm", SEEN, key=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    async def test_needs_a_key(self, office: Office):
        operation = await office.proposal()
        answered = await office.lead.http.post(f"/v1/operations/{operation['operation_id']}/confirm")
        assert (answered.status_code, answered.json()["code"]) == (400, "idempotency_key_missing")

    async def test_of_another_version_is_refused(self, office: Office):
        answered = await answer(office.lead, await office.proposal(), "confirm", If_Match='"1"')
        assert (answered.status_code, answered.json()["code"]) == (412, "version_stale")

    async def test_by_whoever_proposed_it_is_for_somebody_else(self, office: Office):
        operation = await office.proposal()
        both = office.person("senior-1", "senior_operator", "vendor_lead")
        answered = await answer(both, operation, "confirm")
        assert (answered.status_code, answered.json()["code"]) == (403, "four_eyes")

    async def test_of_what_the_case_left_behind_is_refused(self, office: Office):
        operation = await office.proposal()
        await office.operator.override(operation, "retry", step="screen_sanctions")
        answered = await answer(office.lead, operation, "confirm")
        assert (answered.status_code, answered.json()["code"]) == (409, "not_proposed")
        assert answered.json()["state"] == "screening"

    @pytest.mark.parametrize("body", [{"surprise": 1}, {"reason": ""}, {"reason": 7}, [], "yes"])
    async def test_with_a_wrong_body_changes_nothing(self, office: Office, body):
        operation = await office.proposal()
        before = await office.rows()
        answered = await answer(office.lead, operation, "confirm", body)
        assert (answered.status_code, answered.json()["code"]) == (422, "input_invalid")
        assert await office.rows() == before


class TestDeclining:
    async def test_has_an_outcome_at_once(self, office: Office):
        operation = await office.proposal()
        declined = await answer(office.lead, operation, "decline", SEEN)
        assert (declined.status_code, declined.json()["state"]) == (200, "declined")
        assert declined.json()["confirmations"]["declined"]["actor"]["id"] == "lead-1"
        assert declined.json()["finished_at"] is not None

    async def test_by_whoever_proposed_it_withdraws_it(self, office: Office):
        declined = await answer(office.senior, await office.proposal(), "decline", SEEN)
        assert declined.json()["state"] == "declined"

    @pytest.mark.parametrize("body", [None, {}, {"reason": None}, {"reason": "x"}])
    async def test_needs_a_reason(self, office: Office, body):
        declined = await answer(office.lead, await office.proposal(), "decline", body)
        assert (declined.status_code, declined.json()["code"]) == (422, "input_invalid")
