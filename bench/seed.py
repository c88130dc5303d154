"""`python -m bench.seed`: fills an empty database with a company's cases, all of them worked, most of them over.

The engine works a few dozen model cases (`bench.company`). Every other case is a copy of one, with ids, keys, people
and instants of its own, and with a timeline whose hashes are those that the engine would have chained. Of every 2000
cases the rows lie in the tables in the order of their instants, so that what belongs to one case is spread.
"""

import argparse
import asyncio
import hashlib
import random
import re
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import select

from bench.company import LONG, LONG_CASES, MODELS, REST, Model
from bench.hand import KEY, Hand
from caseward.cases.timeline import canonical_text
from caseward.db.session import Database
from caseward.db.tables import Case, Entry
from caseward.evidence import GENESIS
from dev.stack import Stack
from processes import CATALOGUE
from settings import Settings

FOLDER = Path(".caseward/million").absolute()
show = partial(print, flush=True)
BATCH = 2000  # cases a transaction
PEOPLE = 40  # of each role
# What a case consists of, and by which column its rows are found.
TABLES = {
    "cases": "id",
    "subjects": "case_id",
    "documents": "case_id",
    "operations": "case_id",
    "proposal_answers": "case_id",
    "effects": "case_id",
    "attempts": "(SELECT case_id FROM effects WHERE key = effect_key)",
}
FIRST = ("Aurora", "Baltic", "Cobalt", "Delta", "Ember", "Fjord", "Granite", "Harbour", "Indigo", "Juniper", "Kestrel")
SECOND = (
    "Tools",
    "Paper",
    "Freight",
    "Foods",
    "Textiles",
    "Energy",
    "Optics",
    "Timber",
    "Medical",
    "Software",
    "Glass",
)
LEGAL_FORM = ("GmbH", "AG", "AS", "Ltd", "SARL", "BV", "SE")
GIVEN = ("Ada", "Bo", "Cleo", "Dag", "Edda", "Finn", "Gro", "Hugo", "Ines", "Jon", "Kim", "Liv", "Max", "Nora", "Ole")
FAMILY = (
    "Berg",
    "Costa",
    "Dahl",
    "Engel",
    "Falk",
    "Grau",
    "Holm",
    "Iversen",
    "Juhl",
    "Kern",
    "Lund",
    "Moser",
    "Nyberg",
)
PREFIX = {"vendor_onboarding": "V", "booking": "BK", "payment_review": "P", "compliance_approval": "C"}
NAMES = ("Northwind Tools GmbH", "Ada Berg", "Nordlys Trading AS")
ROLES = sorted({role.name.replace("_", "-") for each in CATALOGUE.values() for role in each.roles}, key=len)
HEAD = "HEAD-OF-THE-CHAIN"
MOVING = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00(?::00)?|Z)"
    rf"|{KEY}-\d{{4}}"
    rf"|(?:{'|'.join([*ROLES, 'operator', 'senior-operator'])})-0[01]\b"
    rf"|{'|'.join(NAMES)}|{HEAD}"
)
AT = re.compile(r"\d{4}-\d\d-\d\d[ T]")
ENTRY_COLUMNS = tuple(column.name for column in Entry.__table__.columns if column.name != "hash")


@dataclass(frozen=True)
class Text:
    """Rows as COPY takes them, or what a hash covers, with places for what differs from case to case."""

    form: str
    values: Callable[[Sequence[str]], Any] | None

    def of(self, values: Sequence[str]) -> str:
        return self.form % self.values(values) if self.values else self.form


