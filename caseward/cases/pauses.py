"""Pauses as a case's transaction meets them: which apply, what one holds up, and the time that a frozen one gives back.

A case's own pause stands in its row. Those of processes and partners are rows that everybody shares: a reservation
reads them `FOR SHARE`, so that none commits behind a pause that it did not see.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, RowMapping, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward.cases.locked import LockedCase, case_pause
from caseward.db.tables import Case, Effect, Operation, Pause
from caseward.messages import Order
from caseward.outbox import store
from caseward.process import Catalogue
from caseward.situation import CASE, SYSTEM, Actor, PauseView, pause_words, step_title


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The pause of a process or partner as a reservation reads it."""

    key: str
    state: str
    since: datetime
    reason: str | None
    actor_id: str | None
    actor_via: str | None
    frozen_since: datetime | None
    failing: bool
    """Of a partner: the last thing known of it is a failure."""
    probes: frozenset[str]

    @property
    def actor(self) -> Actor:
        """Who paused it."""
        return Actor(self.actor_id or SYSTEM.id, frozenset(), self.actor_via or SYSTEM.via)

    def holds(self, effect_key: str) -> bool:
        """Nothing may be sent for this effect now."""
        return self.state == "paused" or (self.state == "probing" and effect_key not in self.probes)


def process_key(name: str) -> str:
    """The key of a process's pause."""
    return f"process:{name}"


def partner_key(name: str) -> str:
    """The key of a partner's pause."""
    return f"partner:{name}"


def keys_of(catalogue: Catalogue) -> list[str]:
    """Every process and every partner that can be paused."""
    partners = {step.partner for process in catalogue.values() for step in process.steps.values()}
    return [*map(partner_key, sorted(partners)), *map(process_key, sorted(catalogue))]


async def ensure(session: AsyncSession, keys: Iterable[str], now: datetime) -> None:
    """Make the rows that are missing; they stay for good."""
    new: dict[str, Any] = {"number": 0, "state": "open", "since": now, "deadlines": "running", "rate": 0, "trips": 0}
    new |= {"failing": [], "probes": []}
    rows = [{"key": key, "id": uuid7(), **new} for key in sorted(keys)]
    await session.execute(insert(Pause).values(rows).on_conflict_do_nothing())


_HELD = ("key", "state", "since", "reason", "actor_id", "actor_via", "frozen_since", "failing", "probes")


def hold_of(row: RowMapping | Pause) -> Hold:
    """The row as plain data."""
    given = row if isinstance(row, RowMapping) else {name: getattr(row, name) for name in _HELD}
    plain = {name: given[name] for name in _HELD[:-2]}
    probes = frozenset(probe["key"] for probe in given["probes"])
    return Hold(**plain, failing=bool(given["failing"]), probes=probes)


def view_of(hold: Hold, case: Case, number: int = 0) -> PauseView:
    """As the policy sees it."""
    return PauseView(
        key=hold.key,
        stands=hold.state in {"paused", "probing"},
        since=hold.since,
        reason=hold.reason,
        by=hold.actor_id,
        number=number,
        frozen_since=hold.frozen_since if is_frozen(hold, case) else None,
    )


def is_frozen(hold: Hold, case: Case) -> bool:
    """The case's deadlines stand still: by a pause, or by one whose resume has not come to this case yet."""
    if hold.frozen_since is None:
        return False
    thawed = (case.thawed or {}).get(hold.key)
    return hold.state != "resuming" or thawed is None or datetime.fromisoformat(thawed) < hold.since


# --- holding up -----------------------------------------------------------------------------------------------------


def holding(work: LockedCase, holds: Iterable[Hold], effect_key: str, *, compensating: bool) -> PauseView | Hold | None:
    """The pause under which nothing may be sent for this effect; compensation waits for its partner's only."""
    own = case_pause(work.case)
    if own is not None and not compensating:
        return own
    for hold in sorted(holds, key=lambda each: each.key, reverse=True):  # the process's before the partner's
        if hold.holds(effect_key) and not (compensating and hold.key.startswith("process:")):
            return hold
    return None


def hold_up(work: LockedCase, effect: Effect, pause: PauseView | Hold) -> None:
    """Let the effect wait for the pause; its timeline says whose and why."""
    if effect.state == "paused" and effect.paused_by == pause.key:
        return
    effect.state, effect.paused_by, effect.since = "paused", pause.key, work.now
    effect.next_attempt_at = effect.cause = None
    by = pause.actor if isinstance(pause, Hold) else _own_actor(work.case)
    _say(work, effect, "effect.paused", pause.key, actor=by, reason=pause.reason)
    work.touch()


