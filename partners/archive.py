"""The archive: makes certificates, each once, and keeps them in the object store; nothing leaves it any more."""

import unicodedata
from datetime import datetime, timedelta
from typing import ClassVar

from fpdf import FPDF

from caseward.objects import hash_of
from caseward.partner import Sending, offers
from partners.house import HouseAnswer, HouseGateway

DEADLINE = timedelta(seconds=5)
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
        content = drawn(number, title, lines, datetime.fromisoformat(issued_at))
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
    """One page. The same words give the same bytes."""
    page = FPDF(format="A4")
    page.set_creation_date(issued_at)
    page.set_title(_printable(title))
    page.set_subject(number)
    page.set_margin(MARGIN)
    page.add_page()
    page.set_font("Helvetica", "B", TITLE_SIZE)
    page.multi_cell(0, 2 * LINE, _printable(title), new_x="LMARGIN", new_y="NEXT")
    page.set_font("Helvetica", "", TEXT_SIZE)
    for line in (f"No. {number}", f"Issued {issued_at:%d %B %Y}", "", *lines):
        page.multi_cell(0, LINE, _printable(line), new_x="LMARGIN", new_y="NEXT")
    return bytes(page.output())


def _printable(text: str) -> str:
    """As far as the fonts that every reader has go: letters lose accents that these lack."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(_letter(each) for each in composed)


def _letter(character: str) -> str:
    for form in (character, unicodedata.normalize("NFKD", character)[0]):
        if form.encode("latin-1", "ignore"):
            return form
    return "?"
