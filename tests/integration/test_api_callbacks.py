"""Callbacks by HTTP: who is believed, what is stored, and what is answered to whom."""

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import select
from starlette.datastructures import Headers

from api.errors import SignatureInvalid
from api.webhooks import Signatures
from caseward.activity import Call, EffectRunner
from caseward.cases.callbacks import waiting_for
from caseward.db.tables import Callback, Effect, Message
from caseward.errors import PartnerAcknowledged
from caseward.messages import StepCall
from caseward.partner import Sending, offers
from dev.sandbox.callbacks import master_secret, signed_headers
from processes.vendor_onboarding import CHECK_TAX_ID, VENDOR_ONBOARDING, TaxIdCheck
from tests.integration.desk import all_at_once
from tests.integration.office import CALLBACK_SECRET, CATALOGUE, PREVIOUS_SECRET, Office

PATH = "/v1/partners/registry/callbacks"


class Registry:
    """The registry, which takes everything and answers later."""

    name = "registry"

    @offers("check_tax_id", deadline=timedelta(seconds=5), idempotent=True)
    async def check_tax_id(self, sending: Sending) -> dict[str, bool]:
        raise PartnerAcknowledged("acknowledged", "Later.")

    async def probe(self, sending: Sending, call: str) -> None: ...


async def check(call: Call) -> TaxIdCheck:
    found = await call.send(Registry().check_tax_id)
    return TaxIdCheck(registered=found["registered"], name_matches=True)


class Desk:
    """A case whose tax id is to be checked, and the registry's own pen."""

    def __init__(self, office: Office, case: dict, call: StepCall) -> None:
        self.office, self.case, self.call = office, case, call
        self.http = httpx2.AsyncClient(base_url=office.url, trust_env=False, timeout=30)

    async def begin(self) -> None:
        """The step begins, and the registry acknowledges: it will call back."""
        answer = await EffectRunner(self.office.database, CATALOGUE).run(VENDOR_ONBOARDING, check, self.call)
        assert answer.state == "waiting"

    def event(self, **changes) -> dict:
        news = {
            "event_id": f"evt_{uuid4().hex}",
            "partner": "registry",
            "call": "check_tax_id",
            "key": self.call.effect_key,
            "outcome": "succeeded",
            "answer": {"registered": True},
            "error": None,
        }
        return {**news, **changes}

    async def post(self, body, *, master: str = CALLBACK_SECRET, partner: str = "registry", **how) -> httpx2.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        event_id = how.get("event_id") or (body.get("event_id", "evt") if isinstance(body, dict) else "evt")
        secret = hmac.digest(master.encode(), f"caseward-callback:{how.get('signs_as', partner)}".encode(), "sha256")
        headers = signed_headers(secret, event_id, raw, now=time.time() + how.get("later", 0))
        headers |= how.get("headers", {})
        for name in how.get("without", ()):
            del headers[name]
        content = how.get("sent", raw)
        return await self.http.post(f"/v1/partners/{partner}/callbacks", content=content, headers=headers)

    async def stored(self) -> list[Callback]:
        async with self.office.database.transaction() as session:
            wanted = select(Callback).where(Callback.effect_key == self.call.effect_key)
            return list(await session.scalars(wanted))

    async def promised(self) -> list[Message]:
        async with self.office.database.transaction() as session:
            wanted = select(Message).where(
                Message.case_id == UUID(self.case["case_id"]), Message.destination == "callbacks"
            )
            return list(await session.scalars(wanted))


@pytest_asyncio.fixture(loop_scope="session")
async def submitted(office: Office):
    """The case was submitted; the registry was not asked yet."""
    case = await office.draft()
    operation = (await office.requester.take(case, "submit")).json()
    call = StepCall(
        *("vendor_onboarding", case["case_id"], operation["operation_id"], 2, CHECK_TAX_ID.name),
        f"{operation['operation_id']}:{CHECK_TAX_ID.name}",
    )
    desk = Desk(office, case, call)
    yield desk
    await desk.http.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def desk(submitted: Desk):
    """The registry has acknowledged the check."""
    await submitted.begin()
    return submitted


def problem(answer: httpx2.Response, status: int, code: str) -> dict:
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), document
    assert answer.headers["content-type"] == "application/problem+json"
    return document


