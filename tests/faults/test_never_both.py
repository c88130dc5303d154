"""A payment is never both released and returned, whoever dies while one reviewer approves it and another rejects it."""

import asyncio
import random
from pathlib import Path

import pytest

from caseward.failpoints import NAMES
from cli.client import Refused
from tests.faults.company import PATIENCE, Company, Json
from tests.faults.conftest import MAIL_POINTS
from tests.faults.test_matrix import Trap, until_caught
from tests.processes.payment_review import PLAYBOOK, payment

AT_ONCE = 6
TOO_LATE = {"claimed_by_other", "operation_in_flight", "wrong_state"}
# Only what runs over many cases, finds one that was lost, or mails on the engine's own behalf comes by these.
ELSEWHERE = {"bulk.before_commit", "bulk.sent", "reconciler.woken"} | MAIL_POINTS
BY_API = ("command.", "callback.")
POINTS = [*sorted(NAMES - ELSEWHERE), "effect.reserved:2", "effect.acted:2", "effect.settled:2"]
WHEN_RECALLED = ["effect.reserved", "effect.acted", "effect.settled", "operation.before_finish"]
# A decision whose reviewer got no answer, and transfers of which nobody knows: the first, the second, the recalled one.
SAMPLE = {"command.after_commit", "effect.acted", "effect.acted:2"}
SAMPLE_WHEN_RECALLED = {"effect.acted"}


def marked(points: list[str], sample: set[str]) -> list:
    assert sample <= set(points), sample - set(points)
    return [pytest.param(point, marks=() if point in sample else pytest.mark.full) for point in points]


async def transfers(company: Company, case: Json) -> list[str]:
    """What became of this payment's money, in order."""
    told: list[str] = []
    mine: set[str] = set()
    for done in await company.ledger(partner="bank"):
        if done["request"].get("payment") == case["business_key"]:
            mine.add(done["answer"]["transfer"])
            told.append(done["call"])
        elif done["call"] == "recall" and done["request"]["transfer"] in mine:
            told.append("recall")
    return told


class Race:
    """One payment, about which two people are of different minds."""

    def __init__(self, company: Company, chance: random.Random, number: int) -> None:
        self.company, self.chance, self.number = company, chance, number
        self.case: Json = {}

    async def arrange(self) -> None:
        """In review; of every three the bank is quick with one, slow with one, and calls back about one."""
        self.case = await self.company.brought_to(PLAYBOOK, "in_review")
        mode = (None, "slow", "acknowledge")[self.number % 3]
        if mode is not None:
            order = {"partner": "bank", "call": "release_funds", "mode": mode, "times": 1, "seconds": 0.5}
            await self.company.fault(**order, match=self.case["business_key"])

    async def run(self) -> None:
        """Whoever comes too late is told so; that both are accepted means that a release was stopped or recalled."""
        if self.number % 3 == 0:
            approved, rejected = await asyncio.gather(self.take("approve", 0.1), self.take("reject", 0.1))
        else:  # the bank is at it when somebody thinks better of it
            approved, rejected = await self.take("approve", 0), await self.take("reject", 0.3)
        assert approved or rejected
        now = await self.company.settled(self.case, "returned" if rejected else "released")
        ended = {"released": "release_funds", "returned": "return_funds"}[now["state"]]
        told = await transfers(self.company, self.case)
        assert told in ([ended], ["release_funds", "recall", "return_funds"][: 3 if rejected else 1]), told

    async def take(self, transition: str, hesitation: float) -> bool:
        await asyncio.sleep(self.chance.uniform(0, hesitation))
        try:
            await self.company.take(PLAYBOOK, self.case, transition)
        except Refused as refused:
            assert refused.code in TOO_LATE, refused  # noqa: PT017 - what must not be otherwise
            return False
        return True


async def killed(company: Company, point: str, folder: Path, work, caught_in: int) -> None:
    """Begin the work with the trap sprung, kill whoever is in it, and let the work come to its end."""
    victim = "api" if point.startswith(BY_API) else "worker"
    trap = Trap(folder, point)
    await company.stack.restart(victim, trap.environment)
    trap.spring()
    going = asyncio.gather(*work())
    await until_caught(trap, caught_in)
    await company.stack.kill(victim)
    caught = len(trap.caught())
    trap.unspring()
    await company.stack.start_service(victim)
    await going
    assert caught, f"nothing came by {point}"


@pytest.mark.parametrize("point", marked(POINTS, SAMPLE))
async def test_approve_against_reject(company: Company, point: str, seed: int, report, tmp_path):
    chance = random.Random(f"{seed} {point}")
    races = [Race(company, chance, number) for number in range(AT_ONCE)]
    await asyncio.gather(*(race.arrange() for race in races))
    await killed(company, point, tmp_path, lambda: [race.run() for race in races], AT_ONCE)
    await report.of_cases(point, company, [race.case["case_id"] for race in races])


@pytest.mark.parametrize("point", marked(WHEN_RECALLED, SAMPLE_WHEN_RECALLED))
async def test_a_disputed_release_is_recalled_before_it_is_returned(company: Company, point: str, report, tmp_path):
    """Also the one that nobody had looked at."""

    async def opened(payee: str) -> Json:
        key = f"PR-{random.randrange(10**9)}"
        service = company.people[PLAYBOOK.name]["service"]
        case = await company.insist(lambda again: service.open(PLAYBOOK.name, key, payment(key, payee), key=again))
        if not payee:
            await company.settled(case, "in_review")
            await company.take(PLAYBOOK, case, "approve")
        return await company.settled(case, "released")

    async def disputed(case: Json) -> None:
        await company.take(PLAYBOOK, case, "reopen")
        await company.settled(case, "in_review")
        await company.take(PLAYBOOK, case, "reject")
        await company.settled(case, "returned")
        assert await transfers(company, case) == ["release_funds", "recall", "return_funds"]

    cases = await asyncio.gather(*(opened(payee) for payee in ("", "Well known ", "", "Well known ")))
    await killed(company, point, tmp_path, lambda: [disputed(case) for case in cases], len(cases))
    await report.of_cases(point, company, [case["case_id"] for case in cases])


def test_the_referee_sees_money_that_is_out_twice():
    """What every suite checks of payment review, on a ledger that is wrong."""

    def done(number: int, call: str, transfer: str, **more: str) -> Json:
        request = {"payment": "P"} if call != "recall" else {"transfer": transfer}
        return {
            "number": number,
            "call": call,
            "key": f"k{number}",
            "request": request,
            "answer": {"transfer": transfer},
        }

    out, back, recalled = done(1, "release_funds", "T1"), done(3, "return_funds", "T2"), done(2, "recall", "T1")
    assert list(PLAYBOOK.promise([out, recalled, back])) == []
    assert [key for key, _ in PLAYBOOK.promise([out, back])] == ["k3"]
    assert [key for key, _ in PLAYBOOK.promise([back, {**recalled, "number": 4}, out])] == ["k3"]
    assert PATIENCE