def let_go(work: LockedCase, effect: Effect, *, actor: Actor, role: str | None = None, reason: str | None) -> None:
    """Make a held up effect due, with a fresh burst, and tell the workflow."""
    key = effect.paused_by or CASE
    effect.state, effect.paused_by, effect.cause = "retrying", None, None
    effect.since, effect.next_attempt_at, effect.burst = work.now, work.now, 0
    _say(work, effect, "effect.resumed", key, actor=actor, role=role, reason=reason)
    work.touch()


def tell(work: LockedCase, woken: Iterable[Effect], operation: Operation | None = None) -> None:
    """Nudge each step that may go on; without any, only say how the case stands."""
    address = {"do": "", "undo": ":undo"}
    orders = [
        Order(
            operation_id=str(effect.driven_by),
            kind="override",
            name="resume",
            fence=work.case.fence,
            takes_over=False,
            step=effect.step + address[effect.direction],
            item=effect.item,
            version=work.case.version,
        )
        for effect in woken
    ]
    for order in orders or [None]:
        store.put(
            work.session,
            case_id=work.case.id,
            operation_id=operation.id if operation else None,
            payload={
                "process": work.process.name,
                "business_key": work.case.business_key,
                "order": asdict(order) if order else None,
                "news": asdict(work.news()),
            },
        )


def _say(work: LockedCase, effect: Effect, entry_type: str, key: str, **who: Any) -> None:
    step = work.process.steps.get(effect.step)
    title = step_title(step, "undo" if effect.direction == "undo" else "do") if step else effect.step
    work.entry(entry_type, effect=effect, title=title, partner=effect.partner, pause=key, what=pause_words(key), **who)


def _own_actor(case: Case) -> Actor:
    paused = case.paused or {}
    return Actor(paused.get("by", SYSTEM.id), frozenset(), paused.get("via", SYSTEM.via))


# --- a case's own ---------------------------------------------------------------------------------------------------


def pause_case(
    work: LockedCase,
    *,
    actor: Actor,
    reason: str,
    deadlines: str = "running",
    owner: str | None = None,
    role: str | None = None,
    operation: Operation | None = None,
) -> None:
    """Pause one case under its lock; `owner` decides when it goes on, an operator unless said otherwise."""
    work.case.paused = {
        "since": work.now.isoformat(),
        "reason": reason,
        "by": actor.id,
        "via": actor.via,
        "deadlines": deadlines,
        **({"owner": owner} if owner else {}),
    }
    work.entry("case.paused", operation=operation, actor=actor, role=role, reason=reason, deadlines=deadlines)
    work.touch()


def resume_case(
    work: LockedCase,
    *,
    actor: Actor,
    reason: str,
    role: str | None = None,
    operation: Operation | None = None,
    others: Iterable[PauseView] = (),
) -> list[Effect]:
    """End a case's own pause; returns the effects that may go on. `others` are its process's and partners' pauses."""
    own = case_pause(work.case)
    if own is None:
        return []
    work.case.paused = None
    work.entry("case.resumed", operation=operation, actor=actor, role=role, reason=reason)
    woken = [effect for effect in work.effects.values() if effect.state == "paused" and effect.paused_by == CASE]
    for effect in woken:
        let_go(work, effect, actor=actor, role=role, reason=reason)
    if own.frozen_since is not None:
        give_back(work, own.key, own.frozen_since, others)
    work.touch()
    return woken


# --- frozen deadlines -----------------------------------------------------------------------------------------------


def give_back(
    work: LockedCase,
    key: str,
    began: datetime,
    others: Iterable[PauseView] = (),
    *,
    partner: str | None = None,
    state_from: datetime | None = None,
) -> None:
    """Move what did not pass since `began`; time that another frozen pause covers is left for that one to give back.

    A `partner`'s pause moves its answers only, and the state's deadline from when it held the case up (`state_from`).
    """
    end = min([work.now, *(other.frozen_since for other in others if other.frozen_since is not None)])
    moved: list[timedelta] = []
    case = work.case
    of_state = began if partner is None else state_from
    if of_state is not None and case.deadline_at is not None:
        moved.append(max(timedelta(0), end - max(began, of_state, case.state_since)))
        case.deadline_at = case.deadline_at + moved[-1]
    for effect in work.effects.values():
        step = work.process.steps.get(effect.step)
        if effect.state == "settled" or effect.answer_by is None or step is None or partner not in {None, step.partner}:
            continue
        moved.append(max(timedelta(0), end - max(began, effect.answer_by - step.answer_within)))
        if effect.next_attempt_at == effect.answer_by:
            effect.next_attempt_at = effect.answer_by + moved[-1]
        effect.answer_by = effect.answer_by + moved[-1]
    if any(moved):
        seconds = round(max(moved).total_seconds())
        what = pause_words(key)
        work.entry("deadline.moved", what=f"The pause of {what}", pause=key, moved=f"{seconds} s")


