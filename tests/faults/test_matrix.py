"""The kill matrix: every command and override, killed at every place, by every process that may die.

One column at a time: every scenario's case is brought to the moment before its command, the trap is sprung, all
commands are given, and everybody who reaches the place waits there. Then ONE kill hits them all at exactly that place.
What a scenario can reach is what it reached in the first column, where nobody died; not reaching it is a failure.
"""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import pytest_asyncio

from caseward.failpoints import NAMES, NOBODY, PASSED
from tests.faults.company import PATIENCE, Company, Json
from tests.faults.conftest import AT_ANY_MOMENT, MAIL_POINTS, NOBODY_DIES, OUTSIDE, Report
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.playbook import Playbook
from tests.processes import PLAYBOOKS

API_POINTS = tuple(sorted(name for name in NAMES if name.startswith(("command.", "callback."))))
COMMAND_POINTS = tuple(name for name in API_POINTS if name.startswith("command."))
# An approval has three effects: the ERP is idempotent, the bank can be asked, the mail is neither.
TIMES = {"effect": (1, 2, 3)}
WORKER_POINTS = tuple(
    f"{name}:{nth}"
    for name in sorted(NAMES - MAIL_POINTS - set(API_POINTS))
    for nth in TIMES.get(name.partition(".")[0], (1,))
)
WOKEN = "reconciler.woken"
ROUNDS_OUTSIDE = 3
SAMPLE = {"command.after_commit", "effect.acted:1"}

# A round of a trap ends when all are in it, or when nobody has come for a while, or before any timeout of ours could
# free who waits: with a restart, and another round for the others.
ROUND = 4.0
HOLDING = 8.0  # where each who waits holds a transaction open, which Postgres ends after 10 s
HOLDING_NOTHING = 60.0
NOBODY_CAME = 60.0
HOPELESS = 240.0


class Trap:
    """A failpoint at which many wait."""

    def __init__(self, folder: Path, order: str) -> None:
        self.book = folder / "book"
        self.environment = {"CASEWARD_FAILPOINT": f"{order}@{self.book}"}

    def spring(self) -> None:
        self.book.touch()

    def unspring(self) -> None:
        self.book.unlink()

    def caught(self) -> list[tuple[str, str]]:
        """Place and case of everybody who came, in order."""
        lines = self.book.read_text().splitlines() if self.book.exists() else []
        stood = [(place, case) for place, _, case in (line.partition(" ") for line in lines)]
        return [(place, case) for place, case in stood if not place.endswith(PASSED)]


class Column:
    """Every scenario once."""

    def __init__(self, company: Company, scenarios: tuple[Scenario, ...]) -> None:
        self.company = company
        self.scenarios = scenarios
        self.before: dict[Scenario, Json] = {}
        self.acts: dict[Scenario, asyncio.Task[Json]] = {}

    async def arrange(self) -> None:
        # What tries again by itself comes last: it would be done before a slow machine has the others ready.
        for astray in (False, True):
            those = [scenario for scenario in self.scenarios if scenario.astray is astray]
            made = await asyncio.gather(*(scenario.arrange(self.company) for scenario in those))
            self.before |= zip(those, made, strict=True)

    def act(self) -> None:
        """Give every command; whoever sends it insists until it is answered."""
        self.acts = {
            scenario: asyncio.create_task(scenario.act(self.company, self.before[scenario]))
            for scenario in self.scenarios
        }

    async def cases(self) -> dict[str, Scenario]:
        """Whose case is which."""
        return {(await act)["case_id"]: scenario for scenario, act in self.acts.items()}

    async def settle(self) -> None:
        """Each command is completed once, and its case is where it leads."""
        await asyncio.gather(*(self._settle(scenario, act) for scenario, act in self.acts.items()))

    async def _settle(self, scenario: Scenario, act: asyncio.Task[Json]) -> None:
        told = await act
        await self.company.settled(told, scenario.ends)
        if "operation_id" in told:
            operation = await self.company.operator.operation(told["operation_id"])
            assert operation["state"] == "completed", f"{scenario.name}: {operation}"


@pytest.fixture(scope="session", params=PLAYBOOKS.values(), ids=list(PLAYBOOKS))
def playbook(request: pytest.FixtureRequest) -> Playbook:
    """Each process has a matrix of its own."""
    return request.param


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def reachable(
    company: Company, playbook: Playbook, report: Report, tmp_path_factory
) -> dict[Scenario, Counter[str]]:
    """How often each scenario passes each failpoint when nobody dies: the column to compare the others with."""
    traps = {name: Trap(tmp_path_factory.mktemp(name), "*") for name in ("api", "worker")}
    for name, trap in traps.items():
        await company.stack.restart(name, trap.environment)
    scenarios = SCENARIOS[playbook.name]
    column = Column(company, scenarios)
    await column.arrange()
    for trap in traps.values():
        trap.spring()
    column.act()
    await column.settle()
    cases = await column.cases()
    passed: dict[Scenario, Counter[str]] = {scenario: Counter() for scenario in scenarios}
    for place, case in traps["worker"].caught():
        if case in cases and (place != WOKEN or cases[case].astray):
            passed[cases[case]][place] += 1
    # The API's failpoints know of no case, but every command comes by them: once, and nothing else does.
    commands = Counter(place for place, case in traps["api"].caught() if case == NOBODY)
    for place, case in traps["api"].caught():
        if case in cases:
            passed[cases[case]][place] += 1
    by_api = [scenario for scenario in scenarios if scenario.by_api]
    for place in COMMAND_POINTS:
        assert commands[place] >= len(by_api), f"not every command passed {place}"
        for scenario in by_api:
            passed[scenario][place] = 1
    for name in traps:
        await company.stack.restart(name)
    await report.of_column(NOBODY_DIES, column.company, cases)
    return passed


