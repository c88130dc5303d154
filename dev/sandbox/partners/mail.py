"""The mail server: sends again whatever it is told again, and remembers nothing. It speaks SMTP (`../smtp.py`)."""

from typing import Annotated, Any

from pydantic import Field

from dev.sandbox.partner import Call, Partner, Refusal, Request


class Send(Request):
    message_id: str
    sender: str
    to: Annotated[list[str], Field(min_length=1)]
    subject: str
    text: str


def send(request: Send) -> dict[str, Any]:
    return {"message_id": request.message_id}


MAIL = Partner(
    name="mail",
    calls=(Call("send", None, Send, send),),
    at_once=True,
    refusal=Refusal("recipient_suppressed", "The recipient does not accept our mail"),
)
