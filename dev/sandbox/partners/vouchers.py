"""The voucher office: does again whatever it is told again, and remembers nothing."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Holds(Request):
    guest: str
    room: str | None = None
    car: str | None = None


class Voucher(Request):
    voucher: str


def issue(request: Holds) -> dict[str, Any]:  # noqa: ARG001  every voucher has a number of its own
    return {"voucher": f"VC-{token_hex(6).upper()}"}


def withdraw(request: Voucher) -> dict[str, Any]:
    return {"voucher": request.voucher, "withdrawn": True}


VOUCHERS = Partner(
    name="vouchers",
    calls=(
        Call("issue", "/vouchers", Holds, issue),
        Call("withdraw", "/vouchers/{voucher}/withdraw", Voucher, withdraw),
    ),
    refusal=Refusal("office_closed", "The office takes nothing today"),
)
