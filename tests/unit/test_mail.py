"""Mail: what a letter says, what can't get into its headers, and what each reply of a server means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import unquote

import pytest

from caseward.errors import LeaseTooShort, PartnerAnswer, PartnerFailed, PartnerSilent
from caseward.partner import Sending
from partners.mail import LETTERS, Mail, SmtpServer, one_line, read_letters

KEY = "0199aaaa-o:send.welcome:item 7:undo"
EVIL = "Acme\r\nBcc: everybody@example.com\n\nBuy now"
VALUES = {"legal_name": "Acme GmbH", "vendor_number": "V-1"}


def sending(*, key: str = KEY, deadline: float = 1, lease: float = 60) -> Sending:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return Sending(key=key, traceparent=trace, deadline=timedelta(seconds=deadline), send_before=monotonic() + lease)


def mail(port: int = 1, **server: object) -> Mail:
    return Mail(SmtpServer(host="127.0.0.1", port=port, mail_from="caseward@caseward.test", **server))


@asynccontextmanager
async def server(replies: dict[str, str | None]) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers each command as told, hangs up at None, and writes down what it hears."""
    heard: list[str] = []
    silence = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(place: str, otherwise: str) -> bool:
            reply = replies.get(place, otherwise)
            if reply == "":
                await silence.wait()
            if reply is None:
                writer.transport.abort()
                return False
            writer.write(f"{reply}\r\n".encode())
            await writer.drain()
            return True

        writers.append(writer)
        open_ = await say("connect", "220 hello")
        while open_ and (line := (await reader.readline()).decode()):
            heard.append(line.strip())
            verb = line.split(" ")[0].strip()
            open_ = await say(verb, "354 go on" if verb == "DATA" else "250 fine")
            if open_ and verb == "DATA" and replies.get("DATA") is None:
                heard.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                open_ = await say("end", "250 taken")

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], heard
    finally:
        silence.set()
        listening.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def outcome(replies: dict[str, str | None], **leave: float) -> PartnerAnswer:
    async with server(replies) as (port, _):
        with pytest.raises(PartnerAnswer) as raised:
            await mail(port).send(sending(**leave), to=["a@example.org"], template="vendor_welcome", values=VALUES)
        return raised.value


class TestLetters:
    def test_of_the_business_say_what_they_are_given(self):
        letter = mail().render("vendor_welcome", VALUES)
        assert letter.subject == "Welcome, Acme GmbH"
        assert "under the number V-1" in letter.text

    def test_are_text_in_which_nothing_is_escaped(self):
        assert mail().render("vendor_welcome", {**VALUES, "legal_name": "A & B <C>"}).subject == "Welcome, A & B <C>"

    @pytest.mark.parametrize("name", sorted(path.stem for path in LETTERS.iterdir()))
    def test_lack_nothing_silently(self, name: str):
        with pytest.raises(PartnerFailed) as raised:
            mail().render(name, {})
        assert (raised.value.error_class, raised.value.code) == ("invalid", "mail_invalid")

    def test_that_do_not_exist_are_refused(self):
        with pytest.raises(PartnerFailed, match="no letter"):
            mail().render("../settings", {})

    @pytest.mark.parametrize("text", ["Hello\n\nText", "Subject: one\nTo: two\n\nText", "Subject: alone"])
    def test_that_are_malformed_are_found_when_they_are_read(self, tmp_path: Path, text: str):
        (tmp_path / "odd.txt").write_text(text)
        with pytest.raises(ValueError, match=r"odd\.txt must begin"):
            read_letters(tmp_path)


class TestHeaders:
    def compose(self, *, to: str = "a@example.org", name: str = "Acme"):
        letter = mail().render("vendor_welcome", {**VALUES, "legal_name": name})
        return mail().compose(sending(), to=[to], letter=letter)

    def test_take_no_line_from_a_value(self):
        message = self.compose(name=EVIL)
        head = message.as_bytes().partition(b"\r\n\r\n")[0]
        assert message["Bcc"] is None
        assert not [line for line in head.splitlines() if line.lower().startswith(b"bcc")]
        assert message["Subject"] == "Welcome, Acme Bcc: everybody@example.com Buy now"

    @pytest.mark.parametrize(
        "to",
        [
            "a@example.org\r\nBcc: b@example.com",
            "a@example.org, b@example.com",
            "a@example.org b@example.com",
            "Jo <a@b.c>",
            "",
        ],
    )
    def test_take_one_plain_address_each(self, to: str):
        with pytest.raises(PartnerFailed) as raised:
            self.compose(to=to)
        assert (raised.value.error_class, raised.value.code) == ("invalid", "mail_invalid")

    def test_refuse_what_gets_past_the_letter(self):
        letter = mail().render("vendor_welcome", VALUES)
        with pytest.raises(PartnerFailed, match="header"):
            mail().compose(sending(key="x"), to=["a@example.org"], letter=type(letter)(EVIL, "Text"))

    def test_name_the_key_so_that_it_can_be_read_back(self):
        message_id = self.compose()["Message-ID"]
        assert unquote(message_id.strip("<>").rpartition("@")[0]) == KEY
        assert message_id == self.compose()["Message-ID"]

    @pytest.mark.parametrize("odd", ["a\nb", "a\r\nb", "a\x00b", "a\u2028b", "a\x85b", " a \t b "])
    def test_are_one_line(self, odd: str):
        assert one_line(odd) == "a b"


