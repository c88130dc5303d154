"""`caseward outbox`: messages that could not be delivered; releasing and dismissing them."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import send
from cli.asking import AsJson, ask, pages
from cli.show import document, lines
from cli.work import show_messages

if TYPE_CHECKING:
    from cli.client import Client

outbox = typer.Typer(
    help="Look at messages that wait, and release or dismiss those that are parked.", no_args_is_help=True
)


@outbox.command("list")
def list_(
    *,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those that still wait instead of the parked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Messages that could not be delivered."""

    async def look(client: "Client") -> None:
        found = await pages(client, f"/v1/outbox?parked={'false' if waiting else 'true'}", "messages")
        if as_json:
            document(found)
        else:
            show_messages(found["messages"])

    ask(look, as_json=as_json)


@outbox.command()
def dismiss(
    message: Annotated[int, typer.Argument(metavar="MESSAGE")],
    *,
    reason: Annotated[str, typer.Option(help="Why it needs no delivery any more; stands in the timeline.")],
    as_json: AsJson = False,
) -> None:
    """Give up a parked message that needs no delivery any more, such as a mail that did arrive."""

    async def order(client: "Client") -> None:
        found = await send(client, f"/v1/outbox/{message}/dismiss", {"reason": reason}, key=None)
        if as_json:
            document(found)
        else:
            lines(f"Message {found['message_id']} is dismissed.")

    ask(order, as_json=as_json)


@outbox.command()
def requeue(message: Annotated[int, typer.Argument(metavar="MESSAGE")], *, as_json: AsJson = False) -> None:
    """Release a parked message for another try."""

    async def order(client: "Client") -> None:
        found = await send(client, f"/v1/outbox/{message}/requeue", {}, key=None)
        if as_json:
            document(found)
        else:
            lines(f"Message {found['message_id']} is released.")

    ask(order, as_json=as_json)
