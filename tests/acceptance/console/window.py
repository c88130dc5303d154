"""A window of a browser, with somebody at it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page


@dataclass
class Window:
    """Somebody at the console, and everything that their browser had to complain about."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def sign_in(self, person: str) -> None:
        await self.open("/console/sign-in")
        await self.follow(self.page.locator(f"button[value='{person}']"))
        await self.page.wait_for_url("**/console/work")

    async def follow(self, way: Locator) -> None:
        """By a link or a button to the page behind it, which has loaded then: a click alone returns before that."""
        async with self.page.expect_navigation():
            await way.click()

    async def act(self, action: str) -> None:
        """From the page of a case to the form of an action."""
        await self.follow(self.page.locator(f"[data-action='{action}']"))

    async def is_too_narrow(self) -> bool:
        """Whether the page is wider than the window."""
        return await self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    async def axe(self, path: str | None = None) -> list[str]:
        """What axe has to say of the page there, or of the one that is open."""
        if path is not None:
            await self.open(path)
        await self.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        # Its own script is not ours, and comes past the policy by way of the debugger.
        result = await Axe().run(self.page)
        return [
            f"{fault['id']}: {node['html']} {node.get('failureSummary')}"
            for fault in result.response["violations"]
            for node in fault["nodes"]
        ]


Sit = Callable[..., Awaitable[Window]]
