"""Days of random commands, overrides, faults, kills and clock jumps on a real stack; afterwards everything holds.

Hypothesis draws the plan of a day: several cases side by side, what happens to each, and what dies meanwhile. On the
way every action is held to the case document that offered it or did not (G7), commands are repeated (G9) and somebody
must always be named (G5). In the end all comes to rest, and the invariants are checked over the day's cases.

A day that fails is played again by its seed; CASEWARD_SHRINK=1 looks for the smallest such day, which takes minutes.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta

import hypothesis
import pytest
import pytest_asyncio
from hypothesis import Phase
from hypothesis import strategies as st

from tests.faults.company import Company
from tests.faults.days import (
    Answer,
    CasePlan,
    Claim,
    DayPlan,
    Fault,
    Kill,
    Move,
    Onward,
    Recover,
    Redeliver,
    Replay,
    SeeItWork,
    SendAgain,
    Signal,
    Take,
    TimePasses,
    play,
)
from tests.faults.people import Person
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS

LATER = ("acknowledge", "callback_twice", "callback_never")
TO_SHOW = timedelta(seconds=120)  # until the last messages have told the workflows where their cases stand
SHRINK = os.environ.get("CASEWARD_SHRINK") == "1"
KILLS = ("api", "worker", "temporal", "postgres")


def calls_of(playbook: Playbook) -> dict[str, list[str]]:
    """By partner: its calls that the process makes."""
    found: dict[str, set[str]] = {}
    for address, call in playbook.calls.items():
        if playbook.partner_of(address) in playbook.in_house:
            continue
        found.setdefault(playbook.partner_of(address), set()).add(call)
    return {partner: sorted(calls) for partner, calls in sorted(found.items())}


def faults(playbook: Playbook) -> st.SearchStrategy[Fault]:
    by_partner = calls_of(playbook)
    at_once = [
        st.builds(
            Fault,
            partner=st.just(partner),
            call=st.sampled_from(calls),
            mode=st.sampled_from(("error", "reject", "lose_reply", "lose_request", "down")),
            times=st.integers(1, 3),
        )
        for partner, calls in by_partner.items()
    ]
    slow = [
        st.builds(
            Fault,
            partner=st.just(partner),
            call=st.sampled_from(calls),
            mode=st.just("slow"),
            seconds=st.sampled_from((0.2, 0.6)),
        )
        for partner, calls in by_partner.items()
    ]
    later = [
        st.builds(
            Fault,
            partner=st.just(partner),
            call=st.sampled_from(by_partner[partner]),
            mode=st.sampled_from(LATER),
            seconds=st.sampled_from((0.1, 0.4)),
            outcome=st.sampled_from(("succeeded", "succeeded", "failed")),
        )
        for partner in sorted(playbook.answers_later)
    ]
    return st.one_of(*at_once, *slow, *later)


def moves(playbook: Playbook) -> st.SearchStrategy[Move]:
    people = sorted(playbook.everybody)
    anyone = st.sampled_from(people)
    confirmers = [playbook.confirmer] if playbook.confirmer else []
    later = [transition.name for transition in playbook.process.transitions if not transition.opens]
    recover = st.builds(
        Recover,
        who=st.sampled_from(("operator", "operator", "operator", *people)),
        name=st.sampled_from(("retry", "skip", "mark_done", "undo", "force_cancel", "pause", "resume")),
        which=st.integers(0, 2),
    )
    over = playbook.supersedes
    withdraw = st.just(Take(playbook.takes[over], over)) if over else recover
    claim = st.builds(Claim, who=anyone, name=st.sampled_from(("claim", "claim", "unclaim")))
    return st.one_of(
        st.just(Onward()),
        st.just(Onward()),
        st.just(SeeItWork()),
        st.just(SeeItWork()),
        faults(playbook),
        faults(playbook),
        recover,
        recover,
        withdraw,
        *([claim] if playbook.process.claimable else []),
        st.builds(Replay, who=st.sampled_from(("operator", *people)), which=st.integers(0, 12)),
        st.builds(Take, who=anyone, name=st.sampled_from(later)),
        st.builds(Answer, who=st.sampled_from((*confirmers, *people)), name=st.sampled_from(("confirm", "decline"))),
        st.builds(TimePasses, by=st.sampled_from((timedelta(seconds=3), timedelta(minutes=2), timedelta(days=3)))),
        st.builds(SendAgain, which=st.integers(0, 5)),
        st.builds(Redeliver, which=st.integers(0, 12)),
        st.just(Signal()),
    )


def endings(playbook: Playbook) -> tuple[tuple[Move, ...], ...]:
    """Taking back is what most often finds something half done, so most days come to it."""
    over = playbook.supersedes
    superseded: tuple[Move, ...] = (Onward(), Take(playbook.takes[over], over)) if over else ()
    return (
        (Onward(), Recover("operator", "undo")),
        (Recover("operator", "force_cancel"),),
        (Onward(), SeeItWork(), Recover("operator", "undo")),
        superseded,
        (),
    )


def case_plans(playbook: Playbook) -> st.SearchStrategy[CasePlan]:
    return st.builds(
        CasePlan,
        subject=st.sampled_from((0, 0, *range(1, len(playbook.subjects)))),
        faults=st.lists(faults(playbook), max_size=2).map(tuple),
        depth=st.sampled_from((2, 3, 1, 4, 0)),
        moves=st.tuples(st.lists(moves(playbook), min_size=2, max_size=8), st.sampled_from(endings(playbook))).map(
            lambda drawn: (*drawn[0], *drawn[1])
        ),
    )


@st.composite
def days(draw: st.DrawFn, playbook: Playbook) -> DayPlan:
    cases = draw(st.lists(case_plans(playbook), min_size=1, max_size=4))
    deadly = draw(st.integers(0, 9)) == 9
    kill = st.builds(Kill, victim=st.sampled_from(KILLS), after=st.integers(0, 20))
    return DayPlan(tuple(cases), tuple(draw(st.lists(kill, min_size=1, max_size=2)) if deadly else ()))


@pytest.fixture(scope="module", params=PLAYBOOKS.values(), ids=list(PLAYBOOKS))
def playbook(request: pytest.FixtureRequest) -> Playbook:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(company: Company, playbook: Playbook):
    async with AsyncExitStack() as leaving:
        everybody = {}
        for name, roles in playbook.everybody.items():
            everybody[name] = Person(company.settings, f"{name}-s", *roles)
            leaving.push_async_callback(everybody[name].aclose)
        yield everybody


@pytest.mark.parametrize("examples", [10, pytest.param(115, marks=pytest.mark.full)])
async def test_whatever_a_day_brings(company: Company, playbook: Playbook, people, examples: int, seed: int, report):
    loop = asyncio.get_running_loop()
    examples = int(os.environ.get("CASEWARD_EXAMPLES") or examples)
    played: list[int] = []
    failed: list[Exception] = []
    ledger_at = 0

    async def one_day(plan: DayPlan) -> None:
        nonlocal ledger_at
        numbers = [entry["number"] for entry in await company.ledger(after=ledger_at) if "number" in entry]
        ledger_at = max(numbers, default=ledger_at)
        cases = await play(company, playbook, people, plan)
        found = await company.violations([day.case_id for day in cases], after=ledger_at, within=TO_SHOW)
        played.append(len(cases))
        assert not found, "\n".join(found)
        for day in cases:
            for sent in day.sent:
                ended = await people["operator"].read(f"/v1/operations/{sent.operation_id}")
                # What others had to confirm, and nobody did, was never accepted.
                assert ended["finished_at"] or ended["state"] == "proposed", f"{ended} came to no end"

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=examples, phases=(Phase.generate, *([Phase.shrink] if SHRINK else [])))
    @hypothesis.given(plan=days(playbook))
    def every_day(plan: DayPlan) -> None:
        if failed and not SHRINK:  # Hypothesis would play it once more, only to see it
            raise failed[0]
        try:
            asyncio.run_coroutine_threadsafe(one_day(plan), loop).result()
        except Exception as fault:
            fault.add_note(repr(plan))
            failed.append(fault)
            raise

    await asyncio.to_thread(every_day)
    await report.of_days(seed, len(played), company, sum(played))
