"""Policy: one function decides what an actor may do now, and every door asks it.

Rules see the case and the actor, never the input and never the clock, so that what is offered at a version is
accepted at that version.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from caseward.claims import CLAIM_TITLES
from caseward.errors import Reason
from caseward.overrides import OVERRIDES, Override
from caseward.process import IMPOSSIBLE, SENIOR_OPERATOR, Confirmation, DocumentKind, Process, Step, Transition
from caseward.situation import (
    CASE,
    Actor,
    Bound,
    Direction,
    EffectView,
    Given,
    Kind,
    OperationView,
    PauseView,
    ProposalView,
    Situation,
    pause_words,
)


@dataclass(frozen=True)
class Action:
    """A transition, an override or a claim, as somebody would take it."""

    kind: Kind
    name: str
    step: str | None = None
    item: str | None = None


@dataclass(frozen=True)
class Decision:
    """Allow, in which role; or deny, with every reason, the most telling first."""

    reasons: tuple[Reason, ...]
    role: str | None = None
    target: EffectView | None = None
    """The effect that a per-step override acts on."""
    confirmation: Confirmation | None = None
    """Taking it only proposes it: these must confirm it."""
    further: int = 0
    """How many people besides this actor."""

    @property
    def allowed(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons


def decide(now: Situation, actor: Actor, action: Action) -> Decision:
    """Whether `actor` may take `action` on the case as it stands, or propose it. Unknown names are denied."""
    decision = _decide(now, actor, action)
    confirmation = _confirmation_of(now, action, decision.target)
    if confirmation is None:
        return decision
    further = confirmation.by - counts(confirmation, actor)
    if further <= 0:
        return decision
    reasons = decision.reasons
    if any(_same(each, action, decision.target) and not stale(now, each) for each in now.proposals):
        reasons += (Reason("proposal_stands", "This is proposed already and waits for confirmation."),)
    return replace(decision, reasons=reasons, confirmation=confirmation, further=further)


def counts(confirmation: Confirmation, proposer: Actor) -> bool:
    """Proposing it is this actor's own confirmation, where that leaves room for everybody else who must."""
    role = confirming_role(proposer, confirmation)
    return confirmation.proposer_counts and proposer.somebody and bool(role) and _leaves_room(confirmation, role, ())


def confirming_role(actor: Actor, confirmation: Confirmation, given: Iterable[Given] = ()) -> str | None:
    """In which of their roles somebody's confirmation counts: one that is missing yet, where they have it."""
    return _acting_role(actor, missing_groups(confirmation, given)) or _acting_role(actor, confirmation.roles)


def missing_groups(confirmation: Confirmation, given: Iterable[Given]) -> frozenset[str]:
    """The roles that must be among those who confirm, and are not yet."""
    return confirmation.groups - {each.role for each in given}


def _leaves_room(confirmation: Confirmation, role: str | None, given: Collection[Given]) -> bool:
    """After one more confirmation in this role everybody who must can still be among so many people."""
    return len(missing_groups(confirmation, given) - {role}) < confirmation.by - len(given) or not confirmation.groups


def _confirmation_of(now: Situation, action: Action, target: EffectView | None) -> Confirmation | None:
    process = now.process
    if action.kind == "transition":
        transition = process.transition(action.name)
        return _applying(now, transition.confirmation) if transition else None
    override = OVERRIDES.get(action.name)
    if override is None:
        return None
    step = process.steps.get(target.step) if target else None
    return override_confirmation(process, override, step, lambda declared: _applying(now, declared))


def override_confirmation(
    process: Process,
    override: Override,
    step: Step[Any] | None,
    applying: Callable[[Confirmation | None], Confirmation | None] = lambda declared: declared,
) -> Confirmation | None:
    """Who must confirm an override, of a step where there is one; `applying` says what holds of a transition's own."""
    own = process.confirmations.get(override.name) or override.confirmation
    if override.name in {"skip", "mark_done"}:
        return process.skip_confirmation(step, override.name) or own
    if (
        override.name == "replay" and own is None
    ):  # to do a confirmed transition again is no way around its confirmation
        # Only the input says which of them, and it has no say in what is offered: so the most that any of them takes.
        stories = (applying(transition.confirmation) for transition in process.transitions if transition.steps)
        return max(filter(None, stories), key=lambda confirmation: confirmation.by, default=None)
    return own


