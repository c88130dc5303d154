"""`caseward case`: where a case stands, what happened to it, and what happens to it now."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import Key, until_answered
from cli.asking import AsJson, CaseRef, Json, address, ask, fail, find_case, pages
from cli.exits import AWAY, MISUSED, NOT_FOUND, UNFINISHED
from cli.show import age, complain, document, due, lines, moment, table, who, whole, words
from cli.work import Process, command_of

if TYPE_CHECKING:
    from cli.client import Client

BACK_AFTER = timedelta(seconds=1)  # before a lost stream is asked for again

case = typer.Typer(help="Look at cases.", no_args_is_help=True)


@case.command("list")
def list_(
    *,
    process: Process = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    condition: Annotated[str | None, typer.Option(help="Only in this condition, such as blocked.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only what this recovery owner decides.")] = None,
    waiting_on: Annotated[str | None, typer.Option(help="Only what waits on this role or partner.")] = None,
    assignee: Annotated[str | None, typer.Option(help="Only what this person has claimed.")] = None,
    find: Annotated[str | None, typer.Option(help="A business key's beginning, or any id.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 is all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List cases, the newest change first."""
    filters = {
        "process": process and process.replace("-", "_"),
        "state": state,
        "condition": condition,
        "recovery_owner": owner,
        "waiting_on": waiting_on,
        "assignee": assignee,
        "q": find,
    }

    async def look(client: "Client") -> None:
        href = address("/v1/cases", **filters, limit=min(limit or 200, 200))
        found = await pages(client, href, "cases", most=limit or None)
        if as_json:
            document(found)
            return
        table(
            ("Case", "Title", "State", "Condition", "For", "Due", "Decides"),
            [
                (
                    row["business_key"],
                    row["title"],
                    row["state_title"],
                    row["condition"],
                    age(row["condition_since"]),
                    due(row["deadline_at"]),
                    row["waiting_on"] or row["recovery_owner"],
                )
                for row in found["cases"]
            ],
            ids=("Case", "Condition", "For", "Due"),
        )
        if found["next"]:
            complain("There is more: --limit 0 shows all.")

    ask(look, as_json=as_json)


@case.command()
def show(reference: CaseRef, *, as_json: AsJson = False) -> None:
    """Where a case stands, what runs, and what may be done about it by whom."""

    async def look(client: "Client") -> None:
        now = await find_case(client, reference)
        if as_json:
            document(now)
            return
        _show_standing(now)
        if now["operation"]:
            _show_operation(await client.get(now["operation"]["href"]))
        for proposal in now["proposals"]:
            _show_proposal(proposal)
        _show_actions(now)

    ask(look, as_json=as_json)


def _show_standing(now: Json) -> None:
    state, info = now["state_info"], now["condition_info"]
    lines(f"{now['business_key']}  {now['title']}", style="bold")
    whole(f"{words(now['process'])}, {now['case_id']}")
    lines(f"{state['title']}, {now['condition']} for {age(info['since'])}. {info['sentence']}")
    lines(state["meaning"])
    if now["latest"]:
        _show_latest(now["latest"])
    if error := info["last_error"]:
        lines(f"Last error: {error.get('code')}: {error.get('message')}")
    if info["by"]:
        lines(f"Paused by {info['by']}: {info['reason']}")
    if state["deadline_at"]:
        lines(f"Deadline: {moment(state['deadline_at'])} ({due(state['deadline_at'])})")
    if info["next_attempt_at"]:
        lines(f"Next attempt: {moment(info['next_attempt_at'])}")
    if now["assignee"]:
        lines(f"Claimed by {now['assignee']}")


def _show_latest(latest: Json) -> None:
    """Who led the case to where it stands, when and why."""
    lines(f"Led here by: {latest['title']}, by {who(latest['actor'])} at {moment(latest['finished_at'])}")
    if latest["kind"] == "transition":
        said = {name: value for name, value in latest["input"].items() if isinstance(value, str)}
        lines(*(f"{words(name).capitalize()}: {value}" for name, value in said.items()))
    if latest["reason"]:
        lines(f"Reason: {latest['reason']}")


