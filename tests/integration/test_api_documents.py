"""Documents over HTTP: streamed in by whoever may, known by their content, given out to be saved, never half there."""

from base64 import b64encode
from hashlib import sha256
from uuid import uuid4

import pytest

from caseward.cases import documents
from caseward.objects import ObjectMissing, hash_of
from tests.integration.office import DOCUMENT_LIMIT, Json, Office, Person
from tests.integration.parcel_return import NOTE
from tests.integration.test_api_input import problem_of
from tests.pdfs import pdf

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


@pytest.fixture
def clerk(office: Office) -> Person:
    return office.person("clerk-1", "parcel_clerk")


@pytest.fixture
async def case(clerk: Person) -> Json:
    return await received(clerk)


async def received(clerk: Person) -> Json:
    answer = await clerk.command("/v1/parcel-return", {"business_key": uuid4().hex, "subject": {"number": "P-17"}})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def add(person: Person, case: Json, content, *, key: str | None = None, headers: Json | None = None, **wanted):
    parameters = {"kind": "receipt", "name": "receipt.pdf", **wanted}
    sent = {"Idempotency-Key": key or uuid4().hex, **(headers or {})}
    path = f"/v1/cases/{case['case_id']}/documents"
    return await person.http.post(path, params=parameters, content=content, headers=sent)


