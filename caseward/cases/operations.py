"""Operations: how one is accepted, takes the case over, finishes or blocks; always under the case's lock."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward import metrics, policy
from caseward.cases.attached import counting, what_it_saw
from caseward.cases.locked import LockedCase, is_questioned, lock_case, reused, story_of
from caseward.cases.proposals import end_proposals
from caseward.db.counting import note
from caseward.db.tables import Attempt, Effect, Operation, Subject
from caseward.failpoints import failpoint
from caseward.messages import BlockCall, FinishAnswer, FinishCall, LoadAnswer, News
from caseward.offsets import is_offset, needs_offset
from caseward.process import ENGINEERING, Catalogue, Transition, team_title
from caseward.situation import FINISHED, SYSTEM, UNDO_SUFFIX, Actor, Kind, OperationState, effect_title
from caseward.trace import continue_trace


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who asks for what: all that a command carries besides the action."""

    actor: Actor
    role: str | None
    reason: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    content_digest: bytes | None = None
    traceparent: str = field(default_factory=lambda: continue_trace(None))
    bulk_id: UUID | None = None
    proposal: Operation | None = None
    """The proposed operation that people have confirmed: it is the one to accept."""


def new_operation(
    request: Request,
    *,
    case_id: UUID,
    process: str,
    kind: Kind,
    name: str,
    case_state: str,
    at: datetime,
    from_state: str | None = None,
    fence: int = 1,
    subject_revision: int = 1,
) -> Operation:
    """An accepted operation, not yet anything else; the one proposed, where people have confirmed it."""
    if request.proposal is not None:
        confirmed = request.proposal
        confirmed.state, confirmed.accepted_at = "accepted", at
        confirmed.fence, confirmed.from_state, confirmed.case_state = fence, from_state, case_state
        confirmed.subject_base = confirmed.subject_revision = subject_revision
        return confirmed
    return Operation(
        id=uuid7(),
        case_id=case_id,
        process=process,
        kind=kind,
        name=name,
        state="accepted",
        actor_id=request.actor.id,
        actor_role=request.role,
        actor_via=request.actor.via,
        on_behalf_of=request.actor.on_behalf_of(request.role),
        reason=request.reason,
        input=dict(request.input),
        fence=fence,
        from_state=from_state,
        case_state=case_state,
        to_state=None,
        subject_base=subject_revision,
        subject_revision=subject_revision,
        offsets=[],
        undoes=[],
        documents=[],
        supersedes=None,
        superseded_by=None,
        acts_on=None,
        step=None,
        item=None,
        effect_key=None,
        blocked=None,
        idempotency_key=request.idempotency_key,
        content_digest=request.content_digest,
        traceparent=request.traceparent,
        accepted_at=at,
        dispatched_at=None,
        started_at=None,
        finished_at=None,
        confirmations=0,
        expires_at=None,
        proposal=None,
        plan=None,
        bulk_id=request.bulk_id,
    )


def actor_of(operation: Operation) -> Actor:
    """Whoever asked for it, in the one role in which the policy let them, and for whom."""
    role, person = operation.actor_role, operation.on_behalf_of
    lent = ((role, person),) if role is not None and person is not None else ()
    return Actor(operation.actor_id, frozenset({role} if role else ()), operation.actor_via, lent)


def action_title(work: LockedCase, operation: Operation) -> str:
    """What people call the operation."""
    return policy.action_title(work.process, policy.Action(cast("Any", operation.kind), operation.name))


async def accept_transition(
    work: LockedCase, transition: Transition, request: Request, *, subject: dict[str, Any] | None = None
) -> Operation:
    """Accept a transition that the policy allowed; `subject` is its own revision, if it makes one."""
    case, voided = work.case, work.operation
    operation = new_operation(
        request,
        case_id=case.id,
        process=case.process,
        kind="transition",
        name=transition.name,
        case_state=case.state,
        at=work.now,
        from_state=resting(work, voided),
        subject_revision=case.subject_revision,
    )
    if subject is not None:
        operation.subject_revision = await _next_revision(work)
        work.session.add(Subject(case_id=case.id, revision=operation.subject_revision, data=subject))
        await work.session.flush()  # without steps it becomes the case's own in this very transaction
    if work.case.documents is not None:
        operation.documents = [str(document.id) for document in await counting(work)]
    if transition.name in work.taken:
        repeated = metrics.TRANSITIONS_REPEATED.labels(case.process, transition.name)
        note(work.session.sync_session, repeated.inc)
    offsets = await effects_of(work, voided) if voided is not None else []
    await take_over(work, operation, voided=voided, offsets=offsets)
    await begin(work, operation, pending=transition.pending, work_to_do=transition.told or _owes(work))
    return operation


