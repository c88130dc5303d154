"""The mailer: it can neither repeat nor tell, so an unanswered mail is a question for a person."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

from caseward.partner import Sending, offers
from partners.http import ERRORS_MEAN_NOTHING_DONE, MEANINGS, Answer, HttpGateway, Word

DEADLINE = timedelta(seconds=5)


class MailSent(Answer):
    """A mail on its way."""

    message_id: Word


class Mail(HttpGateway):
    """Sends again whatever it is told again."""

    name = "mail"
    meanings: ClassVar = {**MEANINGS, **ERRORS_MEAN_NOTHING_DONE}
    fresh_connections: ClassVar = True

    @offers("send", deadline=DEADLINE)
    async def send(
        self, sending: Sending, *, to: Sequence[str], template: str, values: Mapping[str, str | int | bool | None]
    ) -> MailSent:
        """Send a mail made from a template."""
        content = {"to": list(to), "template": template, "values": dict(values)}
        return await self._post(sending, "/messages", content, MailSent)
