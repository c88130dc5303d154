"""Vendor onboarding as a newer version has it: a step more when a vendor is approved, and none that mails."""

from dataclasses import replace

from caseward.process import Step
from caseward.workflow.case import CaseWorkflow, stories_of
from processes.vendor_onboarding import CREATE_IN_ERP, OPEN_PAYEE, VENDOR_ONBOARDING, WELCOME, Done

INSURE = Step("insure", "Insure the vendor's deliveries", partner="erp", result=Done, undo="Cancel the insurance")
NEWER = replace(
    VENDOR_ONBOARDING,
    transitions=tuple(
        replace(each, steps=(CREATE_IN_ERP, INSURE, OPEN_PAYEE)) if WELCOME in each.steps else each
        for each in VENDOR_ONBOARDING.transitions
    ),
)


@stories_of(NEWER)
class NewerOnboarding(CaseWorkflow):
    """Only what the tests tell of it."""

    async def approve(self) -> None:
        """As the newer version does it."""
        await self.step(CREATE_IN_ERP)
        await self.step(INSURE)
        await self.step(OPEN_PAYEE)
