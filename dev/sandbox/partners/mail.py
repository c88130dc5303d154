"""The mailer: sends again whatever it is told again, and remembers nothing."""

from secrets import token_hex
from typing import Annotated, Any

from pydantic import Field

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Send(Request):
    to: Annotated[list[str], Field(min_length=1)]
    template: str
    values: dict[str, Any] = Field(default_factory=dict)


def send(request: Send) -> dict[str, Any]:  # noqa: ARG001  the sandbox mailer delivers to nobody
    return {"message_id": f"{token_hex(12)}@mail.example"}


MAIL = Partner(
    name="mail",
    calls=(Call("send", "/messages", Send, send),),
    refusal=Refusal("recipient_suppressed", "The recipient does not accept our mail"),
)
