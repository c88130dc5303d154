"""`caseward numbers`: how the business has run, and where it is stuck."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import AsJson, Json, ask
from cli.show import age, document, lines, span, table, words

if TYPE_CHECKING:
    from cli.client import Client


def numbers(
    name: Annotated[str | None, typer.Argument(metavar="PROCESS", help="One process; without it all.")] = None,
    *,
    days: Annotated[int, typer.Option(min=1, max=90, help="How far back.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Where cases stand and get stuck, how long it takes, what was done twice or by hand, and how partners answer."""

    async def look(client: "Client") -> None:
        wanted = {"days": days, **({"process": name} if name else {})}
        found = await client.get("/v1/numbers", **wanted)
        if as_json:
            document(found)
        else:
            _show(found)

    ask(look, as_json=as_json)


def _show(found: Json) -> None:
    for process in found["processes"]:
        _show_process(process)
    lines("Partners, in the last hour", style="bold")
    table(
        ("Partner", "Pause", "Attempts", "Typical", "Slow", "Blocked", "Awaited"),
        [
            (
                each["partner"],
                each["pause"]["state"] if each["pause"] else "",
                ", ".join(f"{many} {words(outcome)}" for outcome, many in each["attempts"].items()),
                _took(each["answered"]["p50"]),
                _took(each["answered"]["p90"]),
                each["blocked"] or "",
                each["waiting"] or "",
            )
            for each in found["partners"]
        ],
        ids=("Partner",),
    )


def _show_process(process: Json) -> None:
    lines(f"{process['title']}: {process['open']} open, {process['stuck']} stuck", style="bold")
    lines("")
    if process["standing"]:
        table(
            ("State", "Condition", "Decides", "Cases", "The oldest"),
            [
                (each["state"], each["condition"], words(each["owner"] or ""), each["cases"], age(each["oldest_since"]))
                for each in process["standing"]
            ],
            ids=("State",),
        )
        lines("")
    left = [each for each in process["states"] if each["left"]["count"]]
    if left:
        table(
            ("Left the state", "Cases", "Typical", "9 of 10 within", "Longest"),
            [(each["state"], each["left"]["count"], *_spread(each["left"])) for each in left],
            ids=("Left the state",),
        )
        lines("")
    if process["operations"]:
        table(
            ("Operation", "Owner", "Accepted", "Repeated", "Open", "Typical", "9 of 10 within", "Longest"),
            [
                (
                    each["name"],
                    words(each["owner"]),
                    each["accepted"],
                    each["repeated"] or "",
                    each["open"] or "",
                    *_spread(each["outcome"]),
                )
                for each in process["operations"]
            ],
            ids=("Operation",),
        )
        lines("")


def _spread(spread: Json) -> tuple[str, str, str]:
    return _took(spread["p50"]), _took(spread["p90"]), _took(spread["longest"])


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else span(timedelta(seconds=seconds))
