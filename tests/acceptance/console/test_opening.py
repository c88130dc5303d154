"""A day at the console alone: a case opened, its documents added and looked at, a view saved, used and deleted."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import expect

from tests.acceptance.console.test_console import at
from tests.acceptance.console.window import Sit, Window
from tests.faults.company import Company, Json
from tests.pdfs import pdf
from tests.processes.compliance_approval import PLAYBOOK

OPEN = "/console/processes/compliance-approval/open"
NAME = "<img src=x onerror=document.title='owned'> audit.pdf"
TOO_LARGE = 21 * 1024 * 1024  # bytes; a document may have 20 MiB


async def opened(window: Window, key: str) -> str:
    """The address of a new application, opened by whoever sits there."""
    await window.open("/console/work")
    await window.follow(window.page.locator("#opens [data-opens='compliance_approval']"))
    await window.page.get_by_label("Business Key").fill(key)
    await window.page.get_by_label("Holder").fill("Northwind Tools GmbH")
    await window.page.get_by_label("Scope").fill("Processing of payment data")
    await window.page.get_by_label("Contact").fill("ada.berg@example.com")
    await window.follow(window.page.get_by_role("button", name="Draft an application"))
    await expect(window.page.locator("#order")).to_have_attribute("data-state", "completed")
    return window.page.url.removeprefix(window.url).partition("?")[0]


async def add(window: Window, case: str, file: dict | Path) -> None:
    """From the case to the form, and the file sent."""
    await window.open(case)
    await window.follow(window.page.locator("[data-adds='evidence']"))
    await window.page.set_input_files("#file", file)
    await window.page.get_by_role("button", name="Add it").click()


def a_pdf(name: str, content: bytes) -> dict:
    return {"name": name, "mimeType": "application/pdf", "buffer": content}


def document(window: Window, name: str):
    return expect(window.page.locator("li.document", has_text=name))


class TestAnApplication:
    async def test_is_opened_and_its_documents_are_looked_at_while_one_watches(self, sit: Sit):
        window = await sit("demo-compliance-applicant")
        case = await opened(window, f"C-{uuid4().hex[:8]}")
        await add(window, case, a_pdf("audit.pdf", pdf(3)))
        await window.page.wait_for_url(f"**{case}#documents")
        await document(window, "audit.pdf").to_contain_text("uploaded")
        await add(window, case, a_pdf("torn.pdf", b"%PDF-1.7\nno more than this"))
        await document(window, "torn.pdf").to_contain_text("uploaded")
        await window.open(case + "/transition/submit")
        await window.follow(window.page.get_by_role("button", name="Submit"))
        await document(window, "audit.pdf").to_contain_text("accepted")
        await document(window, "audit.pdf").to_contain_text("3 pages")
        await document(window, "torn.pdf").to_contain_text("It can't be read as a PDF")
        await expect(window.page.locator("#case .badge.state").first).to_have_text("Changes requested")
        torn = window.page.locator("li.document", has_text="torn.pdf")
        await window.follow(torn.get_by_role("link", name="Replace it"))
        await window.page.set_input_files("#file", a_pdf("whole.pdf", pdf()))
        await window.page.get_by_role("button", name="Replace it").click()
        await document(window, "torn.pdf").to_contain_text("replaced")
        async with window.page.expect_download() as download:
            await window.page.get_by_role("link", name="whole.pdf").click()
        assert (await download.value).suggested_filename == "whole.pdf"

    async def test_that_exists_is_refused_with_the_way_to_it(self, sit: Sit):
        window = await sit("demo-compliance-applicant")
        key = f"C-{uuid4().hex[:8]}"
        case = await opened(window, key)
        await window.open(OPEN)
        for label, value in (
            ("Business Key", key),
            ("Holder", "Other"),
            ("Scope", "Same"),
            ("Contact", "a@example.com"),
        ):
            await window.page.get_by_label(label).fill(value)
        await window.follow(window.page.get_by_role("button", name="Draft an application"))
        await expect(window.page.get_by_label("Holder")).to_have_value("Other")
        await window.follow(window.page.get_by_role("link", name="An open case"))
        await window.page.wait_for_url(f"**{case}")

    async def test_gets_a_certificate_that_can_be_taken_away(self, company: Company, sit: Sit):
        case = await company.brought_to(PLAYBOOK, "approved")
        window = await sit("demo-legal-approver")
        await window.open(at(case))
        await expect(window.page.locator("[data-code='role_missing']", has_text="Evidence")).to_be_visible()
        async with window.page.expect_download() as download:
            await window.page.get_by_role("link", name="Certificate.pdf").click()
        assert (await download.value).suggested_filename == "Certificate.pdf"


class TestAFile:
    @pytest.fixture
    async def case(self, company: Company) -> Json:
        return await company.opened(PLAYBOOK)

    async def test_that_is_too_large_is_refused_before_it_is_sent(self, case: Json, sit: Sit, tmp_path: Path):
        large = tmp_path / "large.pdf"
        large.write_bytes(pdf() + b"%" * TOO_LARGE)
        window = await sit("demo-compliance-applicant")
        await add(window, at(case), large)
        await expect(window.page.locator("#said")).to_contain_text(
            "This file has 21.0 MiB; a document may have 20 MiB."
        )

    async def test_that_is_none_is_refused_in_the_servers_words_and_another_can_be_chosen(self, case: Json, sit: Sit):
        window = await sit("demo-compliance-applicant")
        await add(window, at(case), a_pdf("report.pdf", b"Just a text"))
        said = window.page.locator("#said")
        await expect(said).to_have_text(re.compile("Evidence must be application/pdf; by its content this is"))
        await window.page.set_input_files("#file", a_pdf(NAME, pdf()))
        await window.page.get_by_label("Name").fill("a/b.pdf")
        await window.page.get_by_role("button", name="Add it").click()
        await expect(said).to_contain_text("without slashes")
        await window.page.get_by_label("Name").fill(NAME)
        await window.page.get_by_role("button", name="Add it").click()
        await document(window, "<img src=x").to_contain_text("uploaded")
        assert await window.page.locator("img").count() == 0
        assert await window.page.title() != "owned"

    async def test_on_its_way_is_shown_and_can_be_stopped_and_sent_again(self, case: Json, sit: Sit):
        window = await sit("demo-compliance-applicant")
        network = await window.page.context.new_cdp_session(window.page)
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
        await network.send("Network.enable")
        await network.send("Network.emulateNetworkConditions", slow)
        await add(window, at(case), a_pdf("long.pdf", pdf() + b"%" * 8_000_000))
        await expect(window.page.locator("#progress")).to_contain_text("of 7.6 MiB")
        await window.page.get_by_role("button", name="Stop").click()
        await expect(window.page.locator("#said")).to_contain_text("You stopped it.")
        await network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
        await window.page.get_by_role("button", name="Add it").click()
        await document(window, "long.pdf").to_contain_text("uploaded")

    async def test_takes_a_script_and_the_page_says_so(self, case: Json, sit: Sit):
        window = await sit("demo-compliance-applicant", java_script_enabled=False)
        await window.open(at(case))
        await window.follow(window.page.locator("[data-adds='evidence']"))
        await expect(window.page.get_by_text("Sending a file takes this page's script")).to_be_visible()
        await expect(window.page.locator("#adding")).to_be_hidden()


class TestAView:
    async def test_is_saved_used_named_anew_and_deleted(self, sit: Sit):
        window = await sit("demo-operator")
        name = f"Held up {uuid4().hex[:6]}"
        await window.open("/console/work?condition=paused")
        await window.page.get_by_label("Save this filter as a view of yours").fill(name)
        await window.follow(window.page.get_by_role("button", name="Save"))
        await window.open("/console/work")
        views = window.page.get_by_role("navigation", name="Views")
        await window.follow(views.get_by_role("link", name=name))
        await expect(window.page).to_have_url(window.url + "/console/work?condition=paused")
        await expect(views.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
        await window.follow(window.page.get_by_role("link", name="Your views"))
        await window.page.get_by_label(f"New name of {name}").fill(f"{name} again")
        await window.follow(window.page.get_by_role("button", name="Rename"))
        await window.follow(window.page.get_by_role("button", name=f"Delete {name} again"))
        await expect(window.page.get_by_text("None yet.")).to_be_visible()


class TestWork:
    async def test_rests_while_nobody_sees_it_and_looks_when_somebody_does(self, sit: Sit):
        window = await sit("demo-operator")
        asked = []
        await window.open("/console/work")
        window.page.on(
            "request", lambda each: asked.append(each.headers["x-known"]) if "x-known" in each.headers else None
        )
        be = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); %s }"
        await window.page.evaluate(be % "htmx.trigger('#work', 'every')", True)
        assert asked == []
        async with window.page.expect_response(lambda answer: "/console/work" in answer.url) as answer:
            await window.page.evaluate(be % "document.dispatchEvent(new Event('visibilitychange'))", False)
        assert (await answer.value).status in {200, 204}
        assert re.fullmatch("[0-9a-f]{64}", asked[0])


class TestAccessibility:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_axe_has_nothing_to_say(self, company: Company, sit: Sit, scheme):
        case = await company.opened(PLAYBOOK)
        window = await sit("demo-compliance-applicant", color_scheme=scheme)
        adding = at(case) + "/documents?kind=evidence"
        await window.open("/console/work?condition=waiting")
        await window.page.get_by_label("Save this filter as a view of yours").fill("Mine")
        await window.follow(window.page.get_by_role("button", name="Save"))
        found = {path: await window.axe(path) for path in ("/console/work", OPEN, adding, "/console/views")}
        await window.open(OPEN)
        await window.page.locator("form.fields").evaluate("form => { form.noValidate = true; form.submit(); }")
        await expect(window.page.get_by_text("This is needed.")).to_have_count(4)
        found["what is wrong"] = await window.axe()
        await add(window, at(case), a_pdf("report.pdf", b"Just a text"))
        await expect(window.page.locator("#said")).to_be_visible()
        found["refused"] = await window.axe()
        assert found == {path: [] for path in found}

    @pytest.mark.parametrize("width", [400, 1280])
    async def test_nothing_is_wider_than_the_window(self, company: Company, sit: Sit, width):
        case = await company.brought_to(PLAYBOOK, "in_review")
        window = await sit("demo-compliance-applicant", viewport={"width": width, "height": 900})
        await window.open("/console/work?condition=waiting")
        await window.page.get_by_label("Save this filter as a view of yours").fill("W" * 60)
        await window.follow(window.page.get_by_role("button", name="Save"))
        for path in ("/console/work", OPEN, at(case), at(case) + "/documents?kind=evidence", "/console/views"):
            await window.open(path)
            assert not await window.is_too_narrow(), path