@dataclass
class Template:
    """A model case, ready to be copied."""

    model: Model
    process: str
    stretches: list[timedelta]
    """About how long after the one before each stretch began."""
    moving: dict[str, int] = field(default_factory=dict[str, int])
    """What differs from case to case, and which of a copy's values stands for it."""
    makers: list[tuple[str, int, Any]] = field(default_factory=list[tuple[str, int, Any]])
    """How each of these values is made: its kind, its stretch, and what else it takes."""
    rows: list[tuple[str, int, Text]] = field(default_factory=list[tuple[str, int, Text]])
    """By table, with the value that says when the row came."""
    entries: list[tuple[int, Text, Text]] = field(default_factory=list[tuple[int, Text, Text]])
    """When it came, the line, and what its hash covers."""

    def values(self, chance: random.Random, *, serial: int, begun: datetime) -> list[str]:
        """One copy's values; its last stretch began then."""
        starts = [begun]
        for about in reversed(self.stretches[1:]):
            starts.append(starts[-1] - about * chance.uniform(0.6, 1.4))
        starts.reverse()
        people = chance.randrange(PEOPLE)
        found: list[str] = []
        for kind, stretch, more in self.makers:
            match kind:
                case "at":
                    found.append((starts[stretch] + more).isoformat())
                case "id":
                    found.append(_uuid7(starts[stretch] + more, chance))
                case "key":
                    found.append(_spelt(chance.getrandbits(128)))
                case "person":
                    found.append(f"{more[:-2]}{(people + (more[-1] == '1')) % PEOPLE + 2:02}")
                case "name":
                    found.append(_name(more, chance))
                case "head":
                    found.append(HEAD)  # known once the chain is made
                case _:
                    found.append(f"{PREFIX[self.process]}-{serial:08}")
        return found


def _name(like: str, chance: random.Random) -> str:
    if like == "Ada Berg":
        return f"{chance.choice(GIVEN)} {chance.choice(FAMILY)}"
    return f"{chance.choice(FIRST)} {chance.choice(SECOND)} {chance.choice(LEGAL_FORM)}"


def _uuid7(at: datetime, chance: random.Random) -> str:
    milliseconds = int(at.timestamp() * 1000)
    rest = chance.getrandbits(74)
    return _spelt(milliseconds << 80 | 0x7 << 76 | (rest >> 62) << 64 | 0b10 << 62 | rest & (1 << 62) - 1)


