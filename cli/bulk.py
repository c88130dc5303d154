"""`caseward bulk`: one override over many cases that are blocked alike, watched until each has its outcome."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import InputFile, Key, NotHappened, Reason, read_input, send
from cli.asking import AsJson, Json, address, ask, fail, instant, pages
from cli.exits import BLOCKED, DONE, MISUSED, NOT_FOUND, UNFINISHED
from cli.show import age, complain, console, document, lines, moment, plain, table, who, whole, words
from cli.work import Process

if TYPE_CHECKING:
    from cli.client import Client

LOOK_EVERY = timedelta(milliseconds=500)
OVER = frozenset({"stopped", "completed"})
NOT_SETTLED = frozenset({"frozen", "begun", "sent", "acknowledged"})
FAILED = frozenset({"blocked_again", "refused", "left"})
UNTIL_HELP = "Of the group only what was blocked by then: a time as in ISO 8601, or 2h for two hours ago."
CASE_HELP = "A case by its id; may be repeated. With --group of the group only these, without it these."
WAIT_HELP = "Seconds to follow it; 0 orders it and ends."

BulkId = Annotated[str, typer.Argument(metavar="BULK", help="The id of the run.")]
Wait = Annotated[float, typer.Option(min=0, help=WAIT_HELP)]

bulk = typer.Typer(help="Recover many cases that are blocked alike.", no_args_is_help=True)


@bulk.command()
def groups(*, process: Process = None, as_json: AsJson = False) -> None:
    """What is blocked, by step, partner and error; the largest group first."""

    async def look(client: "Client") -> None:
        found = await _groups(client, process)
        if as_json:
            document(found)
            return
        if not found["groups"]:
            lines("Nothing is blocked.")
        for group in found["groups"]:
            decides = words(group["recovery_owner"])
            lines(f"{group['count']} x {group['title']} ({words(group['process'])})", style="bold")
            lines(f"  {group['cause']} by {group['partner']}, first {age(group['since'])} ago; {decides} decides")
            if group["example"]:
                lines(f"  {group['example']}")
            seen = f"--group {group['fingerprint']} --until {group['latest']}"
            whole(f'caseward bulk start retry {seen} --reason "..."', indent=4)

    ask(look, as_json=as_json)


@bulk.command()
def start(
    override: Annotated[str, typer.Argument(metavar="OVERRIDE", help="Any but replay.")],
    reason: Reason,
    *,
    group: Annotated[str | None, typer.Option(help="The fingerprint of a group that `bulk groups` lists.")] = None,
    case: Annotated[list[str] | None, typer.Option(help=CASE_HELP)] = None,
    process: Annotated[str | None, typer.Option(help="Of the group, where several processes have it.")] = None,
    until: Annotated[datetime | None, typer.Option(parser=instant, metavar="WHEN", help=UNTIL_HELP)] = None,
    canary: Annotated[int, typer.Option(min=1, help="How many are tried first.")] = 5,
    rate: Annotated[int | None, typer.Option(min=1, help="Cases a second at most.")] = None,
    stop_after: Annotated[int, typer.Option(min=1, help="Failures at which it stops by itself.")] = 3,
    look: Annotated[bool, typer.Option("--look", help="Wait after the first ones until you say continue.")] = False,
    not_happened: NotHappened = False,
    file: InputFile = None,
    wait: Wait = 600,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Order one override over a group, chosen cases of it, or cases, and follow it until each has its outcome."""
    if group is None and not case:
        fail(MISUSED, "Name a group, cases, or cases of a group.")
    if until is not None and group is None:
        fail(MISUSED, "--until is said of a group; cases are named one by one.")
    given = read_input(file)
    if not_happened:
        given["happened"] = False

    async def order(client: "Client") -> int:
        body: Json = {
            "override": override.replace("-", "_"),
            "reason": reason,
            "input": given,
            "canary": canary,
            "rate": rate,
            "stop_after": stop_after,
            "look": look,
        }
        if case:
            body["case_ids"] = case
        if group is not None:
            seen = {"until": until.isoformat()} if until else {}
            body["group"] = await _named(client, group, process) | seen
        run = await send(client, "/v1/bulk", body, key=key)
        if not as_json:
            whole(f"run {run['bulk_id']}: {run['total']} cases")
        return await _follow(client, run, wait, as_json=as_json)

    ask(order, as_json=as_json)


@bulk.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """Runs, the newest first."""

    async def look(client: "Client") -> None:
        found = await client.get("/v1/bulk")
        if as_json:
            document(found)
            return
        table(
            ("Run", "State", "Override", "Cases", "Ordered", "By"),
            [
                (r["bulk_id"], r["state"], r["override"], r["total"], moment(r["created_at"]), who(r["actor"]))
                for r in found["runs"]
            ],
            ids=("Run", "State"),
        )

    ask(look, as_json=as_json)