def resting(work: LockedCase, voided: Operation | None) -> str | None:
    """The last state at rest, where an undo leads back to; before an opening there was none but the one it names."""
    if voided is None:
        return work.case.state
    return voided.from_state or work.process.opening.undone


async def accept_undo(work: LockedCase, target: Operation, request: Request) -> Operation:
    """Accept to take back `target`: the story in flight, or the latest one."""
    transition = story_of(work.process, target)
    operation = new_operation(
        request,
        case_id=work.case.id,
        process=work.case.process,
        kind="override",
        name="undo",
        case_state=work.case.state,
        at=work.now,
        from_state=target.from_state,
        subject_revision=target.subject_base,
    )
    operation.acts_on = target.id
    offsets = await effects_of(work, target)
    await take_over(work, operation, voided=target, offsets=offsets, voided_state="undoing")
    pending = transition.pending if transition else None
    await begin(work, operation, pending=pending or work.case.state, work_to_do=_owes(work))
    return operation


async def accept_force_cancel(work: LockedCase, request: Request) -> Operation:
    """Accept to stop everything: whatever stands in this case is taken back, then it closes."""
    voided = work.operation
    operation = new_operation(
        request,
        case_id=work.case.id,
        process=work.case.process,
        kind="override",
        name="force_cancel",
        case_state=work.case.state,
        at=work.now,
        from_state=resting(work, voided),
        subject_revision=work.case.subject_revision,
    )
    await take_over(work, operation, voided=voided, offsets=await all_that_stands(work))
    pending = work.process.force_cancel.pending
    await begin(work, operation, pending=pending, work_to_do=_owes(work))
    return operation


async def all_that_stands(work: LockedCase) -> list[Effect]:
    """What stopping the case has to take back."""
    await know_given_up(work)
    offsets = [effect for effect in work.effects.values() if needs_offset(work.process, effect)]
    if work.operation is not None:
        offsets += [effect for effect in await effects_of(work, work.operation) if effect not in offsets]
    return offsets


async def know_given_up(work: LockedCase) -> None:
    """Load what this case went on without while nobody knew whether it had happened: it may stand."""
    given_up = await work.session.scalars(
        select(Effect)
        .join(Operation, Operation.id == Effect.operation_id)
        .where(
            Operation.case_id == work.case.id,
            Effect.decision == "given_up",
            Effect.outcome.in_(("unknown", "acknowledged")),
        )
    )
    for effect in given_up:
        work.effects.setdefault(effect.key, effect)


def _owes(work: LockedCase) -> bool:
    """The operation that took over has something to take back or to find out."""
    return work.operation is not None and bool(work.outstanding_offsets(work.operation))


async def open_compensation(work: LockedCase, effect: Effect) -> None:
    """Take back an effect that landed after it was given up: in the operation in flight, or in one of its own."""
    operation = work.operation
    if operation is None:
        operation = _of_the_system(work, "An effect landed after it was given up.")
        await take_over(work, operation, voided=None, offsets=[effect])
        await begin(work, operation, pending=work.case.state, work_to_do=_owes(work))
    elif effect.key not in operation.offsets:  # its finish will find the new one outstanding
        operation.offsets = [*operation.offsets, effect.key]
        effect.driven_by = operation.id


async def open_question(work: LockedCase, effect: Effect) -> None:
    """Have somebody look at an effect: the operation in flight waits for that, or one of the system's own does."""
    if work.operation is not None:
        effect.driven_by = work.operation.id
        return
    operation = _of_the_system(work, "What the partner reported does not add up.")
    await take_over(work, operation, voided=None, offsets=[])
    effect.driven_by = operation.id
    await begin(work, operation, pending=work.case.state, work_to_do=True)


def _of_the_system(work: LockedCase, reason: str) -> Operation:
    return new_operation(
        Request(actor=SYSTEM, role=None, reason=reason),
        case_id=work.case.id,
        process=work.case.process,
        kind="override",
        name="undo",
        case_state=work.case.state,
        at=work.now,
        from_state=work.case.state,
        subject_revision=work.case.subject_revision,
    )


