"""What a partner of the sandbox is: its promises, and one function for each call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

R = TypeVar("R", bound="Request")


class Request(BaseModel):
    """The content of a call. Unknown fields are refused, as careful partners do."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Refusal(Exception):
    """The partner says no for good; nothing happened."""

    def __init__(self, code: str, message: str, *, status: int = 422) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Call(Generic[R]):
    """One call of a partner. `do` makes the answer, or raises a `Refusal`; the ledger remembers it."""

    name: str
    path: str | None
    """Below `/{partner}`; its `{fields}` belong to the request like those of the body. None: not by HTTP."""
    request: type[R]
    do: Callable[[R], dict[str, Any]]
    later: float | None = None
    """Seconds after which it is done, told by callback: the call itself is only acknowledged."""


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A partner and what it promises about repeated and unanswered calls."""

    name: str
    calls: tuple[Call[Any], ...]
    idempotent: bool = False
    """The same key and content again: one effect, the same answer."""
    probe: bool = False
    """`GET /{partner}/effects/{key}` tells what happened under a key."""
    at_once: bool = False
    """It answers with what it did, or not at all: nothing can be acknowledged."""
    refusal: Refusal
    """What mode `reject` answers."""

    def call(self, name: str) -> Call[Any]:
        """The call of this name; KeyError where there is none."""
        return {call.name: call for call in self.calls}[name]
