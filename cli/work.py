"""`caseward work`: what needs a person now, why, since when, and the next command to type."""

import asyncio
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import standing_of
from cli.asking import LARGEST_PAGE, AsJson, Json, address, ask, is_id, pages
from cli.show import age, document, due, lines, plain, table, whole, words

if TYPE_CHECKING:
    from cli.client import Client

AT_A_TIME = 8  # case documents read side by side
CONDITIONS = ("blocked", "paused", "undoing", "retrying")
FIRST = ("retry", "resume", "undo")  # overrides, in the order in which they suggest themselves

Process = Annotated[str | None, typer.Option(help="Only cases of this process.")]

work = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was asked for, as the server's filters."""

    process: str | None
    recovery_owner: str | None
    state: str | None
    assignee: str | None
    q: str | None
    only: frozenset[str]
    most: int | None

    def href(self, **more: object) -> str:
        """The address of a list."""
        size = min(self.most or LARGEST_PAGE, LARGEST_PAGE)
        mine = {name: getattr(self, name) for name in ("process", "recovery_owner", "state", "assignee", "q")}
        return address("/v1/cases", **{**mine, **more}, limit=size)


@work.command("work")
def work_(
    *,
    process: Process = None,
    owner: Annotated[str | None, typer.Option(help="Only what this recovery owner decides.")] = None,
    state: Annotated[str | None, typer.Option(help="Only cases in this state.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only cases that you have claimed.")] = False,
    find: Annotated[str | None, typer.Option(help="A business key's beginning, or any id.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="blocked, paused, undoing, retrying, waiting, overdue, proposals or parked; may be repeated."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many of each; 0 is all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What needs a person now, why, since when, and the next command to type."""

    async def look(client: "Client") -> None:
        me = await client.get("/v1/me")
        wanted = Wanted(
            process=process and process.replace("-", "_"),
            recovery_owner=owner,
            state=state,
            assignee=me["id"] if mine else None,
            q=find,
            only=frozenset(only or ()),
            most=limit or None,
        )
        found, more = await _look(client, wanted, me["roles"])
        if as_json:
            document(found)
            return
        lines(f"{me['id']}, as {', '.join(words(role) for role in me['roles']) or 'nobody in particular'}")
        for section, rows in found.items():
            if section == "parked":
                _show_parked(rows)
            elif rows:
                documents = await _documents(client, rows)
                lines("", f"{section.capitalize()}: {len(rows)}{' or more' if section in more else ''}", style="bold")
                for row, case in zip(rows, documents, strict=True):
                    _show(row, case)
        if not any(found.values()):
            lines("Nothing needs anybody.")
        elif more:
            lines("", "There is more: --limit 0 shows all, --process, --owner and --only less.")

    ask(look, as_json=as_json)


async def _look(client: "Client", wanted: Wanted, roles: list[str]) -> tuple[dict[str, list[Json]], set[str]]:
    found: dict[str, list[Json]] = {}
    more: set[str] = set()

    async def section(name: str, *hrefs: str) -> None:
        if wanted.only and name not in wanted.only:
            return
        rows: dict[str, Json] = {}
        for href in hrefs:
            page = await pages(client, href, "cases", most=wanted.most)
            rows |= {row["case_id"]: row for row in page["cases"][: wanted.most]}
            if page["next"] or len(page["cases"]) > (wanted.most or len(page["cases"])):
                more.add(name)
        found[name] = list(rows.values())

    for name in CONDITIONS:
        await section(name, wanted.href(condition=name))
    await section("waiting", *(wanted.href(condition="waiting", waiting_on=role) for role in roles))
    await section("proposals", wanted.href(proposals=True))
    await section("overdue", wanted.href(overdue=True))
    if (not wanted.only or "parked" in wanted.only) and {"operator", "senior_operator", "auditor"} & set(roles):
        most = wanted.most
        messages = await pages(client, "/v1/outbox?parked=true", "messages", most=most)
        found["parked"] = messages["messages"][:most]
    return found, more


async def _documents(client: "Client", rows: list[Json]) -> list[Json]:
    """The cases as they stand: a row of a list has no sentence and no actions."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def one(row: Json) -> Json:
        async with room:
            return await client.get(row["href"])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(row)) for row in rows]
    return [task.result() for task in tasks]


def _show(row: Json, case: Json) -> None:
    info = case["condition_info"]
    facts = [f"for {age(info['since'])}"]
    if info["recovery_owner"]:
        facts.append(f"{words(info['recovery_owner'])} decides")
    if case["state_info"]["deadline_at"]:
        facts.append(f"deadline {due(case['state_info']['deadline_at'])}")
    if case["assignee"]:
        facts.append(f"claimed by {case['assignee']}")
    whole(f"{row['business_key']}  {row['title']}  ({', '.join(facts)})", indent=2)
    whole(standing_of(case), indent=4)
    if info["last_error"]:
        whole(f"Last error: {info['last_error'].get('message')}", indent=4)
    whole(next_command(case), indent=4)


def next_command(case: Json) -> str:
    """What suggests itself, of what this actor may do."""
    return next(_suggestions(case), f"caseward case show {reference(case)}")


def _suggestions(case: Json) -> Iterator[str]:
    if case["proposals"]:  # anything else would go around what was proposed
        mine = (proposal for proposal in case["proposals"] if proposal["confirm"]["allowed"])
        yield from (f"caseward confirm {proposal['operation_id']}" for proposal in mine)
        return
    allowed = [action for action in case["actions"] if action["allowed"]]
    info = case["condition_info"]
    if case["condition"] in {"blocked", "paused"}:
        for name in FIRST:
            for action in allowed:
                same = action["step"] in (None, info["step"]) and action["item"] in (None, info["item"])
                if (action["kind"], action["name"]) == ("override", name) and same:
                    yield command_of(case, action)
    elif case["condition"] == "waiting":
        for action in allowed:
            if action["kind"] == "transition":
                yield command_of(case, action)


def command_of(case: Json, action: Json) -> str:
    """An action as it is typed."""
    name = action["name"].replace("_", "-")
    if action["kind"] == "claim":
        return f"caseward {name} {reference(case)}"
    if action["kind"] == "transition":
        return f"caseward take {reference(case)} {name}"
    where = "".join(
        f" --{part} {shlex.quote(plain(action[part]))}" for part in ("step", "item") if action[part] is not None
    )
    # What nobody has looked at yet is not to be copied as if somebody had.
    unknown = " --not-happened" if case["condition_info"]["cause"] == "unknown" and name in {"retry", "skip"} else ""
    step = " --step STEP" if name == "replay" else ""
    result = " --result JSON" if name == "mark-done" else ""
    seen = "  # once you looked" if unknown else ""
    return f'caseward override {name} {reference(case)}{where}{step}{result}{unknown} --reason "..."{seen}'


def reference(case: Json) -> str:
    """The business key where a shell takes it as it is and it can mean nothing else; else the id."""
    key = str(case["business_key"])
    simple = key.isascii() and key[0].isalnum() and all(each.isalnum() or each in "-_./" for each in key)
    return key if simple and not is_id(key) else str(case["case_id"])


def _show_parked(messages: list[Json]) -> None:
    if not messages:
        return
    lines("", f"Parked messages: {len(messages)}", style="bold")
    show_messages(messages)
    whole(f"caseward outbox requeue {messages[0]['message_id']}", indent=4)


def show_messages(messages: list[Json]) -> None:
    """Outbox messages."""
    table(
        ("Message", "To", "Case", "Age", "Tries", "Error"),
        [
            (
                each["message_id"],
                each["destination"],
                each["case_id"],
                age(each["created_at"]),
                each["tries"],
                each["error"],
            )
            for each in messages
        ],
        ids=("Message", "Case"),
    )
