"""`python -m bench.screens`: how long the console and the lists of the API take on a seeded database, and why.

First every screen once, with the plan of each statement behind it (`bench.plans`); then the real API in a process of
its own, asked over HTTP by one client and by four. The ratio is that to a page which asks next to nothing, measured in
between, so that a noisy machine is told apart from a slow screen.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psycopg

from api.app import create_app
from api.console import Console
from api.console.door import COOKIE
from api.tokens import Verifier
from bench.plans import Plan, Watch, big_tables, faults
from bench.seed import FOLDER
from caseward.db.session import Database
from cli.tokens import sign_token
from dev.service import free_ports
from dev.stack import Stack
from processes import CATALOGUE
from settings import Settings

REPORT = Path(".caseward/reports/screens.json")
PROMISED = 0.150  # seconds at p99
HERE = {"Sec-Fetch-Site": "same-origin"}
TRIVIAL = "next to nothing"
OPERATOR, REVIEWER, SENIOR, AUDITOR = "operator", "payment_reviewer", "senior_operator", "auditor"


@dataclass(frozen=True)
class Screen:
    """Something to look at."""

    name: str
    role: str
    paths: tuple[str, ...]
    """Of one kind; taken in turn."""
    promised: bool = True
    further: int = 0
    """So many pages further by the list's own address of what follows."""