def _spelt(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Reader:
    """Makes a template of a worked case."""

    def __init__(self, template: Template, marks: Sequence[datetime], until: datetime) -> None:
        self.template, self.marks, self.until = template, marks, until

    def text(self, written: str) -> tuple[Text, int]:
        """The text with places for what moves, and the value of the first instant in it."""
        form: list[str] = []
        places: list[int] = []
        first, end = -1, 0
        for match in MOVING.finditer(written):
            place = self._place(match[0])
            if place is None:
                continue
            form += [written[end : match.start()].replace("%", "%%"), "%s"]
            places.append(place)
            end = match.end()
            if first < 0 and AT.match(match[0]):
                first = place
        form.append(written[end:].replace("%", "%%"))
        if not places:
            return Text(written, None), first
        return Text("".join(form), itemgetter(*places)), first

    def _place(self, found: str) -> int | None:
        if found in self.template.moving:
            return self.template.moving[found]
        if AT.match(found):
            at = datetime.fromisoformat(found)
            # What the business says of its own time stays as it is.
            if not self.marks[0] - timedelta(minutes=1) < at < self.until + timedelta(days=200):
                return None
            found, maker = at.isoformat(), ("at", *self._when(at))
            if found in self.template.moving:
                return self.template.moving[found]
        elif found == HEAD:
            maker = ("head", 0, None)
        elif found.startswith(KEY):
            maker = ("business key", 0, None)
        elif found in NAMES:
            maker = ("name", 0, found)
        elif found[-3] == "-":
            maker = ("person", 0, found)
        elif UUID(found).version == 7:
            made_at = datetime.fromtimestamp((UUID(found).int >> 80) / 1000, UTC)
            maker = ("id", *self._when(made_at + timedelta(milliseconds=1)))
        else:
            maker = ("key", 0, None)
        self.template.makers.append(maker)
        place = self.template.moving[found] = len(self.template.makers) - 1
        return place

    def _when(self, at: datetime) -> tuple[int, timedelta]:
        stretch = max((index for index, mark in enumerate(self.marks) if mark <= at), default=0)
        return stretch, at - self.marks[stretch]


async def work_models(url: str, *, rounds: int) -> list[Template]:
    """Have the engine work every model, and read what it wrote."""
    database = Database.connect(url, pool_size=2)
    templates: list[Template] = []
    try:
        for number, model in enumerate((*MODELS, LONG)):
            hand = Hand(database, number, rounds=rounds)
            await model.work(hand)
            templates.append(await _read(url, database, model, hand))
            with psycopg.connect(_libpq(url), autocommit=True) as connection:
                # What fails in one would trip the breaker in the next; and nobody is to be told of models.
                connection.execute("TRUNCATE pauses, pause_changes, outbox_messages")
    finally:
        await database.close()
    return templates


async def _read(url: str, database: Database, model: Model, hand: Hand) -> Template:
    marks = [at for at, _ in hand.marks]
    template = Template(model, hand.process, [about for _, about in hand.marks])
    reader = Reader(template, marks, await hand.now())
    async with database.transaction() as session:
        case = await session.get_one(Case, hand.case_id)
        entries = await session.scalars(select(Entry).where(Entry.case_id == hand.case_id).order_by(Entry.number))
        covered = [canonical_text(row) for row in entries]
    with psycopg.connect(_libpq(url), options="-c timezone=UTC") as connection:
        came = 0
        for table, key in TABLES.items():
            for line in _lines(connection, f"SELECT * FROM {table} WHERE {key} = '{hand.case_id}'"):
                text, at = reader.text(line.replace(case.timeline_head.hex(), HEAD))
                came = at if at >= 0 else came
                template.rows.append((table, came, text))
        columns = ", ".join(ENTRY_COLUMNS)
        query = f"SELECT {columns} FROM timeline_entries WHERE case_id = '{hand.case_id}' ORDER BY number"
        for line, text in zip(_lines(connection, query), covered, strict=True):
            row, at = reader.text(line)
            template.entries.append((at, row, reader.text(text)[0]))
    return template


def _lines(connection: psycopg.Connection[Any], query: str) -> list[str]:
    with connection.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        return b"".join(bytes(each) for each in copy).decode().splitlines()


@contextmanager
def bare_tables(connection: psycopg.Connection[Any]) -> Generator[None]:
    """Without indexes, keys and triggers while rows pour in; afterwards as the migrations made them."""
    names = [*TABLES, "timeline_entries"]
    foreign, own = (
        connection.execute(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE contype = ANY(%s) AND (conrelid = ANY(%s::regclass[]) OR confrelid = ANY(%s::regclass[]))",
            [kinds, names, names],
        ).fetchall()
        for kinds in (["f"], ["p", "u"])
    )
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = ANY(%s::regclass[]) AND indexrelid NOT IN (SELECT conindid FROM pg_constraint)",
        [names],
    ).fetchall()
    for table, name, _ in [*foreign, *own]:
        _run(connection, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        _run(connection, f"DROP INDEX {name}")
    for name in names:
        _run(connection, f"ALTER TABLE {name} DISABLE TRIGGER USER")
    yield
    for name in names:
        _run(connection, f"ALTER TABLE {name} ENABLE TRIGGER USER")
    connection.execute("SET maintenance_work_mem = '1GB'")
    for table, name, definition in own:
        _run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for _, definition in indexes:
        _run(connection, definition)
    for table, name, definition in foreign:
        _run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for name in names:
        _run(connection, f"VACUUM (ANALYZE) {name}")


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement.encode())


Copy = tuple[int, int, datetime]
"""Which template, the number of the copy, and when its last stretch began."""


def planned(cases: int, templates: Sequence[Template], now: datetime) -> list[Copy]:
    """Every case there is to be, those first that moved last longest ago."""
    chance = random.Random(cases)
    copies: list[Copy] = []
    counts = [LONG_CASES if each.model is LONG else max(2, round(each.model.share * cases)) for each in templates]
    rest = next(index for index, each in enumerate(templates) if each.model is REST)
    counts[rest] += max(0, cases - sum(counts))
    for index, count in enumerate(counts):
        model = templates[index].model
        for _ in range(count):
            age = chance.uniform(model.youngest.total_seconds(), model.oldest.total_seconds())
            copies.append((index, 0, now - timedelta(seconds=age)))
    copies.sort(key=itemgetter(2))
    return [(index, serial, at) for serial, (index, _, at) in enumerate(copies, start=1)]


