"""The hotel: it confirms a hold later, by callback, and can be asked what it did under a key."""

from datetime import timedelta
from typing import Any, ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)
SETTLING = timedelta(seconds=2)  # what the hotel has taken can be asked for within that time


class RoomHeld(Answer):
    """A room that is kept for a guest."""

    hold: Word


class RoomReleased(Answer):
    """A room that anybody may have again."""

    hold: Word
    released: StrictBool


class Hotel(HttpGateway):
    """Never repeat blindly: ask first."""

    name = "hotel"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}
    answers: ClassVar = {"hold_room": RoomHeld, "release_room": RoomReleased}

    @offers("hold_room", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def hold(
        self, sending: Sending, *, room: str, guest: str, arrival: str, departure: str, until: str
    ) -> RoomHeld:
        """Keep a room from one day (ISO) to another; without a voucher by `until` it is given away."""
        content = {"room": room, "guest": guest, "arrival": arrival, "departure": departure, "until": until}
        return await self._post(sending, "/holds", content, RoomHeld)

    @offers("release_room", deadline=DEADLINE, probe=True, settling=SETTLING)
    async def release(self, sending: Sending, *, hold: str) -> RoomReleased:
        """Give a room back."""
        return await self._post(sending, f"/holds/{segment(hold)}/release", {}, RoomReleased)

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Ask what the hotel did under the key."""
        return await self._ask(sending, f"/effects/{segment(sending.key)}", call, unknown="effect_unknown")
