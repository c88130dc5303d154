"""The stories of vendor onboarding."""

from caseward.workflow.case import CaseWorkflow, stories_of
from processes.vendor_onboarding import (
    BLOCK_IN_ERP,
    CHECK_TAX_ID,
    CREATE_IN_ERP,
    OPEN_PAYEE,
    RESUME_PAYEE,
    SCREEN_SANCTIONS,
    SUSPEND_PAYEE,
    UNBLOCK_IN_ERP,
    VENDOR_ONBOARDING,
    VERIFY_ACCOUNT,
    WELCOME,
)


@stories_of(VENDOR_ONBOARDING)
class VendorOnboarding(CaseWorkflow):
    """From draft to a vendor who can be paid."""

    async def submit(self) -> str:
        """Check side by side; what the requester can correct goes back at once, everything else to a reviewer."""
        tax_id, _, account = await self.together(CHECK_TAX_ID, SCREEN_SANCTIONS, VERIFY_ACCOUNT)
        unregistered = tax_id is not None and not tax_id.registered
        foreign_account = account is not None and account.match == "none"
        return "changes_requested" if unregistered or foreign_account else "in_review"

    async def resubmit(self) -> str:
        """The same checks for the corrected vendor."""
        return await self.submit()

    async def approve(self) -> None:
        """Set the vendor up, and only then say so."""
        await self.step(CREATE_IN_ERP)
        await self.step(OPEN_PAYEE)
        await self.step(WELCOME)

    async def suspend(self) -> None:
        """No new orders first, then no payments."""
        await self.step(BLOCK_IN_ERP)
        await self.step(SUSPEND_PAYEE)

    async def reinstate(self) -> None:
        """The other way round."""
        await self.step(RESUME_PAYEE)
        await self.step(UNBLOCK_IN_ERP)
