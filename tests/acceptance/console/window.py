"""A window of a browser, with somebody at it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page


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
        await self.page.click(f"button[value='{person}']")
        await self.page.wait_for_url("**/console/work")

    async def act(self, action: str) -> None:
        """From the page of a case to the form of an action."""
        await self.page.click(f"[data-action='{action}']")

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
