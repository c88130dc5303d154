"""The console's pages: what is offered is taken, what is stale is refused in words, and markup is only text."""

import re
from collections.abc import AsyncIterator
from html import escape, unescape
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from caseward.cases import queries
from caseward.process import Confirmation
from caseward.situation import Actor
from processes.vendor_onboarding import LEAD, VENDOR_ONBOARDING
from tests.integration.browser import Browser
from tests.integration.forms import FormReader, form_at, forms_of
from tests.integration.office import CATALOGUE, VENDOR, Office

MARKUP = "<img src=x onerror=alert(1)> & \"quoted\" 'too' <script>alert(2)</script>"
BY_A_LEAD = Confirmation(by=1, roles=frozenset({LEAD}))
OFFERED = re.compile(r'href="(/console/cases/[^"]+)" data-action="(\w+)"')


@pytest.fixture
async def browser(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    yield browser
    await browser.http.aclose()


@pytest.fixture
async def reviewer(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    await browser.sign_in("demo-vendor-reviewer")
    yield browser
    await browser.http.aclose()


async def offered(browser: Browser, case: dict) -> dict[str, str]:
    shown = await browser.get(f"/console/cases/{case['case_id']}")
    assert shown.status_code == 200, shown.text
    return {name: href for href, name in OFFERED.findall(shown.text)}


async def changes_requested(office: Office) -> dict:
    case = await office.in_review()
    asked = await office.reviewer.take(case, "request-changes", {"input": {"grounds": "The IBAN, please"}})
    assert asked.status_code == 200, asked.text
    return await office.requester.case(case)


def words_of(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", markup)).split())


async def operation_of(office: Office, location: str) -> dict:
    return (await office.operator.get(f"/v1/operations/{location.rpartition('=')[2]}")).json()


async def blocked(office: Office) -> dict:
    case = await office.draft()
    submitted = await office.requester.take(case, "submit")
    await office.perform(submitted.json(), rejected_at="check_tax_id")
    return case


class TestActing:
    async def test_what_is_offered_is_taken_as_the_api_would(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        links = await offered(reviewer, case)
        assert set(links) == {"approve", "request_changes", "reject"}
        action, fields = await form_at(reviewer, links["reject"])
        done = await reviewer.post(action, {**fields, "input.grounds": "The extract is older\r\nthan it may be."})
        assert done.status_code == 303, done.text
        assert done.headers["location"].startswith(f"/console/cases/{case['case_id']}?operation=")
        now = await office.requester.case(case)
        assert now["state"] == "rejected"
        shown = await reviewer.get(done.headers["location"])
        assert 'data-state="completed"' in shown.text
        operation_id = done.headers["location"].rpartition("=")[2]
        operation = (await office.operator.get(f"/v1/operations/{operation_id}")).json()
        assert operation["actor"] == {
            "id": "demo-vendor-reviewer",
            "role": "vendor_reviewer",
            "via": "console",
            "on_behalf_of": None,
        }
        assert operation["input"] == {"grounds": "The extract is older\nthan it may be."}

    async def test_two_clicks_are_one_command(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["approve"])
        first, second = await reviewer.post(action, fields), await reviewer.post(action, fields)
        assert (first.status_code, first.headers["location"]) == (second.status_code, second.headers["location"])

    async def test_what_is_stale_is_refused_with_what_changed_and_by_whom(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["approve"])
        rejected = await office.reviewer.take(case, "reject", {"input": {"grounds": "No"}, "reason": None})
        assert rejected.status_code in {200, 422}
        if rejected.status_code == 422:
            rejected = await office.reviewer.take(case, "reject", {"input": {"grounds": "Not this one"}})
        refused = await reviewer.post(action, fields)
        assert refused.status_code == 412
        told = re.search(r'id="refused">(.*?)</section>', refused.text, re.DOTALL)[1]
        assert "Reject is completed: the case is Rejected." in told
        assert "reviewer-1" in told
        assert "Rejected" in refused.text
        assert (await office.requester.case(case))["state"] == "rejected"

    async def test_what_is_stale_but_still_allowed_comes_back_as_a_new_form_with_what_was_given(
        self, office: Office, reviewer: Browser
    ):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["reject"])
        for override in ("pause", "resume"):
            moved = await office.operator.override(case, override)
            assert moved.status_code == 200, moved.text
        refused = await reviewer.post(action, {**fields, "input.grounds": MARKUP, "reason": "As discussed"})
        assert refused.status_code == 412
        told = re.search(r'id="refused">(.*?)</section>', refused.text, re.DOTALL)[1]
        assert "nothing of what you sent was done" in unescape(told)
        assert "operator-1" in told
        again = forms_of(refused.text)[action]
        assert (again["input.grounds"], again["reason"]) == (MARKUP, "As discussed")
        assert again["etag"] == (await office.requester.case(case))["etag"]
        assert all(again[name] != fields[name] for name in ("key", "etag", "seen"))
        assert (await office.requester.case(case))["state"] == "in_review"
        sent = await reviewer.post(action, again)
        assert sent.status_code == 303, sent.text
        assert (await office.requester.case(case))["state"] == "rejected"

    async def test_where_only_pauses_changed_it_is_said(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["reject"])
        order = {"process": "vendor_onboarding", "reason": "Moving house"}
        assert (await office.operator.command("/v1/pauses", order)).status_code == 200
        refused = await reviewer.post(action, {**fields, "input.grounds": "Too old, sadly"})
        assert refused.status_code == 412
        told = re.search(r'id="refused">(.*?)</section>', refused.text, re.DOTALL)[1]
        assert "The pauses that apply to the case have changed" in told
        assert "Since you opened the form:" not in told

    async def test_what_is_wrong_comes_back_with_the_form_and_the_same_key(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["reject"])
        wrong = await reviewer.post(action, {**fields, "reason": MARKUP})
        assert wrong.status_code == 422
        again = forms_of(wrong.text)[action]
        assert (again["key"], again["etag"], again["reason"]) == (fields["key"], fields["etag"], MARKUP)
        assert "This is needed." in wrong.text
        right = await reviewer.post(action, {**again, "input.grounds": "Too old, sadly"})
        assert right.status_code == 303, right.text

    async def test_what_is_not_offered_is_refused_with_the_reason_the_page_gave(self, office: Office, browser: Browser):
        await browser.sign_in("demo-auditor")
        case = await office.in_review()
        assert await offered(browser, case) == {}
        path = f"/console/cases/{case['case_id']}/transition/approve"
        shown = await browser.get(path)
        assert "takes the role" in shown.text
        assert list(forms_of(shown.text)) == ["/console/sign-out"]
        fields = {"csrf": await browser.csrf(), "key": uuid4().hex, "etag": case["etag"], "seen": "1"}
        assert (await browser.post(path, fields)).status_code == 403

    async def test_a_blocked_step_is_tried_again(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await blocked(office)
        links = await offered(browser, case)
        assert "step=check_tax_id" in links["retry"]
        shown = (await browser.get(links["retry"])).text
        assert "Last error: <code>closed</code> <bdi>Closed</bdi>" in shown
        assert "Left to do then" in shown
        assert "Verify the bank account" in shown.partition("Left to do then")[2]
        action, fields = await form_at(browser, links["retry"])
        assert (await browser.post(action, {**fields, "reason": "The registry is back"})).status_code == 303
        assert (await office.operator.case(case))["condition"] != "blocked"

    async def test_what_was_done_by_hand_is_asked_for_by_the_type_of_its_result(self, office: Office, browser: Browser):
        await browser.sign_in("demo-senior-operator")
        case = await office.draft()
        submitted = await office.requester.take(case, "submit")
        await office.perform(submitted.json(), rejected_at="screen_sanctions")
        action, fields = await form_at(browser, (await offered(browser, case))["mark_done"])
        assert set(fields) == {"csrf", "key", "etag", "seen", "result.reference", "result.hits", "reason"}
        given = {"result.reference": "SCR-1", "result.hits": "many", "reason": "Asked them by phone"}
        wrong = await browser.post(action, {**fields, **given})
        assert (wrong.status_code, "This must be a whole number" in wrong.text) == (422, True)
        proposed = await browser.post(action, {**fields, **given, "result.hits": "0"})
        assert proposed.status_code == 303, proposed.text
        shown = await browser.get(proposed.headers["location"])
        assert "proposed, and waits for confirmation" in shown.text

    async def test_a_proposal_is_confirmed_by_somebody_else(self, office: Office, browser: Browser):
        proposal = await office.proposal()
        href = f"/console/operations/{proposal['operation_id']}/confirm"
        await browser.sign_in("demo-senior-operator")
        assert "<b>You can't.</b>" in (await browser.get(href)).text
        await browser.sign_in("demo-vendor-lead")
        action, fields = await form_at(browser, href)
        sealed = {name: value for name, value in fields.items() if name != "reason"}
        for none in ({"reason:json": "{never closed"}, {"reason": "I have read it", "x" * 300: "?"}):
            malformed = await browser.post(action, {**sealed, **none})
            assert (malformed.status_code, forms_of(malformed.text)[action]["key"]) == (422, fields["key"])
        confirmed = await browser.post(action, {**fields, "reason": "I have read it"})
        assert confirmed.status_code == 303, confirmed.text
        operation = (await office.operator.get(f"/v1/operations/{proposal['operation_id']}")).json()
        assert operation["state"] == "accepted"
        assert [given["actor"]["id"] for given in operation["confirmations"]["given"]] == ["demo-vendor-lead"]
        assert (await browser.get(href)).status_code == 303, "it is no proposal any more"

    async def test_a_proposed_replay_shows_its_step_and_its_plan(
        self, office: Office, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(VENDOR_ONBOARDING.confirmations, "replay", BY_A_LEAD)
        await browser.sign_in("demo-senior-operator")
        case = await office.in_review()
        href = (await offered(browser, case))["replay"] + "?from_step=screen_sanctions"
        planned = re.search(r'<ol class="plan plain">(.*?)</ol>', (await browser.get(href)).text, re.DOTALL)[1]
        action, fields = await form_at(browser, href)
        proposed = await browser.post(action, {**fields, "reason": "The lists were wrong"})
        await browser.sign_in("demo-vendor-lead")
        href = f"/console/operations/{proposed.headers['location'].rpartition('=')[2]}/confirm"
        shown = (await browser.get(href)).text
        assert re.search(r'<ol class="plan plain">(.*?)</ol>', shown, re.DOTALL)[1] == planned
        assert "<dt>Again from</dt><dd>Screen against sanctions lists</dd>" in shown
        assert "<dt>Step</dt><dd><bdi>screen_sanctions</bdi>" in re.sub(r"\s*(<|>)\s*", r"\1", shown)
        assert "It is done again from a step" in shown
        assert "not the one that was proposed" not in shown

    async def test_a_proposed_taking_back_shows_what_would_be_taken_back(
        self, office: Office, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(VENDOR_ONBOARDING.confirmations, "force_cancel", BY_A_LEAD)
        case = await office.in_review()
        approved = await office.reviewer.take(case, "approve")
        await office.perform(approved.json(), rejected_at="open_payee")
        proposed = await office.senior.override(case, "force_cancel")
        assert (proposed.status_code, proposed.json()["state"]) == (202, "proposed"), proposed.text
        await browser.sign_in("demo-vendor-lead")
        shown = (await browser.get(f"/console/operations/{proposed.json()['operation_id']}/confirm")).text
        assert "Will be taken back, in this order" in shown
        assert f"{approved.json()['operation_id']}:create_in_erp" in shown
        assert "Everything stops, and what was done is taken back." in shown

    @pytest.mark.parametrize("answer", ["confirm", "decline"])
    async def test_an_answer_that_is_stale_comes_back_with_what_was_typed(
        self, office: Office, browser: Browser, answer
    ):
        proposal = await office.proposal()
        case = {"case_id": proposal["case_id"], "process": proposal["process"]}
        await browser.sign_in("demo-vendor-lead")
        action, fields = await form_at(browser, f"/console/operations/{proposal['operation_id']}/{answer}")
        for override in ("pause", "resume"):
            assert (await office.operator.override(case, override)).status_code == 200
        refused = await browser.post(action, {**fields, "reason": MARKUP})
        assert refused.status_code == 412
        told = re.search(r'id="refused">(.*?)</section>', refused.text, re.DOTALL)[1]
        assert "operator-1" in told
        again = forms_of(refused.text)[action]
        assert again["reason"] == MARKUP
        assert all(again[name] != fields[name] for name in ("key", "etag", "seen"))
        assert (await browser.post(action, again)).status_code == 303

    async def test_an_answer_that_nobody_asks_for_any_more_is_not_lost_either(self, office: Office, browser: Browser):
        proposal = await office.proposal()
        await browser.sign_in("demo-vendor-lead")
        action, fields = await form_at(browser, f"/console/operations/{proposal['operation_id']}/decline")
        declined = await office.lead.command(
            f"/v1/operations/{proposal['operation_id']}/decline", {"reason": "Not this slip"}
        )
        assert declined.status_code == 200, declined.text
        refused = await browser.post(action, {**fields, "reason": "It is of another vendor"})
        assert (refused.status_code, "<q>It is of another vendor</q>" in refused.text) in {(412, True), (409, True)}

    async def test_a_wrong_answer_keeps_what_was_typed(self, office: Office, browser: Browser):
        proposal = await office.proposal()
        await browser.sign_in("demo-vendor-lead")
        action, fields = await form_at(browser, f"/console/operations/{proposal['operation_id']}/confirm")
        refused = await browser.post(action, {**fields, "reason": "x" * 2001})
        assert (refused.status_code, forms_of(refused.text)[action]["reason"]) == (422, "x" * 2001)

    async def test_nested_input_with_lists_goes_there_and_back(self, office: Office, browser: Browser):
        await browser.sign_in("demo-vendor-requester")
        case = await changes_requested(office)
        action, fields = await form_at(browser, (await offered(browser, case))["resubmit"])
        more = await browser.post(action, {**fields, "more": "input.vendor.contacts"})
        assert "input.vendor.contacts.1.name" in forms_of(more.text)[action]
        given = {
            "input.vendor.legal_name": VENDOR["legal_name"],
            "input.vendor.country": VENDOR["country"],
            "input.vendor.tax_id": VENDOR["tax_id"],
            "input.vendor.bank_account.iban": VENDOR["bank_account"]["iban"],
            "input.vendor.bank_account.holder": VENDOR["bank_account"]["holder"],
            "input.vendor.contacts.0.name": "",
            "input.vendor.contacts.0.email": "",
            "input.vendor.contacts.1.name": "Ada Berg",
            "input.vendor.contacts.1.email": "ada@example.com",
            "input.vendor.documents.0.title": "Extract",
            "input.vendor.documents.0.reference": "dms:1",
            "input.vendor.documents.0.sha256": "",
        }
        sent = await browser.post(action, {**fields, **given})
        assert sent.status_code == 303, sent.text
        operation_id = sent.headers["location"].rpartition("=")[2]
        operation = (await office.operator.get(f"/v1/operations/{operation_id}")).json()
        assert operation["input"]["vendor"]["contacts"] == [{"name": "Ada Berg", "email": "ada@example.com"}]

    async def test_a_list_that_may_be_empty_is_left_empty(self, office: Office, browser: Browser):
        await browser.sign_in("demo-vendor-requester")
        case = await changes_requested(office)
        action, fields = await form_at(browser, (await offered(browser, case))["resubmit"])
        emptied = {**fields, **{name: "" for name in fields if ".documents." in name}}
        more = await browser.post(action, {**emptied, "more": "input.vendor.contacts"})
        vendor = "input.vendor."
        shown, required = forms_of(more.text)[action], FormReader(more.text).required
        assert {name for name in shown if ".documents." in name} == {
            f"{vendor}documents.0.{name}" for name in ("title", "reference", "sha256")
        }
        assert {name for name in required if ".documents." in name or ".contacts." in name} == {
            f"{vendor}contacts.0.name",
            f"{vendor}contacts.0.email",
        }
        sent = await browser.post(action, shown)
        assert sent.status_code == 303, sent.text
        operation = await operation_of(office, sent.headers["location"])
        assert operation["input"]["vendor"].get("documents", []) == []
        assert operation["input"]["vendor"]["contacts"] == VENDOR["contacts"]

    async def test_where_the_whole_subject_is_given_anew_the_form_begins_with_what_it_is(
        self, office: Office, browser: Browser
    ):
        await browser.sign_in("demo-vendor-requester")
        case = await changes_requested(office)
        action, fields = await form_at(browser, (await offered(browser, case))["resubmit"])
        sent = await browser.post(action, fields)
        assert sent.status_code == 303, sent.text
        assert (await operation_of(office, sent.headers["location"]))["input"] == {"vendor": case["subject"]}

    async def test_enter_sends_the_form_and_asks_for_no_row(self, office: Office, browser: Browser):
        await browser.sign_in("demo-vendor-requester")
        case = await changes_requested(office)
        href = unescape((await offered(browser, case))["resubmit"])
        buttons = re.findall(r"<button[^>]*>", (await browser.get(href)).text.partition('class="fields"')[2])
        assert ['name="more"' in button for button in buttons] == [False, True, True, False]

    @pytest.mark.parametrize(
        "more", ["reason", "reason.0", "input.vendor.contacts.7.name", "input.vendor.contacts.x.y"]
    )
    async def test_a_row_of_no_list_is_refused_in_words(self, office: Office, browser: Browser, more):
        await browser.sign_in("demo-vendor-requester")
        case = await changes_requested(office)
        action, fields = await form_at(browser, (await offered(browser, case))["resubmit"])
        refused = await browser.post(action, {**fields, "reason": "The IBAN", "more": more})
        assert (refused.status_code, "This is no field of the form." in refused.text) == (422, True)
        assert forms_of(refused.text)[action]["reason"] == "The IBAN"

    async def test_a_plan_is_shown_before_it_is_ordered(self, office: Office, browser: Browser):
        await browser.sign_in("demo-senior-operator")
        case = await office.in_review()
        href = (await offered(browser, case))["replay"]
        assert "Show the plan" in (await browser.get(href)).text
        action, fields = await form_at(browser, href + "?from_step=screen_sanctions")
        assert (fields["step"], len(fields["plan_hash"])) == ("screen_sanctions", 64)
        ordered = await browser.post(action, {**fields, "reason": "The lists were wrong"})
        assert ordered.status_code == 303, ordered.text
        nowhere = await browser.get(href + "?from_step=open_payee")
        assert (nowhere.status_code, "has come to the step" in nowhere.text) == (409, True)

    async def test_a_form_without_its_key_or_tag_orders_nothing(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        action, fields = await form_at(reviewer, (await offered(reviewer, case))["approve"])
        for name in ("key", "etag"):
            answer = await reviewer.post(action, {key: value for key, value in fields.items() if key != name})
            assert answer.status_code == 400, name
        assert (await office.requester.case(case))["state"] == "in_review"


class TestSeeing:
    async def test_a_case_that_was_sent_back_says_at_the_top_by_whom_and_why(self, office: Office, browser: Browser):
        case = await changes_requested(office)
        assert (case["latest"]["name"], case["latest"]["input"]) == ("request_changes", {"grounds": "The IBAN, please"})
        await browser.sign_in("demo-vendor-requester")
        shown = (await browser.get(f"/console/cases/{case['case_id']}")).text
        told = words_of(re.search(r'<dd id="latest">(.*?)</dd>', shown, re.DOTALL)[1])
        assert re.fullmatch(
            r"Request changes by reviewer-1 \(vendor reviewer\) \d+ (s|min) ago Grounds: The IBAN, please", told
        )

    async def test_the_reason_of_whoever_took_it_back_is_said_at_the_top_too(self, office: Office, browser: Browser):
        case = await changes_requested(office)
        undone = await office.operator.override(case, "undo")
        assert undone.status_code == 200, undone.text
        await browser.sign_in("demo-vendor-reviewer")
        shown = (await browser.get(f"/console/cases/{case['case_id']}")).text
        told = words_of(re.search(r'<dd id="latest">(.*?)</dd>', shown, re.DOTALL)[1])
        assert "by operator-1" in told
        assert told.endswith("Reason: Agreed by phone")
        assert (await office.reviewer.take(case, "approve")).status_code == 202
        assert (await office.reviewer.case(case))["latest"] is None, "what is under way says who asked for it"

    async def test_markup_from_outside_is_text(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        vendor = {**VENDOR, "legal_name": MARKUP, "bank_account": {**VENDOR["bank_account"], "holder": "a\u202eb"}}
        key = f"<b>{uuid4().hex}"
        opened = await office.requester.command("/v1/vendor-onboarding", {"business_key": key, "subject": vendor})
        assert opened.status_code == 201, opened.text
        case = opened.json()
        for path in (f"/console/cases/{case['case_id']}", "/console/work?condition=waiting", "/console/work?q=%3Cb%3E"):
            text = (await browser.get(path)).text
            assert "<img" not in text
            assert "<script>" not in text
            assert key not in text
            assert "\u202e" not in text

    async def test_a_form_is_told_of_a_pause_that_no_entry_tells_of(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await office.in_review()
        told = f"/console/cases/{case['case_id']}/changes?seen={10**6}&etag={case['etag']}"
        assert "refused" not in (await browser.get(told)).text
        order = {"process": "vendor_onboarding", "reason": "Moving house"}
        assert (await office.operator.command("/v1/pauses", order)).status_code == 200
        shown = (await browser.get(told)).text
        assert "All cases of Vendor onboarding are paused" in shown
        assert "The pauses that apply to it are others." in shown

    async def test_somebody_elses_process_is_not_there(self, office: Office, browser: Browser):
        await browser.sign_in("demo-parcel-clerk")
        case = await office.draft()
        for path in ("", "/stream?etag=1", "/changes?seen=1", "/evidence", "/transition/submit"):
            assert (await browser.get(f"/console/cases/{case['case_id']}{path}")).status_code in {403, 404}, path

    async def test_the_evidence_is_for_those_to_whom_the_api_gives_it(self, office: Office, browser: Browser):
        case = await office.draft()
        for person, status in (("demo-operator", 403), ("demo-auditor", 200)):
            await browser.sign_in(person)
            assert (await browser.get(f"/console/cases/{case['case_id']}/evidence")).status_code == status

    async def test_the_timeline_by_voice_and_page_by_page(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await blocked(office)
        page = f"/console/cases/{case['case_id']}"
        entries = (await office.operator.get(f"/v1/cases/{case['case_id']}/timeline")).json()["entries"]
        assert f"Timeline {len(entries)} " in words_of((await browser.get(page)).text)
        partners = (await browser.get(f"{page}?show=partners")).text
        assert f"Timeline {len(entries)} " in words_of(partners), "of which some are shown"
        assert "Check the tax id: partner answered closed." in partners
        assert "was opened as" not in partners
        older = (await browser.get(f"{page}?before=3")).text
        assert "Timeline all people" in words_of(older), "how many there are is not known here"
        assert ('id="entry-2"' in older, 'id="entry-3"' in older) == (True, False)
        assert (await browser.get(f"{page}?show=nobody")).status_code == 404

    async def test_the_steps_stay_when_the_work_is_done(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await office.in_review()
        page = f"/console/cases/{case['case_id']}"
        for _ in range(2):
            shown = (await browser.get(page)).text
            panel = words_of(re.search(r'<h2 id="running">(.*?)</section>', shown, re.DOTALL)[1])
            assert panel.startswith("Submit completed Ordered by requester-1")
            assert "succeeded Check the tax id partner partner 1 attempt" in panel
            for _ in range(11):  # as many operations as a page shows, and more
                for override in ("pause", "resume"):
                    assert (await office.operator.override(case, override)).status_code == 200
        asked = await office.reviewer.take(case, "request-changes", {"input": {"grounds": "The IBAN, please"}})
        assert asked.status_code == 200, asked.text
        assert '<h2 id="running">' not in (await browser.get(page)).text, "it took no step"

    async def test_the_timeline_calls_a_team_as_the_rest_of_the_page_does(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await office.in_review()
        approved = await office.reviewer.take(case, "approve")
        await office.perform(approved.json(), rejected_at="create_in_erp")
        shown = (await browser.get(f"/console/cases/{case['case_id']}")).text
        assert "Create the vendor in the ERP: it can't go on (rejected). Erp support decides." in unescape(shown)
        assert "<dt>Who decides</dt><dd>Erp support</dd>" in shown
        assert "erp_support decides" not in shown

    async def test_more_operations_than_are_shown_are_a_click_away(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await office.draft()
        for _ in range(10):
            for override in ("pause", "resume"):
                assert (await office.operator.override(case, override)).status_code == 200
        page = f"/console/cases/{case['case_id']}"
        latest = (await browser.get(page)).text
        assert latest.count('<details id="operation-') == 20
        assert "Operations 20 and more" in words_of(latest)
        link = unescape(re.search(r'These are the latest 20. <a href="([^"#]+)', latest)[1])
        every = (await browser.get(link)).text
        assert (every.count('<details id="operation-'), "These are the latest" in every) == (21, False)
        assert "Operations 21 " in words_of(every)

    async def test_the_stream_tells_of_another_version_and_ends_with_the_session(
        self, office: Office, browser: Browser
    ):
        await browser.sign_in("demo-operator")
        case = await office.draft()
        csrf = await browser.csrf()
        cookie = {"Cookie": f"__Host-caseward={browser.cookie}"}
        href = f"/console/cases/{case['case_id']}/stream?etag={case['etag']}"
        async with browser.http.stream("GET", href, headers=cookie) as stream:
            assert "text/event-stream" in stream.headers["content-type"]
            lines = stream.aiter_lines()
            await office.requester.take(case, "submit")
            assert "event: case" in [await anext(lines) for _ in range(2)]
            await browser.post("/console/sign-out", {"csrf": csrf})
            rest = [line async for line in lines]
        assert not [line for line in rest if line.startswith("event")]


async def places(browser: Browser) -> set[str]:
    """Where the navigation leads."""
    shown = (await browser.get("/console/work")).text
    found = re.search(r'<nav aria-label="Console">(.*?)</nav>', shown, re.DOTALL)
    assert found
    return set(re.findall(r'href="([^"]+)"', found[1]))


class TestWork:
    async def test_shows_what_is_blocked_with_the_next_action(self, office: Office, browser: Browser):
        case = await blocked(office)
        await browser.sign_in("demo-operator")
        text = (await browser.get("/console/work")).text
        assert f"/console/cases/{case['case_id']}/override/retry?step=check_tax_id" in text

    async def test_what_is_proposed_is_confirmed_before_anything_goes_around_it(self, office: Office, browser: Browser):
        proposal = await office.proposal()
        await browser.sign_in("demo-vendor-lead")
        assert (
            f'href="/console/operations/{proposal["operation_id"]}/confirm">Confirm'
            in (await browser.get("/console/work")).text
        )
        await browser.sign_in("demo-operator")
        assert f"/{proposal['case_id']}/override/retry" not in (await browser.get("/console/work")).text

    async def test_leads_nobody_to_a_page_that_would_refuse_them(self, browser: Browser):
        await browser.sign_in("demo-vendor-reviewer")
        assert await places(browser) == {"/console/work", "/console/processes"}
        await browser.sign_in("demo-auditor")
        everything = ("work", "bulk", "pauses", "processes", "numbers")
        assert await places(browser) == {f"/console/{place}" for place in everything}

    async def test_a_key_that_was_copied_with_its_spaces_is_found(self, office: Office, browser: Browser):
        case = await office.draft()
        await browser.sign_in("demo-operator")
        found = await browser.get(f"/console/work?q=%20{case['business_key']}%20")
        assert found.headers["location"] == f"/console/cases/{case['case_id']}"

    async def test_shows_what_waits_for_the_role(self, office: Office, reviewer: Browser):
        case = await office.in_review()
        text = (await reviewer.get("/console/work")).text
        assert "Waiting for you as vendor reviewer" in text
        assert f"/console/cases/{case['case_id']}/transition/approve" in text

    @pytest.mark.parametrize("paused", [False, True])
    async def test_the_list_says_the_sentence_of_the_document(self, office: Office, paused):
        await blocked(office), await office.in_review(), await office.draft()
        if paused:
            order = {"process": "vendor_onboarding", "reason": "Moving house"}
            assert (await office.operator.command("/v1/pauses", order)).status_code == 200
        actor = Actor("ada", frozenset({"operator"}))
        async with office.database.transaction() as session:
            await queries.snapshot(session)
            wanted = queries.CaseFilter(limit=20)
            rows = (await queries.list_cases(session, CATALOGUE, wanted=wanted, actor=actor)).cases
            told = await queries.list_conditions(session, CATALOGUE, rows=rows)
            documents = [await queries.get_case(session, CATALOGUE, case_id=row.case_id, actor=actor) for row in rows]
        assert {each.case_id: each.condition_info for each in documents} == told
        assert {row.condition for row in rows} >= ({"paused"} if paused else {"blocked", "waiting"})

    async def test_a_page_that_is_up_to_date_hears_just_that(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await blocked(office)

        async def fetched() -> tuple[str, int]:
            """What an open page shows, and what it hears when it asks again."""
            sign = re.search(r'"X-Known": "([0-9a-f]{64})"', (await browser.get("/console/work")).text)[1]
            return sign, (await browser.get("/console/work", **{"HX-Request": "true", "X-Known": sign})).status_code

        signs = [await fetched() for _ in range(3)]  # a minute may end between two of them
        assert (signs[-1][1], 204 in {status for _, status in signs}) in {(204, True), (200, True)}
        assert (await office.operator.override(case, "pause")).status_code == 200
        changed = await browser.get("/console/work", **{"HX-Request": "true", "X-Known": signs[-1][0]})
        assert (changed.status_code, case["case_id"] in changed.text) == (200, True)
        sign, _ = await fetched()
        await office.park_a_callback()
        assert (await fetched())[0] != sign
        await browser.sign_in("demo-auditor")
        other = await browser.get("/console/work", **{"HX-Request": "true", "X-Known": signs[-1][0]})
        assert other.status_code == 200

    async def test_one_search_leads_to_the_case(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await blocked(office)
        operation = (await office.operator.case(case))["operation"]
        effect = operation["steps"][0]["effect_key"]
        for wanted in (case["business_key"], case["case_id"], operation["operation_id"], effect):
            found = await browser.get(f"/console/work?q={wanted}")
            assert (found.status_code, found.headers["location"]) == (303, f"/console/cases/{case['case_id']}")

    async def test_a_page_of_a_search_that_looks_again_stays_a_list(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        case = await office.draft()
        again = await browser.get(f"/console/work?q={case['business_key']}", **{"HX-Request": "true"})
        assert (again.status_code, 'id="work"' in again.text, case["case_id"] in again.text) == (200, True, True)

    async def test_pages_follow_one_another(self, office: Office, browser: Browser):
        await browser.sign_in("demo-operator")
        for _ in range(26):
            await office.draft()
        first = (await browser.get("/console/work?process=vendor_onboarding")).text
        shown = set(re.findall(r'id="row-\d+-([0-9a-f-]{36})"', first))
        second = (await browser.get(unescape(re.search(r'<a href="([^"]+)">The next ones', first)[1]))).text
        further = set(re.findall(r'id="row-\d+-([0-9a-f-]{36})"', second))
        assert (len(shown), bool(further), shown & further) == (25, True, set())
        foreign = await browser.get("/console/work?q=a&cursor=x")
        assert foreign.status_code == 422

    async def test_overdue_is_what_has_passed_its_deadline(self, office: Office, browser: Browser):
        from sqlalchemy import text as sql

        await browser.sign_in("demo-operator")
        case = await office.in_review()
        assert case["case_id"] not in (await browser.get("/console/work?overdue=true")).text
        async with office.database.transaction() as session:
            late = "UPDATE cases SET deadline_at = now() - interval '1 minute' WHERE id = :id"
            await session.execute(sql(late), {"id": case["case_id"]})
        assert case["case_id"] in (await browser.get("/console/work?overdue=true")).text

    async def test_a_parked_message_is_released_by_those_who_may(self, office: Office, browser: Browser):
        case = await office.draft()
        message_id = await office.park_a_message(case)
        await browser.sign_in("demo-vendor-reviewer")
        assert "Parked messages" not in (await browser.get("/console/work")).text
        assert (await browser.get("/console/messages")).status_code == 403
        path = f"/console/messages/{message_id}/requeue"
        assert (await browser.post(path, {"csrf": await browser.csrf()})).status_code == 403
        await browser.sign_in("demo-operator")
        assert "Parked messages" in (await browser.get("/console/work")).text
        listed = await browser.get(f"/console/messages?after={message_id - 1}")  # older ones may fill a page
        assert path in listed.text
        assert (await browser.post(path, {"csrf": await browser.csrf()})).status_code == 303
        assert (await browser.post(path, {"csrf": await browser.csrf()})).status_code == 404

    async def test_a_parked_callback_is_dismissed_by_those_who_may(self, office: Office, browser: Browser):
        event_id = await office.park_a_callback(event_id=f"<i>/../{uuid4()}")
        path = "/console/callbacks/dismiss"
        shown_at = f"{path}?{urlencode({'partner': 'bank', 'event_id': event_id})}"
        await browser.sign_in("demo-vendor-reviewer")
        assert "Parked callbacks" not in (await browser.get("/console/work")).text
        assert (await browser.get("/console/callbacks")).status_code == 403
        await browser.sign_in("demo-auditor")
        assert "Dismiss…" not in (await browser.get("/console/callbacks")).text
        assert (await browser.get(shown_at)).status_code == 403
        await browser.sign_in("demo-operator")
        assert "Parked callbacks" in (await browser.get("/console/work")).text
        assert escape(event_id) in (await browser.get("/console/callbacks")).text
        form = forms_of((await browser.get(shown_at)).text)[path]
        unexplained = await browser.post(path, form)
        assert (unexplained.status_code, forms_of(unexplained.text)[path]["key"]) == (422, form["key"])
        given = {**form, "reason": "Their test system"}
        assert (await browser.post(path, {**given, "x" * 300: "?"})).status_code == 422
        for _ in range(2):  # the second click is the same command
            assert (await browser.post(path, given)).status_code == 303
        assert "demo-operator" in (await browser.get(shown_at)).text
        assert (await browser.post(path, {**given, "key": "another"})).status_code == 409
        told = (await browser.get("/console/callbacks")).text
        assert told.index("Dismissed</h2>") < told.index(escape(event_id))
