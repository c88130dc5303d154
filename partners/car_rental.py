"""The car rental: the same key again is the same car."""

from datetime import timedelta
from typing import ClassVar

from pydantic import StrictBool

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word, segment

DEADLINE = timedelta(seconds=5)


class CarHeld(Answer):
    """A car that is kept for a driver."""

    hold: Word


class CarReleased(Answer):
    """A car that anybody may have again."""

    hold: Word
    released: StrictBool


class CarRental(HttpGateway):
    """Idempotent, whatever it is asked."""

    name = "car_rental"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}

    @offers("hold_car", deadline=DEADLINE, idempotent=True)
    async def hold(
        self, sending: Sending, *, car: str, driver: str, arrival: str, departure: str, until: str
    ) -> CarHeld:
        """Keep a car from one day (ISO) to another; without a voucher by `until` it is given away."""
        content = {"car": car, "driver": driver, "arrival": arrival, "departure": departure, "until": until}
        return await self._post(sending, "/holds", content, CarHeld)

    @offers("release_car", deadline=DEADLINE, idempotent=True)
    async def release(self, sending: Sending, *, hold: str) -> CarReleased:
        """Give a car back."""
        return await self._post(sending, f"/holds/{segment(hold)}/release", {}, CarReleased)