async def holds_of(session: AsyncSession, keys: Iterable[str], *, share: bool = False) -> dict[str, Hold]:
    """These pauses; with `share` none of them can change before this transaction ends."""
    query = select(Pause.__table__).where(Pause.key.in_(sorted(keys))).order_by(Pause.key)
    rows = (await session.execute(query.with_for_update(read=True) if share else query)).mappings()
    return {row["key"]: hold_of(row) for row in rows}


async def paused_processes(session: AsyncSession, names: Iterable[str]) -> dict[str, datetime]:
    """Those of these processes that are paused, and since when."""
    holds = await holds_of(session, map(process_key, names))
    return {key.partition(":")[2]: hold.since for key, hold in holds.items() if hold.state == "paused"}


async def deadline_frozen(work: LockedCase) -> bool:
    """The deadline of the case's state does not pass now."""
    own = case_pause(work.case)
    if own is not None and own.frozen_since is not None:
        return True
    held = {e.paused_by for e in work.driven() if e.state == "paused" and e.paused_by not in {None, CASE}}
    holds = await holds_of(work.session, {process_key(work.process.name), *(key for key in held if key)})
    return any(is_frozen(hold, work.case) for hold in holds.values())


# --- looking --------------------------------------------------------------------------------------------------------

# Of each case: who took which transition, and its pauses; the latter have no round trip of their own, as it would cost
# every command and every look at a case.
LOOK_BACK = text(
    """
    SELECT looked.case_id,
           (SELECT jsonb_object_agg(name, actors) FROM (
                SELECT name, jsonb_agg(DISTINCT actor) AS actors FROM (
                    SELECT name, unnest(array_remove(ARRAY[actor_id, on_behalf_of], NULL)) AS actor FROM operations
                    WHERE case_id = looked.case_id AND kind = 'transition'
                      AND state NOT IN ('proposed', 'declined', 'expired')
                    UNION ALL
                    SELECT name, unnest(array_remove(ARRAY[answers.actor_id, answers.on_behalf_of], NULL))
                    FROM operations JOIN proposal_answers AS answers ON operation_id = operations.id
                    WHERE operations.case_id = looked.case_id AND kind = 'transition'
                      AND state NOT IN ('proposed', 'declined', 'expired') AND confirmations > 0
                ) AS took GROUP BY name) AS those) AS acted,
           (SELECT jsonb_agg(to_jsonb(pauses) ORDER BY key DESC) FROM pauses
                WHERE key = looked.process OR key IN (
                    SELECT paused_by FROM effects WHERE driven_by = looked.operation_id AND state = 'paused')) AS held
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:operation_ids AS uuid[]), CAST(:processes AS text[]))
         AS looked (case_id, operation_id, process)
    """
)
PROCESS_PAUSE = text("SELECT clock_timestamp(), (SELECT to_jsonb(pauses) FROM pauses WHERE key = :process)")
PAUSES = text("SELECT key, to_jsonb(pauses) AS pause FROM pauses WHERE key = ANY(:keys)")
# Of a case: what `Situation.etag` adds up.
NUMBERS: ColumnElement[int] = literal_column(
    """
    (SELECT coalesce(sum(number), 0)::int FROM pauses
        WHERE key = 'process:' || cases.process OR key IN (
            SELECT paused_by FROM effects WHERE driven_by = cases.operation_id AND state = 'paused'))
    """,
    Integer(),
)


def views_of(found: list[dict[str, Any]] | None, case: Case) -> tuple[PauseView, ...]:
    """Pauses that `LOOK_BACK` found, the process's first."""
    return tuple(view_of(_from_json(row), case, row["number"]) for row in found or [])


def opening_views(found: dict[str, Any] | None) -> tuple[PauseView, ...]:
    """The process's pause that `PROCESS_PAUSE` found, where there is no case yet."""
    return views_of([found], Case()) if found else ()


def _from_json(row: dict[str, Any]) -> Hold:
    return Hold(
        **{name: row[name] for name in ("key", "state", "reason", "actor_id", "actor_via")},
        since=datetime.fromisoformat(row["since"]),
        frozen_since=datetime.fromisoformat(row["frozen_since"]) if row["frozen_since"] else None,
        failing=bool(row["failing"]),
        probes=frozenset(probe["key"] for probe in row["probes"]),
    )
