"""Faults: what tests and demos let the partners do wrong. They live in memory: a restarted partner is a healthy one."""

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dev.sandbox.partner import Partner

Mode = Literal[
    "error",
    "reject",
    "slow",
    "lose_reply",
    "lose_request",
    "acknowledge",
    "callback_twice",
    "callback_never",
    "down",
]

PROBE = "probe"  # stands where a fault names a call, and aims at questions by key
LATER = frozenset({"acknowledge", "callback_twice", "callback_never"})
SECONDS = {"slow": 3.0, **dict.fromkeys(LATER, 2.0)}  # slow: a pause people notice, inside our gateways' deadlines


class FaultOrder(BaseModel):
    """The body of `POST /_control/faults`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partner: str
    call: str
    mode: Mode
    times: Annotated[int, Field(ge=1)] | None = None
    """How many calls it hits; null = until cleared."""
    match: Annotated[str, Field(min_length=1)] | None = None
    """Only requests whose JSON contains this, so that a test can aim at one case."""
    key: Annotated[str, Field(min_length=1)] | None = None
    """Only what is sent, or asked, under this key: one effect of one case."""
    seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None
    """How long `slow` waits before it answers, and the acknowledging modes before they do."""
    outcome: Literal["succeeded", "failed"] = "succeeded"
    """How acknowledged work ends; `failed` = the partner says no after all."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.call == PROBE and (self.mode in LATER or self.match):
            message = "a probe can't be acknowledged, and has no body to match"
            raise ValueError(message)
        if self.outcome == "failed" and self.mode not in LATER:
            message = "only acknowledged work has an outcome of its own"
            raise ValueError(message)
        return self


class Fault:
    """An order in force, counted down by each call that it hits."""

    def __init__(self, number: int, order: FaultOrder) -> None:
        self.number = number
        self.order = order
        self.left = order.times

    @property
    def seconds(self) -> float:
        """The pause asked for, or the mode's own."""
        return SECONDS.get(self.order.mode, 0.0) if self.order.seconds is None else self.order.seconds

    def hits(self, partner: str, call: str, request: Mapping[str, Any] | None, key: str | None = None) -> bool:
        """Whether this call is meant. A probe is meant by name, and by a partner that is down altogether."""
        order = self.order
        if order.partner not in {"*", partner} or order.key not in {None, key}:
            return False
        if call == PROBE and order.call == "*":
            return order.mode == "down" and order.match is None
        if order.call not in {"*", call}:
            return False
        return order.match is None or _contains(request, order.match)

    def document(self) -> dict[str, Any]:
        """As `/_control/faults` shows it; `times` is what is left."""
        return {"id": self.number, **self.order.model_dump(), "seconds": self.seconds, "times": self.left}


class Faults:
    """Every fault in force, the oldest first: of two that fit, it is the older one's turn."""

    def __init__(self, partners: Mapping[str, Partner]) -> None:
        self._partners = partners
        self._faults: list[Fault] = []
        self._numbers = itertools.count(1)

    def add(self, order: FaultOrder) -> Fault:
        """Put a fault in force; ValueError where it names no partner or call that exists."""
        if order.partner not in {"*", *self._partners}:
            message = f"there is no partner {order.partner!r}; there are {', '.join(self._partners)}"
            raise ValueError(message)
        meant = self._partners.values() if order.partner == "*" else (self._partners[order.partner],)
        calls = [call.name for partner in meant for call in partner.calls]
        if order.call not in {"*", PROBE, *calls}:
            message = f"there is no call {order.call!r}; there are {', '.join(calls)}"
            raise ValueError(message)
        if order.mode in LATER and all(partner.at_once for partner in meant):
            message = f"{order.partner} does what it is asked at once, or not at all: it can't do it later"
            raise ValueError(message)
        fault = Fault(next(self._numbers), order)
        self._faults.append(fault)
        return fault

    def documents(self) -> list[dict[str, Any]]:
        """Every fault in force."""
        return [fault.document() for fault in self._faults]

    def clear(self) -> None:
        """All partners behave again."""
        self._faults.clear()

    def take(self, partner: str, call: str, request: Mapping[str, Any] | None, key: str | None = None) -> Fault | None:
        """The fault that this call runs into, counted down."""
        at_once = self._partners[partner].at_once
        return self._counted(
            fault
            for fault in self._faults
            if not (at_once and fault.order.mode in LATER) and fault.hits(partner, call, request, key)
        )

    def take_down(self, partner: str) -> Fault | None:
        """The fault that keeps anybody from connecting; one that is aimed shows later, when it is known who calls."""
        return self._counted(
            fault
            for fault in self._faults
            if fault.order.mode == "down"
            and fault.order.call != PROBE
            and fault.order.partner in {"*", partner}
            and fault.order.match is fault.order.key is None
        )

    def _counted(self, fitting: Iterable[Fault]) -> Fault | None:
        fault = next(iter(fitting), None)
        if fault is not None and fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                self._faults.remove(fault)
        return fault


def _contains(request: Mapping[str, Any] | None, match: str) -> bool:
    # Both ways of writing JSON, so that `"country": "DE"` is found as well as `"country":"DE"`.
    return request is not None and (
        match in json.dumps(request, ensure_ascii=False)
        or match in json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    )
