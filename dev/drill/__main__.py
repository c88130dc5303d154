"""`python -m dev.drill PROCESS`: play the drill, print what people would have seen; 1 where a promise was broken."""

import asyncio
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caseward.memory import collect_seldom
from dev.drill.play import ANSWERS, FAULTS, Place, Player, Seen, places
from dev.drill.world import ClockStopped, world_on
from dev.screen import show
from dev.service import free_ports
from processes import CATALOGUE
from settings import Settings

SIDE_BY_SIDE = 16  # cells: each has an activity under way, and all share one process
MOST_STOPS = 5
Cell = tuple[Place, str, str | None]


class Drill:
    """Plays one process, world after world."""

    def __init__(self, name: str) -> None:
        self.process = CATALOGUE[name]
        self.results: dict[str, dict[str, Any]] = {}

    async def play(self) -> list[Seen]:
        """Every row: each step under each fault, and where people must decide, each of their answers."""
        batches = [(fault, [(place, fault, None) for place in places(self.process)]) for fault in FAULTS]
        rows = await self._played(batches)
        asked = [row for row in rows if row.condition == "blocked"]
        answered: list[Cell] = [(row.place, row.fault, answer) for row in asked for answer in ANSWERS]
        starts = range(0, len(answered), SIDE_BY_SIDE)
        return rows + await self._played(
            [(f"answers, {start + 1} of {len(answered)}", answered[start : start + SIDE_BY_SIDE]) for start in starts]
        )

    async def _played(self, batches: Sequence[tuple[str, Sequence[Cell]]]) -> list[Seen]:
        """All batches, in one world as long as its clock goes."""
        rows: list[Seen] = []
        left, stops = deque(batches), 0
        while left:
            with _folder() as folder:
                async with world_on(_settings(folder), CATALOGUE) as world:
                    player = Player(world, self.process, self.results)
                    while left and not world.clock.stopped:
                        title, cells = left[0]
                        began = time.monotonic()
                        found = await _side_by_side(player, cells)
                        if found is None:
                            print(f"{title}: the clock stopped; once more, in a new world", file=sys.stderr)
                            stops += 1
                            if stops > MOST_STOPS:
                                raise ClockStopped
                            continue
                        rows += found
                        left.popleft()
                        stops = 0
                        print(f"{title}: {len(found)} cells, {time.monotonic() - began:.0f} s", file=sys.stderr)
        return rows


async def _side_by_side(player: Player, cells: Sequence[Cell]) -> list[Seen] | None:
    """None where the clock stopped meanwhile."""
    tasks: list[asyncio.Task[Seen]] = []
    stopped = False
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(player.play(*cell)) for cell in cells]
    except* ClockStopped:
        stopped = True
    return None if stopped else [task.result() for task in tasks]


def table(rows: list[Seen]) -> list[str]:
    """What users and operators would have seen, step by step."""
    lines: list[str] = []
    by_place: dict[str, list[Seen]] = {}
    for row in rows:
        by_place.setdefault(f"{row.place.transition.name} / {row.place.address}", []).append(row)
    for where, found in by_place.items():
        lines += ["", where]
        for row in (row for row in found if not row.answer):
            lines.append(f"  {row.fault:<30} {row.state:<20} {row.condition:<9} {row.sentence}")
            if row.condition == "blocked":
                lines.append(f"  {'':<30} {row.owner} decides; offered: {', '.join(row.offered)}")
            lines += [f"  {'':<30} BROKEN: {broken}" for broken in row.broken]
            for answer in (each for each in found if each.answer and each.fault == row.fault):
                lines.append(f"  {'':<30}   {answer.answer:<13} -> {answer.outcome}")
                lines += [f"  {'':<30}   BROKEN: {broken}" for broken in answer.broken]
    return lines


@contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="caseward-drill-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # Postgres may run as another user
        yield folder


def _settings(folder: Path) -> Settings:
    api, temporal, ui, sandbox, smtp = free_ports(5)
    return Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue] - pydantic-settings' own
        env="test",
        data_dir=folder / "data",
        api_port=api,
        temporal_port=temporal,
        temporal_ui_port=ui,
        sandbox_port=sandbox,
        sandbox_smtp_port=smtp,
        metrics_port=0,
        database_url=None,
        temporal_address=None,
    )


def main(arguments: list[str]) -> int:
    """Drill one process."""
    name = arguments[0].replace("-", "_") if len(arguments) == 1 else ""
    if name not in CATALOGUE:
        print(f"Name one process: {', '.join(CATALOGUE)}.", file=sys.stderr)
        return 2
    collect_seldom()
    began = time.monotonic()
    rows = asyncio.run(Drill(name).play())
    for line in table(rows):
        show(line)
    broken = sum(len(row.broken) for row in rows)
    show(f"\n{name}: {len(rows)} cells, {broken} broken promises, {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Temporal's client may abort an ordinary interpreter exit
