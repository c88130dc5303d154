"""The rows of the kill matrix: one for each command and override, told up to the moment at which something dies.

They are derived from a process's declaration and its playbook. A new row is a function for what comes before, the
command itself, and where it must end; what a process has no place for gives no row.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from caseward.messages import workflow_id
from tests.faults.company import PATIENCE, Company, Json, acting
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS

Arrange = Callable[[Company], Awaitable[Json]]
Act = Callable[[Company, Json], Awaitable[Json]]
SLOW = 3.0  # seconds a partner takes where something has to happen meanwhile; the gateways give it 5
MOMENTS = 5  # cases that may miss theirs, on a machine that is busy with something else


@dataclass(frozen=True)
class Scenario:
    """One row. `act` answers the operation document, or the case document where it has no operation to show."""

    name: str
    arrange: Arrange
    act: Act
    ends: str
    by_api: bool = True
    """The command under fire is one request to the API."""
    astray: bool = False
    """Its workflow is lost, so that the reconciler must wake it; others it may wake by chance, where all is slow."""


# --- what comes before ------------------------------------------------------------------------------------------------


async def nothing(_company: Company) -> Json:
    """The command opens the case."""
    return {}


@dataclass(frozen=True)
class Before:
    """What may come before, for one process."""

    playbook: Playbook

    def at(self, state: str) -> Arrange:
        """At rest."""
        return lambda company: company.brought_to(self.playbook, state)

    def before_main(self, step: str, mode: str, **more: float) -> Arrange:
        """About to take the main transition; this step's partner will do something wrong."""

        async def arrange(company: Company) -> Json:
            case = await company.brought_to(self.playbook, self.playbook.start(self.playbook.main))
            await self.fault(company, case, step, mode, **more)
            return case

        return arrange

    async def fault(self, company: Company, case: Json, step: str, mode: str, **more: float) -> None:
        partner, call = self.playbook.partner_of(step), self.playbook.calls[step]
        assert call in self.playbook.named_in, f"{call} names no case, so a fault would hit any"
        order = {"times": 1, "match": case["business_key"], **more}
        await company.fault(partner=partner, call=call, mode=mode, **order)

    def under_main(
        self, step: str, mode: str, until: Callable[[Json], bool], *, refused: str | None = None, **more: float
    ) -> Arrange:
        """The main transition is under way, and has come so far; `refused` is a later step that goes no further."""

        async def arrange(company: Company) -> Json:
            case = await self.before_main(step, mode, **more)(company)
            if refused is not None:
                await self.fault(company, case, refused, "reject")
            await company.take(self.playbook, case, self.playbook.main)
            return case

        return in_time(arrange, until)

    def blocked_at(self, step: str, mode: str) -> Arrange:
        return self.under_main(step, mode, is_blocked)

    def about_to_try_again(self) -> Arrange:
        """The partner answers with a fault of its own: nothing is under way, a timer is what comes next."""
        step = self.playbook.middle
        # Four attempts fail within 8 s, so that whoever acts on it has that long.
        return self.under_main(step, "error", lambda now: step_states(now).get(step) == "retrying", times=4)

    def held_up(self) -> Arrange:
        """An operator paused the case while one step was at its partner, so that the next partner hears nothing."""
        step = self.playbook.middle
        before = self.playbook.before(step)

        async def arrange(company: Company) -> Json:
            case = await self.under_main(before, "slow", acting(before), seconds=SLOW)(company)
            await override("pause")(company, case)
            return case

        # This step is held up, or the one before it where its answer came too late and it would be asked again.
        return in_time(arrange, lambda now: "paused" in step_states(now).values())

    def in_the_middle(self) -> Arrange:
        """A partner is at it; however late the command comes, the last step keeps the operation in flight."""
        step = self.playbook.middle
        return self.under_main(step, "slow", acting(step), refused=self.playbook.last, seconds=SLOW)

    def compensation_blocked(self) -> Arrange:
        """An undo that the partner refuses."""
        step = self.playbook.middle
        undo = f"{step}:undo"

        async def arrange(company: Company) -> Json:
            case = await company.brought_to(self.playbook, self.playbook.start(self.playbook.main))
            done = await company.take(self.playbook, case, self.playbook.main)
            case = await company.settled(case, self.playbook.ends(self.playbook.main))
            await company.fault(
                partner=self.playbook.partner_of(step),
                call=self.playbook.calls[undo],
                mode="reject",
                times=1,
                key=f"{done['operation_id']}:{undo}",
            )
            await override("undo")(company, case)
            return await company.operator.until(case["case_id"], is_blocked, within=PATIENCE)

        return arrange

    def proposed_as_done(self, step: str, transition: str) -> Arrange:
        """A step refused, an operator says that it was done by hand, and somebody else has to confirm that."""

        async def arrange(company: Company) -> Json:
            if transition == self.playbook.process.opening.name:
                key = f"V-{uuid4().hex[:10]}"
                await self.fault(company, {"business_key": key}, step, "reject")
                case = await company.opened(self.playbook, business_key=key)
            else:
                case = await company.brought_to(self.playbook, self.playbook.start(transition))
                await self.fault(company, case, step, "reject")
                await company.take(self.playbook, case, transition)

            def alone(now: Json) -> bool:  # whatever runs beside it is over: what is proposed is about a case at rest
                states = step_states(now)
                others = {state for name, state in states.items() if name != step}
                return states.get(step) == "blocked" and others <= {"succeeded", "not_needed", "pending"}

            await company.operator.until(case["case_id"], alone, within=PATIENCE)
            by_hand = self.playbook.by_hand[step]
            proposed = await override("mark_done", step=step, result=by_hand)(company, case)
            return {**case, "proposal": proposed["operation_id"]}

        return arrange