def _applying(now: Situation, declared: Confirmation | None) -> Confirmation | None:
    """The confirmation that this very case needs, which is what a proposal keeps. A subject that nobody can read any
    more needs it."""
    if declared is None or declared.when is None:
        return declared
    applies = now.subject is None or declared.when.of(now.subject)
    return replace(declared, when=None) if applies else None


def _same(proposal: ProposalView, action: Action, target: EffectView | None) -> bool:
    step, item = (target.address, target.item) if target else (None, None)
    return (proposal.kind, proposal.name, proposal.step, proposal.item) == (action.kind, action.name, step, item)


def bound_to(now: Situation, target: EffectView | None) -> Bound:
    """What an action proposed now is about."""
    return Bound(
        fence=now.fence,
        operation=now.operation.id if now.operation else None,
        subject_revision=now.subject_revision,
        documents=now.documents,
        effect_key=target.key if target else None,
        attempt=target.attempt_count if target else None,
        effect_state=target.state if target else None,
    )


def stale(now: Situation, proposal: ProposalView) -> bool:
    """Something of what it was about has changed."""
    target = next((effect for effect in now.effects if effect.key == proposal.bound.effect_key), None)
    if not proposal.intact or bound_to(now, target) != proposal.bound:
        return True
    action = Action(proposal.kind, proposal.name, proposal.step, proposal.item)
    return _confirmation_of(now, action, target) != proposal.confirmation  # declared anew, or no longer


def decide_confirming(now: Situation, actor: Actor, proposal: ProposalView) -> Decision:
    """Whether `actor` may confirm it. What is proposed is decided afresh, for whoever proposed it."""
    confirmation = proposal.confirmation
    action = Action(proposal.kind, proposal.name, proposal.step, proposal.item)
    title = action_title(now.process, action)
    transition = now.process.transition(proposal.name) if proposal.kind == "transition" else None
    reasons, target = _answering_reasons(now.process, actor, confirmation, title), None
    role = confirming_role(actor, confirmation, proposal.given)
    mine, proposed_by = actor.voices(role), proposal.proposer.voices(min(proposal.proposer.roles, default=None))
    spoken = {each.actor_id for each in proposal.given} | {each.on_behalf_of for each in proposal.given}
    if actor.id == proposal.proposer.id:
        reasons.append(Reason("four_eyes", f"{title}: somebody else must confirm it, you proposed it."))
    elif mine & proposed_by:
        reasons.append(Reason("four_eyes", f"{title}: it was proposed for you, or by whom you stand in for."))
    elif transition is not None and _acted_before(now, actor, transition, role):
        reasons.append(Reason("four_eyes", f"{title}: somebody else must confirm it, you acted on this case before."))
    if role is not None and not _leaves_room(confirmation, role, proposal.given):
        missing = role_names(now.process, missing_groups(confirmation, proposal.given))
        reasons.append(Reason("group_missing", f"{title}: whoever confirms it now must be {missing}."))
    if mine & spoken:
        reasons.append(Reason("already_confirmed", f"{title}: you confirmed it before, others must too."))
    if stale(now, proposal):
        reasons.append(Reason("proposal_stale", f"{title}: the case has moved on since it was proposed."))
    else:
        others = tuple(each for each in now.proposals if each.id != proposal.id)
        # Whoever proposed it may have given the case back since, so that those who confirm can look at it.
        afresh = decide(replace(now, proposals=others, assignee=None), proposal.proposer, action)
        reasons, target = [*reasons, *afresh.reasons], afresh.target
    return Decision(tuple(reasons), role, target)


def decide_declining(now: Situation, actor: Actor, proposal: ProposalView) -> Decision:
    """Whether `actor` may decline it: whoever may confirm, and whoever proposed it, who withdraws it."""
    title = action_title(now.process, Action(proposal.kind, proposal.name))
    withdrawing = actor.somebody and actor.id == proposal.proposer.id
    reasons = [] if withdrawing else _answering_reasons(now.process, actor, proposal.confirmation, title)
    return Decision(tuple(reasons), _acting_role(actor, proposal.confirmation.roles))


