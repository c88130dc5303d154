"""The document checker: reads a document from the object store and says whether people could, too."""

import asyncio
import json
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from caseward.errors import PartnerFailed
from caseward.objects import ObjectMissing, Objects
from caseward.partner import Sending, offers
from partners.house import HouseAnswer, HouseGateway

DEADLINE = timedelta(seconds=27)
CHECK_FOR = timedelta(seconds=15)  # of real time: also where both programs share one core, their computing ends first
WAIT_FOR = timedelta(seconds=10)  # for a free slot; the deadline has room for both
# By others: whoever stops the worker and all that it began, or a machine that is out of memory.
ENDED = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGKILL})
AT_ONCE = 2  # programs side by side in one worker; each may have its whole memory
PROGRAM = Path(__file__).with_name("pdf_check.py")
WORDS = {
    "encrypted": "It is encrypted: upload it without a password.",
    "no_pages": "It has no page.",
    "too_many_pages": "It has more pages than anybody reads.",
    "unreadable": "It can't be read as a PDF.",
    "too_complex": "Reading it takes more time or memory than we give it.",
}


class Checked(HouseAnswer):
    """What came of looking."""

    finding: str | None
    """A code of `WORDS`; None where nothing speaks against it."""
    message: str | None
    pages: int | None


class Checker(HouseGateway):
    """Changes nothing anywhere: the same document again is the same answer."""

    name: ClassVar = "checker"

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._slots = asyncio.Semaphore(AT_ONCE)

    @offers("check", deadline=DEADLINE, idempotent=True, probe=True)
    async def check(self, sending: Sending, *, sha256: str) -> Checked:
        """Look at the document of this hash."""
        done = await self._done(sending, Checked)
        if done is not None:
            return done
        sending.check_lease()
        try:
            content = await self.objects.content(sha256)
        except ObjectMissing as fault:
            raise PartnerFailed(
                "invalid", "document_missing", "The object store does not have the document."
            ) from fault
        except Exception as fault:
            raise self._away() from fault
        try:
            async with asyncio.timeout(WAIT_FOR.total_seconds()):
                await self._slots.acquire()
        except TimeoutError as fault:
            raise PartnerFailed("transient", "busy", "Other documents are being looked at.") from fault
        try:
            finding, pages = await _look(content)
        finally:
            self._slots.release()
        checked = Checked(finding=finding, message=WORDS[finding] if finding else None, pages=pages)
        return await self._keep(sending, "check", {"sha256": sha256}, checked)


async def _look(content: bytes) -> tuple[str | None, int | None]:
    """Run the program. It may die of what it reads; that it got no time, or was ended, says nothing about the document.

    Raises PartnerFailed for those two.
    """
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(PROGRAM)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(CHECK_FOR.total_seconds()):
            said, _ = await program.communicate(content)
    except TimeoutError as fault:
        raise PartnerFailed("transient", "busy", "There was no time to look at it.") from fault
    finally:
        if program.returncode is None:
            with suppress(ProcessLookupError):
                program.kill()
            await program.wait()
    if program.returncode in ENDED:
        raise PartnerFailed("transient", "ended", "Who looked at it was ended.")
    try:
        found = json.loads(said)
        finding, pages = found["finding"], found["pages"]
    except (ValueError, KeyError, TypeError):
        return "too_complex", None
    return (finding if finding is None or finding in WORDS else "unreadable"), pages
