"""The authority's reporting office: takes every report."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Suspicion(Request):
    payment: str
    sender: str
    payee: str
    suspicion: str
    minor_units: int
    currency: str


class Report(Request):
    report: str


def file(request: Suspicion) -> dict[str, Any]:  # noqa: ARG001  every report has a number of its own
    return {"report": f"SR-{token_hex(6).upper()}"}


def withdraw(request: Report) -> dict[str, Any]:
    return {"report": request.report, "withdrawn": True}


REPORTING = Partner(
    name="reporting",
    idempotent=True,
    calls=(
        Call("file", "/reports", Suspicion, file),
        Call("withdraw", "/reports/{report}/withdraw", Report, withdraw),
    ),
    refusal=Refusal("office_closed", "The office takes nothing today"),
)