def _answering_reasons(process: Process, actor: Actor, confirmation: Confirmation, title: str) -> list[Reason]:
    if not actor.somebody:
        return [Reason("not_somebody", f"{title}: only a person known by name may answer for it.")]
    return _role_reasons(process, actor, confirmation.roles, title)


def action_title(process: Process, action: Action) -> str:
    """What people call it."""
    if action.kind == "override":
        return OVERRIDES[action.name].title if action.name in OVERRIDES else action.name
    if action.kind == "claim":
        return CLAIM_TITLES.get(action.name, action.name)
    transition = process.transition(action.name)
    return transition.title if transition else action.name


def _decide(now: Situation, actor: Actor, action: Action) -> Decision:
    if action.kind == "transition":
        transition = now.process.transition(action.name)
        if transition is None or transition.opens:
            return Decision((Reason("unknown_action", f"This process has no transition {action.name}."),))
        return _decide_transition(now, actor, transition)
    if action.kind == "claim":
        return _decide_claim(now, actor, action)
    override = OVERRIDES.get(action.name)
    if override is None:
        return Decision((Reason("unknown_action", f"There is no override {action.name}."),))
    if override.per_step:
        return _decide_step_override(now, actor, override, action)
    reasons = _role_reasons(now.process, actor, override.roles, override.title)
    if override.name == "replay":
        reasons += _pause_reasons(now.held_by)
    reasons += list(_WHOLE_CASE[override.name](now))
    return Decision(tuple(reasons), _acting_role(actor, override.roles))


def decide_opening(process: Process, actor: Actor, pauses: tuple[PauseView, ...] = ()) -> Decision:
    """Whether `actor` may open a case of this process, which may be paused."""
    transition = process.opening
    reasons = _role_reasons(process, actor, transition.roles, transition.title)
    reasons += _pause_reasons(next((pause for pause in pauses if pause.stands and pause.whole), None))
    return Decision(tuple(reasons), _acting_role(actor, transition.roles))


def decide_document(now: Situation, actor: Actor, kind: DocumentKind) -> Decision:
    """Whether `actor` may add a document of this kind, or replace one, in the case as it stands."""
    reasons = _role_reasons(now.process, actor, kind.roles, kind.title)
    if now.operation is not None:
        reasons.append(Reason("operation_in_flight", f"{kind.title}: what is under way comes to its end first."))
    elif now.state not in kind.states:
        places = " or ".join(now.process.state(name).title for name in sorted(kind.states))
        here = now.process.state(now.state).title
        reasons.append(Reason("wrong_state", f"{kind.title} is taken in {places}; the case is {here}."))
    return Decision(tuple(reasons), _acting_role(actor, kind.roles))


def decide_all(now: Situation, actor: Actor) -> Iterator[tuple[Action, Decision]]:
    """Every action there is on this case, with its decision."""
    for transition in now.process.transitions:
        if not transition.opens:
            action = Action("transition", transition.name)
            yield action, decide(now, actor, action)
    for name in CLAIM_TITLES if now.process.claimable else ():
        action = Action("claim", name)
        yield action, decide(now, actor, action)
    for override in OVERRIDES.values():
        targets = [e for e in now.effects if e.unsettled] if override.per_step else []
        actions = [Action("override", override.name, e.address, e.item) for e in targets]
        if not actions or (override.name == "retry" and _waits_as_a_whole(now)):
            actions.append(Action("override", override.name))
        for action in actions:
            yield action, decide(now, actor, action)


