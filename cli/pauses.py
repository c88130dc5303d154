"""Pauses of a process or of a partner: holding them up, letting them go on, and seeing what stands."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import Key, Reason, send
from cli.asking import AsJson, Json, ask, fail
from cli.exits import NOT_FOUND, REFUSED
from cli.show import age, document, lines, moment, table, who, words

if TYPE_CHECKING:
    from cli.client import Client

Name = Annotated[str, typer.Argument(metavar="NAME")]
Deadlines = Annotated[str, typer.Option(help="frozen or running meanwhile.")]
Rate = Annotated[int | None, typer.Option(min=1, help="Cases a second, at most, that go on.")]

pauses = typer.Typer()
pause = typer.Typer(help="Let nothing new begin: of a process, or at a partner.", no_args_is_help=True)
resume = typer.Typer(help="End the pause of a process or of a partner.", no_args_is_help=True)
pauses.add_typer(pause, name="pause")
pauses.add_typer(resume, name="resume")


@pauses.command("pauses")
def list_(*, as_json: AsJson = False) -> None:
    """The pause of every process and every partner; paused cases are in `caseward case list --condition paused`."""

    async def look(client: "Client") -> None:
        found = await client.get("/v1/pauses")
        if as_json:
            document(found)
            return
        table(
            ("What", "State", "For", "By", "Waiting", "Tries again", "Why"),
            [
                (
                    f"{each['scope']} {each['name']}",
                    each["state"],
                    "" if each["state"] == "open" else age(each["since"]),
                    who(each["by"]),
                    each["cases_waiting"],
                    moment(each["probe_at"])[11:],
                    each["reason"],
                )
                for each in found["pauses"]
            ],
            ids=("What", "State"),
        )

    ask(look, as_json=as_json)


@pause.command("process")
def pause_process(
    name: Name, reason: Reason, *, deadlines: Deadlines = "running", key: Key = None, as_json: AsJson = False
) -> None:
    """Hold up all cases of a process, openings too."""
    _pause({"process": name, "reason": reason, "deadlines": deadlines}, key, as_json=as_json)


@pause.command("partner")
def pause_partner(
    name: Name, reason: Reason, *, deadlines: Deadlines = "running", key: Key = None, as_json: AsJson = False
) -> None:
    """Send a partner nothing new; asking for outcomes passes."""
    _pause({"partner": name, "reason": reason, "deadlines": deadlines}, key, as_json=as_json)


@resume.command("process")
def resume_process(name: Name, reason: Reason, *, rate: Rate = None, key: Key = None, as_json: AsJson = False) -> None:
    """Let the cases of a process go on, those that waited longest first."""
    _resume("process", name.replace("-", "_"), reason, rate, key, as_json=as_json)


@resume.command("partner")
def resume_partner(name: Name, reason: Reason, *, rate: Rate = None, key: Key = None, as_json: AsJson = False) -> None:
    """Let what waits for a partner go on, those that waited longest first."""
    _resume("partner", name, reason, rate, key, as_json=as_json)


def _pause(body: Json, key: str | None, *, as_json: bool) -> None:
    async def order(client: "Client") -> None:
        _tell(await send(client, "/v1/pauses", body, key=key), as_json=as_json)

    ask(order, as_json=as_json)


def _resume(scope: str, name: str, reason: str, rate: int | None, key: str | None, *, as_json: bool) -> None:
    async def order(client: "Client") -> None:
        found = (await client.get("/v1/pauses"))["pauses"]
        known = [each for each in found if each["scope"] == scope]
        meant = next((each for each in known if each["name"] == name), None)
        if meant is None:
            fail(NOT_FOUND, f"There is no {scope} {name}; there are {', '.join(each['name'] for each in known)}.")
        if meant["state"] == "open" and key is None:
            fail(REFUSED, f"The {scope} {name} is not paused.")
        _tell(await send(client, meant["href"], {"reason": reason, "rate": rate}, key=key), as_json=as_json)

    ask(order, as_json=as_json)


def _tell(now: Json, *, as_json: bool) -> None:
    if as_json:
        document(now)
    else:
        waiting = f", {now['cases_waiting']} cases wait" if now["cases_waiting"] else ""
        lines(f"{words(now['scope']).capitalize()} {now['name']}: {now['state']}{waiting}.")
