"""Bulk recovery at the console: the groups, the form of an order, a run and what may be said to it."""

import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from caseward.cases import bulk_drive
from caseward.cases.bulk import DEFAULT_RATE
from caseward.process import Confirmation
from processes.vendor_onboarding import LEAD, VENDOR_ONBOARDING
from tests.integration.browser import Browser
from tests.integration.forms import form_at, forms_of
from tests.integration.office import CATALOGUE, Office
from tests.integration.test_api_bulk import blocked, nobody_elses_runs  # noqa: F401 - the fixture holds here too

GROUPS = "/console/bulk?process=vendor-onboarding"
REASON = {"reason": "The bank mended it"}


@pytest.fixture
async def browser(office: Office) -> AsyncIterator[Browser]:
    """An operator's."""
    browser = Browser(office)
    await browser.sign_in("demo-operator")
    yield browser
    await browser.http.aclose()


@pytest.fixture(autouse=True)
async def nothing_else_is_blocked(office: Office) -> None:
    async with office.database.transaction() as session:
        await session.execute(text("UPDATE effects SET state = 'settled', cause = NULL WHERE state = 'blocked'"))


async def group_at(browser: Browser) -> str:
    """The page of the one group that there is."""
    shown = await browser.get(GROUPS)
    (href,) = set(re.findall(r'href="(/console/bulk/group\?[^"]+)"', shown.text))
    return unescape(href)


async def order_of(browser: Browser, override: str = "retry") -> str:
    """The form of an order over the one group that there is."""
    shown = await browser.get(await group_at(browser))
    return unescape(re.search(rf'href="([^"]+)" data-action="{override}"', shown.text)[1])


async def ordered(browser: Browser, **fields: str) -> str:
    """The page of a run."""
    action, form = await form_at(browser, await order_of(browser))
    sent = await browser.post(unescape(action), {**form, **REASON, **fields})
    assert sent.status_code == 303, sent.text
    return sent.headers["location"]


async def run_of(office: Office, href: str) -> dict:
    return (await office.operator.get(href.replace("/console/", "/v1/"))).json()