def screens(url: str) -> list[Screen]:
    """What to look at in this database."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:

        def those(query: str) -> list[str]:
            return [str(value) for (value,) in connection.execute(query.encode())]

        small = those("SELECT id FROM cases WHERE timeline_number BETWEEN 1 AND 5 ORDER BY changed_at DESC LIMIT 20")
        typical = those(
            "SELECT id FROM (SELECT id, timeline_number FROM cases ORDER BY changed_at DESC LIMIT 2000) AS latest "
            "WHERE timeline_number BETWEEN 15 AND 30 ORDER BY id LIMIT 20"
        )
        old = those("SELECT id FROM cases ORDER BY changed_at LIMIT 20")
        blocked = those("SELECT id FROM cases WHERE condition = 'blocked' ORDER BY changed_at LIMIT 20")
        long = those("SELECT id FROM cases ORDER BY timeline_number DESC LIMIT 3")
        listed = ", ".join(f"'{case_id}'" for case_id in (*typical, *old))
        keys = those(f"SELECT business_key FROM cases WHERE id IN ({listed})")
        operations = those(f"SELECT DISTINCT ON (case_id) id FROM operations WHERE case_id IN ({listed})")
        effects = those(f"SELECT DISTINCT ON (case_id) key FROM effects WHERE case_id IN ({listed})")
        (assignee, *_) = those("SELECT assignee FROM cases WHERE assignee IS NOT NULL AND NOT final")
        half = those("SELECT timeline_number / 2 FROM cases ORDER BY timeline_number DESC LIMIT 1")[0]

    def work(**wanted: str) -> tuple[str, ...]:
        return ("/console/work?" + "&".join(f"{name}={quote(value)}" for name, value in wanted.items()),)

    def found(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"/console/work?q={quote(each)}" for each in words)

    filters: dict[str, dict[str, str]] = {
        "blocked": {"condition": "blocked"},
        "retrying": {"condition": "retrying"},
        "undoing": {"condition": "undoing"},
        "paused": {"condition": "paused"},
        "waiting": {"condition": "waiting"},
        "running": {"condition": "running"},
        "done": {"condition": "done"},
        "a process": {"process": "booking"},
        "a state": {"state": "suspended"},
        "an owner": {"recovery_owner": "treasury"},
        "an owner of many": {"recovery_owner": "payment_reviewer"},
        "an owner of nothing": {"recovery_owner": "engineering"},
        "waiting on a role": {"waiting_on": "vendor_reviewer"},
        "waiting on a partner": {"waiting_on": "hotel"},
        "waiting on nobody there": {"waiting_on": "vouchers"},
        "an assignee": {"assignee": assignee},
        "an assignee of nothing": {"assignee": "nobody"},
        "proposals": {"proposals": "true"},
        "overdue": {"overdue": "true"},
        "a process and a condition": {"process": "vendor_onboarding", "condition": "blocked"},
        "a state and a condition": {"process": "compliance_approval", "state": "approved", "condition": "done"},
        "a state nobody is in": {"process": "booking", "state": "releasing"},
    }
    api = "/v1/cases"
    return [
        Screen("Work, operator", OPERATOR, ("/console/work",)),
        Screen("Work, reviewer", REVIEWER, ("/console/work",)),
        Screen("Work, auditor", AUDITOR, ("/console/work",)),
        *(Screen(f"Work: {name}", OPERATOR, work(**wanted)) for name, wanted in filters.items()),
        Screen("Work: done, page 4", OPERATOR, work(condition="done"), further=3),
        Screen("Work: a process, page 4", OPERATOR, work(process="booking"), further=3),
        Screen("Work: waiting, page 4", OPERATOR, work(condition="waiting"), further=3),
        Screen("Search: business key", OPERATOR, found(keys)),
        Screen("Search: its beginning", OPERATOR, found([key[:-3] for key in keys])),
        Screen("Search: a letter", OPERATOR, found(["V"])),
        Screen("Search: a case", OPERATOR, found([*typical, *old])),
        Screen("Search: an operation", OPERATOR, found(operations)),
        Screen("Search: an effect", OPERATOR, found(effects)),
        Screen("Search: nothing there", OPERATOR, found(["ZZ-404", "0199d0c0-0000-7000-8000-000000000404"])),
        Screen("Search within blocked", OPERATOR, work(condition="blocked", q="V-")),
        Screen("Case, small", OPERATOR, tuple(f"/console/cases/{each}" for each in small)),
        Screen("Case, typical", OPERATOR, tuple(f"/console/cases/{each}" for each in typical)),
        Screen("Case, old", OPERATOR, tuple(f"/console/cases/{each}" for each in old)),
        Screen("Case, blocked", OPERATOR, tuple(f"/console/cases/{each}" for each in blocked)),
        Screen("Case, typical, senior", SENIOR, tuple(f"/console/cases/{each}" for each in typical)),
        Screen("Case, long", OPERATOR, tuple(f"/console/cases/{each}" for each in long)),
        Screen("Case, long, senior", SENIOR, tuple(f"/console/cases/{each}" for each in long)),
        Screen("Case, long, older entries", OPERATOR, tuple(f"/console/cases/{each}?before={half}" for each in long)),
        Screen("API: a case", OPERATOR, tuple(f"{api}/{each}" for each in typical)),
        Screen("API: a long case", OPERATOR, tuple(f"{api}/{each}" for each in long)),
        Screen("API: cases", OPERATOR, (api,)),
        Screen("API: blocked cases", OPERATOR, (f"{api}?condition=blocked&limit=200",)),
        Screen("API: cases, page 4", OPERATOR, (f"{api}?limit=200",), further=3),
        Screen("API: a timeline", OPERATOR, tuple(f"{api}/{each}/timeline" for each in typical)),
        Screen("API: a long timeline", OPERATOR, tuple(f"{api}/{each}/timeline?after={half}" for each in long)),
        Screen("Processes, reviewer", REVIEWER, ("/console/processes",)),
        Screen("Processes, operator", OPERATOR, ("/console/processes",), promised=False),
        Screen("Numbers, a week", OPERATOR, ("/console/numbers?days=7",), promised=False),
        Screen("Numbers, a month", OPERATOR, ("/console/numbers?days=30",), promised=False),
    ]


class People:
    """Everybody who looks, signed in as a browser is, with a token for the API beside it."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self.http, self.settings = http, settings
        self.headers: dict[str, dict[str, str]] = {}

    async def sign_in(self, role: str) -> None:
        person = {"person": f"demo-{role.replace('_', '-')}"}
        answer = await self.http.post("/console/sign-in", data=person, headers=HERE)
        key = re.search(rf"{COOKIE}=([^;]*)", answer.headers.get("set-cookie", ""))
        assert key is not None, f"{answer.status_code} {answer.text[:500]}"
        self.http.cookies.clear()
        token = sign_token(self.settings, actor=f"demo-{role}", roles=[role])
        self.headers[role] = {"Cookie": f"{COOKIE}={key[1]}", "Authorization": f"Bearer {token}"}

    async def look(self, role: str, path: str) -> httpx2.Response:
        if role not in self.headers:
            await self.sign_in(role)
        answer = await self.http.get(path, headers=self.headers[role])
        assert answer.status_code in {200, 303}, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer

    async def further(self, screen: Screen) -> Screen:
        """The screen so many pages further."""
        paths: list[str] = []
        for path in screen.paths:
            here = path
            for _ in range(screen.further):
                answer = await self.look(screen.role, here)
                found = re.search(r'"((?:/console/work|/v1/cases)\?[^"]*cursor=[^"]*)"', answer.text)
                assert found is not None, f"{here} has no further page"
                here = unescape(found[1])
            paths.append(here)
        return Screen(screen.name, screen.role, tuple(paths), screen.promised)


