"""What only shows when cases are walked through a process: every situation, every command, every outcome.

An abstract case is walked breadth first from its opening (`walk.py`), and wherever it comes it is judged by what the
real policy offers there (`places.py`): whether somebody decides, whether somebody can go on, whether it ever ends.
"""

from collections import deque
from dataclasses import dataclass, field

from caseward.checking.places import Offered, Place, Rules, Work
from caseward.checking.walk import COARSE, FULL, Move, Walk
from caseward.policy import Action, decide
from caseward.process import ENGINE_ROLES, ENGINEERING, Process
from caseward.situation import Actor, condition

MOST = 500_000  # situations; about a minute. A process beyond that is told so, rather than called sound


@dataclass(frozen=True)
class Finding:
    """Something wrong, and the shortest way to it."""

    process: str
    kind: str
    where: str
    words: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        way = f" (after {', '.join(self.path)})" if self.path else ""
        return f"{self.process}: {self.where}: {self.words}{way}"


@dataclass
class Exploration:
    """What was looked at, and what was found."""

    process: str
    situations: int = 0
    commands: int = 0
    """Actions judged by the policy: by situation, action and role."""
    outcomes: int = 0
    """Outcomes of attempts, and deadlines, that were played."""
    replays: int = 0
    """Replays that were played: by situation, and step from which."""
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def counts(self) -> str:
        """How much was looked at, in words."""
        played = f"{self.situations} situations, {self.commands} commands, {self.outcomes} outcomes"
        return f"{played}, {self.replays} replays"


def explore(process: Process) -> Exploration:
    """Walk a case to every situation that its declaration allows."""
    return _Explorer(process, FULL).run()


def glance(process: Process) -> list[Finding]:
    """The fast form, for every load: each step succeeds or is refused, alone; people take transitions only.

    Of what it finds the full form finds the same, and more. What has no compensation blocks for its owner when it comes
    to that, and keeps nobody from working until `caseward check` has named it.
    """
    return [each for each in _Explorer(process, COARSE).run().findings if each.kind != "no_compensation"]


