"""A case under its lock: what one writing transaction holds in its hand."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import and_, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from caseward.cases.timeline import new_entry
from caseward.db.counting import note_attempt
from caseward.db.tables import Attempt, Case, Effect, Operation
from caseward.documents.case import CaseFacts, status_document
from caseward.documents.steps import StepDocument, step_documents
from caseward.errors import CaseNotFound
from caseward.messages import News, Offset, Order
from caseward.offsets import is_offset, needs_offset
from caseward.outbox import store
from caseward.overrides import OVERRIDES
from caseward.policy import begins_impossible
from caseward.process import OPERATOR, Catalogue, Process, Step, Transition
from caseward.situation import (
    CASE,
    FINISHED,
    QUESTIONS,
    SYSTEM,
    Actor,
    EffectView,
    OperationView,
    Outcome,
    PauseView,
    Situation,
    condition,
)


def effect_view(row: Effect) -> EffectView:
    """The row as plain data."""
    return EffectView(
        key=row.key,
        operation_id=row.operation_id,
        step=row.step,
        item=row.item,
        direction=cast("Any", row.direction),
        partner=row.partner,
        recovery_owner=row.recovery_owner,
        state=cast("Any", row.state),
        outcome=cast("Any", row.outcome),
        decision=cast("Any", row.decision),
        cause=row.cause,
        error=row.error,
        result=row.result,
        attempt_count=row.attempt_count,
        next_attempt_at=row.next_attempt_at,
        answer_by=row.answer_by,
        since=row.since,
        offset=row.offset_at is not None,
        ruled_out=row.ruled_out_by is not None,
        paused_by=row.paused_by,
    )


def case_pause(case: Case) -> PauseView | None:
    """The case's own pause, which changes with its version."""
    if case.paused is None:
        return None
    since = datetime.fromisoformat(case.paused["since"])
    return PauseView(
        key=CASE,
        stands=True,
        since=since,
        reason=case.paused["reason"],
        by=case.paused["by"],
        owner=case.paused.get("owner", OPERATOR),
        frozen_since=since if case.paused["deadlines"] == "frozen" else None,
    )


def operation_view(row: Operation, *, impossible_begun: bool = False, offsetting: bool = False) -> OperationView:
    """The row as plain data."""
    tells = row.name if row.kind == "transition" else (row.plan or {}).get("tells")
    return OperationView(
        id=row.id,
        kind=cast("Any", row.kind),
        name=row.name,
        state=cast("Any", row.state),
        tells=tells,
        accepted_at=row.accepted_at,
        blocked=row.blocked,
        impossible_begun=impossible_begun,
        took_back=bool(row.undoes),
        offsetting=offsetting,
    )


def story_of(process: Process, operation: Operation) -> Transition | None:
    """The transition whose story the operation tells: its own, or the one that it replays."""
    if operation.kind == "transition":
        return process.transition(operation.name)
    return process.transition(operation.plan["tells"]) if operation.plan else None


def declared_steps(process: Process, operation: Operation) -> tuple[Step[Any], ...]:
    """The steps that the operation's story has."""
    transition = story_of(process, operation)
    return transition.steps if transition else ()


def undoes(process: Process, operation: Operation) -> tuple[Step[Any], ...]:
    """The steps of which the operation's story takes back what earlier ones left standing."""
    transition = story_of(process, operation)
    return transition.undoes if transition else ()


def address_of(step: str, item: str | None) -> str:
    """As a replay's plan names an effect: the step, and which of its items."""
    return step if item is None else f"{step}:{item}"


def reused(operation: Operation) -> list[str]:
    """Keys of the effects of earlier operations that a replay goes on with."""
    return list(operation.plan["reuse"].values()) if operation.plan else []