def said(answer) -> str:
    """The words of a page, as people read them."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


class TestGroups:
    async def test_are_listed_with_what_they_have_in_common_and_lead_to_their_cases(
        self, office: Office, browser: Browser
    ):
        cases = await blocked(office, 3)
        listed = said(await browser.get(GROUPS))
        assert (
            "Open the payee at the bank Vendor onboarding · partner partner 3 The partner partner refused closed Closed"
            in listed
        )
        assert "Treasury" in listed
        shown = await browser.get(await group_at(browser))
        assert "3 cases are blocked alike" in shown.text
        found = re.findall(r'href="/console/cases/([0-9a-f-]{36})"', shown.text)
        assert found == [case["case_id"] for case in cases], "the oldest first"
        assert "Nothing is blocked in this process" in (await browser.get("/console/bulk?process=parcel-return")).text

    async def test_their_cases_come_page_by_page(self, office: Office, browser: Browser, monkeypatch):
        monkeypatch.setattr("api.console.bulk_order.CASES", 2)
        cases = await blocked(office, 3)
        first = await browser.get(await group_at(browser))
        href = unescape(re.search(r'href="([^"]+)">The next ones', first.text)[1])
        second = await browser.get(href)
        found = [re.findall(r'href="/console/cases/([0-9a-f-]{36})"', shown.text) for shown in (first, second)]
        assert found == [[cases[0]["case_id"], cases[1]["case_id"]], [cases[2]["case_id"]]]
        assert "The next ones" not in second.text

    async def test_the_work_leads_to_them_where_several_cases_are_blocked_alike(self, office: Office, browser: Browser):
        await blocked(office, 1)
        assert "recover them in bulk" not in (await browser.get("/console/work?condition=blocked")).text
        await blocked(office, 1)
        shown = said(await browser.get("/console/work?condition=blocked"))
        assert "2 of these are blocked for the same reason: recover them in bulk" in shown
        await browser.sign_in("demo-vendor-reviewer")
        assert "recover them in bulk" not in (await browser.get("/console/work?condition=blocked")).text

    async def test_are_for_those_to_whom_the_api_shows_runs(self, office: Office, browser: Browser):
        await blocked(office, 2)
        group, form = await group_at(browser), await order_of(browser)
        run = await ordered(browser)
        await browser.sign_in("demo-vendor-reviewer")
        for path in ("/console/bulk", group, form, run, f"{run}/stop"):
            refused = await browser.get(path)
            assert (refused.status_code, "role_missing" in refused.text) == (403, True), path

    async def test_one_that_is_gone_is_said_to_be(self, office: Office, browser: Browser):
        await blocked(office, 1)
        href = await group_at(browser)
        async with office.database.transaction() as session:
            await session.execute(text("UPDATE effects SET state = 'settled' WHERE state = 'blocked'"))
        gone = await browser.get(href)
        assert (gone.status_code, "No case is blocked like that now." in gone.text) == (409, True)


class TestAnOrder:
    async def test_says_first_what_follows(self, office: Office, browser: Browser):
        await blocked(office, 2)
        shown = said(await browser.get(await order_of(browser)))
        for line in (
            "The next attempt begins now, under the same effect key: what the partner did is not done twice.",
            "Left to do then Mail the welcome letter",
            "The list is frozen with your order: 2 cases",
            "The policy decides on each case at its turn",
            "The partner partner has declared no limit",
        ):
            assert line in shown

    async def test_says_what_the_partner_takes(self, office: Office, browser: Browser, monkeypatch):
        monkeypatch.setitem(CATALOGUE.limits, "partner", 7)
        await blocked(office, 2)
        href = await order_of(browser)
        assert "The partner partner takes 7 cases a second at most" in said(await browser.get(href))
        action, form = await form_at(browser, href)
        assert form["rate"] == "7"
        sent = await browser.post(unescape(action), {**form, **REASON, "rate": "100"})
        assert (await run_of(office, sent.headers["location"]))["rate"] == 7

    async def test_takes_in_nothing_later_whatever_its_address_says(self, office: Office, browser: Browser):
        await blocked(office, 1)
        action, form = await form_at(browser, f"{await order_of(browser)}&until=9999-12-31T00:00:00Z")
        await blocked(office, 1)
        sent = await browser.post(unescape(action), {**form, **REASON})
        assert (await run_of(office, sent.headers["location"]))["total"] == 1

    async def test_is_the_apis(self, office: Office, browser: Browser):
        await blocked(office, 4)
        href = await ordered(browser, canary="2", rate="7", stop_after="1", look="true")
        run = await run_of(office, href)
        wanted = {"override": "retry", "reason": REASON["reason"], "input": {}, "canary": 2, "rate": 7}
        assert {name: run[name] for name in wanted} == wanted
        assert (run["stop_after"], run["look"], run["total"], run["state"]) == (1, True, 4, "canary")
        assert run["actor"]["id"] == "demo-operator"

    async def test_sent_twice_is_one_run(self, office: Office, browser: Browser):
        await blocked(office, 2)
        action, form = await form_at(browser, await order_of(browser))
        first = await browser.post(unescape(action), {**form, **REASON})
        async with office.database.transaction() as session:  # meanwhile all of them are mended
            await session.execute(text("UPDATE effects SET state = 'settled' WHERE state = 'blocked'"))
        second = await browser.post(unescape(action), {**form, **REASON})
        assert first.status_code == second.status_code == 303
        assert first.headers["location"] == second.headers["location"]
        other = await browser.post(unescape(action), {**form, "reason": "Something else"})
        assert (other.status_code, "idempotency_key_reused" in other.text) == (422, True)

    async def test_is_over_no_more_than_its_reader_saw(self, office: Office, browser: Browser):
        await blocked(office, 2)
        action, form = await form_at(browser, await order_of(browser))
        await blocked(office, 1)
        sent = await browser.post(unescape(action), {**form, **REASON})
        assert (await run_of(office, sent.headers["location"]))["total"] == 2

    async def test_is_over_the_chosen_ones_alone(self, office: Office, browser: Browser):
        cases = await blocked(office, 3)
        href = await group_at(browser)
        shown = (await browser.get(href)).text
        assert shown.count('form="chosen" name="case"') == 3
        chosen = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown.split('id="chosen"')[1]))
        none = await browser.get(f"/console/bulk/order/retry?{urlencode(chosen)}")
        assert none.status_code == 303
        assert "Tick at least one" in said(await browser.get(none.headers["location"]))
        ticked = [("case", case["case_id"]) for case in cases[1:]]
        asked = f"/console/bulk/order/retry?{urlencode([*chosen.items(), *ticked])}"
        form_page = said(await browser.get(asked))
        assert (
            f"Only the chosen ones of the group: {cases[1]['business_key']} , {cases[2]['business_key']}" in form_page
        )
        assert "2 cases" in form_page
        action, form = await form_at(browser, asked)
        async with office.database.transaction() as session:  # one of them moves on before it is ordered
            mend = "UPDATE effects SET state = 'settled' WHERE state = 'blocked' AND case_id = :id"
            await session.execute(text(mend), {"id": cases[1]["case_id"]})
        assert "1 more that was chosen is no longer blocked as you saw it." in said(await browser.get(asked))
        sent = await browser.post(unescape(action), {**form, **REASON})
        assert sent.status_code == 303, sent.text
        href = sent.headers["location"]
        items = (await run_of(office, href + "/items"))["items"]
        assert [item["case_id"] for item in items] == [cases[2]["case_id"]]
        shown = await browser.get(href)
        assert 'id="chosen"' in shown.text
        assert (await run_of(office, href))["chosen"]["sentence"] in said(shown)
        assert "Try again now: Open the payee at the bank, chosen cases" in said(await browser.get(GROUPS))

    async def test_over_a_whole_group_says_nothing_of_chosen_cases(self, office: Office, browser: Browser):
        await blocked(office, 2)
        shown = await browser.get(await ordered(browser))
        assert ('id="chosen"' in shown.text, "chosen cases" in shown.text) == (False, False)

    async def test_over_a_case_that_is_none_is_refused(self, office: Office, browser: Browser):
        cases = await blocked(office, 1)
        form_page = await order_of(browser)
        action, form = await form_at(browser, form_page)
        nobodys = "0199d0a0-0000-7000-8000-000000000000"
        wrong = urlencode([("case", cases[0]["case_id"]), ("case", nobodys)])
        before = await office.rows()
        asked = await browser.get(f"{form_page}&{wrong}")
        sent = await browser.post(f"{unescape(action)}&{wrong}", {**form, **REASON})
        for refused in (asked, sent):
            assert (refused.status_code, f"No case has the id {nobodys} here." in refused.text) == (422, True)
        assert await office.rows() == before

    async def test_comes_back_with_what_is_wrong_and_what_was_typed(self, office: Office, browser: Browser):
        await blocked(office, 4)
        action, form = await form_at(browser, await order_of(browser))
        given = {**form, "reason": "<b>Mended</b>", "canary": "0", "rate": "many", "look": "false"}
        before = await office.rows()
        wrong = await browser.post(unescape(action), given)
        assert (wrong.status_code, await office.rows()) == (422, before)
        again = forms_of(wrong.text)[action]
        assert (again["key"], again["reason"], again["canary"], again["rate"]) == (
            form["key"],
            "<b>Mended</b>",
            "0",
            "many",
        )
        assert '<option value="false" selected>No</option>' in wrong.text
        assert 'id="f-canary-wrong"' in wrong.text
        assert 'id="f-rate-wrong"' in wrong.text
        right = await browser.post(unescape(action), {**again, "canary": "1", "rate": "", "look": "true"})
        assert right.status_code == 303, right.text
        assert (await run_of(office, right.headers["location"]))["rate"] == DEFAULT_RATE

    async def test_without_the_role_shows_why_and_is_refused(self, office: Office, browser: Browser):
        await blocked(office, 2)
        action, form = await form_at(browser, await order_of(browser))
        href = await order_of(browser)
        await browser.sign_in("demo-auditor")
        shown = await browser.get(await group_at(browser))
        assert "Nothing, in your role." in shown.text
        page = await browser.get(href)
        assert ('data-code="role_missing"' in page.text, list(forms_of(page.text))) == (True, ["/console/sign-out"])
        fields = {**form, **REASON, "csrf": await browser.csrf()}
        refused = await browser.post(unescape(action), fields)
        assert (refused.status_code, "Only an operator or senior operator may." in refused.text) == (403, True)

    async def test_what_the_policy_would_refuse_in_every_case_is_not_offered(self, office: Office, browser: Browser):
        await blocked(office, 2)
        shown = await browser.get(await group_at(browser))
        assert set(re.findall(r'data-action="(\w+)"', shown.text)) == {"retry", "undo", "pause", "resume"}
        refused = re.search(r'id="refused-orders">(.*?)</details>', shown.text, re.DOTALL)[1]
        assert "Leave it out" in refused
        await browser.sign_in("demo-senior-operator")
        shown = await browser.get(await group_at(browser))
        assert set(re.findall(r'data-action="(\w+)"', shown.text)) >= {"skip", "mark_done", "force_cancel"}
        assert (await browser.get((await order_of(browser)).replace("retry", "replay"))).status_code == 404

    async def test_what_others_must_confirm_is_said_to_be_only_proposed(
        self, office: Office, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(VENDOR_ONBOARDING.confirmations, "undo", Confirmation(by=1, roles=frozenset({LEAD})))
        await blocked(office, 2)
        shown = said(await browser.get(await order_of(browser, "undo")))
        assert "It is only proposed: nothing happens before one more person" in shown
        assert "Will be taken back, in this order" in shown

    async def test_of_what_was_done_by_hand_asks_for_the_result(self, office: Office, browser: Browser):
        await blocked(office, 2)
        await browser.sign_in("demo-senior-operator")
        action, form = await form_at(browser, await order_of(browser, "mark_done"))
        assert set(form) == {
            "csrf",
            "key",
            "reason",
            "input.result.payee_id",
            "canary",
            "rate",
            "stop_after",
            "look",
        }
        sent = await browser.post(unescape(action), {**form, **REASON, "input.result.payee_id": "P-1"})
        assert (await run_of(office, sent.headers["location"]))["input"] == {"result": {"payee_id": "P-1"}}

    async def test_over_unknown_outcomes_asks_whether_it_happened(self, office: Office, browser: Browser):
        await blocked(office, 2)
        assert "input.happened" not in (await form_at(browser, await order_of(browser)))[1]
        async with office.database.transaction() as session:
            await session.execute(text("UPDATE effects SET outcome = 'unknown' WHERE state = 'blocked'"))
        assert "2 unknown" in said(await browser.get(GROUPS))
        action, form = await form_at(browser, await order_of(browser))
        sent = await browser.post(unescape(action), {**form, **REASON, "input.happened": "false"})
        assert (await run_of(office, sent.headers["location"]))["input"] == {"happened": False}


class TestARun:
    async def test_shows_every_case_page_by_page_and_by_state(self, office: Office, browser: Browser, monkeypatch):
        monkeypatch.setattr("api.console.bulk.ITEMS", 2)
        cases = await blocked(office, 3)
        href = await ordered(browser, canary="1")
        answer = await browser.get(href)
        shown = answer.text
        assert re.findall(r'id="item-(\d+)"', shown) == ["1", "2"]
        for case in cases[:2]:
            assert f"{case['title']} {case['business_key']}" in said(answer)
        second = (await browser.get(unescape(re.search(r'href="([^"]+)">The next ones', shown)[1]))).text
        assert re.findall(r'id="item-(\d+)"', second) == ["3"]
        await bulk_drive.drive(office.database, CATALOGUE)
        sent = (await browser.get(f"{href}?state=sent")).text
        assert re.findall(r'id="item-(\d+)"', sent) == ["1"]
        assert (await browser.get(f"{href}?state=lost")).status_code == 404
        assert (await browser.get("/console/bulk/0199d0a0-0000-7000-8000-000000000000")).status_code == 404

    async def test_is_listed_with_where_it_stands(self, office: Office, browser: Browser):
        await blocked(office, 3)
        href = await ordered(browser, canary="1")
        listed = said(await browser.get(GROUPS))
        assert "Try again now: Open the payee at the bank Vendor onboarding · partner partner canary" in listed
        assert "The first one is tried." in listed
        assert href in (await browser.get(GROUPS)).text
        assert href not in (await browser.get("/console/bulk?process=parcel-return")).text

    async def test_asks_again_until_it_is_over(self, office: Office, browser: Browser):
        await blocked(office, 2)
        href = await ordered(browser)
        assert 'id="watch"' in (await browser.get(href)).text
        action, form = await form_at(browser, f"{href}/stop")
        wrong = await browser.post(action, {**form, "reason": "x"})
        assert (wrong.status_code, forms_of(wrong.text)[action]["reason"]) == (422, "x")
        for none in ({"reason:json": "{never closed"}, {"reason": "Not yet mended", "x" * 300: "?"}):
            malformed = await browser.post(action, {"csrf": form["csrf"], **none})
            assert (malformed.status_code, 'role="alert"' in malformed.text) == (422, True)
        assert (await browser.post(action, {**form, "reason": "Not yet mended"})).status_code == 303
        assert (await browser.post(action, {**form, "reason": "Not yet mended"})).status_code == 303, "twice is once"
        await bulk_drive.drive(office.database, CATALOGUE)
        shown = await browser.get(href)
        assert "Stopped: Not yet mended" in shown.text
        assert "Over since" in shown.text
        assert ('id="watch"' in shown.text, "data-say" in shown.text) == (False, False)

    async def test_that_nobody_looks_at_cannot_be_told_to_go_on(self, office: Office, browser: Browser):
        await blocked(office, 2)
        href = await ordered(browser)
        shown = await browser.get(f"{href}/continue")
        assert list(forms_of(shown.text)) == ["/console/sign-out"]
        fields = {"csrf": await browser.csrf(), "reason": "They look well"}
        refused = await browser.post(f"{href}/continue", fields)
        assert (refused.status_code, "nobody has to say go on" in refused.text) == (409, True)

    async def test_is_only_looked_at_by_an_auditor(self, office: Office, browser: Browser):
        await blocked(office, 2)
        href = await ordered(browser)
        await browser.sign_in("demo-auditor")
        shown = await browser.get(href)
        assert "Only an operator or senior operator may stop it" in shown.text
        fields = {"csrf": await browser.csrf(), "reason": "Let me try"}
        assert (await browser.post(f"{href}/stop", fields)).status_code == 403
        assert (await run_of(office, href))["state"] == "canary"
