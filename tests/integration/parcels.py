"""Parcels, a business for tests of the engine: people, a process, and a partner that does what its script says."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

from pydantic import ConfigDict

from caseward.errors import PartnerAcknowledged, PartnerAnswer, PartnerFailed, PartnerSilent
from caseward.partner import Offer, Sending, offers
from caseward.process import (
    Deadline,
    Escalate,
    ForceCancel,
    Process,
    Retry,
    Role,
    State,
    Step,
    Strict,
    Take,
    Transition,
)
from caseward.situation import Actor

_numbers = count(1)


def person(*roles: str, name: str | None = None) -> Actor:
    """Somebody with these roles; somebody new unless named."""
    return Actor(name or f"person-{next(_numbers)}", frozenset(roles))


CLERK = person("clerk", name="clara-clerk")
CHIEF = person("chief", name="chris-chief")
OPERATOR = person("operator", name="olga-operator")
SENIOR = person("senior_operator", name="sven-senior")


# --- a business: parcels ---------------------------------------------------------------------------------------------


class Parcel(Strict):
    """What is to be shipped."""

    to: str
    weight: float = 1.0


class Correction(Strict):
    """The parcel as it should be now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"parcel": {"to": "Bergen", "weight": 2.0}}]})

    parcel: Parcel


class Receipt(Strict):
    """What every partner answers."""

    number: str


AT_ONCE = Retry(waits=())
TWICE = Retry(waits=(timedelta(seconds=1), timedelta(minutes=1)))


def step(name: str, *, partner: str = "repeatable", undo: Any = None, **more: Any) -> Step[Receipt]:
    """A step; the partner's name says what it offers: repeatable, askable, both, stubborn."""
    title = name.replace("_", " ").capitalize()
    more.setdefault("retry", TWICE)
    return Step(name, title, partner=partner, result=Receipt, undo=undo or f"{title}: take it back", **more)


BOOK = step("book_carrier", owner="logistics")
LABEL = step("print_label", partner="askable", owner="warehouse")
PAY = step("pay_postage", partner="stubborn", owner="treasury", skip_roles=frozenset({"senior_operator"}))


def parcels(*steps: Step[Any], name: str = "parcel", **changes: Any) -> Process:
    """Parcels that are shipped by these steps; `changes` replace whole fields of the declaration."""
    steps = steps or (BOOK, LABEL, PAY)
    declared: dict[str, Any] = {
        "subject": Parcel,
        "headline": lambda parcel: f"Parcel to {parcel.to}",
        "owner": "front_desk",
        "teams": frozenset({"front_desk", "logistics", "warehouse", "treasury"}),
        "roles": (Role("clerk", "Clerk"), Role("chief", "Chief clerk")),
        "states": (
            State("draft", "Draft", "Being packed.", waiting_on="clerk"),
            State("shipping", "Shipping", "We are arranging the shipment."),
            State("shipped", "Shipped", "On its way."),
            State(
                "stored",
                "Stored",
                "Kept for the customer.",
                waiting_on="clerk",
                deadline=Deadline(after=timedelta(days=2), then=Escalate("chief")),
            ),
            State(
                "abandoned",
                "Abandoned",
                "Nobody wants it.",
                waiting_on="chief",
                deadline=Deadline(after=timedelta(days=30), then=Take("scrap")),
            ),
            State("cancelling", "Cancelling", "We are calling it back."),
            State("cancelled", "Cancelled", "Called back.", final=True),
            State("scrapped", "Scrapped", "Gone.", final=True),
        ),
        "transitions": (
            Transition("open", "Pack", to="draft", roles=frozenset({"clerk"})),
            Transition(
                "ship",
                "Ship",
                source=frozenset({"draft"}),
                pending="shipping",
                to="shipped",
                roles=frozenset({"clerk", "chief"}),
                steps=steps,
            ),
            Transition(
                "ship_corrected",
                "Ship with a correction",
                source=frozenset({"draft"}),
                pending="shipping",
                to="shipped",
                roles=frozenset({"clerk"}),
                steps=steps,
                input=Correction,
                revise=lambda _parcel, correction: correction.parcel,
            ),
            Transition(
                "correct",
                "Correct",
                source=frozenset({"draft", "stored"}),
                to="draft",
                roles=frozenset({"clerk"}),
                input=Correction,
                revise=lambda _parcel, correction: correction.parcel,
            ),
            Transition(
                "take_back", "Take back", source=frozenset({"shipped"}), to="stored", roles=frozenset({"clerk"})
            ),
            Transition("store", "Store", source=frozenset({"draft"}), to="stored", roles=frozenset({"clerk"})),
            Transition("abandon", "Abandon", source=frozenset({"stored"}), to="abandoned", roles=frozenset({"chief"})),
            Transition(
                "scrap",
                "Scrap",
                source=frozenset({"abandoned"}),
                to="scrapped",
                roles=frozenset({"chief"}),
                four_eyes=frozenset({"abandon"}),
            ),
            Transition(
                "cancel",
                "Call back",
                source=frozenset({"draft", "shipping", "stored"}),
                pending="cancelling",
                to="cancelled",
                roles=frozenset({"clerk", "chief"}),
            ),
            Transition(
                "reopen",
                "Pack again",
                source=frozenset({"cancelled", "scrapped"}),
                to="draft",
                roles=frozenset({"clerk"}),
            ),
        ),
        "force_cancel": ForceCancel(pending="cancelling", to="cancelled"),
    }
    return Process(name, "Parcel", **(declared | changes))


