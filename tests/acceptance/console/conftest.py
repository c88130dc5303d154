"""A real browser for all tests of the console, and people who sit at it."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from dev.browser import installed
from tests.acceptance.console.window import Sit, Window
from tests.faults.company import Company

expect.set_options(timeout=60_000)  # it returns with the signal; this is for machines that are busy with other things


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """An installed Chrome or Chromium, else Playwright's own; `make test` sees to it that there is one."""
    # Chromium's sandbox does not work as root, where containers run their tests.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=installed(), args=arguments)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def sit(chromium: Browser, company: Company) -> AsyncIterator[Sit]:
    """`await sit("demo-operator")`: a window of its own, signed in."""
    async with AsyncExitStack() as windows:
        opened: list[Window] = []

        async def sit_down(person: str | None = None, **how) -> Window:
            context = await chromium.new_context(**how)
            windows.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(60_000)
            window = Window(page, company.settings.api_url)
            # What a page says with these words, browsers say of a violated policy, and of a script's failure.
            page.on(
                "console", lambda said: window.complaints.append(said.text) if "Content Security" in said.text else None
            )
            page.on("pageerror", lambda fault: window.complaints.append(str(fault)))
            opened.append(window)
            if person is not None:
                await window.sign_in(person)
            return window

        yield sit_down
        await company.clear_faults()
        assert [complaint for window in opened for complaint in window.complaints] == []
