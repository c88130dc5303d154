"""Bulk recovery in a real browser: an outage blocks many vendors, and one operator repairs them, looking on the way."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.acceptance.console.window import Sit, Window
from tests.faults.company import PATIENCE, Company, Json

VENDORS = 5


@pytest_asyncio.fixture(loop_scope="session")
async def outage(company: Company) -> AsyncIterator[Callable[..., Awaitable[list[Json]]]]:
    """`await outage(5)`: so many vendors whose creation the ERP refuses, each once or more often."""
    cases: list[Json] = []

    async def begins(how_many: int, *, times: int = 1) -> list[Json]:
        cases.extend([await company.in_review() for _ in range(how_many)])
        for case in cases:
            match = case["business_key"]
            await company.fault(partner="erp", call="create_vendor", mode="reject", times=times, match=match)
            await company.approve(case)
        for case in cases:
            await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)
        return cases

    yield begins
    await company.clear_faults()  # the next test's group has only that test's own
    for case in cases:
        now = await company.operator.case(case["case_id"])
        if now["condition"] == "blocked":
            await company.operator.override(now, "retry", reason="The test is over", step="create_in_erp")
        await company.operator.until(case["case_id"], lambda now: now["state"] == "active", within=PATIENCE)


async def ordered(window: Window, *, first: int) -> None:
    """From the work to a run of retries over the vendors that the ERP refused."""
    await window.open("/console/work?condition=blocked")
    await window.follow(window.page.get_by_role("link", name="recover them in bulk"))
    await window.follow(window.page.get_by_role("link", name="Create the vendor in the ERP", exact=True))
    await window.act("retry")
    await window.page.get_by_label("Reason").fill("The ERP is back, ticket 4711")
    await window.page.get_by_label("First ones", exact=True).fill(str(first))
    await window.follow(window.page.get_by_role("button", name="Try again now"))
    await window.page.wait_for_url(re.compile(r"/console/bulk/[0-9a-f-]{36}$"))


def count(window: Window, state: str):
    return expect(window.page.locator(f"#counts [data-count='{state}'] b"))


def stands(window: Window):
    return expect(window.page.locator("#run"))


class TestAnOutage:
    async def test_is_over_for_the_first_ones_then_for_all(self, company: Company, outage, sit: Sit):
        cases = await outage(VENDORS)
        window = await sit("demo-operator")
        await ordered(window, first=2)
        await stands(window).to_have_attribute("data-state", "looking")
        await count(window, "repaired").to_have_text("2")
        await count(window, "frozen").to_have_text(str(VENDORS - 2))
        await expect(window.page.locator("#now + p")).to_contain_text("An operator looks")
        await window.follow(window.page.get_by_role("link", name="Let it go on"))
        await window.page.get_by_label("Reason").fill("The first ones look well")
        await window.follow(window.page.get_by_role("button", name="Let it go on"))
        await stands(window).to_have_attribute("data-state", "completed")
        await count(window, "repaired").to_have_text(str(VENDORS))
        await expect(window.page.get_by_text("Over since")).to_be_visible()
        await expect(window.page.locator("#watch")).to_have_count(0)
        await expect(window.page.locator("#account + ul")).to_contain_text("The first ones look well")
        for case in cases:
            await company.operator.until(case["case_id"], lambda now: now["state"] == "active", within=PATIENCE)
        assert await company.violations({case["case_id"] for case in cases}) == []

    async def test_that_is_not_over_stops_the_run_which_says_why(self, outage, sit: Sit):
        await outage(VENDORS, times=2)
        window = await sit("demo-operator")
        await ordered(window, first=2)
        await stands(window).to_have_attribute("data-state", "stopped")
        await expect(window.page.locator("#now + p")).to_contain_text("Stopped: 2 of the first 2 failed.")
        await count(window, "blocked_again").to_have_text("2")
        await count(window, "left").to_have_text(str(VENDORS - 2))
        await expect(window.page.locator("#watch")).to_have_count(0)
        await window.follow(window.page.locator("#counts").get_by_role("link", name="blocked again"))
        rows = window.page.locator("tr[data-state='blocked_again']")
        await expect(rows).to_have_count(2)
        await expect(rows.first.locator("code")).to_be_visible()
        await window.follow(rows.first.get_by_role("link"))
        await expect(window.page.locator("#case .badge.blocked").first).to_be_visible()

    async def test_is_stopped_by_hand_with_the_keyboard_alone(self, outage, sit: Sit):
        await outage(3)
        window = await sit("demo-operator")
        await ordered(window, first=1)
        await stands(window).to_have_attribute("data-state", "looking")
        stop, as_of = window.page.locator("[data-say='stop']"), window.page.locator("#as-of")
        await stop.focus()
        await expect(as_of).not_to_have_text(await as_of.inner_text())
        await expect(stop).to_be_focused()
        await window.page.keyboard.press("Enter")
        await window.page.get_by_label("Reason").focus()
        await window.page.keyboard.type("The ERP is away again")
        await window.page.keyboard.press("Tab")
        await window.page.keyboard.press("Enter")
        await stands(window).to_have_attribute("data-state", "stopped")
        await count(window, "left").to_have_text("2")

    async def test_is_followed_through_a_lost_connection(self, company: Company, outage, sit: Sit):
        await outage(2)
        window = await sit("demo-operator")
        await ordered(window, first=1)
        await stands(window).to_have_attribute("data-state", "looking")
        line = expect(window.page.locator("[data-live]"))
        await company.stack.stop_service("api")
        try:
            await line.to_contain_text("The connection is lost")
        finally:
            await company.stack.start_service("api")
        await line.to_be_empty()
        (run, *_) = (await company.operator.get("/v1/bulk?state=looking"))["runs"]
        await company.operator.post(f"/v1/bulk/{run['bulk_id']}/continue", {"reason": "They look well"})
        await stands(window).to_have_attribute("data-state", "completed")

    async def test_is_no_business_of_reviewers(self, sit: Sit):
        reviewer = await sit("demo-vendor-reviewer")
        await expect(reviewer.page.get_by_role("link", name="Bulk recovery")).to_have_count(0)
        await reviewer.open("/console/bulk")
        await expect(reviewer.page.locator("[data-code='role_missing']")).to_be_visible()


class TestPages:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [400, 1280])
    async def test_axe_has_nothing_to_say_and_nothing_is_too_wide(self, outage, sit: Sit, scheme, width):
        await outage(3)
        window = await sit("demo-operator", color_scheme=scheme, viewport={"width": width, "height": 900})
        found: dict[str, list[str]] = {}

        async def look() -> None:
            found[window.page.url] = await window.axe()
            assert not await window.is_too_narrow(), window.page.url

        await window.open("/console/bulk")
        await look()
        await window.follow(window.page.get_by_role("link", name="Create the vendor in the ERP", exact=True))
        await look()
        await window.act("retry")
        await look()
        await window.page.get_by_label("Reason").fill("The ERP is back")
        await window.page.get_by_label("First ones", exact=True).fill("1")
        await window.follow(window.page.get_by_role("button", name="Try again now"))
        await stands(window).to_have_attribute("data-state", "looking")
        await look()
        await window.follow(window.page.locator("[data-say='continue']"))
        await look()
        await window.open("/console/bulk")
        await look()
        assert len(found) == 5
        assert found == {url: [] for url in found}
