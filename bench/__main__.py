"""`make bench`: acceptance, acceptance to outcome, and saturation, each beside a plain Temporal workflow."""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client as Temporal

from bench.bare import QUEUE, READY, Vendor
from cli.client import Client
from cli.tokens import sign_token
from dev.demo.vendor_onboarding import vendor
from dev.stack import Stack
from settings import Settings

Json = dict[str, Any]
Command = Callable[[Json], Awaitable[Json]]
REPORT = Path(".caseward/reports/bench.json")
RATE = 20  # commands a second


class Bench:
    def __init__(self, requester: Client, reviewer: Client, temporal: Temporal) -> None:
        self.requester, self.reviewer, self.temporal = requester, reviewer, temporal
        self.figures: Json = {}

    async def in_review(self) -> Json:
        case = await self.requester.open("vendor_onboarding", f"B-{uuid4().hex}", vendor("Bench Works GmbH"))
        await self.requester.take(case, "submit", wait=30)
        return await self.requester.until(case["case_id"], lambda now: now["state"] == "in_review")

    async def prepared(self, count: int) -> list[Json]:
        slots = asyncio.Semaphore(8)

        async def one() -> Json:
            async with slots:
                return await self.in_review()

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def approve(self, case: Json) -> Json:
        return await self.reviewer.take(case, "approve", wait=60)

    async def bare(self) -> None:
        key = str(uuid4())
        given = Vendor(key, "Bench Works GmbH", "DE", "DE129273398", "DE89370400440532013000", "a@example.com")
        await self.temporal.execute_workflow("bare", given, id=f"bare:{key}", task_queue=QUEUE)

    async def one_by_one(self, rounds: int) -> None:
        """Acceptance to outcome on an idle machine, alternating with the yardstick."""
        cases = await self.prepared(rounds)
        ours: list[float] = []
        seen: list[float] = []
        theirs: list[float] = []
        for case in cases:
            began = time.perf_counter()
            operation = await self.approve(case)
            seen.append(time.perf_counter() - began)
            assert operation["state"] == "completed", operation
            ours.append(await self._accepted_to_outcome(operation))
            began = time.perf_counter()
            await self.bare()
            theirs.append(time.perf_counter() - began)
        mine, other = statistics.median(ours), statistics.median(theirs)
        self.figures["approve_accepted_to_outcome_p50_ms"] = round(mine * 1000, 1)
        self.figures["approve_request_to_answer_p50_ms"] = round(statistics.median(seen) * 1000, 1)
        self.figures["bare_three_activities_p50_ms"] = round(other * 1000, 1)
        self.figures["accepted_to_outcome_ratio"] = round(mine / other, 2)
        self.figures["request_to_answer_ratio"] = round(statistics.median(seen) / other, 2)

    @staticmethod
    async def _accepted_to_outcome(operation: Json) -> float:
        accepted, finished = (datetime.fromisoformat(operation[name]) for name in ("accepted_at", "finished_at"))
        return (finished - accepted).total_seconds()

    async def saturation(self, rounds: int, batch: int) -> None:
        """Approvals and bare workflows per second with 32 under way, in alternating batches."""
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            cases = await self.prepared(batch)
            ours.append(await rate([lambda case=case: self.approve(case) for case in cases]))
            theirs.append(await rate([self.bare for _ in range(batch)]))
        mine, other = statistics.median(ours), statistics.median(theirs)
        self.figures["approvals_per_second"] = round(mine, 1)
        self.figures["bare_per_second"] = round(other, 1)
        self.figures["saturation_ratio"] = round(other / mine, 2)

    async def acceptance(self, seconds: int) -> None:
        """How long a caller waits for its 201, 202 or 200 at 20 commands a second, while the work behind them runs.

        By turns: open, submit (three steps run), request changes, withdraw. Nobody asks how the work is getting on,
        which would measure the asking.
        """
        rounds = seconds * RATE // 4
        reviewable = await self.prepared(rounds)

        def turn(ready: Json) -> list[Command]:
            grounds = {"grounds": "The register extract is too old."}
            return [
                lambda case: self.requester.take(case, "submit"),
                lambda _: self.reviewer.take(ready, "request_changes", grounds),
                lambda _: self.requester.take(ready, "cancel"),
            ]

        await self._at_a_rate("acceptance", [turn(ready) for ready in reviewable])

    async def acceptance_overloaded(self, seconds: int) -> None:
        """The same with two of three commands running three steps each, which is more than two cores can do."""
        rounds = seconds * RATE // 3
        reviewable = await self.prepared(rounds)

        def turn(ready: Json) -> list[Command]:
            return [lambda case: self.requester.take(case, "submit"), lambda _: self.reviewer.take(ready, "approve")]

        await self._at_a_rate("acceptance_overloaded", [turn(ready) for ready in reviewable])
        for case in reviewable:  # what comes next is measured on a machine that has nothing left to do
            await self.reviewer.until(case["case_id"], lambda now: now["state"] == "active")

    async def _at_a_rate(self, name: str, turns: list[list[Command]]) -> None:
        took: list[float] = []

        async def timed(command: Awaitable[Json]) -> Json:
            began = time.perf_counter()
            answer = await command
            took.append(time.perf_counter() - began)
            return answer

        async def one(commands: list[Command]) -> None:
            subject = vendor("Bench Works GmbH")
            case = await timed(self.requester.open("vendor_onboarding", f"B-{uuid4().hex}", subject))
            for command in commands:
                await asyncio.sleep(1 / RATE)
                await timed(command(case))

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number, commands in enumerate(turns):
                await asyncio.sleep(max(0.0, began + number * (len(commands) + 1) / RATE - time.perf_counter()))
                tasks.create_task(one(commands))
        ordered = sorted(took)
        self.figures[f"{name}_commands"] = len(took)
        self.figures[f"{name}_commands_per_second"] = round(len(took) / (time.perf_counter() - began), 1)
        self.figures[f"{name}_p50_ms"] = round(statistics.median(ordered) * 1000, 1)
        self.figures[f"{name}_p99_ms"] = round(ordered[int(len(ordered) * 0.99)] * 1000, 1)


