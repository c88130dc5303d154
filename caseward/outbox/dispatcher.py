"""The dispatcher: moves outbox messages to where they belong, at least once, whatever dies in between."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from caseward.db.session import Database
from caseward.errors import CasewardError
from caseward.failpoints import failpoint
from caseward.outbox import store
from caseward.outbox.store import Claimed

BATCH = 100  # messages a claim takes; all of one case in it travel together
PARALLEL = 8  # deliveries at once: more only made each slower when it was measured
POLL = timedelta(seconds=1)  # finds what a lost notification or a postponement left behind
AWAY = timedelta(seconds=1)  # until a destination that did not answer is tried again
MAX_TRIES = 5  # of a message that the destination refuses, 1 s, 2 s, 4 s, 8 s apart, before it is parked


class DestinationAway(Exception):
    """The destination can't be reached just now."""

    def __init__(self, message: str, *, delay: timedelta = AWAY) -> None:
        super().__init__(message)
        self.delay = delay


class SomebodyElseHasIt(Exception):
    """Our claim ended, and another dispatcher took the message; it writes down what becomes of it."""


class NeverAgain(Exception):
    """Nobody may try this message again by himself: it is parked at once."""


Deliver = Callable[[Sequence[Claimed]], Awaitable[None]]
"""Deliver messages of one case. Raises DestinationAway, SomebodyElseHasIt or NeverAgain; anything else it raises counts
against the messages."""
NoteParked = Callable[[Claimed, str], Awaitable[None]]
"""Write into the case's timeline that a message was parked."""


class Dispatcher:
    """Any number of them share the work by claims: those for mails, and those for all else.

    A mail goes alone, because each has an outcome of its own; and a claim takes no more of them than begin at once.
    """

    def __init__(
        self, database: Database, destinations: Mapping[str, Deliver], note_parked: NoteParked, *, mails: bool = False
    ) -> None:
        self._database = database
        self._destinations = destinations
        self._note_parked = note_parked
        self._mails = mails
        self._batch = PARALLEL if mails else BATCH
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("dispatcher")

    def wake(self, _payload: str = "") -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        while True:
            self._wake.clear()
            try:
                busy = await self.dispatch_due()
            except Exception as fault:  # noqa: BLE001 - our own database is away: whatever was claimed will lapse
                self._log.warning("dispatch_failed", error=type(fault).__name__)
                busy = False
            if not busy:
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL.total_seconds()):
                await self._wake.wait()
        except TimeoutError:
            return

    async def dispatch_due(self) -> bool:
        """Deliver one batch; True where it was full, so that more may be due."""
        async with self._database.transaction() as session:
            claimed = await store.claim(session, limit=self._batch, mails=self._mails)
        if not claimed:
            return False
        await failpoint("outbox.claimed", *{message.case_id for message in claimed})
        groups: dict[tuple[UUID, str, int], list[Claimed]] = defaultdict(list)
        for message in claimed:
            groups[message.case_id, message.destination, message.id if self._mails else 0].append(message)
        slots = asyncio.Semaphore(PARALLEL)
        async with asyncio.TaskGroup() as tasks:
            for group in groups.values():
                tasks.create_task(self._dispatch(group, slots))
        return len(claimed) == self._batch

    async def _dispatch(self, group: list[Claimed], slots: asyncio.Semaphore) -> None:
        async with slots:
            await self._deliver(group)

    async def _deliver(self, group: list[Claimed]) -> None:
        try:
            await self._destinations[group[0].destination](group)
        except DestinationAway as fault:
            async with self._database.transaction() as session:
                await store.postpone(session, group, delay=fault.delay, error=str(fault), counts=False)
            return
        except SomebodyElseHasIt:
            return
        except NeverAgain as fault:
            for message in group:
                await self._park(message, str(fault))
            return
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with a message must not stop the others
            if len(group) > 1:  # which one it is shows when each goes alone
                for message in group:
                    await self._deliver([message])
            else:
                await self._refused(group[0], f"{type(fault).__name__}: {fault}"[:500])
            return
        await failpoint("outbox.signalled", group[0].case_id)
        async with self._database.transaction() as session:
            await store.mark_dispatched(session, group)

    async def _refused(self, message: Claimed, error: str) -> None:
        self._log.error("message_refused", message=message.id, error=error)
        if message.tries < MAX_TRIES:
            delay = timedelta(seconds=2 ** (message.tries - 1))
            async with self._database.transaction() as session:
                await store.postpone(session, [message], delay=delay, error=error, counts=True)
            return
        await self._park(message, error)

    async def _park(self, message: Claimed, error: str) -> None:
        async with self._database.transaction() as session:
            parked = await store.park(session, message, error=error)
        if not parked:
            return
        try:
            await self._note_parked(message, error)
        except CasewardError as fault:  # a case whose process is no longer declared has nobody who could read it
            self._log.error("parked_unnoted", message=message.id, error=type(fault).__name__)
