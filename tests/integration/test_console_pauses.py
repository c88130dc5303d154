"""Pauses at the console: the same commands as the API's, for the same people, once however often a form is sent."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select

from caseward.cases import breaker
from caseward.cases.pauses import ensure, partner_key
from caseward.db.session import database_now
from caseward.db.tables import Pause, PauseChange
from caseward.situation import SYSTEM
from tests.integration.browser import Browser
from tests.integration.forms import forms_of
from tests.integration.office import Office

PAUSES, OF_BANK = "/console/pauses", "/console/pauses/partner/bank"
BANK = partner_key("bank")


@pytest.fixture
async def browser(office: Office) -> AsyncIterator[Browser]:
    browser = Browser(office)
    await browser.sign_in("demo-operator")
    yield browser
    async with office.database.transaction() as session:
        await session.execute(delete(PauseChange))
        await session.execute(delete(Pause))
    await browser.http.aclose()


async def form_of(browser: Browser, path: str) -> dict[str, str]:
    return forms_of((await browser.get(path)).text)[path]


async def row(browser: Browser, name: str) -> str:
    """What the list says of one of them, in words."""
    found = re.search(rf'<tr id="pause-{name}">(.*?)</tr>', (await browser.get(PAUSES)).text, re.DOTALL)
    assert found
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


async def changes(office: Office) -> int:
    async with office.database.transaction() as session:
        return await session.scalar(select(func.count()).select_from(PauseChange)) or 0


async def test_a_partner_is_paused_and_resumed(office: Office, browser: Browser):
    assert "open Nothing holds it up." in await row(browser, "partner-bank")
    form = await form_of(browser, f"{OF_BANK}/pause")
    form |= {"reason": "They move house, <b>ticket</b> 4711", "deadlines": "frozen"}
    answer = await browser.post(f"{OF_BANK}/pause", form)
    assert (answer.status_code, answer.headers["location"]) == (303, PAUSES)
    assert (await browser.post(f"{OF_BANK}/pause", form)).status_code == 303  # the same click once more
    assert await changes(office) == 1
    told = await row(browser, "partner-bank")
    assert "paused Nothing new begins" in told
    assert "demo-operator" in told
    assert "They move house, &lt;b&gt;ticket&lt;/b&gt; 4711" in told
    assert "Deadlines are frozen." in told
    pauses = (await office.operator.get("/v1/pauses")).json()["pauses"]
    assert [each["name"] for each in pauses if each["state"] == "paused"] == ["bank"]

    form = await form_of(browser, f"{OF_BANK}/resume")
    assert form["rate"] == "20"
    answer = await browser.post(f"{OF_BANK}/resume", {**form, "reason": "They are back", "rate": "5"})
    assert answer.status_code == 303, answer.text
    assert "resuming" in await row(browser, "partner-bank")


async def test_a_process_is_paused(office: Office, browser: Browser):
    path = f"{PAUSES}/process/vendor_onboarding/pause"
    answer = await browser.post(path, {**await form_of(browser, path), "reason": "An audit"})
    assert answer.status_code == 303, answer.text
    assert "An audit" in await row(browser, "process-vendor_onboarding")


async def test_what_is_wrong_comes_back_with_the_form_and_the_same_key(office: Office, browser: Browser):
    form = await form_of(browser, f"{OF_BANK}/pause")
    wrong = await browser.post(f"{OF_BANK}/pause", {**form, "reason": "", "deadlines": "melting"})
    assert wrong.status_code == 422
    again = forms_of(wrong.text)[f"{OF_BANK}/pause"]
    assert again["key"] == form["key"]
    assert await changes(office) == 0


async def test_what_is_paused_already_is_refused(office: Office, browser: Browser):
    form = await form_of(browser, f"{OF_BANK}/pause")
    assert (await browser.post(f"{OF_BANK}/pause", {**form, "reason": "Once"})).status_code == 303
    assert "Not now" in (await browser.get(f"{OF_BANK}/pause")).text
    refused = await browser.post(f"{OF_BANK}/pause", {**form, "key": "another", "reason": "Twice"})
    assert (refused.status_code, "already_paused" in refused.text) == (409, True)
    assert await changes(office) == 1


async def test_what_the_breaker_paused_is_taken_over_by_a_person(office: Office, browser: Browser):
    """It would let a few cases try by itself; a person's pause stands until a person ends it."""
    async with office.database.transaction() as session:
        now = await database_now(session)
        await ensure(session, [BANK], now)
        pause = await session.get_one(Pause, BANK)
        pause.probe_at = now + timedelta(minutes=5)
        breaker.change(session, pause, "paused", actor=SYSTEM, reason="It does not answer.", now=now)
    assert "Take it over…" in await row(browser, "partner-bank")
    shown = (await browser.get(f"{OF_BANK}/pause")).text
    assert "Take over the pause of the partner bank" in shown
    assert "nobody tries, and it does not go on when the partner answers again" in shown
    form = forms_of(shown)[f"{OF_BANK}/pause"]
    answer = await browser.post(f"{OF_BANK}/pause", {**form, "reason": "They move house", "deadlines": "frozen"})
    assert answer.status_code == 303, answer.text
    told = await row(browser, "partner-bank")
    assert "demo-operator" in told
    assert "They move house" in told
    assert "The next try" not in told
    assert "Take it over…" not in told


@pytest.mark.parametrize("path", [f"{PAUSES}/partner/nobody/pause", f"{PAUSES}/case/bank/pause", f"{OF_BANK}/end"])
async def test_what_is_not_there_is_not_found(browser: Browser, path: str):
    assert (await browser.get(path)).status_code == 404


async def test_auditors_look_and_others_do_not(browser: Browser):
    form = await form_of(browser, f"{OF_BANK}/pause")
    await browser.sign_in("demo-auditor")
    assert (await browser.get(PAUSES)).status_code == 200
    assert "Pause…" not in await row(browser, "partner-bank")
    assert (await browser.get(f"{OF_BANK}/pause")).status_code == 403
    moved = {**form, "csrf": await browser.csrf(), "reason": "Because"}
    assert (await browser.post(f"{OF_BANK}/pause", moved)).status_code == 403
    await browser.sign_in("demo-vendor-requester")
    assert (await browser.get(PAUSES)).status_code == 403
