"""Partners whose gateways are never spoken to."""

from partners import Partners, SmtpServer

NOWHERE = SmtpServer(host="127.0.0.1", port=1, mail_from="caseward@caseward.test")


def nowhere() -> Partners:
    """A gateway to each of them, at an address where nobody listens."""
    return Partners.connect("http://127.0.0.1:1", NOWHERE)
