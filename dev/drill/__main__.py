"""`python -m dev.drill PROCESS`: play the drill, print what people would have seen; 1 where a promise was broken."""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dev.drill.play import ANSWERS, FAULTS, Place, Player, Seen, places
from dev.drill.world import world_on
from dev.screen import show
from dev.service import port_is_free
from processes import CATALOGUE
from settings import Settings

SIDE_BY_SIDE = 16  # cells: each has an activity under way, and all share one process


async def drill(settings: Settings, name: str) -> list[Seen]:
    """Every row of a process: each step under each fault, and where people must decide, each of their answers."""
    process = CATALOGUE[name]
    async with world_on(settings, CATALOGUE) as world:
        player = Player(world, process)
        rows: list[Seen] = []
        every = places(process)
        for fault in FAULTS:
            began = time.monotonic()
            found = await _side_by_side(player, [(place, fault, None) for place in every])
            rows += found
            print(f"{fault}: {len(found)} cells, {time.monotonic() - began:.0f} s", file=sys.stderr)
        asked = [row for row in rows if row.condition == "blocked"]
        answered = [(row.place, row.fault, answer) for row in asked for answer in ANSWERS]
        for start in range(0, len(answered), SIDE_BY_SIDE):
            began = time.monotonic()
            rows += await _side_by_side(player, answered[start : start + SIDE_BY_SIDE])
            played = min(start + SIDE_BY_SIDE, len(answered))
            print(f"answers: {played} of {len(answered)} cells, {time.monotonic() - began:.0f} s", file=sys.stderr)
        return rows


async def _side_by_side(player: Player, cells: Sequence[tuple[Place, str, str | None]]) -> list[Seen]:
    return list(await asyncio.gather(*(player.play(*cell) for cell in cells)))


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


def _settings(folder: Path) -> Settings:
    api, temporal, ui, sandbox = [port for port in random.sample(range(10000, 15000), 200) if port_is_free(port)][:4]
    return Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue] - pydantic-settings' own
        env="test",
        data_dir=folder / "data",
        api_port=api,
        temporal_port=temporal,
        temporal_ui_port=ui,
        sandbox_port=sandbox,
        database_url=None,
        temporal_address=None,
    )


def main(arguments: list[str]) -> int:
    """Drill one process."""
    name = arguments[0].replace("-", "_") if len(arguments) == 1 else ""
    if name not in CATALOGUE:
        print(f"Name one process: {', '.join(CATALOGUE)}.", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="caseward-drill-") as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        rows = asyncio.run(drill(_settings(Path(folder)), name))
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
