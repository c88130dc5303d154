"""The bank: does again whatever it is told again, but can be asked what it did under a key."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Account(Request):
    iban: str
    holder: str


class Payee(Request):
    payee_id: str


def verify_account(request: Account) -> dict[str, Any]:
    return {"reference": f"VOP-{token_hex(6).upper()}", "match": "none" if "Mismatch" in request.holder else "full"}


def open_payee(request: Account) -> dict[str, Any]:  # noqa: ARG001  the sandbox bank takes every account
    return {"payee_id": f"PY-{token_hex(6).upper()}"}


def close_payee(request: Payee) -> dict[str, Any]:
    return {"payee_id": request.payee_id, "closed": True}


def suspend_payee(request: Payee) -> dict[str, Any]:
    return {"payee_id": request.payee_id, "suspended": True}


def resume_payee(request: Payee) -> dict[str, Any]:
    return {"payee_id": request.payee_id, "suspended": False}


BANK = Partner(
    name="bank",
    probe=True,
    calls=(
        Call("verify_account", "/account-verifications", Account, verify_account),
        Call("open_payee", "/payees", Account, open_payee),
        Call("close_payee", "/payees/{payee_id}/close", Payee, close_payee),
        Call("suspend_payee", "/payees/{payee_id}/suspend", Payee, suspend_payee),
        Call("resume_payee", "/payees/{payee_id}/resume", Payee, resume_payee),
    ),
    refusal=Refusal("account_closed", "Account closed"),
)