def _decide_transition(now: Situation, actor: Actor, transition: Transition) -> Decision:
    reasons = _role_reasons(now.process, actor, transition.roles, transition.title)
    if _acted_before(now, actor, transition, _acting_role(actor, transition.roles)):
        reasons.append(Reason("four_eyes", f"{transition.title}: somebody else must, you acted on this case before."))
    reasons += _pause_reasons(now.held_by)
    if now.operation is not None and now.state not in now.process.pending_states:
        reasons.append(Reason("operation_in_flight", "What was done is still being taken back."))
    elif now.state not in transition.source:
        here = now.process.state(now.state).title
        if now.operation is not None:
            message = f"{transition.title} has to wait: the case is {here.lower()}."
            reasons.append(Reason("operation_in_flight", message))
        else:
            places = " or ".join(now.process.state(name).title for name in sorted(transition.source))
            reasons.append(Reason("wrong_state", f"{transition.title} needs {places}; the case is {here}."))
    elif transition.roles & now.process.state(now.state).claimable_by and now.assignee not in {None, actor.id}:
        reasons.append(Reason("claimed_by_other", f"{transition.title}: {now.assignee} has claimed the case."))
    return Decision(tuple(reasons), _acting_role(actor, transition.roles))


def _decide_claim(now: Situation, actor: Actor, action: Action) -> Decision:
    """Claiming begins nothing, so that no pause stands against it."""
    state, title = now.process.state(now.state), action_title(now.process, action)
    roles, reasons = state.claimable_by, list[Reason]()
    if action.name == "claim":
        if not roles:
            return Decision((Reason("not_claimable", f"Nobody claims a case that is {state.title}."),))
        reasons += _role_reasons(now.process, actor, roles, title)
        if not actor.somebody:
            reasons.append(Reason("not_somebody", f"{title}: only a person known by name may."))
        if now.assignee == actor.id:
            reasons.append(Reason("claimed_already", "You have claimed it already."))
        elif now.assignee is not None:
            reasons.append(Reason("claimed_by_other", f"{now.assignee} has claimed it."))
    elif action.name == "unclaim":
        if now.assignee is None:
            return Decision((Reason("not_claimed", "Nobody has claimed it."),))
        if now.assignee != actor.id:
            roles = state.unclaimable_by
            reasons += _role_reasons(now.process, actor, roles, f"{title} for {now.assignee}")
    else:
        reasons.append(Reason("unknown_action", f"There is no claim {action.name}."))
    return Decision(tuple(reasons), _acting_role(actor, roles))


def _acted_before(now: Situation, actor: Actor, transition: Transition, role: str | None) -> bool:
    return any(actor.voices(role) & now.acted.get(name, frozenset()) for name in transition.four_eyes)


def _decide_step_override(now: Situation, actor: Actor, override: Override, action: Action) -> Decision:
    target, missing = _target(now, override, action)
    roles = _step_roles(now.process, override, target)
    if not roles:
        reasons = [Reason("skip_forbidden", "This step can't be left out.")]
    else:
        reasons = _role_reasons(now.process, actor, roles, override.title)
    if override.name == "retry":
        reasons += _pause_reasons(now.held_by)
    if missing is not None:
        reasons.append(missing)
    elif target is not None and target.questioned and override.name == "retry":
        reasons.append(Reason("happened_already", "It happened; another attempt would do it once more."))
    elif target is not None and target.state == "running":
        reasons.append(Reason("attempt_running", "An attempt is under way; its outcome comes first."))
    return Decision(tuple(reasons), _acting_role(actor, roles), target)


def _target(now: Situation, override: Override, action: Action) -> tuple[EffectView | None, Reason | None]:
    if override.name == "retry" and action.step is None and _waits_as_a_whole(now):
        return None, None  # the story itself goes again, or its state's deadline begins anew
    unsettled = [effect for effect in now.effects if effect.unsettled]
    if action.step is not None:
        named = [e for e in unsettled if e.address == action.step and e.item == action.item]
        if not named:
            return None, Reason("step_not_open", f"The step {action.step} has nothing open now.")
        return named[-1], None
    open_now = [effect for effect in unsettled if effect.state != "running"] or unsettled
    if not open_now:
        return None, Reason("nothing_open", "No step of this case needs anything now.")
    if len(open_now) > 1:
        names = ", ".join(sorted(effect.address for effect in open_now))
        return None, Reason("step_ambiguous", f"Several steps qualify, name one: {names}.")
    return open_now[0], None


def _waits_as_a_whole(now: Situation) -> bool:
    return now.overdue is not None or (now.operation is not None and now.operation.blocked is not None)


def _step_roles(process: Process, override: Override, target: EffectView | None) -> frozenset[str]:
    if override.name == "retry" or target is None:
        return override.roles
    return step_roles(override, process.steps.get(target.step), target.direction)