def pour(url: str, templates: Sequence[Template], copies: Sequence[Copy]) -> int:
    """Write one batch of copies in one transaction; says how many timeline entries they have."""
    chance = random.Random(copies[0][1])
    rows: dict[str, list[tuple[str, str]]] = {name: [] for name in TABLES}
    entries: list[tuple[str, str]] = []
    for index, serial, begun in copies:
        template = templates[index]
        values = template.values(chance, serial=serial, begun=begun)
        previous = GENESIS
        for at, line, covered in template.entries:
            previous = hashlib.sha256(previous + covered.of(values).encode()).digest()
            entries.append((values[at], f"{line.of(values)}\t\\\\x{previous.hex()}\n"))
        values[template.moving[HEAD]] = previous.hex()
        for table, at, line in template.rows:
            rows[table].append((values[at], f"{line.of(values)}\n"))
    with psycopg.connect(url, options="-c synchronous_commit=off -c timezone=UTC") as connection:
        for table, lines in rows.items():
            _copy_in(connection, f"COPY {table} FROM STDIN", lines)
        _copy_in(connection, f"COPY timeline_entries ({', '.join((*ENTRY_COLUMNS, 'hash'))}) FROM STDIN", entries)
    return len(entries)


def _copy_in(connection: psycopg.Connection[Any], statement: str, lines: list[tuple[str, str]]) -> None:
    lines.sort()
    with connection.cursor().copy(statement.encode()) as copy:
        copy.write("".join(line for _, line in lines))


async def fill(url: str, *, cases: int, processes: int = 2, rounds: int = 100) -> dict[str, int]:
    """Fill an empty, migrated database; says how many rows each table has then."""
    server = _libpq(url)
    with psycopg.connect(server, autocommit=True, options="-c timezone=UTC") as connection:
        if connection.execute("SELECT FROM cases LIMIT 1").fetchone():
            sys.exit("This database has cases already. Seed an empty one.")
        templates = await work_models(url, rounds=rounds)
        copies = planned(cases, templates, datetime.now(UTC))
        batches = [copies[at : at + BATCH] for at in range(0, len(copies), BATCH)]
        with bare_tables(connection):
            if processes == 1:
                for batch in batches:
                    pour(server, templates, batch)
            else:
                began, done = time.monotonic(), 0
                with ProcessPoolExecutor(processes) as pool:
                    for entries in pool.map(partial(pour, server, templates), batches):
                        done += entries
                        show(f"\r{done:>12,} timeline entries, {time.monotonic() - began:.0f} s", end="")
                show(f"\n{'':>12} indexes, keys and statistics follow")
        counted = {
            name: connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone() or (0,)
            for name in (*TABLES, "timeline_entries")
        }
        return {name: count for name, (count,) in counted.items()}


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@asynccontextmanager
async def bench_database(url: str | None) -> AsyncGenerator[str]:
    """The database of that address, or an embedded one in a folder of its own; migrated."""
    if url is not None:
        settings = Settings.read().model_copy(update={"database_url": url, "data_dir": FOLDER})
    else:
        settings = Settings(_env_file=None, data_dir=FOLDER, database_url=None)  # pyright: ignore[reportCallIssue]
    async with Stack(settings, only=("postgres", "migrations")) as stack:
        yield stack.database_url


async def run(cases: int, url: str | None, processes: int, rounds: int) -> None:
    async with bench_database(url) as database_url:
        began = time.monotonic()
        counted = await fill(database_url, cases=cases, processes=processes, rounds=rounds)
        for name, count in counted.items():
            show(f"{name:<20}{count:>14,}")
        show(f"seeded in {time.monotonic() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--database-url", help=f"an empty Postgres; by default an embedded one in {FOLDER}")
    parser.add_argument("--processes", type=int, default=2, help="that make rows side by side")
    parser.add_argument("--rounds", type=int, default=100, help="of the cases with a long history")
    given = parser.parse_args()
    asyncio.run(run(given.cases, given.database_url, given.processes, given.rounds))


if __name__ == "__main__":
    main()
