"""The stories of compliance approval."""

from caseward.workflow.case import CaseWorkflow, stories_of
from processes.compliance_approval import CERTIFY, COMPLIANCE_APPROVAL, ENTER, RESERVE, SEND, TELL, VALIDATE


@stories_of(COMPLIANCE_APPROVAL)
class ComplianceApprovals(CaseWorkflow):
    """From documents to a certificate, and back."""

    async def submit(self) -> str:
        """What can't be read goes back to whoever sent it."""
        return "in_review" if await self._all_readable() else "changes_requested"

    async def approve(self) -> str:
        """A document may have come since the others were looked at; nothing is certified over what can't be read."""
        if not await self._all_readable():
            return "changes_requested"
        await self.step(RESERVE)
        await self.step(ENTER)
        await self.step(CERTIFY)
        await self.step(SEND)
        return "approved"

    async def revoke(self) -> None:
        """The register is what people rely on, so nobody is told before it is right."""
        await self.undo(CERTIFY, ENTER, RESERVE)
        await self.step(TELL)

    async def _all_readable(self) -> bool:
        verdicts = await self.each(VALIDATE, self.documents)
        return all(verdict is not None and verdict.accepted for verdict in verdicts)