@dataclass
class LockedCase:
    """One case, its operation in flight and the effects that matter, in one transaction under the case's lock."""

    session: AsyncSession
    process: Process
    case: Case
    now: datetime
    """By the database's clock, never before the case's last change."""
    operation: Operation | None
    effects: dict[str, Effect]
    """Driven by the operation in flight, or standing in this case."""
    taken: frozenset[str] = frozenset()
    """The transitions that it took before, once somebody has looked back."""
    latest: Operation | None = None
    """While nothing is in flight: the operation that came to its end last, once somebody has looked back."""
    _touched: bool = field(default=False)

    def driven(self) -> list[Effect]:
        """The effects that the operation in flight works on, in the order in which they were reserved."""
        if self.operation is None:
            return []
        mine = [effect for effect in self.effects.values() if effect.driven_by == self.case.operation_id]
        return sorted(mine, key=lambda effect: (effect.reserved_at, effect.key))

    def situation(self) -> Situation:
        """The case as plain data, without what only the policy looks back on."""
        case, own = self.case, case_pause(self.case)
        driven = self.driven()
        view = None
        if self.operation is not None:
            impossible = begins_impossible(self.process, (effect.step for effect in driven))
            offsetting = bool(self.outstanding_offsets(self.operation))
            view = operation_view(self.operation, impossible_begun=impossible, offsetting=offsetting)
        return Situation(
            process=self.process,
            case_id=case.id,
            state=case.state,
            state_since=case.state_since,
            deadline_at=case.deadline_at,
            escalated_to=case.escalated_to,
            assignee=case.assignee,
            overdue=case.overdue,
            version=case.version,
            operation=view,
            effects=tuple(effect_view(effect) for effect in driven),
            fence=case.fence,
            subject_revision=case.subject_revision,
            documents=case.documents,
            pauses=() if own is None else (own,),
        )

    def entry(
        self,
        entry_type: str,
        *,
        operation: Operation | None = None,
        actor: Actor = SYSTEM,
        role: str | None = None,
        reason: str | None = None,
        effect: Effect | None = None,
        **data: Any,
    ) -> None:
        """Append to the timeline."""
        if operation is None and (effect is None or (self.operation and effect.driven_by == self.operation.id)):
            operation = self.operation
        for_whom = actor.on_behalf_of(role)
        if for_whom is not None:
            data["on_behalf_of"] = for_whom
        # What is heard late of an effect belongs to the operation that drove it, not to the one in flight by now.
        operation_id = operation.id if operation else effect.driven_by if effect else None
        self.session.add(
            new_entry(
                self.case,
                entry_type,
                at=self.now,
                actor=actor,
                role=role,
                reason=reason,
                operation_id=operation_id,
                effect_key=effect.key if effect else None,
                traceparent=operation.traceparent if operation else None,
                data=data,
            )
        )

    def enter(self, state_name: str, subject: BaseModel | None = None) -> None:
        """Move to another state; its deadline begins. One that counts from the subject's own instant needs that."""
        state = self.process.state(state_name)
        if state_name != self.case.state:
            self.case.assignee = None
        self.case.state = state_name
        self.case.state_since = self.now
        self.case.visit = self.case.version + (0 if self._touched else 1)
        self.case.final = state.final
        self.case.escalated_to = self.case.overdue = None
        self.case.deadline_at = None
        if state.deadline:
            instant = state.deadline.counted_from
            begins = self.now if instant is None or subject is None else instant.of(subject)
            self.case.deadline_at = begins + state.deadline.after

    def deadline_acts(self) -> bool:
        """The state's deadline means the case as it is: at rest, or while the pending state's own transition runs."""
        if self.operation is None:
            return True
        tells = story_of(self.process, self.operation)
        return tells is not None and self.case.state in self.process.pending_states

    def give_time_again(self) -> None:
        """Somebody looked at an overdue case and lets it go on: its state's deadline begins anew."""
        if self.case.overdue is not None:
            self.restart_deadline()

    def restart_deadline(self) -> None:
        """The state has its whole time again, and nobody was called yet."""
        deadline = self.process.state(self.case.state).deadline
        self.case.overdue = self.case.escalated_to = None
        self.case.deadline_at = self.now + deadline.after if deadline else None

    def touch(self) -> None:
        """Raise the version, once a transaction, and bring the projected condition up to date."""
        if not self._touched:
            self.case.version += 1
            self._touched = True
        current = condition(self.situation())
        self.case.condition = current.name
        self.case.condition_since = current.since
        self.case.recovery_owner = current.recovery_owner
        self.case.waiting_on = current.waiting_on
        self.case.changed_at = self.now

    def news(self) -> News:
        """How the case stands now, for the workflow."""
        situation = self.situation()
        steps = self.steps()
        case, own = self.case, case_pause(self.case)
        frozen = own is not None and own.frozen_since is not None
        facts = CaseFacts(
            business_key=case.business_key,
            title="",
            subject={},
            subject_revision=case.subject_revision,
            opened_at=case.opened_at,
            changed_at=case.changed_at,
        )
        return News(
            version=case.version,
            status=status_document(situation, facts, steps),
            final=case.final and self.operation is None,
            deadline_at=case.deadline_at.isoformat()
            if case.deadline_at and self.deadline_acts() and not frozen
            else None,
            visit=case.visit,
        )

    def steps(self) -> list[StepDocument]:
        """The steps of the operation in flight, with all that it takes back or has yet to."""
        operation = self.operation
        if operation is None:
            return []
        offsets = [self.effects[key] for key in operation.offsets if key in self.effects]
        offsets += [effect for effect in self.left_standing(operation) if effect not in offsets]
        # What an earlier operation did well is no step of this one.
        theirs = {key for key in operation.undoes if key in self.effects and self.effects[key].state == "settled"}
        driven = [effect_view(effect) for effect in self.driven() if effect.key not in theirs]
        declared = declared_steps(self.process, operation)
        return step_documents(self.process, declared, driven, [effect_view(effect) for effect in offsets])

    def left_standing(self, operation: Operation) -> list[Effect]:
        """What earlier operations did of the steps that this one's story undoes and has not yet, the latest first."""
        return left_standing(self.process, operation, self.effects.values())

    def order(self, operation: Operation) -> Order:
        """The operation as its workflow needs it."""
        finished = operation.state in FINISHED
        takes_over = operation.kind == "transition" or OVERRIDES[operation.name].takes_over
        tells = story_of(self.process, operation)
        return Order(
            operation_id=str(operation.id),
            kind=operation.kind,
            name=operation.name,
            fence=operation.fence,
            takes_over=takes_over,
            story=tells is not None and tells.told and not finished,
            finished=finished and takes_over,
            offsets=[] if finished else self.outstanding_offsets(operation),
            step=operation.step,
            item=operation.item,
            version=self.case.version,
            tells=operation.plan["tells"] if operation.plan else None,
            documents=list(operation.documents),
        )

    def outstanding_offsets(self, operation: Operation) -> list[Offset]:
        """What the operation still has to take back, latest first, and what its owner has yet to look at."""
        owed = [
            effect for effect in (self.effects[key] for key in operation.offsets) if not is_offset(effect, self.effects)
        ]
        asked = [e for e in self.driven() if is_questioned(e) and e not in owed] if operation is self.operation else []
        return [
            Offset(effect.key, effect.step, effect.item, settled=effect.state == "settled") for effect in owed + asked
        ]

    def promise(self, operation: Operation | None, *, resync: bool = False) -> None:
        """Put a message for the case's workflow into the outbox: the operation, or a mere wake.

        With `resync` the run that gets it shall forget what it believes.
        """
        order = self.order(operation) if operation else None
        self._tell(operation.id if operation else None, order, resync=resync)

    def _tell(self, operation_id: UUID | None, order: Order | None, *, resync: bool = False) -> None:
        store.put(
            self.session,
            case_id=self.case.id,
            operation_id=operation_id,
            payload={
                "process": self.process.name,
                "business_key": self.case.business_key,
                "order": asdict(order) if order else None,
                "news": asdict(self.news()),
                **({"resync": True} if resync else {}),
            },
        )

    def mail(self, template: str, to: str, words: str) -> None:
        """Promise a mail to a team or role: ids, titles and a sentence, nothing of the subject."""
        state = self.process.state(self.case.state)
        store.put(
            self.session,
            case_id=self.case.id,
            operation_id=None,
            destination=store.TO_MAIL,
            payload={
                "template": template,
                "to": to,
                "values": {
                    "to": to,
                    "process": self.process.title,
                    "business_key": self.case.business_key,
                    "case_id": str(self.case.id),
                    "state": state.title,
                    "sentence": words,
                },
            },
        )

    def nudge(self, effect: Effect) -> None:
        """Have the workflow look at a step at once, because something was learnt of its effect."""
        order = Order(
            operation_id=str(effect.driven_by),
            kind="override",
            name="callback",
            fence=self.case.fence,
            takes_over=False,
            step=effect_view(effect).address,
            item=effect.item,
            version=self.case.version,
        )
        self._tell(None, order)

    async def helpers_open(self) -> Iterable[Operation]:
        """Overrides that help an operation and whose effect has not shown yet."""
        helpers = [row.name for row in OVERRIDES.values() if not row.takes_over]
        found = await self.session.scalars(
            select(Operation).where(
                Operation.case_id == self.case.id,
                Operation.name.in_(helpers),
                Operation.kind == "override",
                Operation.finished_at.is_(None),
                Operation.state != "proposed",  # that one helps nobody yet
            )
        )
        return found.all()

    def end_attempt(
        self, effect: Effect, attempt: Attempt, outcome: Outcome, error: dict[str, Any] | None, *, at: datetime
    ) -> None:
        """The attempt has an outcome. One that was unknown and is learnt now was counted before."""
        if attempt.outcome is None:
            note_attempt(self.session.sync_session, effect.partner, outcome, took=at - attempt.started_at)
        attempt.outcome, attempt.error, attempt.ended_at = outcome, error, at

    def finish_helper(self, operation: Operation, state: Literal["completed", "superseded"] = "completed") -> None:
        """Close an override that helped: its effect has shown, or what it helped is gone."""
        if operation.finished_at is not None:
            return
        operation.state = state
        operation.started_at = operation.started_at or self.now
        operation.finished_at = self.now
        if state == "completed":
            self.entry(
                "operation.completed",
                operation=operation,
                action=OVERRIDES[operation.name].title,
                to_state=self.process.state(self.case.state).title,
            )