class TestASignedCallback:
    async def test_is_stored_with_its_promise_before_it_is_answered(self, desk: Desk):
        event = desk.event()
        answer = await desk.post(event)
        assert (answer.status_code, answer.json()) == (200, {"event_id": event["event_id"], "duplicate": False})
        assert [row.answer for row in await desk.stored()] == [{"registered": True}]
        assert len(await desk.promised()) == 1
        entries = (await desk.office.operator.get(f"/v1/cases/{desk.case['case_id']}/timeline")).json()["entries"]
        assert entries[-1]["sentence"] == "Check the tax id: registry called back: succeeded."

    async def test_is_taken_in_by_the_steps_own_body(self, desk: Desk):
        await desk.post(desk.event())
        runner = EffectRunner(desk.office.database, CATALOGUE)
        answer = await runner.run(VENDOR_ONBOARDING, check, desk.call)
        if answer.state == "waiting":  # not due yet: the outbox brings it
            runner.learn(VENDOR_ONBOARDING, CHECK_TAX_ID.name, check)
            [row] = await desk.stored()
            await runner.hear(UUID(desk.case["case_id"]), partner="registry", event_id=row.event_id)
            answer = await runner.run(VENDOR_ONBOARDING, check, desk.call)
        assert (answer.state, answer.result) == ("settled", {"registered": True, "name_matches": True})

    async def test_again_is_answered_alike_and_changes_nothing(self, desk: Desk):
        event = desk.event()
        await desk.post(event)
        before = await desk.office.rows()
        answer = await desk.post(event)
        assert (answer.status_code, answer.json()["duplicate"]) == (200, True)
        assert await desk.office.rows() == before

    async def test_many_times_at_once_is_stored_once(self, desk: Desk):
        event = desk.event()
        answers = await all_at_once(*[desk.post(event) for _ in range(20)])
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 19
        assert (len(await desk.stored()), len(await desk.promised())) == (1, 1)

    async def test_needs_no_token_and_none_helps(self, desk: Desk):
        token = desk.office.senior.headers
        assert (await desk.post(desk.event(), headers=token)).status_code == 200
        answer = await desk.http.post(PATH, json=desk.event(), headers=token)
        problem(answer, 401, "signature_invalid")
        assert (await desk.http.get(PATH)).status_code == 401
        assert (await desk.http.get(PATH, headers=token)).status_code == 405
        assert (await desk.http.post(PATH + "/more", json={})).status_code == 401

    async def test_may_carry_what_we_do_not_know(self, desk: Desk):
        assert (await desk.post(desk.event(version=2, more={"of": "it"}))).status_code == 200

    async def test_of_a_refusal_keeps_the_partners_words_within_bounds(self, desk: Desk):
        error = {"code": "c" * 900 + "\n", "message": "No.\u202e" + "m" * 900}
        assert (await desk.post(desk.event(outcome="failed", answer=None, error=error))).status_code == 200
        [row] = await desk.stored()
        assert (len(row.error["code"]), len(row.error["message"])) == (64, 500)
        assert row.error["message"].startswith("No.m")


