"""The console in a real browser: what people see is what the server says, and what they are offered is taken."""

import pytest
from playwright.async_api import expect

from tests.acceptance.console.window import Sit
from tests.faults.company import PATIENCE, Company, Json
from tests.processes.vendor_onboarding import EXAMPLE

MARKUP = "<img src=x onerror=document.title='owned'> & <script>document.title='owned'</script>"

OTHERS = (
    "/console/processes",
    "/console/processes/vendor-onboarding",
    "/console/numbers",
    "/console/pauses",
    "/console/pauses/partner/bank/pause",
)


def at(case: Json) -> str:
    return f"/console/cases/{case['case_id']}"


async def blocked(company: Company) -> Json:
    """The bank refuses the payee once."""
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1, match=case["business_key"])
    await company.approve(case)
    return await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)


class TestSignIn:
    async def test_and_out_again(self, sit: Sit):
        window = await sit()
        await window.open("/console/work?condition=done")
        await expect(window.page.get_by_role("heading", name="Demo sign-in")).to_be_visible()
        await window.follow(window.page.locator("button[value='demo-operator']"))
        await window.page.wait_for_url("**/console/work?condition=done")
        (cookie,) = await window.page.context.cookies()
        assert (cookie["name"][:7], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
            "__Host-",
            True,
            True,
            "Lax",
        )
        await window.follow(window.page.get_by_role("button", name="Sign out"))
        await window.page.wait_for_url("**/console/sign-in")
        assert await window.page.context.cookies() == []
        await window.page.context.add_cookies([{**cookie, "expires": -1}])
        await window.open("/console/work")
        await expect(window.page).to_have_url(window.url + "/console/sign-in?to=/console/work")


class TestActing:
    async def test_what_is_offered_is_taken_and_the_page_follows_to_the_end(self, company: Company, sit: Sit):
        case = await company.in_review()
        window = await sit("demo-vendor-reviewer")
        await window.open(at(case))
        await window.act("approve")
        await expect(window.page.get_by_text("Create the vendor in the ERP")).to_be_visible()
        await window.follow(window.page.get_by_role("button", name="Approve"))
        await expect(window.page.locator("#order")).to_have_attribute("data-state", "completed")
        await expect(window.page.locator("#case .badge.state").first).to_have_text("Active")
        assert (await company.operator.case(case["case_id"]))["state"] == "active"

    async def test_three_clicks_from_the_work_to_a_repair(self, company: Company, sit: Sit):
        case = await blocked(company)
        window = await sit("demo-operator")
        row = window.page.locator(f"tr:has(a[href='{at(case)}'])")
        await window.open("/console/work?condition=blocked")
        await window.follow(row.get_by_role("link", name="Try again now"))
        await window.page.get_by_label("Reason").fill("The bank mended it")
        await window.follow(window.page.get_by_role("button", name="Try again now"))
        await expect(window.page.locator("#order")).to_have_attribute("data-state", "completed")
        await expect(window.page.locator("#case .badge.state").first).to_have_text("Active")
        assert await company.violations({case["case_id"]}) == []

    async def test_a_stale_button_is_refused_with_what_changed_and_by_whom(self, company: Company, sit: Sit):
        case = await blocked(company)
        first, second = await sit("demo-operator"), await sit("demo-senior-operator")
        for window in (first, second):
            await window.open(at(case))
            await window.act("retry")
            await window.page.get_by_label("Reason").fill(f"Tried from {window is first}")
        await second.follow(second.page.get_by_role("button", name="Try again now"))
        await expect(second.page.locator("#order")).to_have_attribute("data-state", "completed")
        await expect(first.page.locator("#changed")).to_contain_text("The case has changed since you opened this form.")
        await first.follow(first.page.get_by_role("button", name="Try again now"))
        refused = first.page.locator("#refused")
        await expect(refused).to_contain_text("nothing of what you sent was done")
        await expect(refused).to_contain_text("demo-senior-operator")
        await expect(first.page.locator("#case")).to_be_visible()
        operations = await company.operator.get(f"/v1/cases/{case['case_id']}/timeline")
        ordered = [entry for entry in operations["entries"] if entry["type"] == "operation.accepted"]
        assert [entry["actor"]["id"] for entry in ordered][-1] == "demo-senior-operator"


