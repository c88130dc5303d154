"""A seed that is printed, and the table that `make faults` shows and keeps."""

import json
import os
import random
from pathlib import Path

import pytest

from tests.faults.company import Company

REPORT = Path(os.environ.get("CASEWARD_FAULTS_REPORT", ".caseward/reports/faults.json"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Given by `--seed`, else drawn; printed either way."""
    chosen = request.config.getoption("--seed") or random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201 - pytest shows it where a test fails
    return chosen


class Report:
    """The rows of the table; each first checks that every invariant holds."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    async def of_kill(self, killed: str, point: str, company: Company, cases: list) -> None:
        await self._add(company, killed=killed, at=point, cases=len(cases))

    async def of_soak(self, seed: int, killed: list[str], company: Company, cases: int) -> None:
        await self._add(company, killed=f"{len(killed)} at random", at=f"seed {seed}", cases=cases)

    async def of_outage(self, server: str, company: Company, cases: int) -> None:
        await self._add(company, killed=server, at="away for a while", cases=cases)

    async def _add(self, company: Company, **row) -> None:
        found = await company.violations()
        self.rows.append({**row, "violations": len(found)})
        assert not found, "\n".join(found)


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest):
    report = Report()
    yield report
    if request.config.getoption("--full"):
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(report.rows, indent=2) + "\n")
        terminal = request.config.get_terminal_writer()
        terminal.line(f"\n{'killed':<16}{'at':<26}{'cases':>6}{'violations':>12}")
        for row in report.rows:
            terminal.line(f"{row['killed']:<16}{row['at']:<26}{row['cases']:>6}{row['violations']:>12}")
        terminal.line(f"written to {REPORT}")
