"""The steps of compliance approval: each a pure function of its call around one send."""

from caseward.activity import Call, NotNeeded, effect, undo
from caseward.process import Finding, Verdict
from partners import Partners
from processes.compliance_approval import (
    CERTIFY,
    ENTER,
    RESERVE,
    SEND,
    TELL,
    VALIDATE,
    Application,
    Certificate,
    Entered,
    Mailed,
    Numbered,
)

NO_NUMBER = NotNeeded("no number was reserved")


class ComplianceApprovalSteps:
    """Compliance approval's side of each partner."""

    def __init__(self, partners: Partners) -> None:
        self.checker = partners.checker
        self.register = partners.register
        self.archive = partners.archive
        self.mail = partners.mail

    @effect(VALIDATE)
    async def validate_document(self, call: Call[Application]) -> Verdict:
        """Whether people could read it."""
        checked = await call.send(self.checker.check, sha256=call.document.sha256)
        if checked.finding is None:
            return Verdict(accepted=True, pages=checked.pages)
        finding = Finding(code=checked.finding, message=checked.message or checked.finding)
        return Verdict(accepted=False, findings=(finding,), pages=checked.pages)

    @effect(RESERVE)
    async def reserve_number(self, call: Call[Application]) -> Numbered:
        """Nobody else gets it."""
        reserved = await call.send(self.register.reserve_number, holder=call.subject.holder)
        return Numbered(number=reserved.number)

    @undo(RESERVE)
    async def give_number_back(self, call: Call[Application], numbered: Numbered) -> None:
        """It stays unused."""
        await call.send(self.register.give_back, number=numbered.number)

    @effect(ENTER)
    async def enter_in_register(self, call: Call[Application]) -> Entered | NotNeeded:
        """Everybody can look it up."""
        numbered, subject = call.standing(RESERVE), call.subject
        if numbered is None:
            return NO_NUMBER
        entered = await call.send(
            self.register.enter, number=numbered.number, holder=subject.holder, scope=subject.scope
        )
        return Entered(entry=entered.entry)

    @undo(ENTER)
    async def strike_entry(self, call: Call[Application], entered: Entered) -> None:
        """It says from now on that it holds no more."""
        await call.send(self.register.strike, entry=entered.entry)

    @effect(CERTIFY)
    async def make_certificate(self, call: Call[Application]) -> Certificate | NotNeeded:
        """It names the very contents that were approved."""
        numbered, subject = call.standing(RESERVE), call.subject
        if numbered is None:
            return NO_NUMBER
        seen = [f"{document.name}: SHA-256 {document.sha256}" for document in call.documents]
        made = await call.send(
            self.archive.make,
            number=numbered.number,
            title="Certificate of approval",
            lines=[subject.holder, subject.scope, "", *(["It rests on these documents:", *seen] if seen else [])],
            issued_at=call.accepted_at.isoformat(),
        )
        return Certificate(number=numbered.number, sha256=made.sha256, size=made.size)

    @undo(CERTIFY)
    async def withdraw_certificate(self, call: Call[Application], certificate: Certificate) -> None:
        """It stays in the archive, as one that is withdrawn."""
        await call.send(self.archive.withdraw, sha256=certificate.sha256)

    @effect(SEND)
    async def send_certificate(self, call: Call[Application]) -> Mailed:
        """The contact knows the number, by which anybody can look it up."""
        certificate = call.standing(CERTIFY)
        values = {"holder": call.subject.holder, "number": certificate.number if certificate else None}
        mailed = await call.send(
            self.mail.send, to=[call.subject.contact], template="compliance_approved", values=values
        )
        return Mailed(message_id=mailed.message_id)

    @effect(TELL)
    async def tell_revoked(self, call: Call[Application]) -> Mailed:
        """The contact knows that it holds no more."""
        values = {"holder": call.subject.holder, "scope": call.subject.scope}
        mailed = await call.send(
            self.mail.send, to=[call.subject.contact], template="compliance_revoked", values=values
        )
        return Mailed(message_id=mailed.message_id)