class TestSignatures:
    @pytest.mark.parametrize(
        "how",
        [
            {"sent": b"{}"},
            {"master": "another secret"},
            {"signs_as": "bank"},
            {"later": 330},
            {"later": -301},
            {"without": ["webhook-signature"]},
            {"without": ["webhook-timestamp"]},
            {"without": ["webhook-id"]},
            {"headers": {"webhook-signature": ""}},
            {"headers": {"webhook-signature": "v1,"}},
            {"headers": {"webhook-signature": "v1"}},
            {"headers": {"webhook-signature": "v1,not base64!"}},
            {"headers": {"webhook-id": "evt_of_somebody_else"}},
            {"headers": {"webhook-timestamp": "soon"}},
            {"headers": {"webhook-timestamp": "9" * 40}},
            {"headers": {"webhook-timestamp": "-1"}},
            {"headers": {"webhook-timestamp": "1e9"}},
            {"headers": {"webhook-id": "x" * 5000}},
        ],
        ids=repr,
    )
    async def test_that_do_not_fit_are_refused_and_nothing_is_stored(self, desk: Desk, how):
        before = await desk.office.rows()
        refused = problem(await desk.post(desk.event(), **how), 401, "signature_invalid")
        assert CALLBACK_SECRET not in json.dumps(refused)
        assert await desk.office.rows() == before

    @pytest.mark.parametrize("place", range(8))
    async def test_a_changed_byte_anywhere_does_not_fit(self, desk: Desk, place: int):
        raw = bytearray(json.dumps(desk.event()).encode())
        at = place * (len(raw) - 1) // 7
        raw[at] ^= 1
        problem(await desk.post(desk.event(), sent=bytes(raw)), 401, "signature_invalid")

    async def test_of_another_version_are_no_signatures(self, desk: Desk):
        event = desk.event()
        raw = json.dumps(event).encode()
        secret = hmac.digest(CALLBACK_SECRET.encode(), b"caseward-callback:registry", "sha256")
        good = signed_headers(secret, event["event_id"], raw, now=time.time())["webhook-signature"]
        answer = await desk.post(event, headers={"webhook-signature": good.replace("v1,", "v1a,")})
        problem(answer, 401, "signature_invalid")

    async def test_twice_the_same_header_is_none(self, desk: Desk):
        event = desk.event()
        raw = json.dumps(event).encode()
        secret = hmac.digest(CALLBACK_SECRET.encode(), b"caseward-callback:registry", "sha256")
        headers = list(signed_headers(secret, event["event_id"], raw, now=time.time()).items())
        answer = await desk.http.post(PATH, content=raw, headers=[*headers, ("webhook-id", event["event_id"])])
        problem(answer, 401, "signature_invalid")

    @pytest.mark.parametrize("later", [270, -270])
    async def test_clocks_may_differ_by_minutes(self, desk: Desk, later: int):
        assert (await desk.post(desk.event(), later=later)).status_code == 200

    async def test_by_the_previous_secret_are_good_while_partners_change_over(self, desk: Desk):
        assert (await desk.post(desk.event(), master=PREVIOUS_SECRET)).status_code == 200

    async def test_one_of_several_is_enough(self, desk: Desk):
        event = desk.event()
        raw, stamp = json.dumps(event).encode(), str(int(time.time()))
        given = []
        for master in ("an older one", CALLBACK_SECRET):
            secret = hmac.digest(master.encode(), b"caseward-callback:registry", "sha256")
            signed = hmac.digest(secret, f"{event['event_id']}.{stamp}.".encode() + raw, hashlib.sha256)
            given.append("v1," + base64.b64encode(signed).decode())
        for together in (given, given[::-1]):
            headers = {"webhook-timestamp": stamp, "webhook-signature": " ".join(together)}
            assert (await desk.post(event, headers=headers)).status_code == 200

    async def test_of_a_partner_nobody_works_with_are_not_even_looked_at(self, desk: Desk):
        problem(await desk.post(desk.event(), partner="nobody"), 404, "partner_not_found")

    def test_come_from_the_sandboxs_file_where_none_is_configured_and_fail_closed_without(self, tmp_path: Path):
        file = tmp_path / "callback-secret"
        signatures, secret = Signatures(file=file), None
        headers = Headers({"webhook-id": "e", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"})
        with pytest.raises(SignatureInvalid):
            signatures.check_body(headers, b"{}", partner="bank")
        secret = hmac.digest(master_secret(tmp_path, None), b"caseward-callback:bank", "sha256")
        good = Headers(signed_headers(secret, "e", b"{}", now=1))
        signatures.check_body(good, b"{}", partner="bank")
        with pytest.raises(SignatureInvalid):
            Signatures().check_body(good, b"{}", partner="bank")


class TestWhatIsMalformed:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b"", "body"),
            (b"{", "body"),
            (b"[]", ""),
            (b"nonsense", "body"),
            (b"\xff\xfe", "body"),
            (b'{"a": NaN}', "body"),
            (b"[" * 5000, "body"),
            (b'{"event_id": "evt", "key": "a\\u0000b", "outcome": "succeeded"}', "body"),
            (b'{"event_id": "evt", "key": "a", "outcome": "perhaps"}', "outcome"),
            (b'{"event_id": "evt", "outcome": "succeeded"}', "key"),
            (b'{"event_id": "evt", "key": "", "outcome": "succeeded"}', "key"),
            (b'{"event_id": "evt", "key": 7, "outcome": "succeeded"}', "key"),
            (b'{"event_id": "another", "key": "a", "outcome": "succeeded"}', "event_id"),
            (b'{"event_id": "evt", "partner": "bank", "key": "a", "outcome": "succeeded"}', "partner"),
            (b'{"event_id": "evt", "key": "a", "outcome": "succeeded", "answer": 7}', "answer"),
        ],
        ids=repr,
    )
    async def test_is_refused_though_well_signed(self, desk: Desk, body: bytes, field: str):
        before = await desk.office.rows()
        refused = problem(await desk.post(body), 422, "input_invalid")
        assert [error["field"] for error in refused["errors"]] == [field]
        assert await desk.office.rows() == before

    @pytest.mark.parametrize("announced", [True, False])
    async def test_what_is_too_large_is_not_read_to_its_end(self, desk: Desk, announced):
        raw = json.dumps(desk.event(answer={"much": "x" * 300_000})).encode()

        async def piecemeal():
            for at in range(0, len(raw), 65536):
                yield raw[at : at + 65536]

        answer = await desk.post(raw, sent=raw if announced else piecemeal())
        problem(answer, 413, "body_too_large")
        assert await desk.stored() == []


