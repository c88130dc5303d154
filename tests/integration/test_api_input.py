"""Bad input: a clear problem document with a stable code, never an accident, never what was sent, and no change."""

import asyncio
import json
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from api.front import MAX_BODY
from tests.integration.office import VENDOR, Office

OPEN = "/v1/vendor-onboarding"
CANARY = "canary-4711"


def vendor(**changed) -> dict:
    return {"business_key": uuid4().hex, "subject": {**VENDOR, **changed}}


def problem_of(answer, status: int, code: str) -> dict:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:caseward:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert len(problem["trace_id"]) == 32
    return problem


async def send(office: Office, content: bytes, content_type: str | None = "application/json", path: str = OPEN):
    headers = {"Idempotency-Key": uuid4().hex, **({"Content-Type": content_type} if content_type else {})}
    return await office.requester.http.post(path, content=content, headers=headers)


class TestNotJson:
    @pytest.mark.parametrize(
        "content",
        [
            b"{",
            b'{"business_key": "a",}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
            b'{"business_key": ' + b"9" * 5000 + b"}",
        ],
        ids=["cut off", "comma", "no utf-8", "deep list", "deep object", "huge number"],
    )
    async def test_is_told_as_such(self, office: Office, content):
        problem_of(await send(office, content), 400, "malformed_json")

    @pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
    async def test_another_media_type_is_told_what_to_send(self, office: Office, content_type):
        answer = await send(office, json.dumps(vendor()).encode(), content_type)
        problem = problem_of(answer, 422, "input_invalid")
        assert "application/json" in problem["detail"]

    async def test_json_by_another_name_is_json(self, office: Office):
        assert (await send(office, json.dumps(vendor()).encode(), "application/vnd.x+json")).status_code == 201


class TestWrongFields:
    @pytest.mark.parametrize(
        ("field", "body"),
        [
            ("business_key", {"subject": VENDOR}),
            ("subject", {"business_key": "a"}),
            ("body", []),
            ("body", "text"),
            ("body", None),
            ("body", 7),
            ("subject", {"business_key": "a", "subject": []}),
            ("subject.country", vendor(country="germany")),
            ("subject.country", vendor(country="XX")),
            ("subject.tax_id", vendor(tax_id=CANARY)),
            ("subject.bank_account.iban", vendor(bank_account={"iban": "DE00370400440532013000", "holder": "N"})),
            ("subject.contacts", vendor(contacts=[])),
            ("subject.contacts.0.email", vendor(contacts=[{"name": "A", "email": "nobody"}])),
            ("subject.legal_name", vendor(legal_name="a" * 201)),
            ("subject.documents", vendor(documents=[{"title": "a", "reference": "b"}] * 51)),
        ],
    )
    async def test_are_named(self, office: Office, field, body):
        problem = problem_of(await office.requester.command(OPEN, body), 422, "input_invalid")
        assert problem["errors"][0]["field"] == field
        assert CANARY not in json.dumps(problem)

    @pytest.mark.parametrize("name", ["state", "version", "case_id", "created_by", "fence", "__proto__"])
    async def test_nobody_sets_what_is_the_servers(self, office: Office, name):
        for body in ({**vendor(), name: 1}, vendor(**{name: 1})):
            problem_of(await office.requester.command(OPEN, body), 422, "input_invalid")

    async def test_what_was_sent_is_not_repeated(self, office: Office):
        body = {**vendor(legal_name={"a": CANARY}, country=CANARY), "unknown": CANARY}
        answer = await office.requester.command(OPEN, body)
        assert CANARY not in problem_of(answer, 422, "input_invalid")["detail"]
        assert CANARY not in answer.text


UNSTORABLE = {
    "zero": b'"a\\u0000b"',
    "half a pair": b'"\\ud800"',
    "other half": b'"\\udfff and more"',
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "too large": b"1e999",
    "deep": b'{"a":' * 100 + b"1" + b"}" * 100,
}


class TestUnstorable:
    """JSON can say it, Postgres can't keep it."""

    @pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE.keys())
    async def test_values_are_refused_wherever_they_stand(self, office: Office, value):
        case = await office.draft()
        places = {
            OPEN: b'{"business_key": %b, "subject": {}}',
            f"{OPEN}/{case['case_id']}/reject": b'{"input": {"grounds": %b}}',
            f"{OPEN}/{case['case_id']}/submit": b'{"reason": %b}',
            f"/v1/cases/{case['case_id']}/overrides/retry": b'{"reason": "Because", "step": %b}',
            f"/v1/cases/{case['case_id']}/overrides/mark-done": b'{"reason": "Because", "result": {"x": [%b]}}',
        }
        before = await office.rows()
        for path, body in places.items():
            problem_of(await send(office, body % value, path=path), 422, "input_invalid")
        assert await office.rows() == before

    @pytest.mark.parametrize("key", ["a\x00b", "\ud800"])
    async def test_so_are_names_of_fields(self, office: Office, key):
        body = json.dumps({"reason": "Because", "result": {key: 1}}).encode()
        case = await office.draft()
        answer = await send(office, body, path=f"/v1/cases/{case['case_id']}/overrides/mark-done")
        problem_of(answer, 422, "input_invalid")

    async def test_everything_else_that_unicode_has_is_kept(self, office: Office):
        name = "Ünïcode \U0001f600 \u202e \ufffd 漢字"
        answer = await office.requester.command(OPEN, vendor(legal_name=name))
        assert answer.json()["subject"]["legal_name"] == name