def left_standing(process: Process, operation: Operation, effects: Iterable[Effect]) -> list[Effect]:
    """Those of the effects that the operation's story is to undo: not its own, and not what it goes on with."""
    steps, own = {step.name for step in undoes(process, operation)}, {*reused(operation), *operation.undoes}
    found = [e for e in effects if e.step in steps and e.operation_id != operation.id and e.key not in own]
    found = [effect for effect in found if needs_offset(process, effect)]
    return sorted(found, key=lambda effect: (effect.reserved_at, effect.key), reverse=True)


def is_questioned(effect: Effect) -> bool:
    """It happened, and its owner has to look at what the partner reported beside that."""
    return effect.state == "blocked" and effect.cause in QUESTIONS


# Made once, because making them takes longer than running them.
_before = aliased(Case)
_IN_HAND = (
    select(
        Case,
        Operation,
        Effect,
        func.clock_timestamp(),
        select(_before.version).where(_before.id == bindparam("case_id")).scalar_subquery(),
    )
    .outerjoin(Operation, Operation.id == Case.operation_id)
    .outerjoin(Effect, and_(Effect.case_id == Case.id, or_(Effect.standing, Effect.driven_by == Case.operation_id)))
    .where(Case.id == bindparam("case_id"))
)
_LOCK = _IN_HAND.with_for_update(key_share=True, of=Case)


async def lock_case(
    session: AsyncSession, catalogue: Catalogue, case_id: UUID, *, process: str | None = None
) -> LockedCase:
    """Lock the case for this transaction. Raises CaseNotFound, also for another process's case."""
    wanted = {"case_id": case_id}
    rows = (await session.execute(_LOCK, wanted)).all()
    if rows and rows[0][0].version != rows[0][-1]:
        # We waited for another writer. Postgres then gives the locked row as it is now, but what is joined to it as it
        # was before; every writer raises the version, so this is how it shows.
        rows = (await session.execute(_IN_HAND, wanted, execution_options={"populate_existing": True})).all()
    if not rows or rows[0][0].process not in catalogue or (process is not None and rows[0][0].process != process):
        raise CaseNotFound
    case, operation, _, now, _ = rows[0]
    joined: list[Effect | None] = [row[2] for row in rows]
    effects = {effect.key: effect for effect in joined if effect is not None}
    return LockedCase(
        session=session,
        process=catalogue[case.process],
        case=case,
        now=max(now, case.changed_at),
        operation=operation,
        effects=effects,
    )
