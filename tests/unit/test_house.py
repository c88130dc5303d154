"""Offices of our own house: what can be read, what can't, what must not hurt, and that nothing is made twice."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pypdf import PdfReader

from caseward.errors import LeaseTooShort, PartnerFailed, PartnerSilent
from caseward.objects import ObjectMissing, Objects, hash_of
from caseward.partner import Sending
from partners import checker as checking
from partners.archive import Archive, drawn
from partners.checker import AT_ONCE, CHECK_FOR, DEADLINE, WAIT_FOR, Checker
from partners.pdf_check import SECONDS
from tests.pdfs import bomb, pdf

WORDS = {
    "number": "CA-1",
    "title": "Certificate",
    "lines": ["Żółć GmbH", "Ελευθερία, Свобода"],
    "issued_at": "2031-05-03T10:00:00+00:00",
}
CHECK = checking.PROGRAM.read_text()


@pytest.fixture(params=["memory", "disk"])
def objects(request, tmp_path) -> Objects:
    return Objects.in_memory() if request.param == "memory" else Objects.connect((tmp_path / "a b").as_uri())


def sending(key: str = "0199-o:make", *, lease: float = 60) -> Sending:
    return Sending(key=key, traceparent="", deadline=timedelta(seconds=5), send_before=time.monotonic() + lease)


class TestObjects:
    async def test_a_content_is_kept_once_and_given_out_in_pieces(self, objects: Objects):
        content = b"abc" * 400_000
        for _ in range(2):
            await objects.keep(content, hash_of(content))
        assert await objects.content(hash_of(content)) == content
        assert b"".join([piece async for piece in await objects.stream(hash_of(content))]) == content

    async def test_what_is_not_there_is_missing(self, objects: Objects):
        with pytest.raises(ObjectMissing):
            await objects.content("0" * 64)
        with pytest.raises(ObjectMissing):
            await objects.stream("0" * 64)

    async def test_a_receipt_stands_as_it_was_first_written(self, objects: Objects):
        assert await objects.noted("o:s") is None
        assert await objects.note("o:s", {"first": True}) == {"first": True}
        assert await objects.note("o:s", {"first": False}) == {"first": True}
        assert await objects.note("o:s:undo", {"undone": True}) == {"undone": True}
        assert len(await objects.receipts()) == 2


class TestChecker:
    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch) -> None:
        """How busy this machine is says nothing of the checker."""
        monkeypatch.setattr(checking, "CHECK_FOR", timedelta(minutes=5))

    async def check(self, objects: Objects, content: bytes, key: str = "o:validate"):
        await objects.keep(content, hash_of(content))
        return await Checker(objects).check(sending(key), sha256=hash_of(content))

    async def test_a_good_one_has_its_pages_counted(self, objects: Objects):
        checked = await self.check(objects, pdf(3))
        assert (checked.finding, checked.pages) == (None, 3)

    @pytest.mark.parametrize(
        ("content", "finding"),
        [
            (pdf(password="secret"), "encrypted"),
            (pdf(password=""), "encrypted"),
            (pdf(0), "no_pages"),
            (pdf(3)[:200], "unreadable"),
            (b"%PDF-1.7\nno more than this", "unreadable"),
            (b"a text", "unreadable"),
            (b"", "unreadable"),
            (bomb(), "unreadable"),
        ],
        ids=["encrypted", "empty password", "no pages", "torn", "made up", "text", "nothing", "bomb"],
    )
    async def test_what_people_could_not_read_is_refused(self, objects: Objects, content: bytes, finding: str):
        checked = await self.check(objects, content)
        assert checked.finding == finding
        assert checked.message == checking.WORDS[finding]

    async def test_what_got_no_time_is_looked_at_again_and_nothing_is_said_of_it(
        self, objects: Objects, monkeypatch, tmp_path
    ):
        hangs = tmp_path / "hangs.py"
        hangs.write_text("import signal; signal.pause()")
        with monkeypatch.context() as busy:
            busy.setattr(checking, "PROGRAM", hangs)
            busy.setattr(checking, "CHECK_FOR", timedelta(seconds=0.3))
            with pytest.raises(PartnerFailed) as missed:
                await self.check(objects, pdf())
        assert (missed.value.error_class, missed.value.code) == ("transient", "busy")
        assert await objects.receipts() == []
        assert (await self.check(objects, pdf())).finding is None

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
    async def test_what_somebody_ends_is_looked_at_again(self, objects: Objects, monkeypatch, tmp_path, name: str):
        ended = tmp_path / "ended.py"
        ended.write_text(f"import os, signal; os.kill(os.getpid(), signal.{name})")
        monkeypatch.setattr(checking, "PROGRAM", ended)
        with pytest.raises(PartnerFailed) as missed:
            await self.check(objects, pdf())
        assert (missed.value.error_class, missed.value.code) == ("transient", "ended")

    def test_computing_ends_first_also_where_all_programs_share_one_core(self):
        assert CHECK_FOR.total_seconds() > 2 * AT_ONCE * SECONDS
        assert WAIT_FOR + CHECK_FOR < DEADLINE

    async def test_what_takes_too_much_computing_is_ended_and_refused(self, objects: Objects, monkeypatch, tmp_path):
        endless = tmp_path / "endless.py"
        endless.write_text(CHECK.replace("    try:\n", "    try:\n        while True:\n            pass\n", 1))
        monkeypatch.setattr(checking, "PROGRAM", endless)
        assert (await self.check(objects, pdf())).finding == "too_complex"

    @pytest.mark.parametrize("program", ["import os; os.abort()", "x = bytearray(10**10)", "print('[' * 9)"])
    async def test_what_ends_the_program_is_refused(self, objects: Objects, monkeypatch, tmp_path, program: str):
        (tmp_path / "dies.py").write_text(program)
        monkeypatch.setattr(checking, "PROGRAM", tmp_path / "dies.py")
        assert (await self.check(objects, pdf())).finding == "too_complex"

    async def test_more_than_a_few_side_by_side_wait_and_come_back(self, objects: Objects, monkeypatch):
        monkeypatch.setattr(checking, "WAIT_FOR", timedelta(seconds=0.01))
        checker, content = Checker(objects), pdf()
        await objects.keep(content, hash_of(content))
        for _ in range(checking.AT_ONCE):
            await checker._slots.acquire()
        with pytest.raises(PartnerFailed) as busy:
            await checker.check(sending(), sha256=hash_of(content))
        assert (busy.value.error_class, busy.value.code) == ("transient", "busy")

    async def test_a_repeated_question_gets_the_same_answer_without_looking(self, objects: Objects, monkeypatch):
        first = await self.check(objects, pdf(2))
        monkeypatch.setattr(checking, "_look", None)
        assert await self.check(objects, pdf(2)) == first
        assert await Checker(objects).probe(sending("o:validate"), "check") == first.model_dump()
        assert await Checker(objects).probe(sending("o:other"), "check") is None

    async def test_a_document_that_the_store_lacks_is_our_own_fault(self, objects: Objects):
        with pytest.raises(PartnerFailed) as missing:
            await Checker(objects).check(sending(), sha256="0" * 64)
        assert missing.value.error_class == "invalid"


class TestArchive:
    async def test_the_same_words_are_the_same_bytes(self):
        assert drawn("1", "A", ["b"], _at()) == drawn("1", "A", ["b"], _at())
        assert drawn("1", "A", ["b"], _at()) != drawn("1", "A", ["c"], _at())

    async def test_it_can_be_read_whatever_letters_are_in_it(self, objects: Objects):
        made = await Archive(objects).make(sending(), **WORDS)
        content = await objects.content(made.sha256)
        assert made.size == len(content)
        assert (await TestChecker().check(objects, content)).finding is None
        assert PdfReader(BytesIO(content)).pages[0].extract_text().splitlines() == [
            "Certificate",
            "No. CA-1",
            "Issued 03 May 2031",
            "Żółć GmbH",
            "Ελευθερία, Свобода",
        ]

    async def test_letters_that_it_can_not_write_are_named_and_nothing_is_made(self, objects: Objects):
        with pytest.raises(PartnerFailed) as refused:
            await Archive(objects).make(sending(), **{**WORDS, "lines": ["Hotel 平和"]})
        assert (refused.value.error_class, refused.value.code) == ("rejected", "letters_missing")
        assert refused.value.message == "A certificate can't be written with these: 和 (U+548C), 平 (U+5E73)."
        assert await objects.receipts() == []

    async def test_under_the_same_key_it_is_made_once(self, objects: Objects):
        archive = Archive(objects)
        made = [await archive.make(sending(), **{**WORDS, "title": title}) for title in ("One", "Two")]
        assert made[0] == made[1]
        both = [asyncio.ensure_future(archive.make(sending("o:other"), **WORDS)) for _ in range(2)]
        assert (await both[0]) == (await both[1])
        assert len(await objects.receipts()) == 2

    async def test_withdrawn_it_stays_where_it_is(self, objects: Objects):
        archive = Archive(objects)
        made = await archive.make(sending(), **WORDS)
        assert (await archive.withdraw(sending("0199-o:make:undo"), sha256=made.sha256)).withdrawn
        assert await objects.content(made.sha256)
        assert await archive.probe(sending(), "make") == made.model_dump()

    async def test_a_lease_that_is_over_makes_nothing(self, objects: Objects):
        with pytest.raises(LeaseTooShort):
            await Archive(objects).make(sending(lease=1), **WORDS)
        assert await objects.receipts() == []

    async def test_a_store_that_is_away_leaves_in_doubt_only_what_may_be_there(self, objects: Objects, monkeypatch):
        async def away(*args: object, **more: object) -> None:
            raise OSError

        with monkeypatch.context() as broken:
            broken.setattr(objects, "noted", away)
            with pytest.raises(PartnerFailed):
                await Archive(objects).make(sending(), **WORDS)
        with monkeypatch.context() as broken:
            broken.setattr(objects, "keep", away)
            with pytest.raises(PartnerFailed):
                await Archive(objects).make(sending(), **WORDS)
        monkeypatch.setattr(objects, "note", away)
        with pytest.raises(PartnerSilent):
            await Archive(objects).make(sending(), **WORDS)


def _at() -> datetime:
    return datetime(2031, 5, 3, tzinfo=UTC)