async def _next_revision(work: LockedCase) -> int:
    found = await work.session.scalars(select(Subject.revision).where(Subject.case_id == work.case.id))
    return max(found) + 1


def _adopted(operation: Operation) -> list[str]:
    """What a replay answers for from then on; not where it comes back to what stood and stands."""
    return [] if operation.plan and operation.plan["returns"] else reused(operation)


async def effects_of(work: LockedCase, voided: Operation) -> list[Effect]:
    """What `voided` reserved, or still had to take back, as far as an undo must look at it."""
    inherits = [key for offset in (*voided.offsets, *_adopted(voided)) for key in (offset, offset + UNDO_SUFFIX)]
    reserved = await work.session.scalars(
        select(Effect).where(or_(Effect.operation_id == voided.id, Effect.key.in_(inherits)))
    )
    for effect in reserved:
        work.effects[effect.key] = effect
    inherited = [
        work.effects[key]
        for key in (*voided.offsets, *_adopted(voided))
        if not is_offset(work.effects[key], work.effects)
    ]
    own = [effect for effect in work.effects.values() if effect.operation_id == voided.id]
    return [effect for effect in {e.key: e for e in own + inherited}.values() if needs_offset(work.process, effect)]


async def take_over(
    work: LockedCase,
    operation: Operation,
    *,
    voided: Operation | None,
    offsets: list[Effect],
    voided_state: OperationState = "superseded",
) -> None:
    """Raise the fence: from this commit on nothing of the voided operation is reserved for the first time."""
    work.case.fence += 1
    operation.fence = work.case.fence
    work.session.add(operation)
    await end_proposals(work, f"{action_title(work, operation)} took the case over.", keep=operation)
    if voided is not None:
        for helper in await work.helpers_open():
            helper.superseded_by = operation.id
            work.finish_helper(helper, "superseded")
            title, by_title = action_title(work, helper), action_title(work, operation)
            work.entry("operation.superseded", operation=helper, action=title, by=by_title)
        await _void(work, voided, operation, voided_state)
        operation.undoes = list(voided.undoes)  # it leads back to where the voided one came from
    await drive(work, operation, offsets)
    for effect in work.effects.values():  # whoever takes over inherits what people have yet to look at
        if voided is not None and effect.driven_by == voided.id and is_questioned(effect):
            effect.driven_by = operation.id
    work.operation = operation
    work.case.operation_id = operation.id


async def drive(work: LockedCase, operation: Operation, offsets: list[Effect]) -> None:
    """Let the operation take these effects back, latest first, and find out about what is unknown."""
    latest_first = sorted(offsets, key=lambda effect: (effect.reserved_at, effect.key), reverse=True)
    await know_compensations(work, latest_first)
    for effect in latest_first:
        effect.driven_by = operation.id
        compensation = work.effects.get(effect.key + UNDO_SUFFIX)
        if compensation is not None:
            compensation.driven_by = operation.id
        _release(work, effect)
    outstanding = [effect.key for effect in latest_first if not is_offset(effect, work.effects)]
    operation.offsets = [*operation.offsets, *outstanding]


async def know_compensations(work: LockedCase, offsets: list[Effect]) -> None:
    """Load those that earlier operations began: one that somebody left out is not made again."""
    missing = [effect.key + UNDO_SUFFIX for effect in offsets if effect.key + UNDO_SUFFIX not in work.effects]
    if missing:
        for compensation in await work.session.scalars(select(Effect).where(Effect.key.in_(missing))):
            work.effects[compensation.key] = compensation


async def _void(work: LockedCase, voided: Operation, by: Operation, state: OperationState) -> None:
    voided.superseded_by = by.id
    if state == "undoing":
        voided.state, voided.finished_at = "undoing", None
        work.entry("operation.undoing", operation=voided, action=action_title(work, voided))
    else:
        by.supersedes = voided.id
        for operation in [voided, *await _stands_for(work, voided)]:
            operation.state, operation.superseded_by, operation.finished_at = "superseded", by.id, work.now
            title, by_title = action_title(work, operation), action_title(work, by)
            work.entry("operation.superseded", operation=operation, action=title, by=by_title)
    for effect in work.effects.values():  # with nothing to take back there is nothing to find out either
        mine = effect.operation_id == voided.id and effect.direction == "do"
        if mine and effect.state != "settled" and not needs_offset(work.process, effect):
            if effect.state == "running":
                await _leave_alone(work, effect)
            void_effect(work, effect)