class _Explorer:
    def __init__(self, process: Process, outcomes: tuple[str, ...]) -> None:
        self.process, self.full = process, outcomes is FULL
        self.rules = Rules(process, full=self.full)
        self.walk = Walk(self.rules, outcomes)
        self.found = Exploration(process.name)
        self.came: dict[Place, tuple[Place | None, str]] = {}
        self.somebody = process.teams | ENGINE_ROLES | {ENGINEERING, *(role.name for role in process.roles)}
        self.known: set[tuple[str, str, str]] = set()
        self.answers: dict[str, list[tuple[str, Place]]] = {}
        """By state whose deadline escalated, or which waits on somebody: what is wrong unless somebody can act."""
        self.answered: set[str] = set()

    def run(self) -> Exploration:
        waiting = deque[Place]()
        onward: dict[Place, list[Place]] = {}
        for move in self.walk.openings():
            self._arrive(move, None, waiting)
        while waiting:
            place = waiting.popleft()
            if len(self.came) > MOST:
                self._find("too_large", "process", f"more than {MOST} situations; what lies beyond was not looked at")
                break
            unclear = place.work is None or any(each.state == "blocked" for each in place.work.open)
            offered = self.rules.offered(place) if self.full or unclear else None
            if offered is None:
                for move in self.walk.work_goes_on(place):
                    self._arrive(move, place, waiting)
                    onward.setdefault(move.to, []).append(place)
                continue
            self._judge(place, offered)
            for move in self.walk.moves(place, offered):
                self._arrive(move, place, waiting)
                if move.label != "force_cancel":
                    onward.setdefault(move.to, []).append(place)
        self.found.situations, self.found.commands = len(self.came), self.rules.commands
        self.found.replays = self.walk.replays
        self._look_back(onward)
        return self.found

    def _arrive(self, move: Move, origin: Place | None, waiting: deque[Place]) -> None:
        for each in self.walk.came_upon:
            self._find("no_compensation", each.where, each.words, origin, each.last)
        self.walk.came_upon.clear()
        if move.kind in {"outcome", "deadline"}:
            self.found.outcomes += 1
        if move.to not in self.came:
            self.came[move.to] = (origin, move.label)
            waiting.append(move.to)

    # --- what is wrong

    def _find(self, kind: str, where: str, words: str, place: Place | None = None, last: str = "") -> None:
        if (kind, where, words) not in self.known:
            self.known.add((kind, where, words))
            path = self._path(place) if place else ()
            self.found.findings.append(Finding(self.process.name, kind, where, words, (*path, last) if last else path))

    def _path(self, place: Place) -> tuple[str, ...]:
        labels: list[str] = []
        here: Place | None = place
        while here is not None:
            here, label = self.came[here]
            labels.append(label)
        return tuple(label for label in reversed(labels) if label)

    def _judge(self, place: Place, offered: Offered) -> None:
        for name in offered.unconfirmed:
            self._find("unconfirmable", f"{name}", "others must confirm it, and nobody may", place)
        if self.full and any(action.name == "pause" for action in offered.by_action):
            paused = self.rules.offered(place._replace(paused=True))  # nothing begins meanwhile, so nothing is played
            if not any(action.name == "resume" for action in paused.by_action):
                self._find("stuck", f"state {place.state}", "paused, and nobody can resume", place)
        self._judge_owner(place, offered)
        if place.work is None:
            self._judge_rest(place, offered)
        elif place.work.open:
            self._judge_steps(place, place.work, offered)
        self._judge_escalation(place, offered)

    def _judge_owner(self, place: Place, offered: Offered) -> None:
        """Whatever is unfinished has somebody who decides next, and that is somebody."""
        now = condition(offered.situation)
        owners: set[tuple[str, str | None]] = set()
        if now.name != "done" and now.step is None:
            owners.add((f"state {place.state}", now.recovery_owner))
        if place.work:
            owners |= {(f"step {each.step}", self.rules.owner(each)) for each in place.work.open}
        for where, owner in sorted(owners, key=str):
            if owner not in self.somebody:
                self._find("ownerless", where, f"partly done, and nobody decides: there is no {owner}", place)

    def _judge_rest(self, place: Place, offered: Offered) -> None:
        state = self.rules.states[place.state]
        moves = {a.name: who for a, who in offered.by_action.items() if a.kind == "transition"}
        if not state.final and not any(set(self.rules.transitions[name].targets) - {place.state} for name in moves):
            words = "no transition that anybody may take leads out of it"
            self._find("no_way_out", f"state {place.state}", words, place)
        waited_for = Actor(state.waiting_on or "", frozenset({state.waiting_on or ""}))
        answers = (decide(offered.situation, waited_for, Action("transition", name)) for name in moves)
        if state.waiting_on and not any(answer.allowed for answer in answers):
            words = f"waits on {state.waiting_on}, who may take no transition here"
            self._find("waits_in_vain", f"state {place.state}", words, place)

    def _judge_steps(self, place: Place, work: Work, offered: Offered) -> None:
        """Every blocked step: some action goes on from there, short of stopping everything."""
        ways = {"retry", "skip", "mark_done", "undo"}
        for effect in work.open:
            if effect.state != "blocked":
                continue
            address = self.rules.address(effect)
            on = [each for each in offered.by_action if each.name in ways and each.step in {None, address}]
            if not on and not any(each.kind == "transition" for each in offered.by_action):
                self._find("stuck", f"step {address}", f"blocked ({effect.cause}), and nobody can go on", place)

    def _judge_escalation(self, place: Place, offered: Offered) -> None:
        if not place.escalated:
            return
        role = offered.situation.escalated_to or ""
        acts = {a for a, who in offered.by_action.items() if role in who and a.name not in {"pause", "resume"}}
        if place.work is None:
            acts = {each for each in acts if each.kind == "transition"}
        if acts:
            self.answered.add(place.state)
        words = f"its deadline escalates to {role}, who may do nothing about it here"
        self.answers.setdefault(place.state, []).append((words, place))

    def _look_back(self, onward: dict[Place, list[Place]]) -> None:
        """What only the whole walk shows."""
        self._ends(onward)
        if not self.full:
            return
        for state, asked in self.answers.items():
            if state not in self.answered:
                self._find("deadline_without_consequence", f"state {state}", *asked[0])
        reached = {place.state for place in self.came}
        reached |= {self.process.force_cancel.pending}  # where nothing has to be taken back nobody sees it
        for name in self.rules.states:
            if name not in reached:
                self._find("unreached", f"state {name}", "no case ever gets here")
        for transition in self.process.transitions:
            if transition.name not in self.walk.taken:
                self._find("never_taken", f"transition {transition.name}", "nobody can ever take it")
        for role in self.process.roles:
            if role.name not in self.rules.active:
                self._find("idle_role", f"role {role.name}", "nothing here takes it")

    def _ends(self, onward: dict[Place, list[Place]]) -> None:
        """From everywhere some end can be reached without stopping everything: final, or nobody owes anything."""
        good = {place for place in self.came if place.work is None and self._ended(place)}
        waiting = deque(good)
        while waiting:
            for before in onward.get(waiting.popleft(), ()):
                if before not in good:
                    good.add(before)
                    waiting.append(before)
        said = {each.where for each in self.found.findings if each.kind == "no_way_out"}
        for place in self.came:
            where = f"state {place.state}"
            if place not in good and where not in said:
                self._find("dead_end", where, "from here no end can be reached but by force_cancel", place)

    def _ended(self, place: Place) -> bool:
        state = self.rules.states[place.state]
        return state.final or (state.waiting_on is None and not place.overdue)