class TestAddresses:
    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/v1", 404, "not_found"),
            ("/v1/", 404, "not_found"),
            ("/v1/nothing", 404, "not_found"),
            ("/nothing", 404, "not_found"),
            ("/v1/cases/", 404, "not_found"),
            ("/v1/cases/7", 422, "input_invalid"),
            ("/v1/cases/%00", 422, "input_invalid"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000", 404, "case_not_found"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000/timeline", 404, "case_not_found"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000/stream", 404, "case_not_found"),
            ("/v1/operations/00000000-0000-0000-0000-000000000000", 404, "operation_not_found"),
            ("/v1/processes/nothing", 404, "process_not_found"),
            ("/v1/schemas/nothing", 404, "schema_not_found"),
            ("/v1/vendor-onboarding", 405, "method_not_allowed"),
            ("/v1/vendor-onboarding/00000000-0000-0000-0000-000000000000/dance", 404, "not_found"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000/overrides/dance", 404, "not_found"),
            ("/v1/cases?limit=0", 422, "input_invalid"),
            ("/v1/cases?limit=201", 422, "input_invalid"),
            ("/v1/cases?limit=x", 422, "input_invalid"),
            ("/v1/cases?condition=sad", 422, "input_invalid"),
            ("/v1/cases?stat=draft", 422, "input_invalid"),
            ("/v1/cases?q=%00", 422, "input_invalid"),
            ("/v1/cases?business_key=a%00", 422, "input_invalid"),
            ("/v1/cases?q=" + "a" * 201, 422, "input_invalid"),
            ("/v1/cases?cursor=nonsense", 422, "input_invalid"),
            ("/v1/cases?cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgIngiXQ==", 422, "input_invalid"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000/timeline?after=-1", 422, "input_invalid"),
            ("/v1/cases/00000000-0000-0000-0000-000000000000/timeline?after=2147483648", 422, "input_invalid"),
        ],
    )
    async def test_each_mistake_has_its_problem(self, office: Office, path, status, code):
        problem_of(await office.requester.get(path), status, code)

    async def test_a_wrong_method_is_told_the_right_one(self, office: Office):
        answer = await office.requester.http.delete("/v1/cases")
        problem_of(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET"

    @pytest.mark.parametrize("number", ["0", "-1", "x", "9223372036854775808"])
    async def test_a_message_has_a_number(self, office: Office, number):
        answer = await office.operator.command(f"/v1/outbox/{number}/requeue")
        problem_of(answer, 422, "input_invalid")

    @pytest.mark.parametrize("text", ["%", "_", "\\", "'; DROP TABLE cases; --", "\u202e", "(", "*", "\ud7ff"])
    async def test_a_filter_is_only_ever_a_value(self, office: Office, text):
        for name in ("q", "state", "process", "business_key", "waiting_on", "recovery_owner"):
            answer = await office.requester.http.get("/v1/cases", params={name: text})
            assert (answer.status_code, answer.json()["cases"]) == (200, [])


class TestSize:
    @pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
    async def test_too_large_has_one_shape(self, office: Office, chunked):
        before = await office.rows()
        content = json.dumps(vendor(legal_name="a" * MAX_BODY)).encode()

        async def pieces():
            for start in range(0, len(content), 4096):
                yield content[start : start + 4096]

        answer = await send(office, pieces() if chunked else content)
        problem_of(answer, 413, "body_too_large")
        assert await office.rows() == before

    async def test_an_announced_size_is_refused_before_a_byte_of_it_came(self, office: Office):
        head = await raw(office, f"Content-Length: {10**12}\r\n")
        assert head.startswith(b"HTTP/1.1 413")

    async def test_a_stranger_is_refused_before_a_byte_is_read(self, office: Office):
        head = await raw(office, f"Content-Length: {10**12}\r\n", authorised=False)
        assert head.startswith(b"HTTP/1.1 401")

    async def test_just_below_is_read(self, office: Office):
        body = json.dumps(vendor(legal_name="a" * (MAX_BODY - 2000))).encode()
        assert len(body) <= MAX_BODY
        problem_of(await send(office, body), 422, "input_invalid")


async def raw(office: Office, headers: str, *, authorised: bool = True) -> bytes:
    """The head of the answer to a request whose body never comes."""
    authorization = f"Authorization: {office.requester.headers['Authorization']}\r\n" if authorised else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", office.settings.api_port)
    head = f"POST {OPEN} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}{authorization}{headers}\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


class TestAccidents:
    async def test_nothing_of_our_insides_is_told(self, office: Office, monkeypatch):
        async def broken(*_args, **_kwargs):
            message = "SELECT secret FROM /srv/caseward/api"
            raise RuntimeError(message)

        monkeypatch.setattr("caseward.cases.queries.list_cases", broken)
        with capture_logs() as logged:
            answer = await office.requester.get("/v1/cases")
        problem = problem_of(answer, 500, "internal_error")
        assert [(line["event"], line["traceparent"].split("-")[1]) for line in logged] == [
            ("request_failed", problem["trace_id"])
        ]
        for word in ("secret", "SELECT", "RuntimeError", "/srv", "Traceback"):
            assert word not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_a_trace_that_came_in_is_continued(self, office: Office):
        trace = uuid4().hex
        answer = await office.requester.get("/v1/nothing", traceparent=f"00-{trace}-{'1' * 16}-01")
        assert answer.json()["trace_id"] == trace
        answer = await office.requester.get("/v1/nothing", traceparent="00-nonsense")
        assert len(answer.json()["trace_id"]) == 32
