"""Acting: every command that changes a case, sent to where the server says, followed until its outcome is verified."""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import uuid4

import typer

from cli.asking import AsJson, CaseRef, Json, ask, fail, find_case, is_id
from cli.exits import AWAY, BLOCKED, DONE, MISUSED, REFUSED, UNFINISHED
from cli.show import complain, document, lines, plain, table, whole, words

if TYPE_CHECKING:
    from cli.client import Client

FINISHED = frozenset({"completed", "undone", "superseded", "declined", "expired"})
LONGEST_PREFERENCE = 60  # seconds that the server waits at most; beyond that the CLI looks again
LOOK_EVERY = timedelta(milliseconds=250)
TRIES = 3  # of a command whose answer got lost: always under the same key
AT_ONCE = frozenset({"pause", "resume", "claim", "unclaim"})  # over when accepted, whatever the case does next
HELPS = frozenset({"retry", "skip", "mark_done"})  # a case stays blocked until one of these has its outcome

Reason = Annotated[str, typer.Option(help="Why; stands in the timeline for good.")]
OptionalReason = Annotated[str | None, typer.Option(help="Why; stands in the timeline for good.")]
Wait = Annotated[
    int, typer.Option(min=0, help="Seconds to wait for the outcome; with 0 it is enough that it was accepted.")
]
Key = Annotated[
    str | None, typer.Option(help="The command's Idempotency-Key; the same again after an answer that got lost.")
]
Step = Annotated[str | None, typer.Option(help="The step, or STEP:undo; needed where several qualify.")]
Item = Annotated[str | None, typer.Option(help="The item, of a step that runs once per item.")]
NotHappened = Annotated[
    bool, typer.Option("--not-happened", help="On an unknown outcome: you looked, and it did not happen.")
]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", metavar="K=V", help="A field of the input; a.b=V within one.")
]
InputFile = Annotated[str | None, typer.Option("--input-json", metavar="FILE|-", help="The input as a JSON object.")]

acting = typer.Typer()
override = typer.Typer(
    help="Recover a case: retry, skip, mark-done, undo, replay, force-cancel, pause, resume.", no_args_is_help=True
)
acting.add_typer(override, name="override")