async def _stands_for(work: LockedCase, operation: Operation) -> list[Operation]:
    """The operations whose place it took: what an undo takes back, what a replay does again, and so on."""
    found: list[Operation] = []
    while operation.acts_on is not None and not (operation.plan or {}).get("returns"):
        operation = await work.session.get_one(Operation, operation.acts_on)
        if operation.state != "superseded":
            found.append(operation)
    return found


async def _leave_alone(work: LockedCase, effect: Effect) -> None:
    """Nobody waits for the attempt under way any more, and unless it tells nobody will know what it did."""
    attempt = await work.session.get_one(Attempt, (effect.key, effect.attempt_count))
    effect.error = {"class": None, "code": "superseded", "message": "The case was taken over in the middle."}
    effect.outcome, effect.maybe_sent_until, effect.ruled_out_by = "unknown", attempt.lease_until, None
    work.end_attempt(effect, attempt, "unknown", effect.error, at=work.now)


def _release(work: LockedCase, effect: Effect) -> None:
    """What surely did not happen needs no asking; what is unknown is asked again now."""
    if effect.decision == "given_up" and effect.outcome in {"unknown", "acknowledged"}:
        effect.decision = effect.settled_at = None  # the operation went on without it; now it matters
        due_again(work, effect)
    if effect.state in {"settled", "running"} or is_questioned(effect):
        return
    if surely_nothing(effect):
        void_effect(work, effect)
    elif effect.state != "waiting":
        due_again(work, effect)


def surely_nothing(effect: Effect) -> bool:
    """Whoever asked would hear that it did not happen: it failed, somebody said so, or it was never sent."""
    never_sent = effect.outcome is None and effect.attempt_count == 0
    return effect.outcome == "failed" or effect.ruled_out_by is not None or never_sent


def due_again(work: LockedCase, effect: Effect) -> None:
    """Make the next attempt due, with a fresh burst; a partner that acknowledged gets its whole time again."""
    effect.state, effect.cause, effect.paused_by = "retrying", None, None
    effect.since, effect.next_attempt_at, effect.burst = work.now, work.now, 0
    if effect.outcome == "acknowledged":
        step = work.process.steps.get(effect.step)
        effect.state = "waiting"
        effect.answer_by = work.now + step.answer_within if step else work.now


def void_effect(work: LockedCase, effect: Effect) -> None:
    """Close an effect that nobody wants any more; most often because it surely did not happen."""
    known = surely_nothing(effect)
    effect.state, effect.decision, effect.standing = "settled", "voided", False
    effect.settled_at = effect.since = work.now
    effect.next_attempt_at = effect.cause = effect.paused_by = None
    title = effect_title(work.process, effect.step, "do")
    work.entry("effect.voided" if known else "effect.dropped", effect=effect, title=title)


async def begin(work: LockedCase, operation: Operation, *, pending: str | None, work_to_do: bool) -> None:
    """Enter the pending state, or complete at once where nothing runs outside; promise it to the workflow."""
    from_title = work.process.state(operation.case_state).title
    if work_to_do:
        if pending is None:
            message = f"{operation.process}.{operation.name} has work to do but no pending state"
            raise AssertionError(message)  # refused when the declaration was loaded
        if pending != work.case.state:
            await _enter(work, pending, operation.subject_revision)
        elif pending in work.process.pending_states and operation.kind == "override":
            work.restart_deadline()
        operation.case_state = pending
        if pending in work.process.pending_states and story_of(work.process, operation) is None:
            work.case.deadline_at = None  # what is taken back has none to meet
    work.entry(
        "operation.accepted",
        operation=operation,
        actor=actor_of(operation),
        role=operation.actor_role,
        reason=operation.reason,
        action=action_title(work, operation),
        from_state=from_title,
        case_state=work.process.state(operation.case_state).title,
        input=operation.input,
        **await what_it_saw(work, operation.subject_revision),
    )
    if not work_to_do:
        await complete(work, operation, None)
    work.touch()
    work.promise(operation)


async def _enter(work: LockedCase, state_name: str, revision: int) -> None:
    """Move to another state. The subject is read only where the state's deadline counts from it."""
    deadline, subject = work.process.state(state_name).deadline, None
    if deadline is not None and deadline.counted_from is not None:
        row = await work.session.get_one(Subject, (work.case.id, revision))
        with suppress(ValidationError):  # what nobody can read any more has its deadline counted from now
            subject = work.process.subject.model_validate(row.data)
    work.enter(state_name, subject)