def _show_operation(operation: Json) -> None:
    by = who(operation["actor"])
    lines("", f"{words(operation['name']).capitalize()} by {by}, {operation['state']}", style="bold")
    if operation["reason"]:
        lines(f"Reason: {operation['reason']}")
    rows: list[tuple[object, ...]] = []
    for step in operation["steps"]:
        named = step["name"] if step["item"] is None else f"{step['name']} [{step['item']}]"
        rows.append((named, step["state"], step["partner"], "", step["title"]))
        attempts: list[Json] = step["attempts"] or []
        for attempt in attempts:
            error: Json = attempt["error"] or {}
            told = ": ".join(str(error[part]) for part in ("code", "message") if error.get(part))
            begun = moment(attempt["started_at"])[11:]
            rows.append(("", attempt["outcome"] or "running", f"attempt {attempt['number']}", begun, told))
    table(("Step", "State", "Partner", "At", "What"), rows, ids=("Step", "State"))
    for step in operation["steps"]:
        if step["effect_key"] and step["state"] in {"blocked", "waiting", "retrying", "running"}:
            whole(f"Effect of {step['name']}: {step['effect_key']}")


def _show_proposal(proposal: Json) -> None:
    given = len(proposal["given"])
    lines("", f"Proposed: {proposal['title']}, by {who(proposal['proposer'])}", style="bold")
    if proposal["reason"]:
        lines(f"Reason: {proposal['reason']}")
    roles = " or ".join(words(role) for role in proposal["roles"])
    lines(f"{given} of {proposal['needed']} confirmed it ({roles}); it expires {due(proposal['expires_at'])}.")
    if proposal["stale"]:
        lines("The case has moved on since: propose it again.")
    for answer in ("confirm", "decline"):
        if proposal[answer]["allowed"]:
            reason = ' --reason "..."' if answer == "decline" else ""
            whole(f"caseward {answer} {proposal['operation_id']}{reason}", indent=2)
        else:
            lines(*(f"  {answer}: {reason['message']}" for reason in proposal[answer]["reasons"]))


def _show_actions(now: Json) -> None:
    offered = [action for action in now["actions"] if action["allowed"]]
    refused = [action for action in now["actions"] if not action["allowed"]]
    if offered:
        lines("", "You may", style="bold")
    for action in offered:
        others = f" ({action['confirmations']} others must confirm)" if action["confirmations"] else ""
        lines(f"  {action['title']}{others}")
        whole(command_of(now, action), indent=4)
    if refused:
        lines("", "Not now", style="bold")
        table(
            ("Action", "Step", "Why"),
            [
                (action["name"], action["step"], " ".join(reason["message"] for reason in action["reasons"]))
                for action in refused
            ],
        )


@case.command()
def timeline(reference: CaseRef, *, as_json: AsJson = False) -> None:
    """What happened to a case, in order: by whom, and why."""

    async def look(client: "Client") -> None:
        now = await find_case(client, reference)
        found = await pages(client, f"/v1/cases/{now['case_id']}/timeline", "entries")
        if as_json:
            document(found)
            return
        lines(f"{now['business_key']}  {now['title']}", style="bold")
        for entry in found["entries"]:
            _show_entry(entry)
        lines(f"Now: {now['state_info']['title']}, {now['condition']}. {now['condition_info']['sentence']}")

    ask(look, as_json=as_json)


def _show_entry(entry: Json) -> None:
    reason = f" Reason: {entry['reason']}" if entry["reason"] else ""
    lines(f"{entry['number']:>4}  {moment(entry['at'])}  {who(entry['actor'])}: {entry['sentence']}{reason}")


@case.command()
def documents(reference: CaseRef, *, as_json: AsJson = False) -> None:
    """The documents of a case, what came of looking at each, and what its steps have made."""

    async def look(client: "Client") -> None:
        found = await _documents(client, reference)
        if as_json:
            document(found)
            return
        rows: list[tuple[object, ...]] = []
        for each in found["documents"]:
            state = "replaced" if each["replaced_by"] else each["state"]
            why = " ".join(reason["message"] for reason in each["reasons"])
            rows.append((each["document_id"], each["name"], state, each["size"], moment(each["uploaded_at"]), why))
        for each in found["made"]:
            state = "made" if each["standing"] else "taken back"
            rows.append((each["effect_key"], each["name"], state, each["size"], moment(each["made_at"]), ""))
        table(("Document", "Name", "State", "Bytes", "At", "Why"), rows, ids=("Document",))

    ask(look, as_json=as_json)


async def _documents(client: "Client", reference: str) -> Json:
    now = await find_case(client, reference)
    return await client.get(f"/v1/cases/{now['case_id']}/documents")


