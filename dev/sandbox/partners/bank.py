"""The bank: does again whatever it is told again, but can be asked what it did under a key."""

from secrets import token_hex
from typing import Annotated, Any

from pydantic import Field

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


class Authorisation(Request):
    card: str
    minor_units: Annotated[int, Field(ge=1)]
    currency: str
    reference: str


class Authorised(Request):
    authorisation: str


class Capture(Request):
    authorisation: str
    minor_units: Annotated[int, Field(ge=1)]
    currency: str
    reference: str


class Refund(Request):
    capture: str
    minor_units: Annotated[int, Field(ge=1)]
    currency: str
    reference: str


def authorise(request: Authorisation) -> dict[str, Any]:
    if "declined" in request.card:
        raise Refusal("card_declined", "The card is declined")
    return {"authorisation": f"AU-{token_hex(6).upper()}"}


def void(request: Authorised) -> dict[str, Any]:
    return {"authorisation": request.authorisation, "voided": True}


def capture(request: Capture) -> dict[str, Any]:  # noqa: ARG001  every capture has a number of its own
    return {"capture": f"CA-{token_hex(6).upper()}"}


def refund(request: Refund) -> dict[str, Any]:  # noqa: ARG001  every refund has a number of its own
    return {"refund": f"RF-{token_hex(6).upper()}"}


class Held(Request):
    payment: str
    account: str
    minor_units: Annotated[int, Field(ge=1)]
    currency: str


class Transfer(Request):
    transfer: str


# It does what it is told: that nobody's money goes out twice is for us to see to.
def release_funds(request: Held) -> dict[str, Any]:  # noqa: ARG001  every transfer has a number of its own
    return {"transfer": f"TR-{token_hex(6).upper()}"}


def return_funds(request: Held) -> dict[str, Any]:  # noqa: ARG001  every transfer has a number of its own
    return {"transfer": f"TR-{token_hex(6).upper()}"}


def recall(request: Transfer) -> dict[str, Any]:
    return {"transfer": request.transfer, "recalled": True}


BANK = Partner(
    name="bank",
    probe=True,
    calls=(
        Call("verify_account", "/account-verifications", Account, verify_account),
        Call("open_payee", "/payees", Account, open_payee),
        Call("close_payee", "/payees/{payee_id}/close", Payee, close_payee),
        Call("suspend_payee", "/payees/{payee_id}/suspend", Payee, suspend_payee),
        Call("resume_payee", "/payees/{payee_id}/resume", Payee, resume_payee),
        Call("authorise", "/authorisations", Authorisation, authorise),
        Call("void", "/authorisations/{authorisation}/void", Authorised, void),
        Call("capture", "/authorisations/{authorisation}/capture", Capture, capture),
        Call("refund", "/captures/{capture}/refund", Refund, refund),
        Call("release_funds", "/payments/{payment}/release", Held, release_funds),
        Call("return_funds", "/payments/{payment}/return", Held, return_funds),
        Call("recall", "/transfers/{transfer}/recall", Transfer, recall),
    ),
    refusal=Refusal("account_closed", "Account closed"),
)
