"""Notices: whoever waits for a case to change is woken by Postgres, over one listening connection per process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from caseward.db.listen import listen

CHANNEL = "caseward_case"  # a trigger of the table `cases` notifies it with every change


@dataclass(frozen=True)
class Notice:
    """How a case stands after a change."""

    condition: str
    operation_id: str | None
    """The operation in flight."""


def any_change(_notice: Notice) -> bool:
    """Every change is worth a look."""
    return True


class Watch:
    """One waiting for one case. What happens between two waits is not missed."""

    def __init__(self, worth_a_look: Callable[[Notice], bool]) -> None:
        self._worth_a_look = worth_a_look
        self._event = asyncio.Event()

    def wake(self, notice: Notice | None = None) -> None:
        """Something may have changed."""
        if notice is None or self._worth_a_look(notice):
            self._event.set()

    async def changed(self, at_most: timedelta) -> None:
        """Return when something may have changed, or when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most.total_seconds()):
                await self._event.wait()
        self._event.clear()


class Notices:
    """The listening connection and who waits on it."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
        self.closing = False
        """The server shuts down: whoever waits should answer with what there is."""

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Listen while the block runs."""
        task = asyncio.create_task(listen(self._url, {CHANNEL: self._heard}), name="case notices")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def watch(self, case_id: object, worth_a_look: Callable[[Notice], bool] = any_change) -> Generator[Watch]:
        """Watch a case. Enter before the first look at it, and nothing is missed."""
        watch, key = Watch(worth_a_look), str(case_id)
        self._watches[key].add(watch)
        try:
            yield watch
        finally:
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]

    def close(self) -> None:
        """Wake everybody for good."""
        self.closing = True
        self._heard("")

    def _heard(self, payload: str) -> None:
        if not payload:  # after each connecting: something may have been missed
            for watch in [watch for watches in self._watches.values() for watch in watches]:
                watch.wake()
            return
        case_id, condition, *in_flight = payload.split(" ")
        notice = Notice(condition, in_flight[0] if in_flight else None)
        for watch in [*self._watches.get(case_id, ())]:
            watch.wake(notice)