# --- its partner -----------------------------------------------------------------------------------------------------


SECONDS = timedelta(seconds=5)
SETTLING = timedelta(seconds=30)


@dataclass(frozen=True)
class Sent:
    """One request that reached the partner."""

    key: str
    content: dict[str, Any]


Scripted = PartnerAnswer | Exception | Callable[[], Awaitable[None]] | None


class Partner:
    """Does what it is told, unless its script says otherwise. It counts what happened: the referee of G3."""

    name = "carrier"

    def __init__(self) -> None:
        self.script: deque[Scripted] = deque()
        self.sent: list[Sent] = []
        self.asked: list[str] = []
        self.happened: list[str] = []
        self.answers: dict[str, Receipt] = {}
        self.probe_says: PartnerAnswer | None = None

    def next(self, *answers: Scripted) -> None:
        """Script the next answers: an error, something to await before answering, or None for plain success."""
        self.script.extend(answers)

    async def _do(self, sending: Sending, content: dict[str, Any], *, idempotent: bool) -> Receipt:
        sending.check_lease()
        self.sent.append(Sent(sending.key, content))
        scripted = self.script.popleft() if self.script else None
        if isinstance(scripted, LostReply):
            self._happen(sending.key, idempotent=idempotent)
            raise PartnerSilent("timeout", "No answer came.")
        if isinstance(scripted, Exception):
            raise scripted
        if scripted is not None:
            await scripted()
        return self._happen(sending.key, idempotent=idempotent)

    def lands(self, key: str) -> None:
        """It did it after all, long after anybody asked."""
        self._happen(key, idempotent=True)

    def _happen(self, key: str, *, idempotent: bool) -> Receipt:
        if not (idempotent and key in self.answers):
            self.happened.append(key)
            self.answers[key] = Receipt(number=f"R{len(self.happened)}")
        return self.answers[key]

    @offers("repeatable", deadline=SECONDS, idempotent=True, settling=SETTLING)
    async def repeatable(self, sending: Sending, **content: Any) -> Receipt:
        return await self._do(sending, content, idempotent=True)

    @offers("askable", deadline=SECONDS, probe=True, settling=SETTLING)
    async def askable(self, sending: Sending, **content: Any) -> Receipt:
        return await self._do(sending, content, idempotent=False)

    @offers("both", deadline=SECONDS, probe=True, idempotent=True, settling=SETTLING)
    async def both(self, sending: Sending, **content: Any) -> Receipt:
        return await self._do(sending, content, idempotent=True)

    @offers("stubborn", deadline=SECONDS, settling=SETTLING)
    async def stubborn(self, sending: Sending, **content: Any) -> Receipt:
        return await self._do(sending, content, idempotent=False)

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        self.asked.append(sending.key)
        if self.probe_says is not None:
            raise self.probe_says
        answer = self.answers.get(sending.key)
        return None if answer is None else answer.model_dump()


class LostReply(PartnerSilent):
    """The partner does it, and its answer is lost."""

    def __init__(self) -> None:
        super().__init__("timeout", "No answer came.")


def transient(code: str = "busy") -> PartnerFailed:
    return PartnerFailed("transient", code, "Come back later.")


def rejected() -> PartnerFailed:
    return PartnerFailed("rejected", "no_such_street", "We don't deliver there.")


def silent() -> PartnerSilent:
    return PartnerSilent("timeout", "No answer came.")


def acknowledged() -> PartnerAcknowledged:
    return PartnerAcknowledged("acknowledged", "Later.")


OFFERS: dict[str, Offer] = {
    name: Offer(
        call=name,
        deadline=SECONDS,
        idempotent=name in {"repeatable", "both"},
        probe=name in {"askable", "both"},
        settling=SETTLING,
    )
    for name in ("repeatable", "askable", "both", "stubborn")
}