def marked(points: tuple[str, ...]) -> list:
    return [pytest.param(point, marks=() if point in SAMPLE else pytest.mark.full) for point in points]


@pytest.mark.parametrize("point", marked(API_POINTS))
async def test_the_api_dies(company: Company, point: str, playbook, reachable, report: Report, tmp_path):
    """Nobody got an answer; the same command again finds out, and happened once."""
    scenarios = passing(playbook, reachable, point, 1)
    # Who waits before its commit holds one of the API's connections, so all at once are too many.
    for part in filter(None, (scenarios[::2], scenarios[1::2])):
        trap = Trap(tmp_path, point)
        await company.stack.restart("api", trap.environment)
        column = Column(company, part)
        await column.arrange()
        trap.spring()
        column.act()
        await until_caught(trap, len(part), within=HOLDING if point.endswith("before_commit") else HOLDING_NOTHING)
        await company.stack.kill("api")
        caught = len(trap.caught())
        trap.unspring()
        await company.stack.start_service("api")
        await column.settle()
        assert caught >= len(part), f"{caught} commands were in the API when it died"
        await report.of_column(point, company, await column.cases())


@pytest.mark.parametrize("point", marked(WORKER_POINTS))
async def test_the_worker_dies(company: Company, point: str, playbook, reachable, report: Report, tmp_path):
    """Every case is at the very same place when the worker dies; the next worker brings each to its end."""
    place, _, nth = point.partition(":")
    scenarios = passing(playbook, reachable, place, int(nth))
    if not scenarios:
        return
    trap = Trap(tmp_path, point)
    await company.stack.restart("worker", trap.environment)
    column = Column(company, scenarios)
    await column.arrange()
    trap.spring()
    column.act()
    cases = await column.cases()
    give_up_at = time.monotonic() + HOPELESS
    missing, before = set(cases), 0
    while missing and time.monotonic() < give_up_at:
        await until_caught(trap, len(cases), before=before)
        await company.stack.kill("worker")
        before = len(trap.caught())
        missing -= {case for _, case in trap.caught()}
        await company.stack.start_service("worker", trap.environment if missing else None)
    assert not missing, f"never at {point}: {sorted(cases[case].name for case in missing)}"
    await column.settle()
    await report.of_column(place, company, cases)


def passing(playbook: Playbook, reachable: dict[Scenario, Counter[str]], place: str, nth: int) -> tuple[Scenario, ...]:
    """The rows that come by a place so often; none only where the playbook says that no story does."""
    found = tuple(scenario for scenario in SCENARIOS[playbook.name] if reachable[scenario][place] >= nth)
    wanted = {place, f"{place}:{nth}"} & playbook.never_at
    assert bool(found) != bool(wanted), (
        f"{playbook.name}: {len(found)} rows pass {place}:{nth}, never_at says otherwise"
    )
    return found


async def until_caught(trap: Trap, wanted: int, *, before: int = 0, within: float = ROUND) -> None:
    """Wait until all are in the trap, or no more can be waited for; `before` are there from earlier rounds."""
    began = time.monotonic()
    seen, since, first = before, began, None
    while True:
        now, count = time.monotonic(), len(trap.caught())
        if count > seen:
            seen, since, first = count, now, first or now
        if (
            seen >= wanted
            or (first and (now - since > within / 2 or now - first > within))
            or now - began > NOBODY_CAME
        ):
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "victim", marked(tuple(f"{name}:{nth + 1}" for name in OUTSIDE for nth in range(ROUNDS_OUTSIDE)))
)
async def test_a_process_dies_at_any_moment(company: Company, victim: str, playbook, seed: int, report: Report):
    """All commands are given at once, and somewhere on their way a process is gone."""
    chance = random.Random(f"{seed} {victim} {playbook.name}")
    name = victim.partition(":")[0]
    column = Column(company, SCENARIOS[playbook.name])
    await column.arrange()
    column.act()
    await asyncio.sleep(chance.uniform(0, 1.5))
    await company.stack.kill(name)
    await asyncio.sleep(chance.uniform(0, 1.5))
    await company.stack.start_service(name)
    await column.settle()
    await report.of_column(AT_ANY_MOMENT[name], company, await column.cases())


def test_the_sample_exists():
    every = {*API_POINTS, *WORKER_POINTS, *(f"{name}:1" for name in OUTSIDE)}
    assert every >= SAMPLE
    assert PATIENCE.total_seconds() > HOPELESS
