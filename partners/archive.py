"""The archive: makes certificates, each once, and keeps them in the object store; nothing leaves it any more."""

import asyncio
import unicodedata
from contextlib import closing
from datetime import datetime, timedelta
from typing import ClassVar

import fontpkg  # pyright: ignore[reportMissingTypeStubs] - it has annotations, and no stubs
from fpdf import FPDF
from fpdf.fonts import TTFFont

from caseward.errors import PartnerFailed
from caseward.objects import hash_of
from caseward.partner import Sending, offers
from partners.house import HouseAnswer, HouseGateway

DEADLINE = timedelta(seconds=5)
# Latin with all its accents, Greek and Cyrillic; what it lacks is told, and never left out or replaced.
FONT = "Noto Sans"
MARGIN, LINE, TITLE_SIZE, TEXT_SIZE = 25, 7, 22, 11  # millimetres and points


class CertificateMade(HouseAnswer):
    """A certificate that the archive has."""

    sha256: str
    size: int


class CertificateWithdrawn(HouseAnswer):
    """A certificate that is good for nothing any more; its content stays."""

    sha256: str
    withdrawn: bool


class Archive(HouseGateway):
    """The same key again is the same certificate, to the byte: it is drawn from what is asked for alone."""

    name: ClassVar = "archive"

    @offers("make", deadline=DEADLINE, idempotent=True, probe=True)
    async def make(
        self, sending: Sending, *, number: str, title: str, lines: list[str], issued_at: str
    ) -> CertificateMade:
        """Make a certificate and keep it."""
        done = await self._done(sending, CertificateMade)
        if done is not None:
            return done
        # Reading the font takes a moment.
        content = await asyncio.to_thread(drawn, number, title, lines, datetime.fromisoformat(issued_at))
        made = CertificateMade(sha256=hash_of(content), size=len(content))
        sending.check_lease()
        try:
            await self.objects.keep(content, made.sha256)
        except Exception as fault:  # without its receipt it counts for nothing, and the next attempt finds it
            raise self._away() from fault
        return await self._keep(sending, "make", {"number": number}, made)

    @offers("withdraw", deadline=DEADLINE, idempotent=True, probe=True)
    async def withdraw(self, sending: Sending, *, sha256: str) -> CertificateWithdrawn:
        """Note that a certificate is withdrawn."""
        sending.check_lease()
        withdrawn = CertificateWithdrawn(sha256=sha256, withdrawn=True)
        return await self._keep(sending, "withdraw", {"sha256": sha256}, withdrawn)


def drawn(number: str, title: str, lines: list[str], issued_at: datetime) -> bytes:
    """One page. The same words give the same bytes. Raises PartnerFailed for letters that the font lacks."""
    title, lines = _composed(title), [_composed(line) for line in lines]
    page = FPDF(format="A4")
    page.set_creation_date(issued_at)
    page.set_title(title)
    page.set_subject(number)
    page.set_margin(MARGIN)
    page.add_page()
    page.add_font(FONT, fname=fontpkg.path(FONT))
    page.set_font(FONT, size=TITLE_SIZE)
    font = page.current_font
    if not isinstance(font, TTFFont):
        raise TypeError(font)
    with closing(font.ttfont):  # it is read until the page is written, and the library leaves it open
        _check_letters(font, [title, number, *lines])
        page.multi_cell(0, 2 * LINE, title, new_x="LMARGIN", new_y="NEXT")
        page.set_font(FONT, size=TEXT_SIZE)
        for line in (f"No. {number}", f"Issued {issued_at:%d %B %Y}", "", *lines):
            page.multi_cell(0, LINE, line, new_x="LMARGIN", new_y="NEXT")
        return bytes(page.output())


def _composed(text: str) -> str:
    """A letter and its accent as one, as fonts have them."""
    return unicodedata.normalize("NFC", text)


def _check_letters(font: TTFFont, words: list[str]) -> None:
    missing = sorted({letter for each in words for letter in each if ord(letter) not in font.cmap})
    if missing:
        letters = ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in missing)
        raise PartnerFailed("rejected", "letters_missing", f"A certificate can't be written with these: {letters}.")