class TestParked:
    async def test_what_nothing_here_knows_is_stored_answered_and_shown(self, desk: Desk):
        event = desk.event(key=f"unknown-{uuid4()}")
        assert (await desk.post(event)).status_code == 200
        shown = (await desk.office.operator.get("/v1/callbacks?parked=true")).json()["callbacks"]
        [row] = [row for row in shown if row["event_id"] == event["event_id"]]
        assert (row["partner"], row["effect_key"], row["parked"]) == ("registry", event["key"], True)
        assert (row["case_id"], row["answer"]) == (None, {"registered": True})

    async def test_what_belongs_to_another_partners_effect_is_parked_too(self, desk: Desk):
        event = desk.event(partner="bank")
        assert (await desk.post(event, partner="bank")).status_code == 200
        assert [row.parked for row in await desk.stored()] == [True]
        assert await desk.promised() == []

    async def test_what_waits_to_be_taken_in_is_shown_apart(self, desk: Desk):
        event = desk.event()
        await desk.post(event)
        waiting = (await desk.office.operator.get("/v1/callbacks?parked=false")).json()["callbacks"]
        assert event["event_id"] in [row["event_id"] for row in waiting]
        parked = (await desk.office.operator.get("/v1/callbacks")).json()["callbacks"]
        assert event["event_id"] not in [row["event_id"] for row in parked]

    async def test_is_for_operators_and_auditors(self, desk: Desk):
        assert (await desk.office.person("auditor-1", "auditor").get("/v1/callbacks")).status_code == 200
        problem(await desk.office.requester.get("/v1/callbacks"), 403, "role_missing")


