"""Playbooks: what the recovery suites must know of a process beside its declaration, one small file for each.

`tests/processes/{process}.py` holds a `PLAYBOOK`; it is found by the process's name. The rows of the kill matrix, the
random days and the recorded histories are derived from the declaration and from this.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from caseward.process import Process, Step, Transition

Json = dict[str, Any]
ENGINE_PEOPLE: Mapping[str, tuple[str, ...]] = {"clerk": ("operator",), "operator": ("operator", "senior_operator")}


def EXAMPLE_OF(process: Process) -> Json:  # noqa: N802 - it stands for a constant of the declaration
    """The example that the subject's own schema gives."""
    return process.subject.model_config["json_schema_extra"]["examples"][0]


@dataclass(frozen=True, kw_only=True)
class Playbook:
    """One process, as those who test its recovery see it."""

    process: Process
    people: Mapping[str, tuple[str, ...]]
    """The people of the business by name, each with their roles; operators are added for every process."""
    subjects: tuple[Callable[[str], Json], ...]
    """Subjects that carry the name given, the plain one first; the others make the story take another way."""
    takes: Mapping[str, str]
    """By transition: who takes it."""
    inputs: Mapping[str, Callable[[Json], Json]] = field(default_factory=dict)
    """By transition: its input, from the case document. None asked for where left out."""
    document: bytes | None = None
    """What is added to a case that is to be brought somewhere, of the first kind that the process takes."""
    onward: Mapping[str, str]
    """By resting state: the transition by which the business goes on."""
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By resting state: the transitions that lead there from the opening, where not the shortest way is meant."""
    lands: Mapping[str, str] = field(default_factory=dict)
    """By transition: where the plain subject ends, if that is not its first target."""
    calls: Mapping[str, str]
    """By step, and by `{step}:undo`: the call that the partner's sandbox knows it by."""
    named_in: frozenset[str]
    """The calls whose requests carry the subject's name, so that a fault hits one case alone."""
    in_house: frozenset[str] = frozenset()
    """The partners that are offices of our own: nobody plays them, and their ledger is the object store's."""
    answers_later: frozenset[str] = frozenset()
    """The partners that call back, or can be asked, after an acknowledgement."""
    main: str
    """The transition under which most things are let die: several steps, one after the other."""
    middle: str
    """A step of `main` with a compensation, and with another such step before it."""
    last: str
    """The last step of `main`, which can neither be repeated nor asked about where there is such a one."""
    supersedes: str | None = None
    """A transition that may be taken while `main` runs."""
    by_hand: Mapping[str, Json] = field(default_factory=dict)
    """By step whose `mark_done` others must confirm: what somebody says that they did."""
    confirmer: str | None = None
    """Who confirms that."""
    results: Mapping[str, Callable[[Json], Json]] = field(default_factory=dict)
    """By step: the result, from the partner's answer; fields of the same name where left out."""
    promise: Callable[[Sequence[Json]], Iterator[tuple[str, str]]] = lambda _ledger: iter(())
    """What this business promises of its partners' ledger at every moment: each breach as an effect's key and words."""
    never_at: frozenset[str] = frozenset()
    """Failpoints that no story of it comes by."""

    @property
    def name(self) -> str:
        return self.process.name

    @cached_property
    def everybody(self) -> Mapping[str, tuple[str, ...]]:
        return {**self.people, **ENGINE_PEOPLE}

    def transition(self, name: str) -> Transition:
        found = self.process.transition(name)
        assert found is not None, f"{self.name} has no transition {name}"
        return found

    def step(self, name: str) -> Step[Any]:
        return self.process.steps[name]

    def ends(self, transition: str) -> str:
        """Where the plain subject is when it is completed."""
        return self.lands.get(transition, self.transition(transition).targets[0])

    def input(self, transition: str, case: Json) -> Json:
        return self.inputs.get(transition, lambda _case: {})(case)

    def start(self, transition: str) -> str:
        """The resting state from which it is taken, the nearest to the opening."""
        sources = self.transition(transition).source - self.process.pending_states
        return min(sorted(sources), key=lambda state: len(self.way(state)))

    def way(self, state: str) -> tuple[str, ...]:
        """The transitions that lead from the opening to a resting state."""
        if state in self.ways:
            return self.ways[state]
        opened = self.ends(self.process.opening.name)
        found: dict[str, tuple[str, ...]] = {opened: ()}
        queue = deque([opened])
        while queue:
            here = queue.popleft()
            for name in self.takes:
                there = self.ends(name)
                if here in self.transition(name).source and there not in found:
                    found[there] = (*found[here], name)
                    queue.append(there)
        assert state in found, f"{self.name}: nothing in the playbook leads to {state}"
        return found[state]

    def result(self, step: str, answer: Json) -> Json:
        """What `mark_done` wants, from the partner's answer."""
        if step in self.results:
            return self.results[step](answer)
        return {name: answer[name] for name in self.step(step).result.model_fields if name in answer}

    def partner_of(self, address: str) -> str:
        return self.step(address.partition(":")[0]).partner

    def before(self, step: str) -> str:
        """The step of `main` that comes just before."""
        names = [each.name for each in self.transition(self.main).steps]
        return names[names.index(step) - 1]