def step_roles(override: Override, step: Step[Any] | None, direction: Direction) -> frozenset[str]:
    """Who may say this of a step, or of its compensation."""
    if override.name == "retry":
        return override.roles
    if direction == "undo" or step is None:
        return frozenset({SENIOR_OPERATOR})  # leaving an outside change standing is never routine
    if override.name == "mark_done":
        return step.skip_roles or frozenset({SENIOR_OPERATOR})
    return step.skip_roles


def _undo_reasons(now: Situation) -> Iterator[Reason]:
    target = undo_target(now)
    if target is None:
        in_flight = now.operation is not None
        message = "It is being taken back already." if in_flight else "Nothing stands here that could be taken back."
        yield Reason("already_undoing" if in_flight else "nothing_to_undo", message)
    elif target.impossible_begun:
        yield Reason("undo_impossible", "A step that can't be taken back has begun.")
    elif target.took_back:
        yield Reason("undo_impossible", "What was done before is being taken back, or was: there is no way back to it.")


def undo_target(now: Situation) -> OperationView | None:
    """The transition that `undo` would take back."""
    candidate = now.operation or now.latest
    if candidate is None or candidate.tells is None:
        return None
    transition = now.process.transition(candidate.tells)
    if transition is None or candidate.state in {"undone", "superseded"}:
        return None
    return candidate if transition.undone or not transition.opens else None


def _force_cancel_reasons(now: Situation) -> Iterator[Reason]:
    if now.operation is not None and now.operation.name == "force_cancel":
        yield Reason("already_cancelling", "It is being cancelled already.")
    elif now.process.state(now.state).final:
        yield Reason("already_final", "The case is closed.")


def _replay_reasons(now: Situation) -> Iterator[Reason]:
    """Whether there is anything to do again; from which step, and at what price, says the plan."""
    operation = now.operation
    if now.process.state(now.state).final:
        yield Reason("already_final", "The case is closed.")
    elif operation is not None and operation.tells is None:
        yield Reason("already_undoing", "It is being taken back already.")
    else:
        yield from now.no_replay


def _case_pause(now: Situation) -> PauseView | None:
    return next((pause for pause in now.pauses if pause.key == CASE), None)


def _pausing_reasons(now: Situation) -> Iterator[Reason]:
    if _case_pause(now) is not None:
        yield Reason("already_paused", "The case is paused already.")
    elif now.operation is None and now.process.state(now.state).final:
        yield Reason("already_final", "The case is closed.")


def _resuming_reasons(now: Situation) -> Iterator[Reason]:
    if _case_pause(now) is None:
        yield Reason("not_paused", "The case itself is not paused.")


_WHOLE_CASE: dict[str, Callable[[Situation], Iterator[Reason]]] = {
    "undo": _undo_reasons,
    "replay": _replay_reasons,
    "force_cancel": _force_cancel_reasons,
    "pause": _pausing_reasons,
    "resume": _resuming_reasons,
}


def _pause_reasons(pause: PauseView | None) -> list[Reason]:
    if pause is None:
        return []
    what = pause_words(pause.key).capitalize()
    return [Reason("paused", f"{what} is paused: nothing new begins until somebody resumes.")]


def _role_reasons(process: Process, actor: Actor, roles: Iterable[str], title: str) -> list[Reason]:
    wanted = frozenset(roles)
    if actor.roles & wanted:
        return []
    return [Reason("role_missing", f"{title}: that takes the role {role_names(process, wanted)}.")]


def role_names(process: Process, roles: Iterable[str]) -> str:
    """Any of them, within a sentence."""
    return " or ".join(process.role_title(role).lower() for role in sorted(roles))


def _acting_role(actor: Actor, roles: frozenset[str]) -> str | None:
    # Whoever has the role themselves speaks for themselves.
    return min(actor.own & roles, default=None) or min(actor.roles & roles, default=None)


def begins_impossible(process: Process, steps: Iterable[str]) -> bool:
    """One of these steps can't be undone."""
    declared = process.steps
    return any(name in declared and declared[name].undo is IMPOSSIBLE for name in steps)
