"""The sheet of a process: what backend, frontend and operations agree on, told from its declaration alone.

It says what the policy would decide and the screens would show, by the functions that do so; it has no own rules.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from caseward.claims import CLAIM_WORDS
from caseward.diagram import diagram
from caseward.overrides import OVERRIDES, Override
from caseward.policy import override_confirmation, role_names, step_roles
from caseward.process import (
    ENGINEERING,
    IMPOSSIBLE,
    Block,
    Confirmation,
    Deadline,
    Escalate,
    Process,
    Step,
    Take,
    Transition,
)
from caseward.situation import cause_words, step_title

Format = Literal["markdown", "html"]
UNITS = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))
# What Markdown, or HTML within it, would read as anything but text.
MARKED = re.compile(r"([\\`*_{}\[\]<>|#&~])|^([-+=])|(?<=^\d)([.)])")


@dataclass(frozen=True)
class Table:
    """Rows of cells, each of one or more lines."""

    head: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it; those of a section are its own parts."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    parts: tuple["Part", ...] = ()


def sheet(process: Process, form: Format) -> str:
    """The whole sheet. The Markdown names its picture as the file `{process}.svg` beside it."""
    suffix = {"markdown": "md", "html": "html"}[form]
    template = _environment(form).get_template(f"sheet.{suffix}.jinja")
    return template.render(
        process=process,
        owner=_team(process.owner),
        parts=list(parts(process)),
        picture=Markup(diagram(process)),  # noqa: S704 - it escapes what it draws
    )


def _environment(form: Format) -> Environment:
    environment = Environment(
        loader=PackageLoader("caseward.checking", "."),
        autoescape=form == "html",  # noqa: S701 - Markdown has a filter of its own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["marked"] = marked
    return environment


def marked(text: str) -> str:
    """As Markdown that says just this, on one line."""
    return MARKED.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def parts(process: Process) -> Iterator[Part]:
    """The sections, in order."""
    yield Part("What every state means", table=_states(process))
    yield Part("Who may do what", table=_moves(process))
    told = tuple(_story(process, transition) for transition in process.transitions)
    yield Part("What runs behind each transition, and when it is done", parts=told)
    steps = tuple(_failures(process, step) for step in process.steps.values())
    if steps:
        faulty = cause_words("code_error", "")
        paused = "While a partner is paused, its steps wait and nobody has to decide."
        general = (f"Of every step: {faulty}: {ENGINEERING} decides. {paused}",)
        yield Part("What can go wrong, and who owns it", general, parts=steps)
    yield Part("What the operator can do", (_FORCED.format(**_ends(process)),), table=_overrides(process))
    if process.documents is not None:
        yield Part("Documents", table=_documents(process))


_FORCED = (
    "Stopping a case leads through {pending} to {to}. Every one of these takes a reason, which stands in the timeline."
)


def _ends(process: Process) -> dict[str, str]:
    forced = process.force_cancel
    return {"pending": process.state(forced.pending).title, "to": process.state(forced.to).title}


def _states(process: Process) -> Table:
    rows: list[tuple[tuple[str, ...], ...]] = []
    for state in process.states:
        kind = "closed" if state.final else "we are at work" if state.name in process.pending_states else "at rest"
        waits = role_names(process, {state.waiting_on}) if state.waiting_on else "nobody"
        claims = (f"Claimed by: {role_names(process, state.claimable_by)}.",) if state.claimable_by else ()
        deadline = (_deadline(process, state.deadline),) if state.deadline else ("none",)
        rows.append(((state.title,), (state.meaning,), (kind,), (waits, *claims), deadline))
    return Table(("State", "What it means for users", "Kind", "Waits for", "Deadline and what follows"), tuple(rows))


def _deadline(process: Process, deadline: Deadline) -> str:
    words = deadline.counted_from.words if deadline.counted_from else "the entry into the state"
    return f"{duration(deadline.after)} from {words}: {_consequence(process, deadline)}"


def _consequence(process: Process, deadline: Deadline) -> str:
    then = deadline.then
    if isinstance(then, Escalate):
        return f"it waits for the {role_names(process, {then.role})}"
    if isinstance(then, Take):
        taken = process.transition(then.transition)
        return f"the system takes “{taken.title if taken else then.transition}”"
    if isinstance(then, Block):
        return f"blocked, {_team(then.owner or process.owner)} decides"
    return "what was done is taken back; where it can't be, it is blocked"


def _moves(process: Process) -> Table:
    rows: list[tuple[tuple[str, ...], ...]] = []
    for transition in process.transitions:
        places = _titles(process, [s.name for s in process.states if s.name in transition.source])
        conditions: list[str] = []
        if transition.confirmation is not None:
            conditions.append(_confirmed(process, transition.confirmation))
        if transition.four_eyes:
            earlier = " or ".join(
                f"“{each.title}”" for each in process.transitions if each.name in transition.four_eyes
            )
            conditions.append(f"Nobody who took {earlier} in this case, nor may they confirm it.")
        may = role_names(process, transition.roles) if transition.roles else "the system alone"
        rows.append(((transition.title,), (places or "opens the case",), (may,), tuple(conditions) or ("none",)))
    if process.claimable:
        rows.append((("Claim it",), ("where the state says so",), ("whom the state names",), (CLAIM_WORDS["claim"],)))
        rows.append((("Give it back",), ("where it is claimed",), ("who claimed it",), (CLAIM_WORDS["unclaim"],)))
    return Table(("Transition", "In", "Who may", "Conditions"), tuple(rows))


def _confirmed(process: Process, confirmation: Confirmation) -> str:
    others = "another person" if confirmation.by == 1 else f"{confirmation.by} people"
    words = f"Confirmed by {others} of: {role_names(process, confirmation.roles)}"
    if confirmation.groups:
        words += f"; among them {' and '.join(role_names(process, {role}) for role in sorted(confirmation.groups))}"
    if confirmation.proposer_counts:
        words += "; whoever proposes it counts"
    if confirmation.when is not None:
        words += f"; only for {confirmation.when.words}"
    return f"{words}. A proposal waits {duration(confirmation.expires)}."


def _story(process: Process, transition: Transition) -> Part:
    lines: list[str] = []
    targets = _titles(process, transition.targets)
    if transition.pending:
        lines.append(f"Meanwhile the case is {process.state(transition.pending).title}.")
    work = [f"It takes back what earlier work left standing of: {_listed(step.title for step in transition.undoes)}."]
    lines += work if transition.undoes else []
    if transition.told:
        what = "every step of it is done, was not needed, or was decided by somebody"
        what += ", and what it takes back is offset" if transition.undoes else ""
        lines.append(f"Done means: the case is {targets}, and {what}.")
        back = _titles(process, [transition.undone]) if transition.undone else "back in the state it came from"
        if transition.opens and not transition.undone:
            lines.append("It opens the case, so that it can't be taken back; the case can be stopped.")
        elif transition.undoes:
            lines.append(f"After it was taken back: {back}; once it has taken something back itself, it can't be.")
        else:
            lines.append(f"After it was taken back: {back}.")
    elif transition.pending:
        lines.append(f"Done means: what stood is taken back, the latest first, and the case is {targets}.")
    else:
        lines.append(f"Nothing runs outside. Done means: the case is {targets}, at once.")
    if transition.source & process.pending_states:
        busy = _titles(
            process, [s.name for s in process.states if s.name in transition.source & process.pending_states]
        )
        lines.append(f"Taken while the case is {busy}, it supersedes what is under way there.")
    return Part(transition.title, tuple(lines), _steps(process, transition) if transition.steps else None)


def _steps(process: Process, transition: Transition) -> Table:
    rows = tuple(
        (
            (f"{number}. {step.title}", *(("once for every item",) if step.each else ())),
            (step.partner,),
            (_team(process.owner_of(step)),),
            (_undo(step),),
            (_retries(step),),
            (_exhausted(process, step),),
        )
        for number, step in enumerate(transition.steps, 1)
    )
    return Table(("Step", "Partner", "Owner", "Taken back by", "Tries again", "When no attempt is left"), rows)


def _undo(step: Step[Any]) -> str:
    if isinstance(step.undo, str):
        return step.undo
    return "nothing: it can't be taken back" if step.undo is IMPOSSIBLE else "nothing: there is no need"


def _retries(step: Step[Any]) -> str:
    waits = step.retry.waits
    if not waits:
        return "never by itself"
    answer = duration(step.answer_within)
    return f"{len(waits)} times within {duration(sum(waits, timedelta()))}; an answer may take {answer}"


def _exhausted(process: Process, step: Step[Any]) -> str:
    return {
        "block": f"blocked, {_team(process.owner_of(step))} decides",
        "undo": f"the operation is undone; where there is no way back, {_team(process.owner_of(step))} decides",
        "proceed": "the case goes on without it",
    }[step.exhausted]


def _failures(process: Process, step: Step[Any]) -> Part:
    partner, owner, then = f"the partner {step.partner}", _team(process.owner_of(step)), _exhausted(process, step)
    blocked = f"blocked, {owner} decides"
    rows = [
        (f"It fails for the moment, or {partner} is away", f"retrying; then {then}", owner),
        *((cause_words(cause, partner), then, owner) for cause in ("rejected", "unauthorized", "invalid")),
        (
            f"It stays silent: {cause_words('unknown', partner)}",
            "we ask, or repeat it under the same key; else blocked",
            owner,
        ),
        (cause_words("no_answer", partner), f"waiting for {duration(step.answer_within)}; then {then}", owner),
        *((cause_words(cause, partner), blocked, owner) for cause in ("happened_twice", "contradicted")),
    ]
    if step.compensable:
        rows.append((f"It can't be taken back: {step_title(step, 'undo')} fails", f"retrying; then {blocked}", owner))
    elif step.undo is IMPOSSIBLE:
        words = f"It happens although it was left out: {cause_words('no_compensation', partner)}"
        rows.append((words, blocked, owner))
    lines = [f"{OVERRIDES[name].title}: {_who(process, name, step)}" for name in ("retry", "skip", "mark_done")]
    if step.compensable:
        lines += [
            f"{OVERRIDES[name].title}, of “{step_title(step, 'undo')}”: {_who(process, name, step, undo=True)}"
            for name in ("skip", "mark_done")
        ]
    told = tuple(tuple((cell,) for cell in row) for row in rows)
    return Part(step.title, tuple(lines), Table(("What happens", "What the case shows", "Owner"), told))


def _who(process: Process, name: str, step: Step[Any], *, undo: bool = False) -> str:
    override = OVERRIDES[name]
    roles = step_roles(override, step, "undo" if undo else "do")
    if not roles:
        return "nobody, this step can't be left out."
    confirmation = override_confirmation(process, override, step)
    return _sentence(process, roles, confirmation)


def _sentence(process: Process, roles: Iterable[str], confirmation: Confirmation | None) -> str:
    confirmed = f" {_confirmed(process, confirmation)}" if confirmation else ""
    return f"{role_names(process, roles)}.{confirmed}"


def _overrides(process: Process) -> Table:
    rows = tuple(
        (
            (override.title,),
            (_meaning(override),),
            ("by step, see above" if override.name in {"skip", "mark_done"} else role_names(process, override.roles),),
            _override_confirmed(process, override),
        )
        for override in OVERRIDES.values()
    )
    return Table(("Override", "What it does", "Who may", "Conditions"), rows)


def _meaning(override: Override) -> str:
    return " ".join((override.input.__doc__ or "").replace("`", "").split())


def _override_confirmed(process: Process, override: Override) -> tuple[str, ...]:
    confirmation = override_confirmation(process, override, None)
    return (_confirmed(process, confirmation),) if confirmation else ("none",)


def _documents(process: Process) -> Table:
    documents = process.documents
    kinds = documents.kinds if documents else ()
    checked = documents.checked_by.title if documents else ""
    rows = tuple(
        (
            (kind.title,),
            (role_names(process, kind.roles),),
            (_titles(process, [s.name for s in process.states if s.name in kind.states]),),
            (_listed(sorted(kind.media_types)),),
            (str(kind.most),),
            (checked,),
        )
        for kind in kinds
    )
    return Table(("Document", "Added by", "In", "May be", "At most", "Looked at by"), rows)


def _titles(process: Process, names: Iterable[str]) -> str:
    return " or ".join(process.state(name).title for name in names)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _team(name: str) -> str:
    return name.replace("_", " ")


def duration(length: timedelta) -> str:
    """In words: "2 days", "2 minutes 1 second"."""
    said: list[str] = []
    rest = length
    for unit, size in UNITS:
        count, rest = divmod(rest, size)
        if count:
            said.append(f"{count} {unit}{'s' if count > 1 else ''}")
    seconds = rest.total_seconds()
    if seconds or not said:
        said.append(f"{seconds:g} second{'' if seconds == 1 else 's'}")
    return " ".join(said)
