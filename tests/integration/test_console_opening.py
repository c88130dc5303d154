"""Opening a case at the console: offered to whoever may, refused in words, and one case however often it is sent."""

import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.integration.browser import Browser
from tests.integration.forms import form_at, forms_of
from tests.integration.office import VENDOR, Office, new_key

HERE = "/console/processes/vendor-onboarding/open"
SUBJECT = {
    "subject.legal_name": "Northwind & <b>Sons</b>",
    "subject.country": VENDOR["country"],
    "subject.tax_id": VENDOR["tax_id"],
    "subject.bank_account.iban": VENDOR["bank_account"]["iban"],
    "subject.bank_account.holder": VENDOR["bank_account"]["holder"],
    "subject.contacts.0.name": "Ada Berg",
    "subject.contacts.0.email": "ada@example.com",
}


@pytest.fixture
async def requester(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    await browser.sign_in("demo-vendor-requester")
    yield browser
    await browser.http.aclose()


async def cases_with(office: Office, key: str) -> list[dict]:
    return (await office.operator.get(f"/v1/cases?business_key={key}")).json()["cases"]


async def test_it_is_offered_to_whoever_may_and_to_nobody_else(office: Office, requester: Browser):
    for path in ("/console/work", "/console/processes", "/console/processes/vendor-onboarding"):
        text = (await requester.get(path)).text
        assert re.findall(r'href="([^"]+)" data-opens', text) == [HERE], path
    await requester.sign_in("demo-auditor")
    for path in ("/console/work", "/console/processes", "/console/processes/vendor-onboarding"):
        assert "data-opens" not in (await requester.get(path)).text, path
    shown = await requester.get(HERE)
    assert 'data-code="role_missing"' in shown.text
    assert list(forms_of(shown.text)) == ["/console/sign-out"]
    before = await office.rows()
    sent = {"csrf": await requester.csrf(), "key": uuid4().hex, "business_key": new_key(), **SUBJECT}
    refused = await requester.post(HERE, sent)
    assert (refused.status_code, "Nothing was opened." in refused.text) == (403, True)
    assert forms_of(refused.text)[HERE]["subject.contacts.0.name"] == "Ada Berg"
    assert await office.rows() == before


async def test_nobody_opens_one_while_the_process_is_paused(office: Office, requester: Browser):
    action, fields = await form_at(requester, HERE)
    order = {"process": "vendor_onboarding", "reason": "Moving house"}
    assert (await office.operator.command("/v1/pauses", order)).status_code == 200
    assert "data-opens" not in (await requester.get("/console/work")).text
    assert "This can&#39;t be done now." in (await requester.get(HERE)).text.replace("can't", "can&#39;t")
    refused = await requester.post(action, {**fields, "business_key": new_key(), **SUBJECT})
    assert (refused.status_code, "Nothing was opened." in refused.text) == (409, True)


async def test_sent_twice_it_is_one_case_and_it_is_shown(office: Office, requester: Browser):
    key = new_key()
    action, fields = await form_at(requester, HERE)
    sent = {**fields, **SUBJECT, "business_key": key}
    first, second = await requester.post(action, sent), await requester.post(action, sent)
    assert (first.status_code, first.headers["location"]) == (303, second.headers["location"]), first.text
    (case,) = await cases_with(office, key)
    assert first.headers["location"].startswith(f"/console/cases/{case['case_id']}?operation=")
    shown = await requester.get(first.headers["location"])
    assert 'data-state="completed"' in shown.text
    subject = (await office.requester.case(case))["subject"]
    assert subject["legal_name"] == "Northwind & <b>Sons</b>"
    assert subject["contacts"] == [{"name": "Ada Berg", "email": "ada@example.com"}]


async def test_what_is_wrong_comes_back_beside_its_field_with_all_that_was_typed(office: Office, requester: Browser):
    action, fields = await form_at(requester, HERE)
    more = await requester.post(action, {**fields, "more": "subject.contacts"})
    assert (more.status_code, "subject.contacts.1.email" in forms_of(more.text)[action]) == (200, True)
    before = await office.rows()
    wrong = await requester.post(action, {**fields, **SUBJECT, "business_key": "", "subject.contacts.0.email": "no"})
    again = forms_of(wrong.text)[action]
    assert wrong.status_code == 422
    assert re.findall(r'class="wrong" id="f-([^"]+)-wrong"', wrong.text) == ["business_key", "subject.contacts.0.email"]
    assert (again["key"], again["subject.contacts.0.email"]) == (fields["key"], "no")
    assert again["subject.legal_name"] == "Northwind & <b>Sons</b>"
    assert await office.rows() == before
    right = await requester.post(
        action, {**again, "business_key": new_key(), "subject.contacts.0.email": "a@example.com"}
    )
    assert right.status_code == 303, right.text


async def test_a_business_key_that_is_taken_leads_to_its_case(office: Office, requester: Browser):
    case = await office.draft()
    action, fields = await form_at(requester, HERE)
    refused = await requester.post(action, {**fields, **SUBJECT, "business_key": case["business_key"]})
    assert (refused.status_code, f'href="/console/cases/{case["case_id"]}"' in refused.text) == (409, True)
    again = forms_of(refused.text)[action]
    assert again["business_key"] == case["business_key"]
    opened = await requester.post(action, {**again, "business_key": new_key()})
    assert opened.status_code == 303, opened.text


async def test_a_form_that_has_opened_a_case_is_told_so_and_opens_another_when_sent_again(
    office: Office, requester: Browser
):
    key = new_key()
    action, fields = await form_at(requester, HERE)
    assert (await requester.post(action, {**fields, **SUBJECT, "business_key": key})).status_code == 303
    changed = {**fields, **SUBJECT, "business_key": f"{key}-2"}
    refused = await requester.post(action, changed)
    assert (refused.status_code, "A case was opened with this form already." in refused.text) == (422, True)
    again = forms_of(refused.text)[action]
    assert again["key"] != fields["key"]
    assert (await requester.post(action, again)).status_code == 303
    assert len(await cases_with(office, f"{key}-2")) == 1


async def test_a_form_without_its_key_opens_nothing(office: Office, requester: Browser):
    action, fields = await form_at(requester, HERE)
    sent = {**fields, **SUBJECT, "business_key": new_key()}
    before = await office.rows()
    for key in ("", "two words", "k" * 201):
        assert (await requester.post(action, {**sent, "key": key})).status_code == 400
    assert await office.rows() == before


async def test_there_is_no_form_for_a_process_that_is_not_there(requester: Browser):
    assert (await requester.get("/console/processes/nothing/open")).status_code == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (".".join(["x"] * 2000), "1"),
        (f"subject.contacts.{'1' * 5000}.name", "Ada"),
        ("more", ".".join(["x"] * 2000)),
        ("business_key:json", '"\\ud800"'),
    ],
    ids=["deep", "numbered", "deep list", "half a character"],
)
async def test_what_no_form_sends_comes_back_as_wrong(requester: Browser, name: str, value: str):
    action, fields = await form_at(requester, HERE)
    refused = await requester.post(action, {**fields, **SUBJECT, name: value})
    assert (refused.status_code, 'role="alert"' in refused.text) == (422, True)


async def test_a_field_says_what_belongs_into_it(requester: Browser):
    text = (await requester.get(HERE)).text
    asked = re.search(r'<input id="f-subject.tax_id"[^>]*aria-describedby="([^" ]+) "', text)
    assert asked, text
    said = re.search(rf'id="{asked[1]}">([^<]*)<', text)[1]
    assert said == "4 to 30 capital letters, digits, dots, slashes and hyphens. For example: DE129273398"
    group = re.search(r'<fieldset aria-describedby="([^"]+)"><legend>Bank account', text)
    assert f'id="{group[1]}">Where the vendor is paid.' in text