class TestReplies:
    async def test_a_mail_that_is_taken_over_is_sent(self):
        async with server({}) as (port, heard):
            to = ["a@example.org", "b@example.org"]
            sent = await mail(port).send(sending(), to=to, template="vendor_welcome", values=VALUES)
        assert unquote(sent.message_id.rpartition("@")[0]) == KEY
        assert [line for line in heard if line.startswith("RCPT")] == [f"RCPT TO:<{one}>" for one in to]
        assert heard[-1].endswith("\r\n.\r\n")

    @pytest.mark.parametrize("place", ["connect", "MAIL", "RCPT", "DATA", "end"])
    @pytest.mark.parametrize(
        ("code", "error_class"),
        [(421, "transient"), (451, "transient"), (452, "transient"), (550, "rejected"), (554, "rejected")],
    )
    async def test_a_refusal_is_certain_wherever_it_comes(self, place: str, code: int, error_class: str):
        answer = await outcome({place: f"{code} no"})
        assert isinstance(answer, PartnerFailed)
        assert (answer.error_class, answer.code) == (error_class, f"smtp_{code}")

    @pytest.mark.parametrize(
        ("code", "error_class"), [(530, "unauthorized"), (535, "unauthorized"), (501, "invalid"), (555, "invalid")]
    )
    async def test_some_refusals_are_about_us(self, code: int, error_class: str):
        answer = await outcome({"MAIL": f"{code} no"})
        assert isinstance(answer, PartnerFailed)
        assert answer.error_class == error_class

    async def test_one_refused_recipient_is_enough_to_send_to_nobody(self):
        async with server({"RCPT": "550 no"}) as (port, heard):
            with pytest.raises(PartnerFailed):
                await mail(port).send(sending(), to=["a@example.org"], template="vendor_welcome", values=VALUES)
        assert "DATA" not in heard

    @pytest.mark.parametrize("place", ["connect", "EHLO", "MAIL", "RCPT"])
    async def test_a_connection_lost_before_the_mail_is_no_doubt(self, place: str):
        answer = await outcome({place: None, "HELO": None})
        assert isinstance(answer, PartnerFailed)
        assert (answer.error_class, answer.code) == ("transient", "unreachable")

    async def test_nobody_there_is_no_doubt(self):
        with pytest.raises(PartnerFailed, match="unreachable"):
            await mail().send(sending(), to=["a@example.org"], template="vendor_welcome", values=VALUES)

    async def test_a_lost_reply_is_unknown(self):
        answer = await outcome({"end": None})
        assert isinstance(answer, PartnerSilent)
        assert answer.code == "connection_lost"

    async def test_a_reply_that_is_neither_yes_nor_no_is_unknown(self):
        answer = await outcome({"end": "252 perhaps"})
        assert isinstance(answer, PartnerSilent)
        assert answer.code == "smtp_252"

    async def test_a_lease_that_is_too_short_sends_nothing(self):
        async with server({}) as (port, heard):
            with pytest.raises(LeaseTooShort):
                await mail(port).send(sending(lease=0.5), to=["a@b.org"], template="vendor_welcome", values=VALUES)
        assert heard == []

    async def test_encryption_that_the_server_lacks_sends_nothing(self):
        async with server({"STARTTLS": "454 not now"}) as (port, heard):
            with pytest.raises(PartnerFailed):
                await mail(port, starttls=True).send(
                    sending(), to=["a@b.org"], template="vendor_welcome", values=VALUES
                )
        assert not [line for line in heard if line.startswith("MAIL")]

    async def test_a_server_that_takes_its_time_with_the_mail_is_unknown(self):
        answer = await outcome({"end": ""}, deadline=0.2)
        assert isinstance(answer, PartnerSilent)
        assert answer.code == "timeout"
