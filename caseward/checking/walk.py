"""How an abstract case comes from one place to the next: by commands, by deadlines, and by what becomes of its steps.

What is abstract is the work outside: no data, no clock, steps in their declared order, one at a time or two neighbours
side by side (each of which succeeds, is refused, or leaves nobody knowing), what is taken back after them; at most one
step of an operation that did nothing; what stands since earlier operations as far as some story undoes it. A replay
does the latest story again, by the real rules of its plan; one of a story with later work behind it is not played.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from caseward.checking.places import Offered, Open, Past, Place, Rules, Work
from caseward.offsets import divide, irrevocable
from caseward.policy import Action
from caseward.process import IMPOSSIBLE, NONE_NEEDED, Block, Escalate, Take, Transition, Unwind
from caseward.situation import DecisionMade, Direction, EffectState, Outcome

# What may become of an attempt; `no` refusal is like another to a person, so each is played.
_REFUSALS = ("rejected", "unauthorized", "invalid")
_SIDE_BY_SIDE = ("succeeded", "rejected", "unknown")
FULL = ("succeeded", "not_needed", *_REFUSALS, "transient", "unknown", "acknowledged", "code_error")
COARSE = ("succeeded", "rejected")


class Move(NamedTuple):
    """How a case comes from one place to another."""

    label: str
    to: Place
    kind: str = "outcome"  # or command, deadline, begin


class ForGood(NamedTuple):
    """Something would be taken back that nothing takes back."""

    where: str
    words: str
    last: str = ""
    """What happens to the case then."""


class Tried(NamedTuple):
    """What the latest story did, or tried, as the rules of a replay see it."""

    step: str
    state: EffectState
    outcome: Outcome | None
    decision: DecisionMade | None = None
    standing: bool = False
    direction: Direction = "do"
    ruled_out_by: UUID | None = None
    offset_at: datetime | None = None
    attempt_count: int = 1

    @property
    def key(self) -> str:
        """An abstract case has one of each step."""
        return self.step


class Walk:
    """The moves of a case of one process."""

    def __init__(self, rules: Rules, outcomes: tuple[str, ...]) -> None:
        self.rules, self.process, self.steps = rules, rules.process, rules.steps
        self.outcomes, self.full = outcomes, outcomes is FULL
        self.transitions, self.states = rules.transitions, rules.states
        self.order = {name: number for number, name in enumerate(self.steps)}
        self.undone_later = {step.name for each in self.process.transitions for step in each.undoes}
        self.taken: set[str] = set()
        """The transitions that were."""
        self.replays = 0
        """Replays that were played: by situation, and step from which."""
        self.came_upon: list[ForGood] = []
        """On the way to the latest move; whoever asks for the moves empties it."""

    def openings(self) -> Iterator[Move]:
        """How a case begins."""
        opening = self.process.opening
        if self.rules.openers():
            self.taken.add(opening.name)
            # What it does before it has led anywhere can be taken back to nowhere else.
            yield from self._take(Place(opening.undone or opening.targets[0]), opening, None)

    def moves(self, place: Place, offered: Offered) -> Iterator[Move]:
        """Where it can go from there."""
        yield from self.work_goes_on(place)
        yield from self._deadline(place)
        for action in offered.by_action:
            yield from self._command(place, action)

    def work_goes_on(self, place: Place) -> Iterator[Move]:
        """Where it goes from there by itself."""
        work = place.work
        if work is None:
            return
        if work.open:
            for effect in work.open:
                yield from self._attempt(place, effect)
        elif work.offsets:
            yield Move("", self._offset(place, work))
        elif work.tells:
            # With nothing left to take back a replay is its story, told from where it goes on.
            yield from self._story(place, work._replace(name=work.tells), self.transitions[work.tells])
        else:
            yield Move("", self._completed(place, work, work.to or place.state), "begin")

    # --- what people and deadlines do

    def _command(self, place: Place, action: Action) -> Iterator[Move]:
        if action.kind == "transition":
            self.taken.add(action.name)
            yield from self._take(place, self.transitions[action.name], place.work)
        elif not self.full and action.name not in {"skip", "mark_done"}:
            return
        elif action.name == "undo":
            yield self._undo(place, "undo", "command")
        elif action.name == "force_cancel":
            yield self._force_cancel(place)
        elif action.name == "replay":
            yield from self._replay(place)
        elif action.name in {"retry", "skip", "mark_done"}:
            yield from self._help(place, action)

    def _help(self, place: Place, action: Action) -> Iterator[Move]:
        work = place.work
        if action.name == "retry" and action.step is None and place.overdue:
            yield Move("retry", place._replace(overdue=None), "command")
        if work is None:
            return
        for effect in work.open:
            if effect.state == "running" or self.rules.address(effect) != (action.step or ""):
                continue
            label = f"{action.name} {action.step}"
            if action.name == "retry":
                running = effect._replace(state="running", outcome=_still(effect.outcome), cause=None)
                yield Move(label, self._with(place, effect, running), "command")
            else:
                done = action.name == "mark_done"
                yield Move(label, self._settled(place, effect, happened=done), "command")

    def _take(self, place: Place, transition: Transition, voided: Work | None) -> Iterator[Move]:
        """Accept a transition, from rest or over what is under way."""
        asked, offsets = self._void(place, voided) if voided else ((), ())
        back = (voided.back or self.process.opening.undone) if voided else place.state
        standing = place.standing if voided else self._earlier(place.standing)
        work = Work(transition.name, transition.name, back, offsets=offsets, open=asked)
        begun = Place(place.state, work, standing)
        if transition.pending and (transition.told or offsets or asked):
            yield Move(transition.name, begun._replace(state=transition.pending), "command")
        else:
            for target in transition.targets:
                yield Move(transition.name, self._completed(begun, work, target), "command")

    def _void(self, place: Place, voided: Work) -> tuple[tuple[Open, ...], tuple[tuple[str, bool], ...]]:
        """What has to be found out, and what has to be taken back, latest first."""
        asked = tuple(
            Open(each.step, "do", "running", "unknown", only_settle=True)
            for each in voided.open
            if each.direction == "do"
            and self.steps[each.step].undo is not NONE_NEEDED
            and (each.outcome in {"unknown", "acknowledged"} or each.state == "running")
        )
        undoing = [(each.step, True) for each in voided.open if each.direction == "undo"]
        mine = [each for each in place.standing if each[1] or each in voided.offsets]
        return asked, self._latest_first({*undoing, *mine} & place.standing)

    def _earlier(self, standing: frozenset[tuple[str, bool]]) -> frozenset[tuple[str, bool]]:
        """What a new operation finds standing, as far as it makes a difference."""
        return frozenset((step, False) for step, _ in standing if step in self.undone_later)

    def _latest_first(self, standing: set[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
        return tuple(sorted(standing, key=lambda each: (not each[1], -self.order[each[0]])))

    def _undo(self, place: Place, label: str, kind: str) -> Move:
        """Take back the operation in flight, or the latest."""
        work, past = place.work, place.past
        asked, offsets = self._void(place, work) if work else ((), self._latest_first(_mine(place)))
        tells = work.tells if work else past.tells if past else None
        back = work.back if work else past.back if past else None
        transition = self.transitions[tells] if tells else None
        to = (transition.undone if transition else None) or back or place.state
        undo = Work("undo", None, back, to=to, offsets=offsets, open=asked)
        begun = Place(place.state, undo, place.standing)
        if not offsets and not asked:
            return Move(label, self._completed(begun, undo, to), kind)
        pending = transition.pending if transition and transition.pending else place.state
        return Move(label, begun._replace(state=pending), kind)

    def _force_cancel(self, place: Place) -> Move:
        cancel = self.process.force_cancel
        asked = self._void(place, place.work)[0] if place.work else ()
        offsets = self._latest_first(set(place.standing))
        work = Work("force_cancel", None, None, to=cancel.to, offsets=offsets, open=asked)
        begun = Place(place.state, work, place.standing)
        if not offsets and not asked:
            return Move("force_cancel", self._completed(begun, work, cancel.to), "command")
        return Move("force_cancel", begun._replace(state=cancel.pending), "command")

    def _replay(self, place: Place) -> Iterator[Move]:
        """Do the latest story again, from each step from which that can be."""
        work, past = place.work, place.past
        latest = work or past
        if latest is None or latest.tells is None:
            return
        story = self.transitions[latest.tells]
        done = self._done(place, story, work)
        asked, offsets = self._void(place, work) if work else ((), self._latest_first(_mine(place)))
        for step in story.steps[: len(done)]:
            reuse, again = divide(story, step.name, done)
            if irrevocable(self.process, again, done, done):
                continue
            left = tuple((name, own) for name, own in offsets if not (own and name in reuse))
            work = Work("replay", story.name, latest.back, None, len(reuse), left, asked, latest.took_back)
            self.replays += 1
            begun = Place(story.pending or place.state, work, place.standing)
            yield Move(f"replay from {step.name}", begun, "command")

    def _done(self, place: Place, story: Transition, work: Work | None) -> dict[str, Tried]:
        """What the story has come to, by step."""
        still_open = {each.step: each for each in work.open if each.direction == "do"} if work else {}
        done: dict[str, Tried] = {}
        for step in story.steps[: work.begun] if work else story.steps:
            effect = still_open.get(step.name)
            if effect is not None:
                done[step.name] = Tried(step.name, effect.state, effect.outcome)
            elif (step.name, True) in place.standing or step.undo is NONE_NEEDED:
                done[step.name] = Tried(step.name, "settled", "succeeded", standing=True)
            else:
                done[step.name] = Tried(step.name, "settled", "failed", "skipped")
        return done

    def _deadline(self, place: Place) -> Iterator[Move]:
        deadline, work = self.states[place.state].deadline, place.work
        if deadline is None or place.escalated or place.overdue or (work and not work.tells):
            return
        label = f"deadline of {place.state}"
        match deadline.then:
            case Escalate():
                yield Move(label, place._replace(escalated=True), "deadline")
            case Take(name):
                self.taken.add(name)
                for move in self._take(place, self.transitions[name], work):
                    yield move._replace(label=label, kind="deadline")
            case Unwind():
                yield self._unwind(place, label)
            case Block(owner):
                yield Move(label, place._replace(overdue=owner or self.process.owner), "deadline")

    def _unwind(self, place: Place, label: str) -> Move:
        work, past = place.work, place.past
        tells = work.tells if work else past.tells if past else None
        for_good = self.rules.for_good(work) if work else past.for_good if past else False
        took_back = work.took_back if work else past.took_back if past else False
        if tells is not None and for_good:
            transition = self.transitions[tells]
            names = ", ".join(step.name for step in transition.steps if step.undo is IMPOSSIBLE)
            words = f"its deadline undoes {tells}, but step {names} is for good"
            self.came_upon.append(ForGood(f"state {place.state}", words, label))
        if tells is None or for_good or took_back:
            return Move(label, place._replace(overdue=self.process.owner), "deadline")
        return self._undo(place, label, "deadline")

    # --- the story, and what becomes of its steps

    def _offset(self, place: Place, work: Work) -> Place:
        (step, _), *_ = work.offsets
        state, cause = ("blocked", "no_compensation") if self.steps[step].undo is IMPOSSIBLE else ("running", None)
        if cause and work.tells:  # who undoes or cancels by force is told so, and knows the price
            words = f"takes back {step}, which is for good"
            self.came_upon.append(ForGood(f"transition {work.tells}", words))
        opened = Open(step, "undo", state, None, cause)
        return place._replace(work=work._replace(open=(opened,)))

    def _story(self, place: Place, work: Work, transition: Transition) -> Iterator[Move]:
        left = transition.steps[work.begun :]
        undoes = {step.name for step in transition.undoes}
        earlier = self._latest_first({each for each in place.standing if not each[1] and each[0] in undoes})
        if left:
            for many in (1, 2) if self.full else (1,):
                opened = tuple(Open(step.name, "do") for step in left[:many])
                if len(opened) == many:
                    yield Move("", place._replace(work=work._replace(begun=work.begun + many, open=opened)), "begin")
        elif earlier and not work.took_back:
            yield Move("", place._replace(work=work._replace(took_back=True, offsets=earlier)), "begin")
        else:
            for target in transition.targets:
                yield Move("", self._completed(place, work, target), "begin")

    def _attempt(self, place: Place, effect: Open) -> Iterator[Move]:
        address = self.rules.address(effect)
        if effect.state == "running":
            pair = place.work is not None and len(place.work.open) > 1
            for outcome in _SIDE_BY_SIDE if pair else self.outcomes:
                if outcome != "not_needed" or effect.direction == "do":
                    yield Move(f"{address} {outcome}", self._outcome(place, effect, outcome))
        elif effect.state == "retrying":
            again = effect._replace(state="running", outcome=_still(effect.outcome))
            yield Move("", self._with(place, effect, again), "begin")
            yield Move(f"{address} exhausted", self._exhausted(place, effect, "exhausted"))
            if effect.outcome == "unknown":  # where the partner can't be asked
                yield Move(f"{address} stays unknown", self._blocked(place, effect, "unknown"))
        elif effect.state == "waiting":
            yield Move(f"{address} succeeded", self._settled(place, effect, happened=True))
            yield Move(f"{address} rejected", self._outcome(place, effect, "rejected"))
            yield Move(f"{address} never answered", self._exhausted(place, effect, "no_answer"))

    def _outcome(self, place: Place, effect: Open, outcome: str) -> Place:
        match outcome:
            case "succeeded" | "not_needed":
                return self._settled(place, effect, happened=outcome == "succeeded")
            case "transient" | "unknown":
                known = "unknown" if "unknown" in {outcome, effect.outcome} else "failed"
                return self._with(place, effect, effect._replace(state="retrying", outcome=known))
            case "acknowledged":
                return self._with(place, effect, effect._replace(state="waiting", outcome="acknowledged"))
            case "code_error":
                return self._blocked(place, effect._replace(outcome=effect.outcome or "failed"), "code_error")
            case _:
                # What a repeated request is refused for says nothing of the one before.
                known = "unknown" if effect.outcome == "unknown" and not effect.only_settle else "failed"
                if effect.only_settle:
                    return self._settled(place, effect, happened=False)
                return self._exhausted(place, effect._replace(outcome=known), outcome)

    def _exhausted(self, place: Place, effect: Open, cause: str) -> Place:
        """No attempt is left: as the step declares."""
        work = place.work
        declared = self.steps[effect.step].exhausted if effect.direction == "do" and not effect.only_settle else "block"
        if declared == "proceed":
            return self._settled(place, effect, happened=False)
        if declared == "undo" and work and work.tells and not work.took_back:
            lasting = [s.name for s in self.transitions[work.tells].steps[: work.begun] if s.undo is IMPOSSIBLE]
            if lasting:
                words = f"exhausted means undo, but {', '.join(lasting)} of {work.tells} is for good"
                self.came_upon.append(ForGood(f"step {effect.step}", words, f"{effect.step} {cause}"))
            blocked = self._blocked(place, effect, cause)
            return self._undo(blocked, "", "outcome").to
        return self._blocked(place, effect, cause)

    def _blocked(self, place: Place, effect: Open, cause: str) -> Place:
        return self._with(place, effect, effect._replace(state="blocked", cause=cause))

    def _with(self, place: Place, effect: Open, *instead: Open) -> Place:
        work = place.work
        if work is None:
            return place
        opened = tuple(new for each in work.open for new in (instead if each.step == effect.step else (each,)))
        return place._replace(work=work._replace(open=opened))

    def _settled(self, place: Place, effect: Open, *, happened: bool) -> Place:
        """Nothing more is owed on it."""
        place, standing = self._with(place, effect), place.standing
        work = place.work
        if work is None:
            return place
        if effect.direction == "undo":
            offset, *left = work.offsets
            # One that was left out stands on, and nobody is asked for it again.
            standing -= {offset}
            return place._replace(work=work._replace(offsets=tuple(left)), standing=standing)
        if self.steps[effect.step].undo is NONE_NEEDED or (not happened and self._missing(place, work, effect) == 0):
            return place
        if effect.only_settle:
            offsets = ((effect.step, True), *work.offsets)
            return place._replace(work=work._replace(offsets=offsets), standing=standing | {(effect.step, True)})
        return place._replace(standing=standing | {(effect.step, True)})

    def _missing(self, place: Place, work: Work, effect: Open) -> int:
        """How many steps of this operation before this one did nothing. Of more than one nothing new is learnt."""
        if effect.only_settle or not work.tells:
            return 0
        begun = [s.name for s in self.transitions[work.tells].steps[: work.begun] if s.undo is not NONE_NEEDED]
        still_open = {effect.step, *(each.step for each in work.open)}
        return sum((name, True) not in place.standing for name in begun if name not in still_open)

    def _completed(self, place: Place, work: Work, target: str) -> Place:
        past = Past(work.name, work.tells, work.back, self.rules.for_good(work), work.took_back)
        standing = place.standing if work.tells else self._earlier(place.standing)
        return Place(target, standing=standing, past=past)


def _still(outcome: Outcome | None) -> Outcome | None:
    """What another attempt begins with: only what nobody knows outlasts it."""
    return outcome if outcome in {"unknown", "acknowledged"} else None


def _mine(place: Place) -> set[tuple[str, bool]]:
    """What stands of the current or latest operation."""
    return {each for each in place.standing if each[1]}