def in_time(arrange: Arrange, until: Callable[[Json], bool]) -> Arrange:
    """At a moment that passes: with another case where it was over before anybody looked."""

    def over(now: Json) -> bool:
        return now["operation"] is None or is_blocked(now)

    async def again(company: Company) -> Json:
        now: Json = {}
        for _ in range(MOMENTS):
            case = await arrange(company)
            now = await company.operator.until(case["case_id"], lambda now: until(now) or over(now), within=PATIENCE)
            if until(now):
                return now
        message = f"{MOMENTS} cases were never as wanted, at last {now}"
        raise AssertionError(message)

    return again


def step_states(now: Json) -> dict[str, str]:
    """The steps of the operation in flight."""
    return {step["name"]: step["state"] for step in (now["operation"] or {"steps": []})["steps"]}


def is_blocked(now: Json) -> bool:
    return now["condition"] == "blocked"


# --- the command under fire -------------------------------------------------------------------------------------------


def open_a_case(playbook: Playbook) -> Act:
    return lambda company, _nothing: company.opened(playbook)


def take(playbook: Playbook, transition: str) -> Act:
    return lambda company, case: company.take(playbook, case, transition)


def override(name: str, **given: object) -> Act:
    async def act(company: Company, case: Json) -> Json:
        return await company.insist(
            lambda key: company.operator.override(case, name, reason="Agreed by phone", send={"key": key}, **given)
        )

    return act


def mark_done_by_the_ledger(playbook: Playbook, name: str) -> Act:
    """The operator looks at the partner's side, and finds the effect there."""

    async def act(company: Company, case: Json) -> Json:
        step = next(step for step in case["operation"]["steps"] if step["name"] == name)
        sent = await company.ledger(key=step["effect_key"])
        return await override("mark_done", result=playbook.result(name, sent[0]["answer"]))(company, case)

    return act


async def retry_by_signal(company: Company, case: Json) -> Json:
    """From Temporal's own command line; whoever types it again after an error types the same key."""
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id(case["process"], case["case_id"]))
    payload = {"override": "retry", "reason": "The bank called", "actor": "olga", "key": str(uuid4())}
    await company.insist(lambda _key: handle.signal("override", payload))
    return case


def confirm(playbook: Playbook) -> Act:
    """By somebody without whom the operator's word is nothing; answers the operation that was proposed."""
    assert playbook.confirmer is not None, f"{playbook.name} has steps that others confirm, and names nobody for it"
    who = playbook.confirmer

    async def act(company: Company, case: Json) -> Json:
        href = f"/v1/operations/{case['proposal']}/confirm"
        person = company.people[playbook.name][who]
        return await company.insist(lambda key: person.post(href, {"reason": "I have seen the report"}, key=key))

    return act


async def lose_the_workflow(company: Company, case: Json) -> Json:
    """Somebody terminates it in Temporal; the reconciler finds out that nobody works for the case."""
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id(case["process"], case["case_id"]))
    await company.insist(lambda _key: terminated(handle))
    return case


async def terminated(handle: WorkflowHandle[object, object]) -> Json:
    """Terminate it, unless an earlier try did."""
    try:
        await handle.terminate("by mistake")
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise
    return {}


async def retry_in_bulk(company: Company, case: Json) -> Json:
    """The same override, over a list of one."""
    order = {"override": "retry", "reason": "The bank mended it", "case_ids": [case["case_id"]], "canary": 1}
    await company.insist(lambda key: company.operator.post("/v1/bulk", order, key=key))
    return case


