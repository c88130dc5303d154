"""How Postgres answers what the screens ask: every plan as it was run, and whether it grows with the company.

The plans are those of the application's own statements on its own connections, prepared ones included: Postgres sends
each behind its answer (`auto_explain`). A statement of its own for explaining might be planned otherwise.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.errors import Diagnostic
from sqlalchemy import event

from caseward.db.session import Database

BIG = 1000  # rows from which on a table is one that grows
MOST_READ = (
    1500  # rows for one statement: a page of cases with all that belongs to them, or one case with a long history
)
# Of those, rows that were not wanted: 26 cases of a kind that is 5% of all, met on the way from the newest on.
MOST_WASTED = 500
EXPLAINING = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_timing = off",
    "SET auto_explain.log_format = json",
    "SET auto_explain.log_level = notice",
    "SET auto_explain.log_parameter_max_length = 200",
)


@dataclass(frozen=True)
class Scan:
    """One node that reads a table."""

    node: str
    table: str
    index: str | None
    read: int
    wasted: int


@dataclass(frozen=True)
class Plan:
    """One statement as it was run."""

    screen: str
    statement: str
    parameters: str
    returned: int
    scans: tuple[Scan, ...]

    @property
    def read(self) -> int:
        return sum(scan.read for scan in self.scans)

    @property
    def wasted(self) -> int:
        return sum(scan.wasted for scan in self.scans)

    def __str__(self) -> str:
        how = ", ".join(f"{scan.index or scan.node + ' ' + scan.table} {scan.read}" for scan in self.scans)
        return f"{self.returned} rows from {self.read} ({self.wasted} not wanted): {how}"


@dataclass
class Watch:
    """Gathers the plans of a database's connections, each under the screen that is being looked at."""

    screen: str = ""
    plans: list[Plan] = field(default_factory=list[Plan])

    def over(self, database: Database) -> None:
        """From the next connection on; call it before the first. It takes a superuser."""

        @event.listens_for(database.engine.sync_engine, "connect")
        def explain(connection: Any, _: object) -> None:
            cursor = connection.cursor()
            for statement in EXPLAINING:
                cursor.execute(statement)
            cursor.close()
            connection.commit()
            connection.driver_connection.add_notice_handler(self._hear)

    def _hear(self, said: Diagnostic) -> None:
        before, found, text = (said.message_primary or "").partition("plan:\n")
        if found and before.startswith("duration:"):
            told = json.loads(text)
            scans = tuple(_scans(told["Plan"]))
            self.plans.append(
                Plan(
                    self.screen,
                    " ".join(told["Query Text"].split()),
                    told.get("Query Parameters", ""),
                    round(told["Plan"]["Actual Rows"] * told["Plan"]["Actual Loops"]),
                    scans,
                )
            )


def _scans(node: Mapping[str, Any]) -> Iterator[Scan]:
    loops = node["Actual Loops"]
    wasted = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    if loops and ("Relation Name" in node or "Index Name" in node):
        read = 0 if node["Node Type"] == "Bitmap Heap Scan" else node["Actual Rows"] + wasted
        yield Scan(
            node["Node Type"],
            node.get("Relation Name", ""),
            node.get("Index Name"),
            round(read * loops),
            round(wasted * loops),
        )
    for below in node.get("Plans", ()):
        yield from _scans(below)


def big_tables(url: str) -> frozenset[str]:
    """The tables that grow with the company."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= %s", [BIG])
        return frozenset(name for (name,) in rows)


def faults(plan: Plan, big: frozenset[str]) -> list[str]:
    """What in the plan would take longer in a larger company."""
    found = [f"reads all of {scan.table}" for scan in plan.scans if scan.node == "Seq Scan" and scan.table in big]
    if plan.read > MOST_READ:
        found.append(f"reads {plan.read} rows")
    if plan.wasted > MOST_WASTED:
        found.append(f"reads {plan.wasted} rows that it does not want")
    return found
