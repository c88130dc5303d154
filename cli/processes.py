"""`caseward process`: what a business declares, in words."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import AsJson, Json, ask
from cli.show import document, lines, span, table, words

if TYPE_CHECKING:
    from cli.client import Client

process = typer.Typer(help="Look at the declarations of processes.", no_args_is_help=True)


@process.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """Every process that runs here."""

    async def look(client: "Client") -> None:
        found = await client.get("/v1/processes")
        if as_json:
            document(found)
        else:
            rows = [(each["name"], each["title"]) for each in found["processes"]]
            table(("Process", "Title"), rows, ids=("Process",))

    ask(look, as_json=as_json)


@process.command()
def show(name: Annotated[str, typer.Argument(metavar="PROCESS")], *, as_json: AsJson = False) -> None:
    """Its states, the moves between them with who may make them, and its steps with their partners."""

    async def look(client: "Client") -> None:
        found = await client.get(f"/v1/processes/{name}")
        if as_json:
            document(found)
        else:
            _show(found)

    ask(look, as_json=as_json)


@process.command()
def schema(
    name: Annotated[str, typer.Argument(metavar="SCHEMA", help="PROCESS.TRANSITION, PROCESS.STEP.result, ...")],
) -> None:
    """What an input, a subject or a result has to look like, as a JSON Schema."""

    async def look(client: "Client") -> None:
        document(await client.get(f"/v1/schemas/{name}"))

    ask(look)


def _show(found: Json) -> None:
    lines(f"{found['title']} ({found['name']}), owned by {words(found['owner'])}", style="bold")
    lines("")
    table(
        ("State", "Waits for", "Deadline", "Meaning"),
        [(each["name"], each["waiting_on"], _deadline(each["deadline"]), each["meaning"]) for each in found["states"]],
        ids=("State",),
    )
    lines("")
    table(
        ("Transition", "From", "To", "Who may", "Steps"),
        [
            (
                each["name"],
                ", ".join(each["source"]) or "(opens)",
                " or ".join(each["to"]),
                ", ".join(each["roles"]),
                ", ".join(each["steps"]),
            )
            for each in found["transitions"]
        ],
        ids=("Transition",),
    )
    lines("")
    table(
        ("Step", "Partner", "Decides", "Taken back by"),
        [(each["name"], each["partner"], each["owner"], each["undo"]) for each in found["steps"]],
        ids=("Step",),
    )


def _deadline(deadline: Json | None) -> str:
    if deadline is None:
        return ""
    counted = f" from {deadline['counted_from']}" if deadline["counted_from"] else ""
    then = (
        (deadline["escalates_to"] and f"{words(deadline['escalates_to'])} looks")
        or (deadline["takes"] and words(deadline["takes"]))
        or ("undone" if deadline["undoes"] else f"{words(deadline['blocks_for'])} decides")
    )
    return f"{span(timedelta(seconds=deadline['after_seconds']))}{counted}: {then}"