async def target_state(work: LockedCase, operation: Operation, chosen: str | None) -> str | None:
    """Where the operation leads; None where the story chose a state that is not declared."""
    if operation.name == "force_cancel" and operation.kind == "override":
        return work.process.force_cancel.to
    transition = story_of(work.process, operation)
    if transition is not None:
        led_to = transition.targets[0] if len(transition.targets) == 1 else chosen
        if led_to not in transition.targets:
            return None
        return operation.from_state if operation.plan and operation.plan["returns"] else led_to
    undone = await _undone_by(work, operation)
    if undone is not None and undone.plan and undone.plan["returns"]:
        return operation.from_state
    transition = story_of(work.process, undone) if undone else None
    return (transition.undone if transition else None) or operation.from_state


async def _undone_by(work: LockedCase, operation: Operation) -> Operation | None:
    if operation.name != "undo" or operation.acts_on is None:
        return None
    return await work.session.get_one(Operation, operation.acts_on)


async def complete(work: LockedCase, operation: Operation, chosen: str | None) -> None:
    """Write the outcome: the target state, the subject's revision, the end of what was undone."""
    to_state = await target_state(work, operation, chosen)
    if to_state is None:
        message = "the target state was not checked before"
        raise AssertionError(message)
    case = work.case
    operation.state, operation.to_state, operation.finished_at = "completed", to_state, work.now
    operation.started_at = operation.started_at or work.now
    operation.blocked = None
    undone = await _undone_by(work, operation)
    for taken_back in [undone, *await _stands_for(work, undone)] if undone else []:
        taken_back.state, taken_back.finished_at = "undone", work.now
        work.entry("operation.undone", operation=taken_back, action=action_title(work, taken_back))
    await void_decisions(work, operation)
    revised = await adopt_revision(work, operation.subject_revision)
    work.operation, case.operation_id = None, None
    put_right = operation.name == "undo" and operation.acts_on is None  # only what landed late, or did not add up
    returns = operation.plan and operation.plan["returns"]
    if not put_right and not returns:  # else the decision before it is still the latest
        case.latest_id = operation.id
    deadline = work.process.state(to_state).deadline
    if to_state != case.state or (revised and deadline and deadline.counted_from):
        await _enter(work, to_state, case.subject_revision)
    await end_proposals(work, f"{action_title(work, operation)} is completed.")
    title, state_title = action_title(work, operation), work.process.state(to_state).title
    work.entry("operation.completed", operation=operation, action=title, to_state=state_title)


async def replay_diverged(work: LockedCase, operation: Operation, chosen: str | None) -> None:
    """See whether a replay led where the story led before; if not, what was decided since rested on what is gone.

    Those decisions are voided: what they did is offset, and the case stays where the story leads now.
    """
    plan, story = operation.plan, story_of(work.process, operation)
    if plan is None or story is None or not plan["returns"]:
        return
    led_to = story.targets[0] if len(story.targets) == 1 else chosen
    if led_to == plan["led_to"] or led_to not in story.targets:
        return
    root = await work.session.get_one(Operation, UUID(plan["root"]))
    operation.plan = {**plan, "returns": False, "later": [{**later, "kept": False} for later in plan["later"]]}
    operation.from_state, operation.subject_base = root.from_state, root.subject_base
    wanted = [key for later in plan["later"] for key in later["effects"]]
    rows = await work.session.scalars(select(Effect).where(Effect.key.in_(wanted)))
    voided = [effect for effect in rows if needs_offset(work.process, effect)]
    for effect in voided:
        work.effects[effect.key] = effect
    await drive(work, operation, voided)
    titles = " and ".join(str(later["title"]) for later in plan["later"])
    title, state = action_title(work, operation), work.process.state(str(led_to)).title
    work.entry("operation.diverged", operation=operation, action=title, state=state, decisions=titles)
    work.touch()


async def void_decisions(work: LockedCase, operation: Operation) -> None:
    """A finished replay ends the operations whose decisions did not survive it."""
    for later in (operation.plan or {}).get("later", ()):
        if not later["kept"]:
            voided = await work.session.get_one(Operation, UUID(later["operation_id"]))
            voided.state, voided.finished_at, voided.superseded_by = "undone", work.now, operation.id
            work.entry("operation.undone", operation=voided, action=action_title(work, voided))


