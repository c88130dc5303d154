"""The scoring service: finds every payment risky, but for those to a payee whose name says that it is well known."""

from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Payment(Request):
    payment: str
    payee: str
    account: str
    minor_units: int
    currency: str


def score(request: Payment) -> dict[str, Any]:
    return {"score": 7 if "Well known" in request.payee else 81}


SCORING = Partner(
    name="scoring",
    idempotent=True,
    calls=(Call("score", "/scores", Payment, score),),
    refusal=Refusal("no_model", "There is no model for such payments"),
)
