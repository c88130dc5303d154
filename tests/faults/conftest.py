"""A seed that is printed, and the table that `make faults` shows and keeps."""

import json
import os
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from _pytest._io import TerminalWriter

from caseward.failpoints import NAMES
from tests.faults.company import Company
from tests.faults.invariants import by_case
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.integration.conftest import database, patience  # noqa: F401 - a Postgres alone, for races

REPORT = Path(os.environ.get("CASEWARD_FAULTS_REPORT", ".caseward/reports/faults.json"))
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- the kill matrix, written by `make faults` -->", "<!-- end of the kill matrix -->"
NOBODY_DIES = "nobody"
OUTSIDE = ("api", "worker", "temporal", "postgres")
AT_ANY_MOMENT = {name: f"{name} at any moment" for name in OUTSIDE}
MAIL_POINTS = frozenset({"mail.begun", "mail.sent"})  # no command's way leads by them; `test_mail.py` has them
COLUMNS = [NOBODY_DIES, *sorted(NAMES - MAIL_POINTS), *AT_ANY_MOMENT.values()]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Given by `--seed`, else drawn; printed either way."""
    chosen = request.config.getoption("--seed") or random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201 - pytest shows it where a test fails
    return chosen


class Report:
    """What was tried; each row first checks that every invariant holds."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.matrix: dict[str, dict[str, Counter[str]]] = {}
        """By column and scenario: cases and violations."""
        self.ran: dict[str, dict[str, str]] = {}
        """By column and scenario: the day."""

    async def of_kill(self, killed: str, point: str, company: Company, cases: list) -> None:
        await self._add(company, killed=killed, at=point, cases=len(cases))

    async def of_cases(self, point: str, company: Company, cases: list[str]) -> None:
        """One kill over these cases alone."""
        found = await company.violations(cases)
        self.rows.append({"killed": "at once", "at": point, "cases": len(cases), "violations": len(found)})
        assert not found, "\n".join(found)

    async def of_soak(self, seed: int, killed: list[str], company: Company, cases: int) -> None:
        await self._add(company, killed=f"{len(killed)} at random", at=f"seed {seed}", cases=cases)

    async def of_days(self, seed: int, days: int, company: Company, cases: int) -> None:
        """Days of a stateful test, each checked when it was over; now all together."""
        await self._add(company, killed=f"{days} days at random", at=f"seed {seed}", cases=cases)

    async def of_outage(self, server: str, company: Company, cases: int) -> None:
        await self._add(company, killed=server, at="away for a while", cases=cases)

    async def of_column(self, column: str, company: Company, cases: dict[str, Scenario]) -> None:
        """One kill of the matrix over these cases."""
        found = await company.violations(cases)
        broken = by_case(found)
        for case_id, scenario in cases.items():
            cell = self.matrix.setdefault(column, {}).setdefault(scenario.name, Counter())
            cell.update(cases=1, violations=broken[case_id])
            self.ran.setdefault(column, {})[scenario.name] = str(datetime.now(UTC).date())
        assert not found, "\n".join(found)

    def of_release(self, cases: int, limit: int, most: int, took: float) -> None:
        """A bulk release, after its own test has checked it."""
        at = f"{most} of {limit}/s, {took:.0f} s"
        self.rows.append({"killed": "nobody: bulk", "at": at, "cases": cases, "violations": 0})

    async def _add(self, company: Company, **row) -> None:
        found = await company.violations()
        self.rows.append({**row, "violations": len(found)})
        assert not found, "\n".join(found)

    def recall(self) -> None:
        """Cells that this run did not come to: as the run before left them, hours need not be spent again on all."""
        before = json.loads(REPORT.read_text()) if REPORT.exists() else {}
        for column, cells in before.get("ran", {}).items():
            for scenario, day in cells.items():
                if scenario not in self.ran.get(column, {}):
                    self.ran.setdefault(column, {})[scenario] = day
                    self.matrix.setdefault(column, {})[scenario] = Counter(before["matrix"][column][scenario])

    def table(self) -> list[str]:
        """The matrix in Markdown: a row for each scenario, a column for each place that it may reach."""
        columns = sorted(self.matrix, key=COLUMNS.index)
        lines = [
            f"| command under fire | {' | '.join(f'`{column}`' if '.' in column else column for column in columns)} |",
            f"|---|{'---|' * len(columns)}",
        ]
        for scenario in (row for rows in SCENARIOS.values() for row in rows):
            cells = [self.matrix[column].get(scenario.name) for column in columns]
            shown = [f"{cell['cases']} / {cell['violations']}" if cell else "" for cell in cells]
            lines.append(f"| {scenario.name} | {' | '.join(shown)} |")
        totals = [sum(self.matrix[column].values(), Counter()) for column in columns]
        shown = [f"{total['cases']} / {total['violations']}" for total in totals]
        days = sorted({day for cells in self.ran.values() for day in cells.values()})
        return [*lines, f"| **all** | {' | '.join(shown)} |", "", f"Played from {days[0]} to {days[-1]}."]

    def write(self, terminal: TerminalWriter) -> None:
        """As JSON, on the screen, and, if the whole matrix was run, into its page."""
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        self.recall()
        document = {"matrix": self.matrix, "ran": self.ran, "others": self.rows}
        REPORT.write_text(json.dumps(document, indent=2) + "\n")
        terminal.line(f"\n{'killed':<16}{'at':<32}{'cases':>6}{'violations':>12}")
        for row in self.rows:
            terminal.line(f"{row['killed']:<16}{row['at']:<32}{row['cases']:>6}{row['violations']:>12}")
        for line in self.table() if self.matrix else ():
            terminal.line(line)
        terminal.line(f"written to {REPORT}")
        if set(self.matrix) == set(COLUMNS):
            page = PAGE.read_text()
            before, _, rest = page.partition(BEGIN)
            _, _, after = rest.partition(END)
            PAGE.write_text("\n".join([before + BEGIN, "", *self.table(), "", END + after]))
            terminal.line(f"and to {PAGE}")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest):
    report = Report()
    yield report
    if request.config.getoption("--full"):
        report.write(request.config.get_terminal_writer())