async def rate(jobs: list[Callable[[], Awaitable[Any]]]) -> float:
    slots = asyncio.Semaphore(32)

    async def run(job: Callable[[], Awaitable[Any]]) -> None:
        async with slots:
            await job()

    began = time.perf_counter()
    await asyncio.gather(*(run(job) for job in jobs))
    return len(jobs) / (time.perf_counter() - began)


@asynccontextmanager
async def bare_worker(stack: Stack) -> AsyncGenerator[None]:
    settings = stack.settings
    namespace, smtp_port = settings.temporal_namespace, str(settings.smtp_port)
    arguments = (stack.temporal_address, namespace, settings.sandbox_url, smtp_port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        while READY not in (await process.stdout.readline()).decode():
            pass
        yield
    finally:
        process.kill()
        await process.wait()


async def measure(settings: Settings, scale: int, *, latency_only: bool) -> Json:
    async with AsyncExitStack() as parts:
        stack = await parts.enter_async_context(Stack(settings))
        await parts.enter_async_context(bare_worker(stack))

        async def person(actor: str, *roles: str) -> Client:
            return await parts.enter_async_context(
                Client(settings.api_url, sign_token(settings, actor=actor, roles=roles))
            )

        bench = Bench(
            await person("requester-1", "vendor_requester"),
            await person("reviewer-1", "vendor_reviewer"),
            await Temporal.connect(stack.temporal_address, namespace=settings.temporal_namespace),
        )
        await bench.bare()
        await bench.approve(await bench.in_review())  # warm
        await bench.one_by_one(10 * scale)
        if latency_only:
            return bench.figures
        await bench.acceptance(10 * scale)
        await bench.acceptance_overloaded(10 * scale)
        await bench.saturation(max(1, scale), 60)
        return bench.figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=3, help="1 is a glance, 3 the default, 10 for publishing")
    parser.add_argument("--latency-only", action="store_true", help="acceptance to outcome, and nothing else")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caseward-bench-") as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        os.environ["CASEWARD_DATA_DIR"] = str(Path(folder) / "data")  # nobody's own cases are measured
        figures = asyncio.run(measure(Settings.read(), given.scale, latency_only=given.latency_only))
    for name, value in figures.items():
        print(f"{name:<40}{value:>10}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {REPORT}")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Temporal's client may abort an ordinary interpreter exit
