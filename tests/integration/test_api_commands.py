"""Commands over HTTP: what they answer, what they change, and what they leave alone."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.office import VENDOR, Office, new_key

GROUNDS = {"input": {"grounds": "The extract is too old."}}


class TestOpening:
    async def test_answers_the_case_where_it_is_and_its_version(self, office: Office):
        answer = await office.requester.open(business_key="K-1")
        assert answer.status_code == 201
        case = answer.json()
        assert (case["state"], case["business_key"], case["condition"]) == ("draft", "K-1", "waiting")
        assert answer.headers["location"] == f"/v1/cases/{case['case_id']}"
        assert answer.headers["etag"] == '"1"'
        assert answer.headers["cache-control"] == "no-store"
        read = await office.requester.get(answer.headers["location"])
        assert read.json() == case
        assert read.headers["etag"] == answer.headers["etag"]

    async def test_an_open_case_with_the_same_business_key_is_named(self, office: Office):
        case = await office.draft()
        answer = await office.requester.open(business_key=case["business_key"])
        assert (answer.status_code, answer.json()["code"]) == (409, "business_key_taken")
        assert answer.json()["href"] == f"/v1/cases/{case['case_id']}"

    async def test_a_closed_case_frees_the_business_key(self, office: Office):
        case = await office.draft()
        assert (await office.requester.take(case, "cancel")).status_code == 200
        assert (await office.requester.open(business_key=case["business_key"])).status_code == 201

    async def test_twenty_at_once_with_one_business_key_open_one_case(self, office: Office):
        business_key = new_key()
        answers = await asyncio.gather(*(office.requester.open(business_key=business_key) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19

    @pytest.mark.parametrize("key", ["", " ", "a" * 201, "a\nb", "\t", "a\x7fb", None, 7])
    async def test_a_business_key_is_something_people_can_read(self, office: Office, key):
        body = {"business_key": key, "subject": VENDOR}
        answer = await office.requester.command("/v1/vendor-onboarding", body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "business_key")


class TestTransitions:
    async def test_one_with_steps_is_accepted_and_one_without_is_done(self, office: Office):
        case = await office.in_review()
        changes = await office.reviewer.take(case, "request_changes", GROUNDS)
        assert (changes.status_code, changes.json()["state"]) == (200, "completed")
        case = await office.in_review()
        approved = await office.reviewer.take(case, "approve", {"reason": "Looks good"})
        operation = approved.json()
        assert (approved.status_code, operation["state"], operation["case_state"]) == (202, "accepted", "activating")
        assert [step["state"] for step in operation["steps"]] == ["pending"] * 3
        assert approved.headers["location"] == f"/v1/operations/{operation['operation_id']}"
        assert (await office.reviewer.get(approved.headers["location"])).json() == operation

    async def test_answers_the_version_that_the_case_has_now(self, office: Office):
        case = await office.draft()
        answer = await office.requester.take(case, "submit")
        assert answer.headers["etag"] == '"2"'
        assert (await office.requester.get(f"/v1/cases/{case['case_id']}")).headers["etag"] == '"2"'

    async def test_no_body_is_fine_where_nothing_is_asked(self, office: Office):
        case = await office.draft()
        path = f"/v1/vendor-onboarding/{case['case_id']}/submit"
        answer = await office.requester.http.post(path, headers={"Idempotency-Key": "no-body"})
        assert answer.status_code == 202

    @pytest.mark.parametrize("body", [{}, {"input": {}}, {"reason": None}, {"input": {}, "reason": "Because"}])
    async def test_every_form_of_nothing_is_the_same(self, office: Office, body):
        assert (await office.requester.take(await office.draft(), "submit", body)).status_code == 202

    async def test_underscores_in_the_address_work_too(self, office: Office):
        case = await office.in_review()
        path = f"/v1/vendor_onboarding/{case['case_id']}/request_changes"
        assert (await office.reviewer.command(path, GROUNDS)).status_code == 200
        answer = await office.operator.command(
            f"/v1/cases/{case['case_id']}/overrides/mark_done", {"reason": "Done by phone"}
        )
        assert answer.json()["code"] == "nothing_open"

    async def test_every_offered_action_is_accepted_at_its_address(self, office: Office):
        case = await office.in_review()
        offered = {a["name"]: a for a in (await office.reviewer.case(case))["actions"] if a["allowed"]}
        assert set(offered) == {"approve", "request_changes", "reject"}
        schema = (await office.reviewer.get(offered["reject"]["input_schema"])).json()
        answer = await office.reviewer.command(offered["reject"]["href"], schema["examples"][0])
        assert answer.status_code == 200

    async def test_what_is_not_offered_is_refused_with_the_same_reason(self, office: Office):
        case = await office.draft()
        for action in (await office.reviewer.case(case))["actions"]:
            if action["allowed"]:
                continue
            schema = (await office.reviewer.get(action["input_schema"])).json()
            answer = await office.reviewer.command(action["href"], schema["examples"][0])
            assert answer.json()["reasons"] == action["reasons"], action["name"]
            assert answer.json()["code"] == action["reasons"][0]["code"]
            assert (answer.json()["state"], answer.json()["version"]) == ("draft", 1)


Sent = tuple[str, dict[str, Any]]


async def an_opening(_office: Office) -> Sent:
    return "/v1/vendor-onboarding", {"business_key": new_key(), "subject": VENDOR}


async def an_override(office: Office) -> Sent:
    return f"/v1/cases/{(await office.draft())['case_id']}/overrides/pause", {"reason": "They are moving house"}


async def a_confirmation(office: Office) -> Sent:
    return f"/v1/operations/{(await office.proposal())['operation_id']}/confirm", {"reason": "I have seen both lists"}


async def a_run_over_many(office: Office) -> Sent:
    case = await office.in_review()
    await office.perform((await office.reviewer.take(case, "approve")).json(), rejected_at="open_payee")
    return "/v1/bulk", {"override": "retry", "reason": "The bank mended it", "case_ids": [case["case_id"]]}


async def a_pause(_office: Office) -> Sent:
    return "/v1/pauses", {"process": "parcel-return", "reason": "They are moving house"}


async def a_delegation(_office: Office) -> Sent:
    until = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    return "/v1/delegations", {"to": "nils", "roles": ["vendor_lead"], "until": until, "reason": "On leave"}


async def a_dismissal(office: Office) -> Sent:
    event_id = await office.park_a_callback("registry")
    return "/v1/callbacks/dismiss", {"partner": "registry", "event_id": event_id, "reason": "Not ours"}


KINDS = {
    each.__name__: each
    for each in (an_opening, an_override, a_confirmation, a_run_over_many, a_pause, a_delegation, a_dismissal)
}


class TestIdempotency:
    async def test_fifty_at_once_are_one_case_and_one_answer(self, office: Office):
        before = await office.rows()
        business_key, key = new_key(), uuid4().hex
        answers = await asyncio.gather(*(office.requester.open(business_key, key=key) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        after = await office.rows()
        assert (after["cases"] - before["cases"], after["operations"] - before["operations"]) == (1, 1)

    async def test_the_same_command_later_answers_the_operations_present_form(self, office: Office):
        case, key = await office.draft(), uuid4().hex
        first = await office.requester.take(case, "submit", key=key)
        assert first.status_code == 202
        await office.perform(first.json(), to_state="in_review")
        again = await office.requester.take(case, "submit", key=key)
        assert (again.status_code, again.json()["state"]) == (200, "completed")
        assert again.json()["operation_id"] == first.json()["operation_id"]
        assert [step["state"] for step in again.json()["steps"]] == ["succeeded"] * 3

    async def test_it_is_found_before_if_match_and_policy_are_asked(self, office: Office):
        case, key = await office.draft(), uuid4().hex
        first = await office.requester.take(case, "submit", key=key, If_Match='"1"')
        again = await office.requester.take(case, "submit", key=key, If_Match='"1"')
        assert (again.status_code, again.json()["operation_id"]) == (202, first.json()["operation_id"])

    async def test_other_content_under_the_key_is_refused(self, office: Office):
        key = uuid4().hex
        await office.requester.open(key=key)
        answer = await office.requester.open(key=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    async def test_the_key_is_the_actors_own(self, office: Office):
        key, other = uuid4().hex, office.person("requester-2", "vendor_requester")
        cases = {(await person.open(key=key)).json()["case_id"] for person in (office.requester, other)}
        assert len(cases) == 2

    @pytest.mark.parametrize(("first", "later"), list(permutations(KINDS, 2)))
    async def test_a_key_stands_for_one_command_of_whatever_kind(self, office: Office, first: str, later: str):
        key, roles = uuid4().hex, ("vendor_requester", "vendor_lead", "operator", "senior_operator")
        somebody = office.person(f"olga-{key}", *roles)
        sent = await somebody.command(*await KINDS[first](office), key=key)
        assert sent.status_code < 300, sent.text
        path, body = await KINDS[later](office)
        before = await office.rows()
        answer = await somebody.command(path, body, key=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert await office.rows() == before

    async def test_a_refusal_binds_no_key(self, office: Office):
        case, key = await office.draft(), uuid4().hex
        assert (await office.reviewer.take(case, "reject", GROUNDS, key=key)).status_code == 409
        other = await office.in_review()
        assert (await office.reviewer.take(other, "reject", GROUNDS, key=key)).status_code == 200

    async def test_without_a_key_nothing_is_done(self, office: Office):
        answer = await office.requester.http.post("/v1/vendor-onboarding", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")

    @pytest.mark.parametrize("key", ["", "a b", "a" * 201, "ä".encode(), "a\tb"])
    async def test_a_key_is_visible_ascii(self, office: Office, key):
        headers = {"Idempotency-Key": key}
        answer = await office.requester.http.post("/v1/vendor-onboarding", json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")

    async def test_two_keys_are_no_key(self, office: Office):
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        answer = await office.requester.http.post("/v1/vendor-onboarding", json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")


class TestIfMatch:
    async def test_a_stale_version_is_refused_with_the_present_one(self, office: Office):
        case = await office.in_review()
        now = case["version"]
        answer = await office.reviewer.take(case, "reject", GROUNDS, If_Match=f'"{now - 1}"')
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (412, "version_stale")
        assert (answer.headers["etag"], problem["state"], problem["version"]) == (f'"{now}"', "in_review", now)

    @pytest.mark.parametrize("sent", ['"{now}"', "*", '"0", "{now}"', '"abc","{now}" , W/"3"'])
    async def test_the_present_version_is_let_through(self, office: Office, sent):
        case = await office.in_review()
        sent = sent.format(now=case["version"])
        assert (await office.reviewer.take(case, "reject", GROUNDS, If_Match=sent)).status_code == 200

    @pytest.mark.parametrize("sent", ['W/"{now}"', '"abc"', '"{now}0"', '""'])
    async def test_any_other_tag_matches_nothing(self, office: Office, sent):
        case = await office.draft()
        sent = sent.format(now=case["version"])
        assert (await office.requester.take(case, "submit", If_Match=sent)).status_code == 412

    @pytest.mark.parametrize("sent", ["7", '"7', "", '"7" "8"', '*, "7"', "W/7"])
    async def test_what_is_no_tag_is_refused(self, office: Office, sent):
        answer = await office.requester.take(await office.draft(), "submit", If_Match=sent)
        assert (answer.status_code, answer.json()["code"]) == (400, "if_match_malformed")


class TestTwoAtOnce:
    async def test_of_fifty_approvals_and_rejections_one_wins(self, office: Office, dice):
        case = await office.in_review()
        reviewers = [office.person(f"reviewer-{number % 10}", "vendor_reviewer") for number in range(50)]
        moves = [("approve", None), ("reject", GROUNDS)] * 25
        dice.shuffle(moves)
        answers = await asyncio.gather(
            *(person.take(case, *move) for person, move in zip(reviewers, moves, strict=True))
        )
        won = [answer for answer in answers if answer.is_success]
        assert len(won) == 1
        assert {answer.status_code for answer in answers if not answer.is_success} == {409}
        assert {a.json()["code"] for a in answers if not a.is_success} <= {"operation_in_flight", "wrong_state"}
        now = await office.reviewer.case(case)
        assert now["state"] == {"approve": "activating", "reject": "rejected"}[won[0].json()["name"]]
        assert now["version"] == case["version"] + 1

    async def test_with_if_match_the_second_is_told_that_it_is_stale(self, office: Office):
        case = await office.in_review()
        tag = f'"{case["version"]}"'
        answers = await asyncio.gather(
            office.reviewer.take(case, "approve", If_Match=tag),
            office.person("reviewer-2", "vendor_reviewer").take(case, "reject", GROUNDS, If_Match=tag),
        )
        assert sorted(answer.status_code for answer in answers)[1] == 412


class TestOverrides:
    async def test_a_blocked_step_can_be_marked_as_done(self, office: Office):
        case = await office.draft()
        submitted = (await office.requester.take(case, "submit")).json()
        await office.perform(submitted, rejected_at="check_tax_id")
        blocked = await office.operator.case(case)
        assert (blocked["condition"], blocked["condition_info"]["recovery_owner"]) == ("blocked", "vendor_desk")
        wrong = await office.operator.override(case, "mark_done", result={"registered": "maybe"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "result.registered")
        done = await office.operator.override(case, "mark_done", result={"registered": True})
        assert (done.status_code, done.json()["step"]) == (202, "check_tax_id")

    async def test_stopping_everything_is_for_seniors(self, office: Office):
        case = await office.draft()
        assert (await office.operator.override(case, "force_cancel")).status_code == 403
        answer = await office.senior.override(case, "force_cancel")
        assert (answer.status_code, answer.json()["to_state"]) == (200, "cancelled")

    async def test_a_reason_is_required(self, office: Office):
        case = await office.draft()
        answer = await office.senior.command(f"/v1/cases/{case['case_id']}/overrides/force-cancel", {})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "reason")


class TestWaiting:
    async def test_the_answer_comes_with_the_outcome(self, office: Office):
        case = await office.draft()
        waiting = asyncio.create_task(office.requester.take(case, "submit", Prefer="wait=60"))
        operation = await in_flight(office, case)
        await office.perform(operation, to_state="in_review")
        answer = await waiting
        assert (answer.status_code, answer.json()["to_state"]) == (200, "in_review")
        assert answer.headers["preference-applied"] == "wait=60"
        assert answer.headers["etag"] == f'"{(await office.requester.case(case))["version"]}"'

    async def test_nobody_waits_for_what_is_blocked(self, office: Office):
        case = await office.draft()
        waiting = asyncio.create_task(office.requester.take(case, "submit", Prefer="wait=60"))
        await office.perform(await in_flight(office, case), rejected_at="screen_sanctions")
        answer = await waiting
        assert (answer.status_code, answer.json()["recovery_owner"]) == (202, "compliance")

    async def test_when_the_time_is_over_it_is_only_accepted(self, office: Office):
        case = await office.draft()
        began = time.monotonic()
        answer = await office.requester.take(case, "submit", Prefer="respond-async, wait=1")
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
        assert 1 <= time.monotonic() - began < 30

    async def test_what_is_done_at_once_waits_for_nothing(self, office: Office):
        answer = await office.requester.take(await office.draft(), "cancel", Prefer="wait=900")
        assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=60")

    @pytest.mark.parametrize("prefer", ["wait", "wait=soon", "wait=-1", "nowait=9", "", "return=minimal"])
    async def test_a_preference_nobody_understands_is_none(self, office: Office, prefer):
        answer = await office.requester.take(await office.draft(), "submit", Prefer=prefer)
        assert answer.status_code == 202
        assert "preference-applied" not in answer.headers


async def in_flight(office: Office, case: dict) -> dict:
    async with asyncio.timeout(60):
        while (operation := (await office.requester.case(case))["operation"]) is None:
            await asyncio.sleep(0.01)
        return operation


class TestRefusals:
    async def test_no_refusal_changes_anything(self, office: Office):
        case = await office.draft()
        wrong = office.person("nobody", "vendor_reviewer")
        before = await office.rows()
        refused = [
            await wrong.open(),
            await office.requester.open(business_key=case["business_key"]),
            await wrong.take(case, "submit"),
            await office.requester.take(case, "submit", If_Match='"9"'),
            await office.requester.take(case, "submit", {"input": {"x": 1}}),
            await office.reviewer.take(case, "reject", GROUNDS),
            await office.operator.override(case, "retry"),
            await office.operator.override(case, "force_cancel"),
            await office.requester.take({**case, "case_id": str(uuid4())}, "submit"),
            await office.requester.take({**case, "process": "parcel_return"}, "refund"),
            await office.bearing(None).open(),
        ]
        assert [answer.status_code for answer in refused] == [403, 409, 403, 412, 422, 409, 409, 403, 404, 404, 401]
        assert await office.rows() == before
