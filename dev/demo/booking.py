"""Bookings: a hotel that answers late, a card that is declined, a guest who cancels, and one who never came."""

from datetime import UTC, datetime, timedelta

from dev.demo.day import Day, Json

AGENT = ("agent-1", ("booking_agent",))


async def play(day: Day) -> None:
    """The scenes, one after the other."""
    await the_hotel_calls_back_late(day)
    await a_declined_card_leaves_nothing_behind(day)
    await the_guest_never_came(day)


async def the_hotel_calls_back_late(day: Day) -> None:
    """The hotel's desk takes its time: everybody sees whom the booking waits for; then new days are asked for."""
    day.scene("The hotel takes the request and calls back three seconds later; later the guest moves and cancels")
    await day.fault(partner="hotel", call="hold_room", mode="acknowledge", times=1, seconds=3)
    case = await requested(day, guest={"name": "Ada Berg", "email": "ada.berg@example.com"})
    case = await day.comes_to(case, "confirmed")
    days = {"arrival": "2031-05-10", "departure": "2031-05-12"}
    await day.take(*AGENT, case, "reschedule", **days)
    case = await day.comes_to(case, "confirmed")
    await day.take(*AGENT, case, "cancel")
    await day.comes_to(case, "cancelled")


async def a_declined_card_leaves_nothing_behind(day: Day) -> None:
    """What was held is given back by itself, newest first."""
    day.scene("The bank declines the card: room and car are given back by themselves")
    case = await requested(day, guest={"name": "Noor Haddad", "email": "noor@example.com"}, card="tok_declined")
    await day.comes_to(case, "draft")


async def the_guest_never_came(day: Day) -> None:
    """A deadline that has passed acts by itself, as a command of the system."""
    day.scene("A guest was expected the day before yesterday: the deadline takes `no_show` by itself")
    arrival = datetime.now(UTC).date() - timedelta(days=2)
    days = {"arrival": arrival.isoformat(), "departure": (arrival + timedelta(days=3)).isoformat()}
    case = await requested(day, guest={"name": "Tomas Lind", "email": "tomas@example.com"}, **days)
    await day.comes_to(case, "no_show")


async def requested(day: Day, **changes: object) -> Json:
    """A booking on its way."""
    case = await day.open(await day.person(AGENT[0], *AGENT[1]), "booking", **changes)
    await day.take(*AGENT, case, "request")
    return case
