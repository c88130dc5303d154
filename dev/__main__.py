"""`python -m dev [part ...]`: the stack, or only the named parts of it, until Ctrl-C."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence

from dev.errors import StackError
from dev.screen import show, show_addresses, show_warnings
from dev.stack import PARTS, Part, Stack
from settings import Settings


async def serve(stack: Stack) -> None:
    """The stack, kept alive."""
    await stack.start(announce=lambda part: show(f"starting {part}"))
    show("\nCaseward is running. Ctrl-C stops it.\n")
    show_addresses(stack)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stack.supervise(announce=show))
        tasks.create_task(show_warnings(stack))


async def run(stack: Stack, serve: Callable[[Stack], Coroutine[None, None, None]] = serve) -> int:
    """Serve until a signal, then stop in reverse order. A second signal stops at once."""
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve(stack))
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            serving.cancel()
        else:
            stack.kill_all()

    # A closed terminal sends SIGHUP.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    try:
        await serving
    except asyncio.CancelledError:
        show("\nstopping")
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        await stack.stop()
    return 0


def main(arguments: Sequence[str]) -> int:
    unknown = [name for name in arguments if name not in PARTS]
    if unknown:
        print(f"No part of the stack: {', '.join(unknown)}. There are: {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    only: list[Part] = [part for part in PARTS if not arguments or part in arguments]
    return asyncio.run(run(Stack(Settings.read(), only=only)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
