"""The steps of booking: each a pure function of its call around one send."""

from typing import Any

from caseward.activity import Call, NotNeeded, effect, undo
from partners import Partners
from processes.booking import (
    AUTHORISE,
    CAPTURE,
    CONFIRM,
    HOLD_CAR,
    HOLD_LASTS,
    HOLD_ROOM,
    NEW_DAYS,
    REFUND,
    VOUCHER,
    Authorised,
    Booking,
    Captured,
    Held,
    Mailed,
    Refunded,
    Voucher,
    refundable,
)

NOT_AUTHORISED = NotNeeded("nothing was authorised")
NO_DEPOSIT = NotNeeded("no deposit was taken")
TOO_LATE = NotNeeded("the terms allow no refund at such short notice")


class BookingSteps:
    """Booking's side of each partner."""

    def __init__(self, partners: Partners) -> None:
        self.hotel = partners.hotel
        self.car_rental = partners.car_rental
        self.bank = partners.bank
        self.vouchers = partners.vouchers
        self.mail = partners.mail

    @effect(HOLD_ROOM)
    async def hold_room(self, call: Call[Booking]) -> Held:
        """The hotel's desk looks at it, and calls back."""
        held = await call.send(self.hotel.hold, room=call.subject.room, guest=call.subject.guest.name, **_days(call))
        return Held(hold=held.hold)

    @undo(HOLD_ROOM)
    async def release_room(self, call: Call[Booking], held: Held) -> None:
        """Anybody may have it again."""
        await call.send(self.hotel.release, hold=held.hold)

    @effect(HOLD_CAR)
    async def hold_car(self, call: Call[Booking]) -> Held:
        """From the day of arrival on."""
        held = await call.send(
            self.car_rental.hold, car=call.subject.car, driver=call.subject.guest.name, **_days(call)
        )
        return Held(hold=held.hold)

    @undo(HOLD_CAR)
    async def release_car(self, call: Call[Booking], held: Held) -> None:
        """Anybody may have it again."""
        await call.send(self.car_rental.release, hold=held.hold)

    @effect(AUTHORISE)
    async def authorise_deposit(self, call: Call[Booking]) -> Authorised:
        """The card keeps the deposit ready."""
        amount = _money(call, call.subject.deposit.minor_units)
        authorised = await call.send(self.bank.authorise, card=call.subject.card, **amount)
        return Authorised(authorisation=authorised.authorisation)

    @undo(AUTHORISE)
    async def void_authorisation(self, call: Call[Booking], authorised: Authorised) -> None:
        """What is left of it is the guest's again."""
        await call.send(self.bank.void, authorisation=authorised.authorisation)

    @effect(CAPTURE)
    async def capture_deposit(self, call: Call[Booking]) -> Captured | NotNeeded:
        """The deposit is ours."""
        authorised = call.standing(AUTHORISE)
        if authorised is None:
            return NOT_AUTHORISED
        amount = _money(call, call.subject.deposit.minor_units)
        captured = await call.send(self.bank.capture, authorisation=authorised.authorisation, **amount)
        return Captured(capture=captured.capture)

    @undo(CAPTURE)
    async def refund_all(self, call: Call[Booking], captured: Captured) -> None:
        """All of it, but for what was given back by the terms before."""
        refunded = call.standing(REFUND)
        rest = call.subject.deposit.minor_units - (refunded.minor_units if refunded else 0)
        if rest > 0:
            await call.send(self.bank.refund, capture=captured.capture, **_money(call, rest))

    @effect(VOUCHER)
    async def issue_voucher(self, call: Call[Booking]) -> Voucher:
        """With it the holds are firm."""
        room, car = call.standing(HOLD_ROOM), call.standing(HOLD_CAR)
        issued = await call.send(
            self.vouchers.issue,
            guest=call.subject.guest.name,
            room=room.hold if room else None,
            car=car.hold if car else None,
        )
        return Voucher(voucher=issued.voucher)

    @undo(VOUCHER)
    async def withdraw_voucher(self, call: Call[Booking], issued: Voucher) -> None:
        """It is good for nothing any more."""
        await call.send(self.vouchers.withdraw, voucher=issued.voucher)

    @effect(CONFIRM)
    async def send_confirmation(self, call: Call[Booking]) -> Mailed:
        """What is booked, and with what to show it."""
        return Mailed(message_id=(await call.send(self.mail.send, **_letter(call, "booking_confirmed"))).message_id)

    @effect(NEW_DAYS)
    async def send_new_days(self, call: Call[Booking]) -> Mailed:
        """That the old voucher is no longer valid, too."""
        return Mailed(message_id=(await call.send(self.mail.send, **_letter(call, "booking_rescheduled"))).message_id)

    @effect(REFUND)
    async def refund_by_notice(self, call: Call[Booking]) -> Refunded | NotNeeded:
        """As much as the terms say for the notice given."""
        captured, amount = call.standing(CAPTURE), refundable(call.subject, call.accepted_at)
        if captured is None:
            return NO_DEPOSIT
        if amount == 0:
            return TOO_LATE
        refunded = await call.send(self.bank.refund, capture=captured.capture, **_money(call, amount))
        return Refunded(refund=refunded.refund, minor_units=amount)


def _money(call: Call[Booking], minor_units: int) -> dict[str, Any]:
    """So much in the deposit's currency, as it shall stand on the guest's statement."""
    return {
        "minor_units": minor_units,
        "currency": call.subject.deposit.currency,
        "reference": call.business_key,
    }


def _letter(call: Call[Booking], template: str) -> dict[str, Any]:
    """To the guest, with what every letter about a booking names."""
    booking, voucher = call.subject, call.standing(VOUCHER)
    values = {
        "booking": call.business_key,
        "guest": booking.guest.name,
        "room": booking.room,
        "car": booking.car,
        "arrival": booking.arrival.isoformat(),
        "departure": booking.departure.isoformat(),
        "voucher": voucher.voucher if voucher else None,
    }
    return {"to": [booking.guest.email], "template": template, "values": values}


def _days(call: Call[Booking]) -> dict[str, str]:
    """From when until when, and until when it is held without a voucher."""
    until = call.accepted_at + HOLD_LASTS
    return {
        "arrival": call.subject.arrival.isoformat(),
        "departure": call.subject.departure.isoformat(),
        "until": until.isoformat(),
    }
