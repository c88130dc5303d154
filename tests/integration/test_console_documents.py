"""Documents at the console: sent as they are through a door of their own, listed as text, given out to be saved."""

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from html import unescape
from uuid import UUID, uuid4

import pytest

from api.console.documents import uploads
from caseward.db.tables import StoredDocument
from tests.integration.browser import HERE, Browser
from tests.integration.office import DOCUMENT_LIMIT, Json, Office
from tests.integration.test_api_documents import PNG, in_pieces, larger_than, received
from tests.pdfs import pdf

HOSTILE = "<img src=x onerror=alert(1)>\u061cfdp.\u0085 & 'x'.pdf"


@pytest.fixture
async def clerk(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    await browser.sign_in("demo-parcel-clerk")
    yield browser
    await browser.http.aclose()


@pytest.fixture
async def case(office: Office) -> Json:
    return await received(office.person("clerk-1", "parcel_clerk"))


async def sent(browser: Browser, case: Json, content, *, headers: Json | None = None, **wanted: str):
    """As the page's script sends it."""
    own = {**HERE, "Idempotency-Key": uuid4().hex, "X-CSRF-Token": await browser.csrf(), **(headers or {})}
    return await browser.http.post(
        f"/console/cases/{case['case_id']}/documents",
        params={"kind": "receipt", "name": "receipt.pdf", **wanted},
        content=content,
        headers={
            "Cookie": f"__Host-caseward={browser.cookie}",
            **{name: value for name, value in own.items() if value},
        },
    )


async def page_of(browser: Browser, case: Json) -> str:
    return (await browser.get(f"/console/cases/{case['case_id']}")).text


def code_of(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.status_code, answer.json()["code"]


class TestTheForm:
    async def test_is_bound_to_the_kind_and_knows_the_limit(self, clerk: Browser, case: Json):
        href = re.search(r'href="([^"]+)" data-adds="receipt"', await page_of(clerk, case))[1]
        shown = (await clerk.get(unescape(href))).text
        assert f'data-limit="{DOCUMENT_LIMIT}"' in shown
        assert "at most 2 MB." in shown
        assert f'data-to="/console/cases/{case["case_id"]}/documents?kind=receipt"' in shown
        assert "takes this page's script" in shown
        keys = {re.search(r'data-key="([^"]+)"', (await clerk.get(unescape(href))).text)[1] for _ in range(2)}
        assert len(keys) == 2

    async def test_says_why_there_is_none(self, office: Office, clerk: Browser, case: Json):
        await office.person("clerk-1", "parcel_clerk").take(case, "refuse")
        for shown in (
            await page_of(clerk, case),
            (await clerk.get(f"/console/cases/{case['case_id']}/documents?kind=receipt")).text,
        ):
            assert 'data-code="wrong_state"' in shown
            assert "data-adds" not in shown
            assert 'id="adding"' not in shown

    @pytest.mark.parametrize("query", ["kind=other", f"kind=receipt&replaces={UUID(int=1)}", ""])
    async def test_is_not_there_for_what_is_not_there(self, clerk: Browser, case: Json, query: str):
        assert (await clerk.get(f"/console/cases/{case['case_id']}/documents?{query}")).status_code == 404


class TestSending:
    async def test_it_is_added_as_by_the_api_and_by_whom(self, office: Office, clerk: Browser, case: Json):
        content = pdf()
        answer = await sent(clerk, case, in_pieces(content), name="Quittung März.pdf")
        assert answer.status_code == 201, answer.text
        listed = (await office.operator.get(f"/v1/cases/{case['case_id']}/documents")).json()["documents"]
        assert [(each["sha256"], each["name"], each["by"]["id"], each["by"]["via"]) for each in listed] == [
            (sha256(content).hexdigest(), "Quittung März.pdf", "demo-parcel-clerk", "console")
        ]
        shown = await page_of(clerk, case)
        assert sha256(content).hexdigest() in shown
        assert ">uploaded</span>" in shown
        hint = "It stays uploaded until somebody takes <q>Inspect</q>, which has it looked at."
        add = f"/console/cases/{case['case_id']}/documents?kind=receipt"
        assert [hint in text for text in (shown, (await clerk.get(add)).text)] == [True, True]
        taken = await clerk.get(f"/console/cases/{case['case_id']}/documents/{listed[0]['document_id']}")
        assert (taken.content, taken.headers["content-disposition"]) == (
            content,
            "attachment; filename*=UTF-8''Quittung%20M%C3%A4rz.pdf",
        )
        assert "sandbox" in taken.headers["content-security-policy"]

    async def test_twice_under_its_key_it_is_one(self, office: Office, clerk: Browser, case: Json):
        key = {"Idempotency-Key": uuid4().hex}
        first, second = [await sent(clerk, case, pdf(), headers=key) for _ in range(2)]
        assert (first.status_code, first.json()) == (201, second.json())

    async def test_another_takes_its_place(self, clerk: Browser, case: Json):
        first = (await sent(clerk, case, pdf())).json()
        href = re.search(r'href="([^"]+)">Replace it', await page_of(clerk, case))[1]
        assert "Replace: receipt.pdf" in (await clerk.get(unescape(href))).text
        second = await sent(clerk, case, pdf(2), replaces=first["document_id"])
        assert second.status_code == 201, second.text
        shown = await page_of(clerk, case)
        assert shown.count(">replaced</span>") == 1
        assert (await clerk.get(unescape(href))).status_code == 404

    @pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
    async def test_what_is_too_large_is_told_so(self, office: Office, clerk: Browser, case: Json, announced: bool):
        content = larger_than(DOCUMENT_LIMIT)
        await clerk.csrf()
        before = await office.rows()
        answer = await sent(clerk, case, content if announced else in_pieces(content, 100_000))
        assert code_of(answer) == (413, "document_too_large")
        assert await office.rows() == before

    @pytest.mark.parametrize(
        ("content", "wanted", "refused"),
        [
            (PNG, {}, (415, "document_type_refused")),
            (b"", {}, (415, "document_type_refused")),
            (pdf(), {"kind": "other"}, (422, "input_invalid")),
            (pdf(), {"name": "a/b.pdf"}, (422, "input_invalid")),
            (pdf(), {"name": "annual\u202efdp.exe"}, (422, "input_invalid")),
            (pdf(), {"name": "a" * 201}, (422, "input_invalid")),
            (pdf(), {"name": ""}, (422, "input_invalid")),
            (pdf(), {"replaces": str(uuid4())}, (404, "document_not_found")),
            (pdf(), {"more": "1"}, (422, "input_invalid")),
        ],
    )
    async def test_what_the_api_refuses_is_refused_in_its_words(
        self, office: Office, clerk: Browser, case: Json, content: bytes, wanted: Json, refused: tuple[int, str]
    ):
        before = await office.rows()
        assert code_of(await sent(clerk, case, content, **wanted)) == refused
        assert await office.rows() == before

    async def test_without_a_key_nothing_is_added(self, clerk: Browser, case: Json):
        answer = await sent(clerk, case, pdf(), headers={"Idempotency-Key": ""})
        assert code_of(answer) == (400, "idempotency_key_missing")


class TestTheDoor:
    FOREIGN = (
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Sec-Fetch-Site": ""},
    )

    @pytest.mark.parametrize("headers", FOREIGN, ids=str)
    async def test_nothing_comes_in_without_the_sessions_own_header_or_from_elsewhere(
        self, office: Office, clerk: Browser, case: Json, headers: Json
    ):
        before = await office.rows()
        assert code_of(await sent(clerk, case, pdf(), headers=headers)) == (403, "not_from_here")
        assert await office.rows() == before

    async def test_a_form_of_the_session_is_no_way_in(self, clerk: Browser, case: Json):
        href = f"/console/cases/{case['case_id']}/documents?kind=receipt&name=a.pdf"
        answer = await clerk.post(href, {"csrf": await clerk.csrf()})
        assert code_of(answer) == (403, "not_from_here")

    async def test_the_header_opens_no_other_route(self, clerk: Browser):
        answer = await clerk.post("/console/sign-out", {"a": "b"}, {**HERE, "X-CSRF-Token": await clerk.csrf()})
        assert (answer.status_code, "not_from_here" in answer.text) == (403, True)
        assert [route.path for route in uploads.routes] == ["/console/cases/{case_id}/documents"]

    async def test_whoever_is_not_signed_in_or_not_any_more_is_told_so(
        self, office: Office, clerk: Browser, case: Json
    ):
        csrf = await clerk.csrf()
        await clerk.post("/console/sign-out", {"csrf": csrf})
        href = f"/console/cases/{case['case_id']}/documents?kind=receipt&name=a.pdf"
        answer = await clerk.http.post(href, content=pdf(), headers={**HERE, "X-CSRF-Token": csrf})
        assert code_of(answer) == (401, "not_signed_in")

    async def test_the_role_decides_as_in_the_api(self, office: Office, clerk: Browser, case: Json):
        await clerk.sign_in("demo-operator")
        shown = await page_of(clerk, case)
        assert ('data-code="role_missing"' in shown, "data-adds" in shown) == (True, False)
        before = await office.rows()
        assert code_of(await sent(clerk, case, pdf())) == (403, "role_missing")
        assert await office.rows() == before

    async def test_somebody_elses_process_is_not_there(self, clerk: Browser, case: Json):
        await clerk.sign_in("demo-vendor-requester")
        assert code_of(await sent(clerk, case, pdf())) == (404, "case_not_found")
        assert (await clerk.get(f"/console/cases/{case['case_id']}/documents?kind=receipt")).status_code == 404


class TestNames:
    async def test_show_as_text_whatever_they_are(self, office: Office, clerk: Browser, case: Json):
        assert code_of(await sent(clerk, case, pdf(), name=HOSTILE)) == (422, "input_invalid")
        added = (await sent(clerk, case, pdf(), name="Credit note.pdf")).json()
        async with office.database.transaction() as session:  # from when such names were still taken
            (await session.get_one(StoredDocument, UUID(added["document_id"]))).name = HOSTILE
        again = f"/console/cases/{case['case_id']}/documents?kind=receipt&replaces={added['document_id']}"
        for shown in (await page_of(clerk, case), (await clerk.get(again)).text):
            assert "<img" not in shown
            assert not set("\u061c\u0085") & set(shown)
            assert "&lt;img src=x onerror=alert(1)&gt;\\u061cfdp.\\x85 &amp; &#39;x&#39;.pdf" in shown
        taken = await clerk.get(f"/console/cases/{case['case_id']}/documents/{added['document_id']}")
        assert taken.headers["content-disposition"].isascii()
        assert "<" not in taken.headers["content-disposition"]