@case.command()
def upload(
    reference: CaseRef,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)],
    *,
    kind: Annotated[str, typer.Option(help="One of the kinds that the process takes, such as evidence.")],
    name: Annotated[str | None, typer.Option(help="What it is to be called; the file's own name if left out.")] = None,
    replaces: Annotated[str | None, typer.Option(help="The document in whose place it counts.")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Add a document to a case. It is looked at in the course of a transition."""

    async def add(client: "Client") -> None:
        now, content = await find_case(client, reference), file.read_bytes()
        added = await until_answered(
            lambda key: client.upload(now, kind, name or file.name, content, replaces=replaces, key=key), key
        )
        if as_json:
            document(added)
            return
        lines(f"{added['name']}: document {added['document_id']}, {added['size']} bytes, {words(added['state'])}")

    ask(add, as_json=as_json)


@case.command()
def download(
    reference: CaseRef,
    which: Annotated[str, typer.Argument(metavar="DOCUMENT", help="As `caseward case documents` names it.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Where to; its own name in this folder if left out.")] = None,
) -> None:
    """Take a document of a case away, or what a step has made. No file is overwritten."""
    got: list[tuple[Json, bytes]] = []

    async def fetch(client: "Client") -> int | None:
        found = await _documents(client, reference)
        listed = {each["document_id"]: each for each in found["documents"]}
        wanted = (listed | {each["effect_key"]: each for each in found["made"]}).get(which)
        if wanted is None:
            complain(f"The case has no document {which}.")
            return NOT_FOUND
        got.append((wanted, b"".join([part async for part in client.download(wanted["href"])])))
        return None

    ask(fetch)
    wanted, content = got.pop()
    if hashlib.sha256(content).hexdigest() != wanted["sha256"]:
        fail(AWAY, "What came is not what the case has: its hash is another. Nothing was kept.")
    path = output or Path(Path(wanted["name"]).name)
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as refused:
        fail(MISUSED, f"{path} can't be written: {refused.strerror}")
    lines(f"{path}: {len(content)} bytes, {wanted['media_type']}")


@case.command()
def watch(
    reference: CaseRef,
    *,
    until: Annotated[
        str | None, typer.Option(help="End when it is in this state or condition, such as active.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(min=0, help="Give up after so many seconds, with exit code 6.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Leave out the entries up to this number.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Follow a case: what happened, then what happens, as it does. Ctrl-C ends it."""

    async def follow(client: "Client") -> int | None:
        now = await find_case(client, reference)
        try:
            async with asyncio.timeout(within):
                async with aclosing(_events(client, f"/v1/cases/{now['case_id']}/stream", after)) as events:
                    async for kind, told in events:
                        _show_event(kind, told, as_json=as_json)
                        if kind == "case" and until and until.replace("-", "_") in (told["state"], told["condition"]):
                            return None
        except TimeoutError:
            complain(f"It did not come to {until} in time." if until else "The time is over.")
            return UNFINISHED if until else None
        raise AssertionError

    ask(follow, as_json=as_json)


def _show_event(kind: str, told: Json, *, as_json: bool) -> None:
    if as_json:
        document({"event": kind, "data": told}, compact=True)
    elif kind == "entry":
        _show_entry(told)
    else:
        lines(f"      {words(told['state'])}, {told['condition']}", style="dim")


async def _events(client: "Client", href: str, after: int) -> AsyncGenerator[tuple[str, Json]]:
    """Every entry once and in order, over as many connections as it takes. Raises what the first of them raises."""
    import json  # noqa: PLC0415

    import httpx2  # noqa: PLC0415

    from cli.client import Refused  # noqa: PLC0415

    connected = lost = False
    while True:
        try:
            async with aclosing(client.events(href, after=after)) as events:
                async for event in events:
                    if lost:
                        complain("(connected again)")
                    connected, lost = True, False
                    if event.event == "entry":
                        after = int(event.id)
                    yield event.event, json.loads(event.data)
        except (httpx2.TransportError, Refused) as fault:
            if not connected or (isinstance(fault, Refused) and fault.status < 500):  # noqa: PLR2004 - theirs, not ours
                raise
            if not lost:
                complain(f"(connection lost at {time.strftime('%H:%M:%S')}, trying again)")
            lost = True
        await asyncio.sleep(BACK_AFTER.total_seconds())
