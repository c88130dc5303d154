"""The sanctions screening: finds everybody whose legal name contains "Sanctioned"."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Screen(Request):
    legal_name: str
    country: str


def screen(request: Screen) -> dict[str, Any]:
    hits = [{"list": "EU-CFSP", "name": request.legal_name}] if "Sanctioned" in request.legal_name else []
    return {"reference": f"SCR-{token_hex(6).upper()}", "hits": hits}


SCREENING = Partner(
    name="screening",
    idempotent=True,
    calls=(Call("screen", "/screenings", Screen, screen),),
    refusal=Refusal("subject_not_screenable", "The subject can't be screened"),
)
