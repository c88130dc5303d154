"""The hotel: somebody at its desk looks at every hold before it is confirmed, a moment later."""

from secrets import token_hex
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Stay(Request):
    room: str
    guest: str
    arrival: str
    departure: str
    until: str


class Hold(Request):
    hold: str


def hold_room(request: Stay) -> dict[str, Any]:
    if "Sold out" in request.room:
        raise Refusal("sold_out", "There is no such room on these days")
    return {"hold": f"RM-{token_hex(6).upper()}"}


def release_room(request: Hold) -> dict[str, Any]:
    return {"hold": request.hold, "released": True}


HOTEL = Partner(
    name="hotel",
    probe=True,
    calls=(
        Call("hold_room", "/holds", Stay, hold_room, later=0.2),
        Call("release_room", "/holds/{hold}/release", Hold, release_room),
    ),
    refusal=Refusal("desk_closed", "The desk takes nothing today"),
)
