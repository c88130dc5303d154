"""The register of approvals: numbers and entries that everybody can look up."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Reservation(Request):
    holder: str


class Number(Request):
    number: str


class NewEntry(Request):
    number: str
    holder: str
    scope: str


class Entry(Request):
    entry: str


def reserve_number(request: Reservation) -> dict[str, Any]:  # noqa: ARG001  there are enough for everybody
    return {"number": f"CA-{token_hex(5).upper()}"}


def give_back(request: Number) -> dict[str, Any]:
    return {"number": request.number, "given_back": True}


def enter(request: NewEntry) -> dict[str, Any]:
    return {"entry": f"RE-{request.number.removeprefix('CA-')}"}


def strike(request: Entry) -> dict[str, Any]:
    return {"entry": request.entry, "struck": True}


REGISTER = Partner(
    name="register",
    idempotent=True,
    probe=True,
    calls=(
        Call("reserve_number", "/numbers", Reservation, reserve_number),
        Call("give_back", "/numbers/{number}/give-back", Number, give_back),
        Call("enter", "/entries", NewEntry, enter),
        Call("strike", "/entries/{entry}/strike", Entry, strike),
    ),
    refusal=Refusal("register_closed", "The register takes nothing today"),
)
