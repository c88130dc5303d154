"""What a browser reads from a page: its forms, with what stands in their fields."""

from html import unescape
from html.parser import HTMLParser

from tests.integration.browser import Browser


class FormReader(HTMLParser):
    """The fields of the forms of a page, each form by where it is sent."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self.current: dict[str, str] | None = None
        self.required: set[str] = set()
        self.area: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "form" and named.get("method") == "post":
            self.current = self.forms.setdefault(named["action"], {})
        elif self.current is not None and named.get("name") and tag in {"input", "textarea", "select"}:
            self.current[named["name"]] = named.get("value") or ""
            self.required |= {named["name"]} if "required" in named else set()
            self.area = named["name"] if tag == "textarea" else None

    def handle_endtag(self, tag):
        if tag == "form":
            self.current = None
        if tag == "textarea":
            self.area = None

    def handle_data(self, data):
        if self.current is not None and self.area:
            self.current[self.area] += data.removeprefix("\n")


def forms_of(text: str) -> dict[str, dict[str, str]]:
    return FormReader(text).forms


async def form_at(browser: Browser, href: str) -> tuple[str, dict[str, str]]:
    shown = await browser.get(unescape(href))
    assert shown.status_code == 200, shown.text
    ((action, fields),) = [each for each in forms_of(shown.text).items() if each[0] != "/console/sign-out"]
    return action, fields
