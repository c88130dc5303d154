"""Mail, by SMTP. No server can repeat or tell by what SMTP offers, so an unanswered mail is a question for a person.

SMTP has one moment of doubt: from the first byte of the mail until the server's reply to it. Before it nothing was
sent, whatever went wrong; after it the reply decides. So a refusal is always certain, only a lost reply is unknown.
The Message-ID is derived from the key: doubles show to whoever reads the mail, or the server's log.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as OVER_SMTP
from email.policy import SMTPUTF8 as OVER_SMTPUTF8
from email.utils import localtime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import aiosmtplib
from jinja2 import Environment, StrictUndefined, Template, TemplateError

from caseward.errors import ErrorClass, LeaseTooShort, PartnerFailed, PartnerSilent
from caseward.partner import Sending, offers
from partners.http import MAX_MESSAGE, Answer, Word, cleaned

DEADLINE = timedelta(seconds=5)  # to a server near us, which takes a mail in well under one
CONNECT_SHARE = 0.4  # of the deadline: connecting ends first, so that the rest is left for the mail
LETTERS = Path(__file__).parent.parent / "mails"
SUBJECT = "Subject: "
LONGEST_SUBJECT = 200

# Replies that are about us, not about this mail; any other 5xx is the server's no to it, any 4xx asks for another try.
UNAUTHORIZED = frozenset({530, 534, 535, 538})
INVALID = frozenset({500, 501, 502, 503, 504, 555})

Value = str | int | bool | None


class MailSent(Answer):
    """A mail that the server took over."""

    message_id: Word


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """Where mail goes, and as whom we send it."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = False
    mail_from: str

    @cached_property
    def sender(self) -> Address:
        """Us. Raises ValueError where it is no address."""
        return address(self.mail_from)


@dataclass(frozen=True)
class Letter:
    """A mail's text."""

    subject: str
    text: str


