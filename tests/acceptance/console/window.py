"""A window of a browser, with somebody at it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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


Sit = Callable[..., Awaitable[Window]]
