"""Views of one's own: kept by person, within limits, and harmless when what they ask for is no filter any more."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import delete, func, select

from api.console.saved import MOST_VIEWS
from caseward.db.tables import SavedView
from tests.integration.browser import Browser
from tests.integration.forms import forms_of
from tests.integration.office import Office

VIEWS, FILTER = "/console/views", "condition=blocked&process=vendor_onboarding"
NAME = 'Blocked & <b>mine</b> "now"'
ROW = re.compile(r"<tr>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", re.DOTALL)


@pytest.fixture
async def browser(office: Office) -> AsyncIterator[Browser]:
    async with office.database.transaction() as session:
        await session.execute(delete(SavedView))
    browser = Browser(office)
    await browser.sign_in("demo-operator")
    yield browser
    await browser.http.aclose()


async def post(browser: Browser, path: str, **fields: str):
    return await browser.post(path, {"csrf": await browser.csrf(), **fields})


async def save(browser: Browser, name: str, wanted: str = FILTER):
    return await post(browser, VIEWS, name=name, filter=wanted)


async def listed(browser: Browser) -> dict[str, str]:
    """In the list of views of the work: each name with its address."""
    nav = re.search(r'<nav aria-label="Views".*?</nav>', (await browser.get("/console/work")).text, re.DOTALL)[0]
    return {
        unescape(name): unescape(href) for href, name in re.findall(r'class="own" href="([^"]+)"[^>]*>(.*?)</a>', nav)
    }


async def test_a_filter_is_saved_from_its_own_page_listed_and_led_to(browser: Browser):
    shown = (await browser.get(f"/console/work?{FILTER}")).text
    form = forms_of(shown)[VIEWS]
    saved = await browser.post(VIEWS, {**form, "name": f"  {NAME} "})
    assert (saved.status_code, saved.headers["location"]) == (303, f"/console/work?{FILTER}")
    assert await listed(browser) == {NAME: f"/console/work?{FILTER}"}
    again = (await browser.get(f"/console/work?{FILTER}")).text
    assert "<b>mine</b>" not in again
    assert re.search(r'class="own" href="[^"]+" aria-current="page"', again)
    assert "view-name" not in (await browser.get("/console/work")).text


async def test_it_is_nobody_elses(browser: Browser):
    await save(browser, "Mine")
    await browser.sign_in("demo-auditor")
    assert await listed(browser) == {}
    await post(browser, f"{VIEWS}/delete", name="Mine")
    await post(browser, f"{VIEWS}/rename", name="Mine", to="Theirs")
    await browser.sign_in("demo-operator")
    assert list(await listed(browser)) == ["Mine"]


async def test_saved_again_under_its_name_it_is_replaced(browser: Browser):
    await save(browser, "Mine")
    await save(browser, "Mine", "overdue=true&q=V-1")
    assert await listed(browser) == {"Mine": "/console/work?overdue=true&q=V-1"}


async def test_it_gets_another_name_and_is_forgotten(browser: Browser):
    await save(browser, "Mine")
    await save(browser, "Other", "overdue=true")
    taken = await post(browser, f"{VIEWS}/rename", name="Mine", to="Other")
    assert (taken.status_code, "Another view of yours has this name." in taken.text) == (422, True)
    assert (await post(browser, f"{VIEWS}/rename", name="Mine", to="Mine too")).status_code == 303
    assert list(await listed(browser)) == ["Mine too", "Other"]
    assert (await post(browser, f"{VIEWS}/delete", name="Mine too")).status_code == 303
    assert (await post(browser, f"{VIEWS}/delete", name="Mine too")).status_code == 303
    assert list(await listed(browser)) == ["Other"]


@pytest.mark.parametrize("name", ["", "   ", "a" * 61, "a\x00b", "a\nb", "a\u202eb", "a\u0085b"])
async def test_a_name_that_does_not_fit_comes_back_with_its_filter(browser: Browser, name: str):
    refused = await save(browser, name)
    assert (refused.status_code, "A name has 1 to 60 characters" in refused.text) == (422, True)
    form = forms_of(refused.text)[VIEWS]
    assert parse_qs(form["filter"]) == {"condition": ["blocked"], "process": ["vendor_onboarding"]}
    assert (await browser.post(VIEWS, {**form, "name": "Fits"})).status_code == 303


@pytest.mark.parametrize(
    "wanted", ["", "x", "condition=odd", "nothing=1", "cursor=abc", "q=" + "a" * 201, "condition=blocked&=1"]
)
async def test_what_is_no_filter_is_not_saved(browser: Browser, wanted: str):
    refused = await save(browser, "Odd", wanted)
    assert (refused.status_code, "form_malformed" in refused.text) == (400, True)
    assert await listed(browser) == {}


async def test_there_are_fifty_at_most_and_those_can_still_be_replaced(office: Office, browser: Browser):
    async with office.database.transaction() as session:
        for number in range(MOST_VIEWS):
            view = {"actor_id": "demo-operator", "name": f"View {number}", "filter": {"q": str(number)}}
            session.add(SavedView(**view, saved_at=datetime.now(UTC)))
    refused = await save(browser, "One more")
    assert (refused.status_code, "delete one of them first" in refused.text) == (422, True)
    assert forms_of(refused.text)[VIEWS]["name"] == "One more"
    assert (await save(browser, "View 7")).status_code == 303
    async with office.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(SavedView)) == MOST_VIEWS


@pytest.mark.parametrize("old", [{"colour": "red"}, {"condition": "gone"}, {}, {"cursor": "x"}, {"q": "a" * 300}])
async def test_one_of_another_version_is_shown_as_broken_and_can_be_forgotten(office: Office, browser: Browser, old):
    async with office.database.transaction() as session:
        session.add(SavedView(actor_id="demo-operator", name="Old", filter=old, saved_at=datetime.now(UTC)))
    assert await listed(browser) == {}
    shown = (await browser.get(VIEWS)).text
    ((name, about),) = ROW.findall(shown)
    assert ("Old" in name, "href" in name, "broken" in about) == (True, False, True)
    await post(browser, f"{VIEWS}/delete", name="Old")
    assert "None yet" in (await browser.get(VIEWS)).text


async def test_it_leads_back_to_its_page_whatever_stands_in_it(browser: Browser):
    wanted = "q=50%25+%26+%C3%A4%2F%3Fx%3D1&assignee=ada%2Bbob"
    await save(browser, "Odd", wanted)
    (href,) = (await listed(browser)).values()
    assert parse_qs(urlsplit(href).query) == {"q": ["50% & ä/?x=1"], "assignee": ["ada+bob"]}
