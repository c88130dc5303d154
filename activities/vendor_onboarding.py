"""The steps of vendor onboarding: each a pure function of its call around one send."""

from caseward.activity import Call, NotNeeded, effect, undo
from partners import Partners
from processes.vendor_onboarding import (
    BLOCK_IN_ERP,
    CHECK_TAX_ID,
    CREATE_IN_ERP,
    OPEN_PAYEE,
    RESUME_PAYEE,
    SCREEN_SANCTIONS,
    SUSPEND_PAYEE,
    UNBLOCK_IN_ERP,
    VERIFY_ACCOUNT,
    WELCOME,
    AccountCheck,
    Done,
    ErpVendor,
    Mailed,
    Payee,
    Screening,
    TaxIdCheck,
    Vendor,
)

NOT_IN_ERP = NotNeeded("the vendor is not in the ERP")
NO_PAYEE = NotNeeded("the vendor is no payee at the bank")


class VendorOnboardingSteps:
    """Vendor onboarding's side of each partner."""

    def __init__(self, partners: Partners) -> None:
        self.registry = partners.registry
        self.screening = partners.screening
        self.bank = partners.bank
        self.erp = partners.erp
        self.mail = partners.mail

    @effect(CHECK_TAX_ID)
    async def check_tax_id(self, call: Call[Vendor]) -> TaxIdCheck:
        """Whether the registry knows the tax id, and under this name."""
        vendor = call.subject
        found = await call.send(
            self.registry.check_tax_id, country=vendor.country, tax_id=vendor.tax_id, legal_name=vendor.legal_name
        )
        matches = (found.registered_name or "").casefold() == vendor.legal_name.casefold()
        return TaxIdCheck(registered=found.registered, name_matches=matches)

    @effect(SCREEN_SANCTIONS)
    async def screen_sanctions(self, call: Call[Vendor]) -> Screening:
        """How often the vendor stands on a sanctions list."""
        vendor = call.subject
        found = await call.send(self.screening.screen, legal_name=vendor.legal_name, country=vendor.country)
        return Screening(reference=found.reference, hits=len(found.hits))

    @effect(VERIFY_ACCOUNT)
    async def verify_account(self, call: Call[Vendor]) -> AccountCheck:
        """Whether the account is the vendor's."""
        account = call.subject.bank_account
        found = await call.send(self.bank.verify_account, iban=account.iban, holder=account.holder)
        return AccountCheck(reference=found.reference, match=found.match)

    @effect(CREATE_IN_ERP)
    async def create_in_erp(self, call: Call[Vendor]) -> ErpVendor:
        """Make the vendor one we can order from."""
        vendor = call.subject
        created = await call.send(
            self.erp.create_vendor,
            legal_name=vendor.legal_name,
            country=vendor.country,
            tax_id=vendor.tax_id,
            iban=vendor.bank_account.iban,
        )
        return ErpVendor(vendor_number=created.vendor_number)

    @undo(CREATE_IN_ERP)
    async def deactivate_in_erp(self, call: Call[Vendor], created: ErpVendor) -> None:
        """The ERP never deletes; a deactivated vendor can't be ordered from."""
        await call.send(self.erp.deactivate_vendor, vendor_number=created.vendor_number)

    @effect(OPEN_PAYEE)
    async def open_payee(self, call: Call[Vendor]) -> Payee:
        """Make the vendor one we can pay."""
        account = call.subject.bank_account
        opened = await call.send(self.bank.open_payee, iban=account.iban, holder=account.holder)
        return Payee(payee_id=opened.payee_id)

    @undo(OPEN_PAYEE)
    async def close_payee(self, call: Call[Vendor], payee: Payee) -> None:
        """Nothing can be paid to the vendor any more."""
        await call.send(self.bank.close_payee, payee_id=payee.payee_id)

    @effect(WELCOME)
    async def send_welcome(self, call: Call[Vendor]) -> Mailed:
        """Tell the vendor's contacts."""
        vendor = call.subject
        erp = call.standing(CREATE_IN_ERP)
        mailed = await call.send(
            self.mail.send,
            to=[contact.email for contact in vendor.contacts],
            template="vendor_welcome",
            values={"legal_name": vendor.legal_name, "vendor_number": erp.vendor_number if erp else None},
        )
        return Mailed(message_id=mailed.message_id)

    @effect(BLOCK_IN_ERP)
    async def block_in_erp(self, call: Call[Vendor]) -> Done | NotNeeded:
        """No new orders."""
        return await self._set_erp_block(call, blocked=True)

    @undo(BLOCK_IN_ERP)
    async def undo_block_in_erp(self, call: Call[Vendor], _done: Done) -> None:
        """Orders again."""
        await self._set_erp_block(call, blocked=False)

    @effect(UNBLOCK_IN_ERP)
    async def unblock_in_erp(self, call: Call[Vendor]) -> Done | NotNeeded:
        """Orders again."""
        return await self._set_erp_block(call, blocked=False)

    @undo(UNBLOCK_IN_ERP)
    async def undo_unblock_in_erp(self, call: Call[Vendor], _done: Done) -> None:
        """No new orders."""
        await self._set_erp_block(call, blocked=True)

    async def _set_erp_block(self, call: Call[Vendor], *, blocked: bool) -> Done | NotNeeded:
        created = call.standing(CREATE_IN_ERP)
        if created is None:
            return NOT_IN_ERP
        method = self.erp.block_vendor if blocked else self.erp.unblock_vendor
        done = await call.send(method, vendor_number=created.vendor_number)
        return Done(reference=done.vendor_number)

    @effect(SUSPEND_PAYEE)
    async def suspend_payee(self, call: Call[Vendor]) -> Done | NotNeeded:
        """No payments."""
        return await self._set_payee(call, suspended=True)

    @undo(SUSPEND_PAYEE)
    async def undo_suspend_payee(self, call: Call[Vendor], _done: Done) -> None:
        """Payments again."""
        await self._set_payee(call, suspended=False)

    @effect(RESUME_PAYEE)
    async def resume_payee(self, call: Call[Vendor]) -> Done | NotNeeded:
        """Payments again."""
        return await self._set_payee(call, suspended=False)

    @undo(RESUME_PAYEE)
    async def undo_resume_payee(self, call: Call[Vendor], _done: Done) -> None:
        """No payments."""
        await self._set_payee(call, suspended=True)

    async def _set_payee(self, call: Call[Vendor], *, suspended: bool) -> Done | NotNeeded:
        payee = call.standing(OPEN_PAYEE)
        if payee is None:
            return NO_PAYEE
        method = self.bank.suspend_payee if suspended else self.bank.resume_payee
        done = await call.send(method, payee_id=payee.payee_id)
        return Done(reference=done.payee_id)