def replay_from(step: str) -> Act:
    """What comes before is kept, this and what follows done anew. The plan is asked for once, and then kept to."""

    async def act(company: Company, case: Json) -> Json:
        plan = await company.insist(
            lambda key: company.operator.post(f"/v1/cases/{case['case_id']}/plan", {"step": step}, key=key)
        )
        told = await override("replay", step=step, plan_hash=plan["plan_hash"])(company, case)
        return await company.confirmed(PLAYBOOKS[case["process"]], told)

    return act


# --- the rows ---------------------------------------------------------------------------------------------------------


def scenarios_of(playbook: Playbook) -> tuple[Scenario, ...]:
    """Every row of one process."""
    rows = [*_transitions(playbook), *_overrides(playbook), *_others(playbook)]
    return tuple(replace(row, name=f"{playbook.name}: {row.name}") for row in rows)


def _transitions(playbook: Playbook) -> Iterator[Scenario]:
    """Each transition once, from where it is usually taken."""
    before, opening = Before(playbook), playbook.process.opening
    for transition in playbook.process.transitions:
        name, ends = transition.name, playbook.ends(transition.name)
        if transition is opening:
            yield Scenario(name, nothing, open_a_case(playbook), ends)
        elif transition.source - playbook.process.pending_states:
            yield Scenario(name, before.at(playbook.start(name)), take(playbook, name), ends)
    main = playbook.transition(playbook.main)
    steps = (playbook.middle, *(step.name for step in main.steps))
    called_back = next((step for step in steps if playbook.partner_of(step) in playbook.answers_later), None)
    if called_back is not None:
        later = before.before_main(called_back, "callback_twice", seconds=1.0)
        yield Scenario("callback, twice", later, take(playbook, main.name), playbook.ends(main.name))
    if playbook.supersedes is not None:
        over = playbook.transition(playbook.supersedes)
        assert main.pending in over.source, f"{over.name} can't be taken while {main.name} runs"
        name = f"superseding: {over.name} over a running step"
        yield Scenario(name, before.in_the_middle(), take(playbook, over.name), playbook.ends(over.name))


def _overrides(playbook: Playbook) -> Iterator[Scenario]:
    """Each override where it is of use: on a step in the middle, on the last one, on what is done."""
    before, ends = Before(playbook), playbook.ends(playbook.main)
    start, middle, last = playbook.start(playbook.main), playbook.middle, playbook.last
    undone = playbook.transition(playbook.main).undone or start
    cancelled = playbook.process.force_cancel.to
    refused, refused_last = before.blocked_at(middle, "reject"), before.blocked_at(last, "reject")
    mark_done = mark_done_by_the_ledger(playbook, last)
    yield Scenario("retry", refused, override("retry"), ends)
    yield Scenario("retry by signal", refused, retry_by_signal, ends, by_api=False)
    yield Scenario("bulk: retry", refused, retry_in_bulk, ends)
    yield Scenario("skip", refused_last, override("skip"), ends)
    yield Scenario("mark_done over an unknown", before.blocked_at(last, "lose_reply"), mark_done, ends)
    yield Scenario("undo of what is blocked", refused_last, override("undo"), undone)
    yield Scenario("undo of what is done", before.at(ends), override("undo"), undone)
    yield Scenario("replay of what is blocked", refused_last, replay_from(middle), ends)
    if not playbook.process.state(ends).final:  # what is closed is reopened, not done again
        yield Scenario("replay of what is done", before.at(ends), replay_from(middle), ends)
    yield Scenario("force_cancel", refused_last, override("force_cancel"), cancelled)
    yield Scenario("compensation, retried", before.compensation_blocked(), override("retry"), undone)


def _others(playbook: Playbook) -> Iterator[Scenario]:
    """Confirmations, pauses, and a workflow that is lost."""
    before, ends, start = Before(playbook), playbook.ends(playbook.main), playbook.start(playbook.main)
    for step in playbook.by_hand:
        # Of several transitions with the step, the first is the one that a case comes by anyhow.
        owner = next(t for t in playbook.process.transitions if step in {each.name for each in t.steps})
        name = "confirm: by hand, said two" if len(playbook.by_hand) == 1 else f"confirm: {step} by hand, said two"
        proposed = before.proposed_as_done(step, owner.name)
        yield Scenario(name, proposed, confirm(playbook), playbook.ends(owner.name))
    yield Scenario("pause: at rest", before.at(start), override("pause"), start)
    yield Scenario("resume: held up before a step", before.held_up(), override("resume"), ends)
    lost = before.about_to_try_again()
    yield Scenario("workflow terminated", lost, lose_the_workflow, ends, by_api=False, astray=True)


SCENARIOS = {name: scenarios_of(playbook) for name, playbook in PLAYBOOKS.items()}
