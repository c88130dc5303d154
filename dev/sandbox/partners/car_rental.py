"""The car rental: has every car."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Rental(Request):
    car: str
    driver: str
    arrival: str
    departure: str
    until: str


class Hold(Request):
    hold: str


def hold_car(request: Rental) -> dict[str, Any]:  # noqa: ARG001  every hold has a number of its own
    return {"hold": f"CR-{token_hex(6).upper()}"}


def release_car(request: Hold) -> dict[str, Any]:
    return {"hold": request.hold, "released": True}


CAR_RENTAL = Partner(
    name="car_rental",
    idempotent=True,
    calls=(
        Call("hold_car", "/holds", Rental, hold_car),
        Call("release_car", "/holds/{hold}/release", Hold, release_car),
    ),
    refusal=Refusal("no_such_car", "We rent no such car"),
)