async def adopt_revision(work: LockedCase, revision: int) -> bool:
    """Make a revision of the subject the case's own; the title follows it. Answers whether it is another one."""
    if revision == work.case.subject_revision:
        return False
    subject = await work.session.get_one(Subject, (work.case.id, revision))
    work.case.subject_revision = revision
    work.case.title = work.process.headline(work.process.subject.model_validate(subject.data))
    return True


async def finish(session: AsyncSession, catalogue: Catalogue, call: FinishCall) -> FinishAnswer:
    """Finish an operation whose story ended, its postcondition checked in this transaction.

    A final operation answers its outcome again. What is still to take back, or a broken postcondition, is answered
    as `offsets` or `blocked`.
    """
    work = await lock_case(session, catalogue, UUID(call.case_id))
    operation = await session.get_one(Operation, UUID(call.operation_id))
    if operation.state in FINISHED:
        return FinishAnswer("finished", work.case.version, news=work.news())
    if work.case.fence != call.fence or work.case.operation_id != operation.id:
        return FinishAnswer("superseded", work.case.version, news=work.news())
    await replay_diverged(work, operation, call.to_state)
    outstanding = work.outstanding_offsets(operation)
    if outstanding:
        return FinishAnswer("offsets", work.case.version, offsets=outstanding, news=work.news())
    fault = await _postcondition_fault(work, operation, call.to_state)
    if fault is not None:
        news = block(work, operation, cause="postcondition", message=fault)
        return FinishAnswer("blocked", news.version, news=news)
    if any(effect.retry_by or effect.decided_by for effect in work.driven()):
        for helper in await work.helpers_open():
            work.finish_helper(helper)
    await complete(work, operation, call.to_state)
    work.touch()
    await failpoint("operation.before_finish", call.case_id)
    return FinishAnswer("finished", work.case.version, news=work.news())


async def _postcondition_fault(work: LockedCase, operation: Operation, chosen: str | None) -> str | None:
    """What the story left undone, in words."""
    open_steps = [effect.step for effect in work.driven() if effect.state != "settled"]
    if open_steps:
        return f"the story ended while {', '.join(open_steps)} was open"
    transition = story_of(work.process, operation)
    if transition and len(transition.targets) == 1:
        left = work.left_standing(operation)
        await know_compensations(work, left)
        standing = [effect.step for effect in left if not is_offset(effect, work.effects)]
        if standing:
            return f"the story left {', '.join(standing)} standing, which it should undo"
        begun = {effect.step for effect in work.driven() if effect.operation_id == operation.id}
        begun |= {name.partition(":")[0] for name in operation.plan["reuse"]} if operation.plan else set()
        missing = [step.name for step in transition.steps if step.name not in begun and not step.each]
        if missing:
            return f"the story left out {', '.join(missing)}"
    if await target_state(work, operation, chosen) is None:
        return f"the story led to {chosen}, which {operation.name} does not declare"
    return None


def block(work: LockedCase, operation: Operation, *, cause: str, message: str) -> News:
    """Block the operation itself for engineering: its story can't go on."""
    if operation.blocked is None or operation.blocked["error"]["message"] != message:
        operation.blocked = {
            "cause": cause,
            "since": work.now.isoformat(),
            "recovery_owner": ENGINEERING,
            "error": {"class": None, "code": cause, "message": message},
        }
        title = action_title(work, operation)
        work.entry("operation.blocked", operation=operation, action=title, message=message, recovery_owner=ENGINEERING)
        # Without the message: it may quote the subject.
        work.mail("case_blocked", ENGINEERING, f"{title} can't go on. {team_title(ENGINEERING)} decides.")
        work.touch()
    return work.news()


async def block_operation(session: AsyncSession, catalogue: Catalogue, call: BlockCall) -> News:
    """Block an operation whose story raised or is missing, unless the case was taken over meanwhile."""
    work = await lock_case(session, catalogue, UUID(call.case_id))
    operation = await session.get_one(Operation, UUID(call.operation_id))
    if work.case.fence == call.fence and work.case.operation_id == operation.id:
        return block(work, operation, cause=call.cause, message=call.message)
    return work.news()


async def load(session: AsyncSession, catalogue: Catalogue, case_id: UUID) -> LoadAnswer:
    """What a run that knows nothing needs: how the case stands, and the operation in flight."""
    work = await lock_case(session, catalogue, case_id)
    return LoadAnswer(work.news(), work.order(work.operation) if work.operation else None, work.case.fence)