@bulk.command()
def show(
    bulk_id: BulkId,
    *,
    items: Annotated[bool, typer.Option("--items", help="Each case with its outcome.")] = False,
    state: Annotated[str | None, typer.Option(help="Of the cases, only those in this state.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a run is, why it stopped, and what became of its cases."""

    async def look(client: "Client") -> int:
        run = await client.get(f"/v1/bulk/{bulk_id}")
        if follow:
            return await _follow(client, run, None, as_json=as_json)
        if not items and state is None:
            _tell(run, as_json=as_json)
            return DONE
        found = await pages(client, address(run["items"], state=state), "items")
        if as_json:
            document(found)
            return DONE
        _show_items(found["items"])
        return DONE

    ask(look, as_json=as_json)


@bulk.command("continue")
def continue_(bulk_id: BulkId, reason: Reason, *, wait: Wait = 600, as_json: AsJson = False) -> None:
    """The first ones look well: go on."""

    async def say(client: "Client") -> int:
        run = await send(client, f"/v1/bulk/{bulk_id}/continue", {"reason": reason}, key=None)
        return await _follow(client, run, wait, as_json=as_json)

    ask(say, as_json=as_json)


@bulk.command()
def stop(bulk_id: BulkId, reason: Reason, *, as_json: AsJson = False) -> None:
    """Leave the rest as it is; what was sent gets its outcome."""

    async def say(client: "Client") -> None:
        _tell(await send(client, f"/v1/bulk/{bulk_id}/stop", {"reason": reason}, key=None), as_json=as_json)

    ask(say, as_json=as_json)


async def _groups(client: "Client", process: str | None) -> Json:
    return await client.get(address("/v1/bulk/groups", process=process and process.replace("-", "_")))


async def _named(client: "Client", fingerprint: str, process: str | None) -> Json:
    """A group by the four words that name it."""
    same = [each for each in (await _groups(client, process))["groups"] if each["fingerprint"] == fingerprint]
    if not same:
        fail(NOT_FOUND, f"No group has the fingerprint {fingerprint} now: see `caseward bulk groups`.")
    if len({each["process"] for each in same}) > 1:
        fail(MISUSED, f"Several processes have it, say --process: {', '.join(each['process'] for each in same)}.")
    return {name: same[0][name] for name in ("process", "step", "partner", "fingerprint")}


async def _follow(client: "Client", run: Json, wait: float | None, *, as_json: bool) -> int:
    """Until it is over, waits for somebody to look, or the time is over."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    began = time.monotonic()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    on = console(stderr=True)
    with Progress(*columns, console=on, disable=not on.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=run["total"])
        said = ""
        while True:
            settled = sum(number for state, number in run["counts"].items() if state not in NOT_SETTLED)
            told = _counted(run)
            progress.update(bar, completed=settled, description=plain(told))
            if on.is_terminal is False and told != said and wait != 0:
                complain(f"{settled}/{run['total']} {told}")
                said = told
            ended = run["state"] in OVER and not _under_way(run)
            if ended or run["state"] == "looking" or (wait is not None and time.monotonic() - began >= wait):
                break
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            run = await client.get(f"/v1/bulk/{run['bulk_id']}")
    _tell(run, as_json=as_json)
    if not ended:
        return DONE if wait == 0 else UNFINISHED
    if any(run["counts"].get(state) for state in FAILED) or run["state"] == "stopped":
        return BLOCKED
    return UNFINISHED if run["counts"].get("proposed") else DONE


def _under_way(run: Json) -> bool:
    return any(run["counts"].get(state) for state in ("begun", "sent", "acknowledged"))


def _counted(run: Json) -> str:
    counts = [f"{number} {words(state)}" for state, number in run["counts"].items() if number]
    return f"{run['state']}: {', '.join(counts)}"


def _tell(run: Json, *, as_json: bool) -> None:
    if as_json:
        document(run)
        return
    lines(f"{words(run['override']).capitalize()} over {run['total']} cases: {run['sentence']}")
    if run["chosen"]:
        lines(run["chosen"]["sentence"])
    table(("State", "Cases"), [(state, number) for state, number in run["counts"].items() if number], ids=("State",))
    if run["stopped_because"]:
        lines(f"It stopped: {run['stopped_because']}")
    if run["state"] == "looking":
        whole(f'caseward bulk continue {run["bulk_id"]} --reason "..."', indent=4)
    if any(run["counts"].get(state) for state in FAILED):
        whole(f"caseward bulk show {run['bulk_id']} --items", indent=4)


def _show_items(items: list[Json]) -> None:
    table(
        ("Case", "Title", "Id", "State", "Outcome"),
        [
            (each["business_key"], each["title"], each["case_id"], each["state"], _outcome(each["outcome"]))
            for each in items
        ],
        ids=("Id", "State"),
    )


def _outcome(outcome: Json | None) -> str:
    if not outcome:
        return ""
    reasons = outcome.get("reasons") or ([outcome["error"]] if outcome.get("error") else [])
    return " ".join(str(each.get("message") or each.get("code")) for each in reasons) or str(outcome)
