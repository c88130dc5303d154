"""The page on which people read the mails: a list, and each mail as text. It shows; it can change nothing."""

import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dev.sandbox.ledger import Ledger

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc}"
    "pre{white-space:pre-wrap;border:1px solid #ccc;padding:1rem}.twice{color:#a00;font-weight:bold}"
)
HEADERS = {
    # Nothing but our own style: what stands in a mail is text, whatever it looks like.
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
PAGES = Environment(autoescape=True)
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>{{ title }}</title><style>{{ style }}</style><h1>{{ title }}</h1>"
)
LIST = PAGES.from_string(
    HEAD + "{% if mails %}<table><thead><tr><th>When</th><th>To</th><th>Subject</th></tr></thead><tbody>"
    "{% for mail in mails %}<tr><td>{{ mail.at[:19] }}</td><td>{{ mail.request.to | join(', ') }}</td>"
    '<td><a href="/mail/{{ mail.number }}">{{ mail.request.subject or "(no subject)" }}</a>'
    '{% if mail.times > 1 %} <span class="twice">came {{ mail.times }} times</span>{% endif %}</td></tr>{% endfor %}'
    "</tbody></table>{% else %}<p>No mail yet.</p>{% endif %}"
)
ONE = PAGES.from_string(
    HEAD + '<p><a href="/mail">All mails</a></p><table><tbody>'
    '<tr><th scope="row">From</th><td>{{ mail.request.sender }}</td></tr>'
    '<tr><th scope="row">To</th><td>{{ mail.request.to | join(", ") }}</td></tr>'
    '<tr><th scope="row">Date</th><td>{{ mail.at[:19] }}</td></tr>'
    '<tr><th scope="row">Message-ID</th><td>{{ mail.request.message_id }}</td></tr></tbody></table>'
    "<pre>{{ mail.request.text }}</pre>"
)


class Mailbox:
    """Every mail in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def routes(self) -> list[Route]:
        """Below `/mail`."""
        return [
            Route("/mail", self._list, methods=["GET"]),
            Route("/mail/{number:int}", self._one, methods=["GET"]),
        ]

    def _mails(self) -> list[dict[str, Any]]:
        mails: list[dict[str, Any]] = json.loads(self._ledger.entries("mail", None))
        times: dict[str, int] = {}
        for mail in mails:
            times[mail["key"]] = times.get(mail["key"], 0) + 1
        return [{**mail, "times": times[mail["key"]]} for mail in mails]

    async def _list(self, _request: Request) -> Response:
        newest_first = reversed(self._mails())
        return _page(LIST.render(title="Mail", style=Markup(STYLE), mails=list(newest_first)))  # noqa: S704 - ours

    async def _one(self, request: Request) -> Response:
        number = request.path_params["number"]
        mail = next((mail for mail in self._mails() if mail["number"] == number), None)
        if mail is None:
            raise HTTPException(404, "There is no such mail")
        title = mail["request"]["subject"] or "(no subject)"
        return _page(ONE.render(title=title, style=Markup(STYLE), mail=mail))  # noqa: S704 - ours


def _page(html: str) -> Response:
    return HTMLResponse(html, headers=HEADERS)