async def plans_of(url: str, settings: Settings, looked_at: Sequence[Screen]) -> list[Plan]:
    """Every path of every screen once, in this process, with the plans of all that it asks."""
    watch = Watch()
    database = Database.connect(url, pool_size=2)
    watch.over(database)
    verifier = Verifier(settings.jwks_file, issuer=settings.token_issuer, audience=settings.token_audience)
    app = create_app(database, CATALOGUE, verifier, console=Console(demo_sign_in=True))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        people = People(http, settings)
        for screen in looked_at:
            there = await people.further(screen)
            watch.screen = screen.name
            for path in there.paths:
                await people.look(screen.role, path)
            watch.screen = ""
    await database.close()
    return [plan for plan in watch.plans if plan.screen]


@dataclass
class Took:
    """How long a screen took, asked by one client and by four."""

    alone: list[float] = field(default_factory=list[float])
    together: list[float] = field(default_factory=list[float])


async def measure(settings: Settings, looked_at: Sequence[Screen], requests: int) -> dict[str, Took]:
    """Ask for every screen in turn, again and again, so that a bad moment of the machine meets all of them."""
    async with httpx2.AsyncClient(base_url=settings.api_url, timeout=60, trust_env=False) as http:
        people = People(http, settings)
        trivial = Screen(TRIVIAL, OPERATOR, ("/console/messages",))
        there = [trivial, *[await people.further(screen) for screen in looked_at]]
        took = {screen.name: Took() for screen in there}

        async def ask(screen: Screen, turn: int) -> float:
            began = time.perf_counter()
            await people.look(screen.role, screen.paths[turn % len(screen.paths)])
            return time.perf_counter() - began

        for screen in there:
            for turn in range(10):  # statements are prepared, pages are in memory
                await ask(screen, turn)
        slow = {screen.name for screen in there if not screen.promised}
        for turn in range(requests):
            for screen in there:
                if screen.name not in slow or turn < max(1, requests // 10):
                    took[screen.name].alone.append(await ask(screen, turn))
        order = [(screen, turn) for turn in range(requests) for screen in there if screen.name not in slow]
        random.Random(requests).shuffle(order)
        waiting = iter(order)

        async def client() -> None:
            for screen, turn in waiting:
                took[screen.name].together.append(await ask(screen, turn))

        async with asyncio.TaskGroup() as clients:
            for _ in range(4):
                clients.create_task(client())
        return took


def at(share: float, times: Sequence[float]) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def show_plans(plans: Sequence[Plan], big: frozenset[str], promised: frozenset[str]) -> int:
    """Each statement once, where it read most; says how many of those behind a promised screen are at fault."""
    worst: dict[tuple[str, str], Plan] = {}
    for plan in plans:
        known = worst.get((plan.screen, plan.statement))
        if plan.scans and (known is None or plan.read > known.read):
            worst[plan.screen, plan.statement] = plan
    wrong = 0
    print("\nplans: what each screen reads, the most of each statement")
    for (screen, statement), plan in worst.items():
        found = faults(plan, big)
        if found and screen in promised:
            wrong += 1
        if found or plan.read > 100:
            print(f"{'FAULT ' if found and screen in promised else ''}{screen}: {plan}")
        if found:
            print(f"      {'; '.join(found)}\n      {statement[:400]}\n      {plan.parameters[:200]}")
    print(f"{len(worst)} statements, {wrong} at fault behind screens that are promised")
    return wrong


def show_times(took: dict[str, Took], looked_at: Sequence[Screen]) -> tuple[int, dict[str, Any]]:
    """The table; says how many screens broke the promise."""
    print(f"\n{'':<28}{'one client, ms':>26}{'':>8}{'four clients, ms':>20}\n{'':<28}", end="")
    print(f"{'p50':>8}{'p99':>8}{'ratio':>10}{'':>8}{'p50':>10}{'p99':>10}")
    base = statistics.median(took[TRIVIAL].alone)
    promised = {screen.name for screen in looked_at if screen.promised}
    broken, figures = 0, dict[str, Any]()
    for name, times in took.items():
        p50, p99 = (at(share, times.alone) for share in (0.5, 0.99))
        line = f"{name:<28}{p50 * 1000:>8.1f}{p99 * 1000:>8.1f}{p50 / base:>10.2f}"
        figures[name] = {"p50_ms": p50 * 1000, "p99_ms": p99 * 1000, "ratio": p50 / base, "requests": len(times.alone)}
        if times.together:
            four = [at(share, times.together) * 1000 for share in (0.5, 0.99)]
            line += f"{'':>8}{four[0]:>10.1f}{four[1]:>10.1f}"
            figures[name] |= {"four_p50_ms": four[0], "four_p99_ms": four[1]}
        if name in promised and p99 > PROMISED:
            broken += 1
            line += "  MISSED"
        print(line)
    kept = len(promised) - broken
    print(f"{kept} of {len(promised)} screens kept {PROMISED * 1000:.0f} ms at p99, asked by one client")
    return broken, figures


@asynccontextmanager
async def serving(url: str | None) -> AsyncGenerator[tuple[str, Settings]]:
    """The API in a process of its own, on the seeded database."""
    (port,) = free_ports(1)
    ours: dict[str, Any] = {"data_dir": FOLDER, "api_port": port, "api_url": f"http://127.0.0.1:{port}"}
    settings = Settings(_env_file=None, database_url=url, demo_sign_in=True, **ours)  # pyright: ignore[reportCallIssue]
    async with Stack(settings, only=("postgres", "migrations", "api")) as stack:
        yield stack.database_url, settings


async def run(url: str | None, requests: int) -> int:
    async with serving(url) as (database_url, settings):
        looked_at = screens(database_url)
        promised = frozenset(screen.name for screen in looked_at if screen.promised)
        plans = await plans_of(database_url, settings, looked_at)
        wrong = show_plans(plans, big_tables(database_url), promised)
        broken, figures = show_times(await measure(settings, looked_at, requests), looked_at)
    keep(figures)
    return 1 if wrong or broken else 0


def keep(figures: dict[str, Any]) -> None:
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {REPORT}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", help=f"a seeded Postgres; by default the embedded one in {FOLDER}")
    parser.add_argument("--requests", type=int, default=300, help="for each screen")
    given = parser.parse_args()
    sys.exit(asyncio.run(run(given.database_url, given.requests)))


if __name__ == "__main__":
    main()