class Mail:
    """Sends again whatever it is told again."""

    name = "mail"

    def __init__(self, server: SmtpServer, *, letters: Path = LETTERS) -> None:
        self._server = server
        self._letters = read_letters(letters)

    async def aclose(self) -> None:
        """Nothing stays open: an idle connection that breaks under a mail costs a person."""

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """SMTP has no question for it."""
        raise PartnerSilent("probe_not_offered", f"The {self.name} can't be asked about {call} by {sending.key}.")

    @offers("send", deadline=DEADLINE)
    async def send(
        self, sending: Sending, *, to: Sequence[str], template: str, values: Mapping[str, Value]
    ) -> MailSent:
        """Send a mail made from a template: to all, or, where the server refuses one of them, to nobody."""
        message = self.compose(sending, to=to, letter=self.render(template, values))
        seconds = sending.deadline.total_seconds()
        ends_at = time.monotonic() + seconds
        client = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            username=self._server.username,
            password=self._server.password,
            start_tls=self._server.starttls,
            tls_context=_tls() if self._server.starttls else None,
            local_hostname=self._server.sender.domain,
            timeout=seconds,
        )
        begun = False
        try:
            async with asyncio.timeout(seconds):
                sending.check_lease()
                content = await self._address(client, message, within=seconds * CONNECT_SHARE)
                if time.monotonic() >= ends_at:  # a worker frozen while it connected wakes up here, and must not send
                    raise LeaseTooShort("lease_too_short", "The attempt's time ended before it could send.")
                begun = True
                await client.data(content)
        except aiosmtplib.SMTPResponseException as reply:
            self._refused(reply.code, reply.message)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:  # their timeouts are SMTPExceptions too
            if not begun:
                raise PartnerFailed("transient", "unreachable", f"The {self.name} could not be reached.") from error
            if isinstance(error, TimeoutError):
                raise PartnerSilent("timeout", f"The {self.name} did not answer within {seconds:g} s.") from error
            raise PartnerSilent("connection_lost", f"The connection to the {self.name} broke.") from error
        finally:
            client.close()  # without QUIT: what was taken over is not given back
        return MailSent(message_id=message["Message-ID"][1:-1])

    async def _address(self, client: aiosmtplib.SMTP, message: EmailMessage, *, within: float) -> bytes:
        """Connect, and have the server accept sender and recipients; gives the mail in the form that it understands."""
        await client.connect(timeout=within)
        people = [one.addr_spec for one in message["To"].addresses]
        ours = self._server.sender.addr_spec
        international = not all(one.isascii() for one in (*people, ours))
        if international and not client.supports_extension("smtputf8"):
            await client.ehlo()
            if not client.supports_extension("smtputf8"):
                text = "The mail server knows no addresses beyond ASCII."
                raise PartnerFailed("rejected", "address_not_supported", text)
        await client.mail(ours, options=["SMTPUTF8"] if international else [], encoding="utf-8")
        for one in people:
            await client.rcpt(one, encoding="utf-8")
        return message.as_bytes(policy=OVER_SMTPUTF8 if international else OVER_SMTP)

    def _refused(self, code: int, text: str) -> NoReturn:
        """A reply that is no success. By the protocol both 4xx and 5xx say that the mail stays ours."""
        said = cleaned(text, MAX_MESSAGE) or f"The {self.name} answered {code}."
        meaning: ErrorClass
        if code in UNAUTHORIZED:
            meaning = "unauthorized"
        elif code in INVALID:
            meaning = "invalid"
        elif 500 <= code <= 599:  # noqa: PLR2004 - classes of replies
            meaning = "rejected"
        elif 400 <= code <= 499:  # noqa: PLR2004
            meaning = "transient"
        else:
            raise PartnerSilent(f"smtp_{code}", said) from None
        raise PartnerFailed(meaning, f"smtp_{code}", said) from None

    def render(self, template: str, values: Mapping[str, Value]) -> Letter:
        """The letter with its values. Subject and text are rendered apart: no value gets from one into the other."""
        if template not in self._letters:
            self._invalid(f"There is no letter {template}.")
        subject, text = self._letters[template]
        try:
            return Letter(one_line(subject.render(values))[:LONGEST_SUBJECT], text.render(values))
        except TemplateError as fault:
            self._invalid(f"{template}: {fault}", fault)

    def compose(self, sending: Sending, *, to: Sequence[str], letter: Letter) -> EmailMessage:
        """The whole mail. The headers' policy refuses line breaks in whatever gets that far."""
        message = EmailMessage(policy=OVER_SMTP)
        try:
            message["From"] = self._server.sender
            message["To"] = [address(one) for one in to]
            message["Subject"] = letter.subject
            message["Message-ID"] = f"<{local_part(sending.key)}@{self._server.sender.domain}>"
            message["Date"] = localtime()
            message["Auto-Submitted"] = "auto-generated"  # out-of-office assistants keep quiet
            message["Traceparent"] = sending.traceparent
        except (ValueError, MessageError) as fault:
            self._invalid(f"A header can't be written: {type(fault).__name__}.", fault)
        if not to:
            self._invalid("The mail is addressed to nobody.")
        message.set_content(letter.text)
        return message

    def _invalid(self, text: str, cause: Exception | None = None) -> NoReturn:
        raise PartnerFailed("invalid", "mail_invalid", text[:MAX_MESSAGE]) from cause


@cache
def read_letters(folder: Path) -> Mapping[str, tuple[Template, Template]]:
    """Subject and text of each letter, by the name of its file. Raises ValueError where one is malformed."""
    # Text, not HTML: nothing is escaped. What a template is not given is an error, not an empty place.
    environment = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701
    letters: dict[str, tuple[Template, Template]] = {}
    for path in sorted(folder.glob("*.txt")):
        head, blank, text = path.read_text().partition("\n\n")
        if not head.startswith(SUBJECT) or "\n" in head or not blank:
            message = f"{path.name} must begin with one line `{SUBJECT}…` and an empty one"
            raise ValueError(message)
        subject = environment.from_string(head.removeprefix(SUBJECT))
        letters[path.stem] = (subject, environment.from_string(text))
    return letters


def address(text: str) -> Address:
    """One plain address, without a name. Raises ValueError."""
    if one_line(text) != text or " " in text:
        message = "an address is one word"
        raise ValueError(message)
    try:
        return Address(addr_spec=text)
    except (IndexError, MessageError) as fault:  # theirs: the parser reads beyond the end of what is too short
        raise ValueError(text) from fault


def one_line(text: str) -> str:
    """Without control characters, each run of white space a single one."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text).split())


def local_part(key: str) -> str:
    """The key as the left side of a Message-ID, from which `unquote` gets it back."""
    return quote(key, safe="").replace(".", "%2E")


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
