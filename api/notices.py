"""Notices: whoever waits for a case to change is woken by Postgres, over one listening connection per process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from caseward.db.listen import listen

CHANNEL = "caseward_case"  # a trigger of the table `cases` notifies it with the case's id


class Watch:
    """One waiting for one case. What happens between two waits is not missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Something may have changed."""
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
    def watch(self, case_id: object) -> Generator[Watch]:
        """Watch a case. Enter before the first look at it, and nothing is missed."""
        watch, key = Watch(), str(case_id)
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

    def _heard(self, case_id: str) -> None:
        # "" comes after each connecting: something may have been missed.
        heard = [*self._watches.get(case_id, ())] if case_id else [w for ws in self._watches.values() for w in ws]
        for watch in heard:
            watch.wake()