async def listed(person: Person, case: Json) -> Json:
    answer = await person.get(f"/v1/cases/{case['case_id']}/documents")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def in_pieces(content: bytes, size: int = 700):
    """Sent in chunks: nobody is told how long it is."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def larger_than(size: int) -> bytes:
    return pdf() + b"%" * size


class TestAdding:
    async def test_it_is_there_by_its_hash_and_the_case_says_so(self, clerk: Person, case: Json):
        content = pdf()
        answer = await add(clerk, case, in_pieces(content), name="Quittung März.pdf")
        assert answer.status_code == 201, answer.text
        document = answer.json()
        assert (document["state"], document["media_type"]) == ("uploaded", "application/pdf")
        assert (document["sha256"], document["size"]) == (sha256(content).hexdigest(), len(content))
        assert answer.headers["location"] == document["href"]
        now = await clerk.case(case)
        assert now["version"] == case["version"] + 1
        assert answer.headers["etag"] == f'"{now["etag"]}"'
        entries = (await clerk.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"]
        assert entries[-1]["sentence"] == "Receipt was added: Quittung März.pdf."
        assert entries[-1]["data"]["sha256"] == document["sha256"]

    async def test_it_may_be_larger_than_any_other_body(self, clerk: Person, case: Json):
        content = larger_than(DOCUMENT_LIMIT - 2000)
        document = (await add(clerk, case, in_pieces(content, 60_000))).json()
        assert document["size"] == len(content)
        assert (await clerk.get(document["href"])).content == content

    async def test_of_its_kind_are_only_so_many_unless_one_is_replaced(self, clerk: Person, case: Json):
        first = (await add(clerk, case, pdf(title="One"))).json()
        await add(clerk, case, pdf(title="Two"))
        problem_of(await add(clerk, case, pdf(title="Three")), 409, "too_many_documents")
        instead = await add(clerk, case, pdf(title="Three"), replaces=first["document_id"])
        assert instead.status_code == 201, instead.text
        replaced = {each["document_id"]: each["replaced_by"] for each in (await listed(clerk, case))["documents"]}
        assert replaced[first["document_id"]] == instead.json()["document_id"]
        again = await add(clerk, case, pdf(title="Four"), replaces=first["document_id"])
        problem_of(again, 404, "document_not_found")

    async def test_another_one_or_another_content_is_another_fingerprint(self, clerk: Person, case: Json):
        seen = [(await listed(clerk, case))["fingerprint"]]
        for title in ("One", "Two"):
            await add(clerk, case, pdf(title=title))
            seen.append((await listed(clerk, case))["fingerprint"])
        assert seen[0] is None
        assert len(set(seen)) == 3


class TestTheSameAgain:
    async def test_under_the_same_key_it_is_the_same_document(self, clerk: Person, case: Json):
        key = uuid4().hex
        first, second = [await add(clerk, case, pdf(), key=key) for _ in range(2)]
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert len((await listed(clerk, case))["documents"]) == 1

    async def test_also_once_the_case_takes_none_any_more(self, clerk: Person, case: Json):
        key = uuid4().hex
        first = await add(clerk, case, pdf(), key=key)
        await clerk.take(case, "refuse")
        again = await add(clerk, case, pdf(), key=key)
        assert (again.status_code, again.json()) == (201, first.json())

    @pytest.mark.parametrize("other", [{"name": "other.pdf"}, {"content": pdf(2)}], ids=["name", "content"])
    async def test_other_content_under_the_key_is_refused(self, clerk: Person, case: Json, other: Json):
        key = uuid4().hex
        await add(clerk, case, pdf(), key=key)
        problem_of(await add(clerk, case, **{"content": pdf(), **other}, key=key), 422, "idempotency_key_reused")

    async def test_a_key_of_another_command_is_refused(self, clerk: Person, case: Json):
        key = uuid4().hex
        await clerk.take(case, "refuse", key=key)
        problem_of(await add(clerk, case, pdf(), key=key), 422, "idempotency_key_reused")


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "found"),
        [(b"Just a text", "application/octet-stream"), (b"", "application/octet-stream"), (PNG, "image/png")],
        ids=["text", "nothing", "picture"],
    )
    async def test_what_is_none_by_its_content_is_none_whatever_it_is_called(
        self, office: Office, clerk: Person, case: Json, content: bytes, found: str
    ):
        before = await office.rows()
        answer = await add(clerk, case, content, headers={"Content-Type": "application/pdf"})
        assert problem_of(answer, 415, "document_type_refused")["media_type"] == found
        assert await office.rows() == before
        with pytest.raises(ObjectMissing):
            await office.app.state.wiring.uploads.objects.content(sha256(content).hexdigest())

    async def test_each_kind_takes_its_own_types(self, clerk: Person, case: Json):
        assert (await add(clerk, case, PNG, kind="photo", name="box.png")).status_code == 201
        problem_of(await add(clerk, case, pdf(), kind="photo"), 415, "document_type_refused")

    @pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
    async def test_what_is_too_large_is_told_so(self, office: Office, clerk: Person, case: Json, announced: bool):
        before, content = await office.rows(), larger_than(DOCUMENT_LIMIT)
        answer = await add(clerk, case, content if announced else in_pieces(content, 100_000))
        assert problem_of(answer, 413, "document_too_large")["limit"] == DOCUMENT_LIMIT
        assert await office.rows() == before

    @pytest.mark.parametrize(
        "name",
        [
            *("../../etc/passwd", "a\\b", "a\r\nSet-Cookie: x", "", "x" * 201),
            *(f"fdp.{hidden}exe" for hidden in "\x7f\x80\x9b\u061c\u200b\u200f\u2028\u202e\u2066\ufeff"),
        ],
    )
    async def test_a_name_is_a_name(self, clerk: Person, case: Json, name: str):
        problem_of(await add(clerk, case, pdf(), name=name), 422, "input_invalid")

    async def test_an_unknown_kind_is_named(self, clerk: Person, case: Json):
        problem = problem_of(await add(clerk, case, pdf(), kind="passport"), 422, "input_invalid")
        assert problem["errors"][0]["field"] == "kind"

    async def test_a_process_without_documents_takes_none(self, office: Office):
        case = (await office.requester.open()).json()
        problem_of(await add(office.requester, case, pdf()), 422, "input_invalid")

    async def test_what_is_offered_is_accepted_and_nothing_else(self, office: Office, clerk: Person, case: Json):
        senior = office.senior
        for person, code in ((clerk, None), (senior, "role_missing")):
            kind = next(each for each in (await listed(person, case))["kinds"] if each["kind"] == "receipt")
            assert [reason["code"] for reason in kind["reasons"]] == ([code] if code else [])
            answer = await add(person, case, pdf())
            assert (answer.status_code == 201) == kind["allowed"]
        await clerk.take(case, "refuse")
        kind = (await listed(clerk, case))["kinds"][0]
        assert [reason["code"] for reason in kind["reasons"]] == ["wrong_state"]
        problem_of(await add(clerk, case, pdf(2)), 409, "wrong_state")

    async def test_whoever_saw_an_older_version_is_told(self, clerk: Person, case: Json):
        await add(clerk, case, pdf())
        stale = await add(clerk, case, pdf(2), headers={"If-Match": f'"{case["version"]}"'})
        problem_of(stale, 412, "version_stale")

    async def test_without_a_key_nothing_is_read(self, clerk: Person, case: Json):
        answer = await clerk.http.post(f"/v1/cases/{case['case_id']}/documents?kind=receipt&name=a", content=pdf())
        problem_of(answer, 400, "idempotency_key_missing")


class TestReading:
    async def test_it_is_given_out_to_be_saved_and_not_to_be_shown(self, clerk: Person, case: Json):
        document = (await add(clerk, case, pdf(), name='r"1;März.pdf')).json()
        answer = await clerk.get(document["href"])
        assert answer.content == pdf()
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''r%221%3BM%C3%A4rz.pdf"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/pdf", "no-store")
        assert answer.headers["etag"] == f'"{document["sha256"]}"'
        assert answer.headers["repr-digest"] == f"sha-256=:{b64encode(sha256(pdf()).digest()).decode()}:"

    async def test_a_stranger_finds_nothing(self, office: Office, clerk: Person, case: Json):
        document = (await add(clerk, case, pdf())).json()
        stranger = office.requester
        for href in (document["href"], f"/v1/cases/{case['case_id']}/documents"):
            problem_of(await stranger.get(href), 404, "case_not_found")
        problem_of(await add(stranger, case, pdf()), 404, "case_not_found")

    async def test_under_another_case_it_is_not_found(self, clerk: Person, case: Json):
        document, other = (await add(clerk, case, pdf())).json(), await received(clerk)
        answer = await clerk.get(f"/v1/cases/{other['case_id']}/documents/{document['document_id']}")
        problem_of(answer, 404, "document_not_found")


class TestWhatAStepMade:
    @pytest.fixture
    async def refunded(self, office: Office, clerk: Person, case: Json) -> Json:
        objects, operation = office.app.state.wiring.uploads.objects, (await clerk.take(case, "refund")).json()
        await objects.keep(NOTE, hash_of(NOTE))
        await objects.note(f"{operation['operation_id']}:pay_back", {"answer": {"sha256": hash_of(NOTE)}})
        await office.perform(operation)
        return case

    async def test_is_listed_and_taken_away(self, clerk: Person, refunded: Json):
        (made,) = (await listed(clerk, refunded))["made"]
        assert (made["title"], made["standing"], made["sha256"]) == ("Credit note", True, hash_of(NOTE))
        answer = await clerk.get(made["href"])
        assert (answer.status_code, answer.content) == (200, NOTE)
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''Credit%20note.pdf"
        assert answer.headers["etag"] == f'"{made["sha256"]}"'

    async def test_only_by_who_sees_the_case_and_only_under_it(self, office: Office, clerk: Person, refunded: Json):
        (made,) = (await listed(clerk, refunded))["made"]
        problem_of(await office.requester.get(made["href"]), 404, "case_not_found")
        other = await received(clerk)
        problem_of(
            await clerk.get(made["href"].replace(refunded["case_id"], other["case_id"])), 404, "document_not_found"
        )

    async def test_without_its_own_receipt_a_result_leads_to_no_content(
        self, office: Office, clerk: Person, case: Json
    ):
        await office.app.state.wiring.uploads.objects.keep(NOTE, hash_of(NOTE))
        await office.perform((await clerk.take(case, "refund")).json())
        (made,) = (await listed(clerk, case))["made"]
        problem_of(await clerk.get(made["href"]), 404, "document_not_found")

    async def test_a_hash_that_somebody_wrote_down_leads_to_no_content(self, office: Office, clerk: Person, case: Json):
        secret = (await add(clerk, await received(clerk), pdf(title="Another's"))).json()
        operation = (await clerk.take(case, "refund")).json()
        await office.perform(operation, rejected_at="pay_back")
        result = {"reference": "by hand", "sha256": secret["sha256"], "size": secret["size"]}
        path = f"/v1/cases/{case['case_id']}/overrides/mark_done"
        done = await office.senior.command(path, {"reason": "Paid by hand", "step": "pay_back", "result": result})
        assert done.status_code in {200, 202}, done.text
        assert (await listed(clerk, case))["made"] == []
        key = f"{operation['operation_id']}:pay_back"
        problem_of(await clerk.get(f"/v1/cases/{case['case_id']}/documents/made/{key}"), 404, "document_not_found")


class TestCrash:
    async def test_between_object_and_row_only_an_object_stays_that_nobody_names(
        self, office: Office, clerk: Person, case: Json, monkeypatch
    ):
        content = pdf(title=uuid4().hex)

        async def dies(*args, **more):
            raise RuntimeError("the machine went away")

        with monkeypatch.context() as dying:
            dying.setattr("api.routes_documents.add_document", dies)
            problem_of(await add(clerk, case, content), 500, "internal_error")
        assert (await listed(clerk, case))["documents"] == []
        assert await office.app.state.wiring.uploads.objects.content(sha256(content).hexdigest()) == content
        assert (await add(clerk, case, content)).status_code == 201

    def test_no_row_comes_before_its_object(self):
        assert "objects" not in vars(documents)  # a command can't even reach the store: it gets what is there