@acting.command("open")
def open_(
    process: Annotated[str, typer.Argument(metavar="PROCESS")],
    business_key: Annotated[str, typer.Argument(metavar="BUSINESS_KEY")],
    *,
    given: Inputs = None,
    file: InputFile = None,
    wait: Wait = 0,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Open a case; --input and --input-json are its subject."""
    base = read_input(file)

    async def work(client: "Client") -> int:
        declared = await client.get(f"/v1/processes/{process}")
        subject = merged(base, given or [], await client.get(declared["subject_schema"]))
        opening = next(transition for transition in declared["transitions"] if transition["opens"])
        sent = {"business_key": business_key, "subject": subject}
        case = await send(client, opening["href"], sent, key=key, wait=wait)
        if wait:
            case = await _at_rest(client, case["case_id"], time.monotonic() + wait)
        if as_json:
            document(case)
        else:
            lines(f"{case['business_key']}: {standing_of(case)}")
            whole(case["case_id"])
        return _ends(case) if wait else DONE

    ask(work, as_json=as_json)


@acting.command()
def take(
    case: CaseRef,
    transition: Annotated[str, typer.Argument(metavar="TRANSITION", help="As `caseward case show` lists them.")],
    *,
    given: Inputs = None,
    file: InputFile = None,
    reason: OptionalReason = None,
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take a transition: `caseward take BK-17 cancel --reason "The guest called"`."""
    base = read_input(file)

    async def work(client: "Client") -> int:
        now = await find_case(client, case)
        action = action_of(now, "transition", transition)
        schema = await client.get(action["input_schema"]) if given else {}
        body: Json = {"reason": reason}
        if given or base:
            body["input"] = merged(base, given or [], _field(schema, schema, "input"))
        return await _act(client, now, action, body, wait=wait, key=key, as_json=as_json)

    ask(work, as_json=as_json)


@acting.command()
def claim(case: CaseRef, *, reason: OptionalReason = None, key: Key = None, as_json: AsJson = False) -> None:
    """Claim a case: what your role does there, others can't."""
    _on_case(case, "claim", "claim", {"reason": reason}, wait=1, key=key, as_json=as_json)


@acting.command()
def unclaim(case: CaseRef, *, reason: OptionalReason = None, key: Key = None, as_json: AsJson = False) -> None:
    """Give a claimed case back."""
    _on_case(case, "claim", "unclaim", {"reason": reason}, wait=1, key=key, as_json=as_json)


@acting.command()
def confirm(
    proposal: Annotated[str, typer.Argument(metavar="CASE|OPERATION")],
    *,
    reason: OptionalReason = None,
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Confirm what somebody else proposed."""
    _answer(proposal, "confirm", reason, wait=wait, key=key, as_json=as_json)


@acting.command()
def decline(
    proposal: Annotated[str, typer.Argument(metavar="CASE|OPERATION")],
    reason: Reason,
    *,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Decline what was proposed, or withdraw it."""
    _answer(proposal, "decline", reason, wait=0, key=key, as_json=as_json)


@override.command()
def retry(
    case: CaseRef,
    reason: Reason,
    *,
    step: Step = None,
    item: Item = None,
    not_happened: NotHappened = False,
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Try again now, under the same effect key."""
    body = _about(reason, step, item, not_happened=not_happened)
    _on_case(case, "override", "retry", body, wait=wait, key=key, as_json=as_json)


@override.command()
def skip(
    case: CaseRef,
    reason: Reason,
    *,
    step: Step = None,
    item: Item = None,
    not_happened: NotHappened = False,
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Leave the step out and go on."""
    body = _about(reason, step, item, not_happened=not_happened)
    _on_case(case, "override", "skip", body, wait=wait, key=key, as_json=as_json)


@override.command()
def mark_done(
    case: CaseRef,
    reason: Reason,
    *,
    step: Step = None,
    item: Item = None,
    result: Annotated[str, typer.Option(metavar="JSON|-", help="What the step would have answered.")] = "{}",
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """It was done by hand: `--result '{"payee_id": "PY-4711"}'`."""
    found = read_object(sys.stdin.read() if result == "-" else result, "--result")
    body = {**_about(reason, step, item), "result": found}
    _on_case(case, "override", "mark_done", body, wait=wait, key=key, as_json=as_json)


@override.command()
def undo(case: CaseRef, reason: Reason, *, wait: Wait = 10, key: Key = None, as_json: AsJson = False) -> None:
    """Take back what was done, back to the state before."""
    _on_case(case, "override", "undo", {"reason": reason}, wait=wait, key=key, as_json=as_json)


@override.command()
def force_cancel(case: CaseRef, reason: Reason, *, wait: Wait = 10, key: Key = None, as_json: AsJson = False) -> None:
    """Stop everything, take back what was done, and close the case."""
    _on_case(case, "override", "force_cancel", {"reason": reason}, wait=wait, key=key, as_json=as_json)


@override.command()
def pause(
    case: CaseRef,
    reason: Reason,
    *,
    deadlines: Annotated[str, typer.Option(help="frozen or running meanwhile.")] = "running",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing new begin in this case, until somebody resumes it."""
    body = {"reason": reason, "deadlines": deadlines}
    _on_case(case, "override", "pause", body, wait=1, key=key, as_json=as_json)


@override.command()
def resume(case: CaseRef, reason: Reason, *, key: Key = None, as_json: AsJson = False) -> None:
    """End the case's own pause."""
    _on_case(case, "override", "resume", {"reason": reason}, wait=1, key=key, as_json=as_json)


@override.command()
def replay(
    case: CaseRef,
    step: Annotated[str, typer.Option(help="The step to do again from.")],
    reason: Reason,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says without asking.")] = False,
    wait: Wait = 10,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Do the latest operation again from a step on: shows the plan, asks, and orders exactly that."""

    async def work(client: "Client") -> int:
        now = await find_case(client, case)
        action = action_of(now, "override", "replay")
        plan = await client.post(f"/v1/cases/{now['case_id']}/plan", {"step": step})
        if not as_json:
            _show_plan(plan)
        if not yes:
            if as_json or not sys.stdin.isatty():
                fail(MISUSED, "Nothing was done: nobody is there to agree to the plan. --yes does.")
            if not typer.confirm("Do it?"):
                fail(REFUSED, "Nothing was done.")
        body = {"reason": reason, "step": step, "plan_hash": plan["plan_hash"]}
        return await _act(client, now, action, body, wait=wait, key=key, as_json=as_json)

    ask(work, as_json=as_json)


def _show_plan(plan: Json) -> None:
    lines(f"{plan['title']}, again from {plan['from_step']}:")
    table(
        ("Step", "Item", "What", "Effect", "Beware"),
        [
            (
                step["title"],
                step["item"],
                step["action"],
                step["effect"],
                "nobody knows yet whether it happened"
                if step["unknown"]
                else "stays beside the new one"
                if step["stays"]
                else None,
            )
            for step in plan["steps"]
        ],
    )
    for decision in plan["decisions"]:
        kept = "is kept" if decision["kept"] else "falls"
        lines(f"{decision['title']} ({decision['actor'] or 'system'}) {kept}.")
    lines(f"It leads to {' or '.join(plan['leads_to'])}.")


def _about(reason: str, step: str | None, item: str | None, *, not_happened: bool = False) -> Json:
    body: Json = {"reason": reason, "step": step, "item": item}
    return {**body, "happened": False} if not_happened else body


def _on_case(reference: str, kind: str, name: str, body: Json, *, wait: int, key: str | None, as_json: bool) -> None:
    async def work(client: "Client") -> int:
        now = await find_case(client, reference)
        action = action_of(now, kind, name, step=body.get("step"), item=body.get("item"))
        return await _act(client, now, action, body, wait=wait, key=key, as_json=as_json)

    ask(work, as_json=as_json)


def _answer(reference: str, answer: str, reason: str | None, *, wait: int, key: str | None, as_json: bool) -> None:
    async def work(client: "Client") -> int:
        now = await find_case(client, reference)
        wanted = [each for each in now["proposals"] if each["operation_id"] == reference]
        standing = wanted or ([] if is_id(reference) and reference != now["case_id"] else now["proposals"])
        if not standing:
            fail(REFUSED, f"Nothing of that kind waits for confirmation. {standing_of(now)}")
        if len(standing) > 1:
            fail(MISUSED, "Say which:", *(f"  {each['operation_id']}  {each['title']}" for each in standing))
        return await _act(client, now, standing[0][answer], {"reason": reason}, wait=wait, key=key, as_json=as_json)

    ask(work, as_json=as_json)


def action_of(case: Json, kind: str, name: str, *, step: str | None = None, item: str | None = None) -> Json:
    """Where the case document says that it is taken; whether it may be, the server says. Ends the command otherwise."""
    name = name.replace("-", "_")
    same = [action for action in case["actions"] if (action["kind"], action["name"]) == (kind, name)]
    if not same:
        known = sorted({action["name"] for action in case["actions"] if action["kind"] == kind})
        fail(MISUSED, f"{case['process']} has no {kind} {name}; there are {', '.join(known)}.")
    exact = [action for action in same if (action["step"], action["item"]) == (step, item)]
    return (exact or same)[0]


async def send(
    client: "Client", href: str, body: Json, *, key: str | None, wait: int = 0, etag: str | None = None
) -> Json:
    """A command; where its answer gets lost, the same one again. Raises Refused."""
    given = {name: value for name, value in body.items() if value is not None}
    tag = None if etag is None else f'"{etag}"'
    patience = min(wait, LONGEST_PREFERENCE)
    return await until_answered(lambda key: client.post(href, given, key=key, wait=patience, if_match=tag), key)


async def until_answered(command: Callable[[str], Awaitable[Json]], key: str | None) -> Json:
    """The answer to what is sent under the key, this one or one of our own, however often it takes. Raises Refused."""
    import asyncio  # noqa: PLC0415

    import httpx2  # noqa: PLC0415

    from cli.client import Refused  # noqa: PLC0415

    key = key or str(uuid4())
    for number in range(1, TRIES + 1):
        try:
            return await command(key)
        except (httpx2.TransportError, Refused) as fault:
            lost = not isinstance(fault, Refused) or fault.status >= 500  # noqa: PLR2004 - theirs, not ours
            if not lost:
                raise
            if number == TRIES:
                complain(f"Nobody knows whether it was accepted. Send the same again with --key {key}")
                if isinstance(fault, Refused):
                    raise
                fail(AWAY, f"The API can't be reached, or broke off: {fault or type(fault).__name__}")
        await asyncio.sleep(number / 2)
    raise AssertionError


async def _act(
    client: "Client", case: Json, action: Json, body: Json, *, wait: int, key: str | None, as_json: bool
) -> int:
    """Send it, see it through, say what came of it."""
    until = time.monotonic() + wait
    operation = await send(client, action["href"], body, key=key, wait=wait, etag=case["etag"])
    follow = bool(wait) and operation["name"] not in AT_ONCE and operation["state"] not in {"declined", "proposed"}
    if follow:
        operation = await _outcome(client, operation, until)
        # Its own end is not the repair yet: what it let go on may block again.
        case = await _at_rest(client, case["case_id"], until) if operation["state"] in FINISHED else case
    case = await client.case(case["case_id"])
    if as_json:
        document(operation)
    else:
        lines(f"{words(operation['name']).capitalize()}: {words(operation['state'])}.")
        lines(f"{case['business_key']}: {standing_of(case)}")
        whole(f"operation {operation['operation_id']}")
    if operation["state"] == "declined":
        return DONE
    if operation["state"] in FINISHED - {"completed"}:
        return REFUSED
    if not follow:
        return UNFINISHED if operation["state"] == "proposed" else DONE
    seen = operation["state"] == "completed" or operation["name"] not in HELPS
    return _ends(case) if seen else UNFINISHED


def _ends(case: Json) -> int:
    if case["condition"] == "blocked":
        return BLOCKED
    return DONE if case["operation"] is None else UNFINISHED


async def _outcome(client: "Client", operation: Json, until: float) -> Json:
    """The operation as it ends, blocks or stands when the time is over."""
    import asyncio  # noqa: PLC0415

    while operation["state"] not in FINISHED and time.monotonic() < until:
        case = await client.case(operation["case_id"])
        if case["condition"] in {"blocked", "paused"} and operation["name"] not in HELPS:
            break
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        operation = await client.operation(operation["operation_id"])
    return operation


async def _at_rest(client: "Client", case_id: str, until: float) -> Json:
    """The case as soon as nothing is in flight, or somebody has to decide, or the time is over."""
    import asyncio  # noqa: PLC0415

    case = await client.case(case_id)
    while case["operation"] and case["condition"] not in {"blocked", "paused"} and time.monotonic() < until:
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        case = await client.case(case_id)
    return case


def standing_of(case: Json) -> str:
    """State and condition in one line."""
    return f"{case['state_info']['title']}, {case['condition']}. {case['condition_info']['sentence']}"


def read_object(text: str, where: str) -> Json:
    """A JSON object. Ends the command where it is none."""
    try:
        found = json.loads(text)
    except ValueError as fault:
        fail(MISUSED, f"{where} is not JSON: {fault}")
    if not isinstance(found, dict):
        fail(MISUSED, f"{where} is not a JSON object.")
    return found  # pyright: ignore[reportUnknownVariableType]


def read_input(file: str | None) -> Json:
    """What --input-json names. Ends the command where it is no object."""
    if file is None:
        return {}
    try:
        return read_object(sys.stdin.read() if file == "-" else Path(file).read_text(), "--input-json")
    except OSError as fault:
        fail(MISUSED, f"{file}: {fault.strerror}")


def merged(base: Json, given: list[str], schema: Json) -> Json:
    """`given` as K=V on top of `base`; what a value is, text or JSON, the schema says."""
    for each in given:
        path, equals, text = each.partition("=")
        if not equals or not path:
            fail(MISUSED, f"--input takes K=V, not {plain(each)}.")
        *outer, name = path.split(".")
        inner: Json = base
        part = schema
        for step in outer:
            part = _field(schema, part, step)
            within: Any = inner.setdefault(step, {})
            if not isinstance(within, dict):
                fail(MISUSED, f"--input {plain(path)}: {plain(step)} is no object.")
            inner = cast("Json", within)
        inner[name] = _typed(schema, _field(schema, part, name), text)
    return base


def _field(root: Json, schema: Json, name: str) -> Json:
    """The schema of a field; references within the document are followed."""
    found: Json = _resolved(root, schema).get("properties", {}).get(name, {})
    # Whoever goes on from here needs the definitions too.
    return {"$defs": root.get("$defs", {}), **_resolved(root, found)}


def _resolved(root: Json, schema: Json) -> Json:
    ref = schema.get("$ref")
    return schema if ref is None else root.get("$defs", {}).get(ref.rpartition("/")[2], {})


def _typed(root: Json, schema: Json, text: str) -> Any:
    choices = [_resolved(root, each) for each in schema.get("anyOf", [schema])]
    if any(choice.get("type") == "string" for choice in choices):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the server says what it wanted
