"""`python -m dev.demo`: start, play the day of each business, then serve until Ctrl-C."""

import asyncio
import importlib.util
import sys

from dev.__main__ import run
from dev.demo.day import Day
from dev.errors import StackError
from dev.screen import show, show_addresses
from dev.stack import Stack
from processes import CATALOGUE
from settings import Settings


async def serve(stack: Stack) -> None:
    """Start, play the day, then serve."""
    show("Starting Caseward; the first start makes a database.")
    await stack.start(announce=lambda part: show(f"  starting {part}"))
    supervising = asyncio.create_task(stack.supervise(announce=lambda line: show(f"           {line}")))
    try:
        async with Day(stack) as day:
            for process in CATALOGUE.values():
                scenes = f"dev.demo.{process.name}"
                if importlib.util.find_spec(scenes) is not None:
                    show(f"\n--- {process.title} ---")
                    await importlib.import_module(scenes).play(day)
        show("\nThe day is over; look around. Each case tells its story in Temporal's Web UI. Ctrl-C stops all.")
        for left in day.left_for_you:
            show(f"Left for you: {left}. Sign in to the console as `demo-operator`, and repair it.")
        show("")
        show_addresses(stack)
        await supervising
    finally:
        supervising.cancel()


def main() -> int:
    """Run the demo; exit code 0 when it was stopped by a person."""
    try:
        return asyncio.run(run(Stack(Settings.read()), serve))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