class TestSeeing:
    async def test_an_open_form_says_how_the_case_stands_now(self, company: Company, sit: Sit):
        case = await company.draft()
        window = await sit("demo-operator")
        await window.open(at(case) + "/override/pause")
        await expect(window.page.locator("#changed")).to_contain_text("Waiting for a vendor requester.")
        await company.operator.override(case, "pause", reason="Moving house")
        await expect(window.page.locator("#changed")).to_contain_text("This case is paused")
        await expect(window.page.locator("#changed")).not_to_contain_text("Waiting for")
        await expect(window.page.locator("#changed")).to_contain_text("What you send now will be refused.")

    async def test_the_page_changes_while_a_worker_works_and_keeps_what_was_opened(self, company: Company, sit: Sit):
        case = await company.in_review()
        window = await sit("demo-vendor-reviewer")
        await window.open(at(case))
        await expect(window.page.locator("#live")).to_have_text("Live")
        await window.page.locator("#refused-actions summary").click()
        await company.approve(case)
        await expect(window.page.locator("#case .badge.state").first).to_have_text("Active")
        await expect(window.page.locator("#refused-actions")).to_have_attribute("open", "")

    async def test_a_lost_connection_is_said(self, company: Company, sit: Sit):
        case = await company.draft()
        window = await sit("demo-operator")
        await window.open(at(case))
        await expect(window.page.locator("#live")).to_have_text("Live")
        await company.stack.stop_service("api")
        try:
            await expect(window.page.locator("#live")).to_contain_text("The connection is lost")
        finally:
            await company.stack.start_service("api")
        await expect(window.page.locator("#live")).to_have_text("Live")

    async def test_markup_from_outside_is_text_everywhere(self, company: Company, sit: Sit):
        key = f"<b>{MARKUP[:40]}"
        vendor = {**EXAMPLE, "legal_name": MARKUP, "contacts": [{"name": MARKUP, "email": "a@example.com"}]}
        case = await company.insist(lambda sent: company.requester.open("vendor_onboarding", key, vendor, key=sent))
        window = await sit("demo-vendor-requester")
        for path in (at(case), at(case) + "/transition/submit", "/console/work"):
            await window.open(path)
            await expect(window.page.get_by_text("<img src=x onerror").first).to_be_visible()
            assert await window.page.locator("img").count() == 0
            assert await window.page.title() != "owned"
        await window.open(at(case) + "/transition/cancel")
        await window.page.get_by_label("Reason").fill(MARKUP)
        await window.follow(window.page.get_by_role("button", name="Withdraw the request"))
        await expect(window.page.locator("#order")).to_have_attribute("data-state", "completed")
        await expect(window.page.locator(".timeline")).to_contain_text("<script>")


class TestAccessibility:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_axe_has_nothing_to_say(self, company: Company, sit: Sit, scheme):
        case = await blocked(company)
        window = await sit("demo-operator", color_scheme=scheme)
        retry = at(case) + "/override/retry?step=open_payee"
        paths = ("/console/work", at(case), retry, "/console/sign-in", *OTHERS)
        found = {path: await window.axe(path) for path in paths}
        assert found == {path: [] for path in found}

    @pytest.mark.parametrize("width", [400, 1280])
    async def test_nothing_is_wider_than_the_window(self, company: Company, sit: Sit, width):
        case = await company.draft()
        window = await sit("demo-operator", viewport={"width": width, "height": 900})
        for path in ("/console/work?process=vendor_onboarding", at(case), at(case) + "/override/pause", *OTHERS):
            await window.open(path)
            assert not await window.is_too_narrow(), path

    async def test_the_columns_of_all_sections_of_the_work_are_aligned(self, company: Company, sit: Sit):
        await blocked(company)
        await company.draft()
        await company.in_review()
        window = await sit("demo-operator", viewport={"width": 1280, "height": 900})
        await company.operator.override(await company.draft(), "pause", reason="Moving house")
        await window.open("/console/work")
        columns = await window.page.eval_on_selector_all(
            "table.cases tr:first-child",
            "rows => rows.map(row => [...row.cells].map(cell => Math.round(cell.getBoundingClientRect().left)).join())",
        )
        assert len(columns) > 2
        assert len(set(columns)) == 1, columns

    @pytest.mark.parametrize(("width", "lines"), [(400, 3), (1280, 1)])
    async def test_the_header_takes_few_lines(self, sit: Sit, width, lines):
        window = await sit("demo-compliance-applicant", viewport={"width": width, "height": 900})
        middles = await window.page.eval_on_selector_all(
            ".top > *",
            "parts => parts.map(part => part.getBoundingClientRect()).map(part => part.top + part.height / 2)",
        )
        assert len({round(middle / 20) for middle in middles}) <= lines, middles

    async def test_a_picture_that_is_too_wide_is_moved_by_the_keyboard_within_its_frame(
        self, company: Company, sit: Sit
    ):
        case = await company.draft()
        window = await sit("demo-operator", viewport={"width": 400, "height": 900})
        for path in (at(case), "/console/processes/vendor-onboarding"):
            await window.open(path)
            frame = window.page.get_by_role("region", name="Picture of the states")
            await expect(window.page.get_by_text("It is wider than the window")).to_be_visible()
            width = await frame.evaluate("each => each.querySelector('svg').getBoundingClientRect().width")
            assert width > 700, "it is as large as it was drawn"
            middle = await frame.evaluate("each => each.scrollLeft")
            assert middle > 150, "its middle is what is seen first"
            await frame.evaluate(
                "(each, from) => each.onscroll = () => { each.dataset.moved = each.scrollLeft > from; }",
                middle,
            )
            await frame.focus()
            await window.page.keyboard.press("ArrowRight")
            await expect(frame).to_have_attribute("data-moved", "true")
        await window.page.set_viewport_size({"width": 1280, "height": 900})
        await expect(window.page.get_by_text("It is wider than the window")).to_be_hidden()