class TestDismissing:
    """What belongs to no case has no timeline: who gave it up, when and why, stands with the callback itself."""

    PATH = "/v1/callbacks/dismiss"

    @staticmethod
    async def parked(desk: Desk, **how) -> dict[str, dict]:
        listed = await desk.office.operator.get("/v1/callbacks" + "".join(f"?{name}=true" for name in how))
        return {row["event_id"]: row for row in listed.json()["callbacks"]}

    async def test_takes_it_off_the_list_and_says_who_when_and_why(self, desk: Desk):
        event = desk.event(event_id=f"evt /..?# {uuid4()}", key="staging:1")  # ids are the partner's own
        await desk.post(event)
        assert (await self.parked(desk))[event["event_id"]]["dismissed"] is None
        body = {"partner": "registry", "event_id": event["event_id"], "reason": "Their test system, ticket 4711"}
        answer = await desk.office.operator.command(self.PATH, body)
        assert answer.status_code == 200, answer.text
        said = answer.json()["dismissed"]
        assert (said["by"]["id"], said["by"]["role"], said["by"]["via"]) == ("operator-1", "operator", "api")
        assert said["reason"] == body["reason"]
        assert said["at"] >= answer.json()["received_at"]
        assert event["event_id"] not in await self.parked(desk)
        assert (await self.parked(desk, dismissed=True))[event["event_id"]] == answer.json()
        waiting = (await desk.office.operator.get("/v1/callbacks?parked=false")).json()["callbacks"]
        assert event["event_id"] not in [row["event_id"] for row in waiting]
        assert (await desk.post(event)).json()["duplicate"] is True
        assert event["event_id"] not in await self.parked(desk)

    async def test_is_one_command_however_often_it_is_sent(self, desk: Desk):
        event_id, key = await desk.office.park_a_callback("registry"), uuid4().hex
        body = {"partner": "registry", "event_id": event_id, "reason": "Not ours"}
        answers = await all_at_once(*[desk.office.operator.command(self.PATH, body, key=key) for _ in range(5)])
        assert [answer.status_code for answer in answers] == [200] * 5
        assert len({answer.text for answer in answers}) == 1
        other = await desk.office.operator.command(self.PATH, {**body, "reason": "Never ours"}, key=key)
        problem(other, 422, "idempotency_key_reused")
        problem(await desk.office.senior.command(self.PATH, body), 409, "already_dismissed")
        problem(await desk.office.operator.http.post(self.PATH, json=body), 400, "idempotency_key_missing")

    async def test_takes_an_operator_and_a_reason(self, desk: Desk):
        event_id = await desk.office.park_a_callback("registry")
        body = {"partner": "registry", "event_id": event_id, "reason": "Not ours"}
        for person in (desk.office.person("auditor-1", "auditor"), desk.office.requester):
            problem(await person.command(self.PATH, body), 403, "role_missing")
        for wrong in ({**body, "reason": ""}, {**body, "reason": None}, {"reason": "Not ours"}):
            assert (await desk.office.operator.command(self.PATH, wrong)).status_code == 422
        problem(await desk.office.operator.command(self.PATH, {**body, "partner": "bank"}), 404, "callback_not_found")
        assert event_id in await self.parked(desk)

    async def test_of_news_that_a_case_waits_for_is_refused(self, desk: Desk):
        """Neither what is to be taken in, nor what was parked while its process was not declared."""
        waiting = desk.event()
        await desk.post(waiting)
        body = {"partner": "registry", "event_id": waiting["event_id"], "reason": "Not ours"}
        problem(await desk.office.operator.command(self.PATH, body), 404, "callback_not_found")
        async with desk.office.database.transaction() as session:
            row = await session.get_one(Callback, ("registry", waiting["event_id"]))
            row.parked, row.case_id = True, None
        problem(await desk.office.operator.command(self.PATH, body), 409, "callback_needed")
        assert waiting["event_id"] in await self.parked(desk)
        promised = len(await desk.promised())
        assert (await desk.post(waiting)).json()["duplicate"] is False  # sent again: now somebody knows it
        assert waiting["event_id"] not in await self.parked(desk)
        assert len(await desk.promised()) == promised + 1
        assert (await desk.post(waiting)).json()["duplicate"] is True

    async def test_is_not_gone_around_by_the_same_event_under_the_key_of_a_case(self, desk: Desk):
        foreign = desk.event(key="staging:2")
        await desk.post(foreign)
        answer = await desk.post({**desk.event(), "event_id": foreign["event_id"]})
        assert answer.json()["duplicate"] is True
        assert (await self.parked(desk))[foreign["event_id"]]["effect_key"] == "staging:2"
        assert await desk.promised() == []

    async def test_keeps_it_from_no_step_that_begins_here_later(self, submitted: Desk):
        """As after a restore: we no longer know that the registry was asked, and ask it again under the same key."""
        desk, event = submitted, submitted.event()
        await desk.post(event)
        command = (self.PATH, {"partner": "registry", "event_id": event["event_id"], "reason": "No step has this key"})
        key = uuid4().hex
        given_up = (await desk.office.operator.command(*command, key=key)).json()["dismissed"]
        assert (await desk.post(event)).json()["duplicate"] is True, "still nothing here knows its key"

        await desk.begin()
        async with desk.office.database.transaction() as session:
            assert await waiting_for(session, desk.call.effect_key) == [], "what was given up is not its answer"

        assert (await desk.post(event)).json()["duplicate"] is False, "the registry sends it again: now it is news"
        runner = EffectRunner(desk.office.database, CATALOGUE)
        runner.learn(VENDOR_ONBOARDING, CHECK_TAX_ID.name, check)
        [promise] = await desk.promised()
        await runner.hear(promise.case_id, **promise.payload)
        answer = await runner.run(VENDOR_ONBOARDING, check, desk.call)
        assert (answer.state, answer.result) == ("settled", {"registered": True, "name_matches": True})

        told = (await self.parked(desk, dismissed=True))[event["event_id"]]
        assert (told["case_id"], told["parked"]) == (desk.case["case_id"], False)
        assert told["used_at"] > given_up["at"]
        assert told["dismissed"] == given_up, "who gave it up, when and why, stays with it"
        assert (await desk.office.operator.command(*command, key=key)).json() == told, "the same command: done before"
        assert (await desk.post(event)).json()["duplicate"] is True

    async def test_of_news_that_came_after_all_was_settled_is_taken(self, desk: Desk):
        event = desk.event()
        await desk.post(event)
        async with desk.office.database.transaction() as session:
            row = await session.get_one(Callback, ("registry", event["event_id"]))
            row.parked, row.case_id = True, None
            effect = await session.get_one(Effect, desk.call.effect_key)
            effect.state = "settled"
        body = {"partner": "registry", "event_id": event["event_id"], "reason": "It was said by hand, ticket 4711"}
        assert (await desk.office.operator.command(self.PATH, body)).status_code == 200
        assert event["event_id"] not in await self.parked(desk)

    async def test_what_names_anothers_effect_never_becomes_that_effects_answer(self, desk: Desk):
        event = desk.event(partner="bank")
        await desk.post(event, partner="bank")
        body = {"partner": "bank", "event_id": event["event_id"], "reason": "Signed by mistake"}
        assert (await desk.office.operator.command(self.PATH, body)).status_code == 200
        async with desk.office.database.transaction() as session:
            assert await waiting_for(session, desk.call.effect_key) == []
