"""Vendor onboarding: from a requester's draft, over screening and a second person's approval, to a payable vendor."""

from datetime import timedelta
from typing import Annotated

from pydantic import ConfigDict, EmailStr, Field

from caseward.process import (
    NONE_NEEDED,
    SENIOR_OPERATOR,
    Confirmation,
    Deadline,
    Escalate,
    ForceCancel,
    Process,
    Role,
    State,
    Step,
    Strict,
    Transition,
)
from processes.fields import Country, Iban, Line, Sha256

REQUESTER, REVIEWER, LEAD = "vendor_requester", "vendor_reviewer", "vendor_lead"


class BankAccount(Strict):
    """Where the vendor is paid."""

    iban: Iban
    holder: Line


class Contact(Strict):
    """A person at the vendor."""

    name: Line
    email: EmailStr


class DocumentReference(Strict):
    """A document kept elsewhere, bound by its content."""

    title: Line
    reference: Line
    sha256: Sha256 | None = None


class Vendor(Strict):
    """The vendor as the requester drafts it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "legal_name": "Northwind Tools GmbH",
                    "country": "DE",
                    "tax_id": "DE129273398",
                    "bank_account": {"iban": "DE89370400440532013000", "holder": "Northwind Tools GmbH"},
                    "contacts": [{"name": "Ada Berg", "email": "ada.berg@example.com"}],
                    "documents": [{"title": "Trade register extract", "reference": "dms:4711"}],
                }
            ]
        }
    )

    legal_name: Line
    country: Country
    tax_id: Annotated[
        str,
        Field(
            pattern=r"^[A-Z0-9][A-Z0-9./-]{3,29}$",
            description="4 to 30 capital letters, digits, dots, slashes and hyphens.",
        ),
    ]
    bank_account: BankAccount
    contacts: Annotated[tuple[Contact, ...], Field(min_length=1, max_length=20)]
    documents: Annotated[tuple[DocumentReference, ...], Field(max_length=50)] = ()


class Grounds(Strict):
    """What the requester or the vendor is told."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"grounds": "The trade register extract is older than three months."}]}
    )

    grounds: Annotated[str, Field(min_length=3, max_length=2000)]


class Correction(Strict):
    """The vendor as it should be now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"vendor": Vendor.model_config["json_schema_extra"]["examples"][0]}]}  # type: ignore[index]
    )

    vendor: Vendor


class TaxIdCheck(Strict):
    """What the registry says of the tax id."""

    registered: bool
    name_matches: bool | None = None
    """None where nobody compared."""


class Screening(Strict):
    """What the sanctions lists say."""

    reference: str
    hits: int


class AccountCheck(Strict):
    """How well holder and account fit, in the bank's words."""

    reference: str
    match: str


class ErpVendor(Strict):
    """The vendor's number in our ERP."""

    vendor_number: str


class Payee(Strict):
    """The payment rail's id of the vendor."""

    payee_id: str


class Mailed(Strict):
    """The mail system's receipt."""

    message_id: str


class Done(Strict):
    """The partner confirmed."""

    reference: str


CHECK_TAX_ID = Step(
    "check_tax_id",
    "Check the tax id",
    partner="registry",
    result=TaxIdCheck,
    undo=NONE_NEEDED,
    owner="vendor_desk",
)
SCREEN_SANCTIONS = Step(
    "screen_sanctions",
    "Screen against sanctions lists",
    partner="screening",
    result=Screening,
    undo=NONE_NEEDED,
    owner="compliance",
    skip_roles=frozenset(),
    # Screened by hand is what nobody should be able to claim alone.
    skip_confirmation=Confirmation(by=1, roles=frozenset({LEAD})),
)
VERIFY_ACCOUNT = Step(
    "verify_account",
    "Verify the bank account",
    partner="bank",
    result=AccountCheck,
    undo=NONE_NEEDED,
    owner="treasury",
)
CREATE_IN_ERP = Step(
    "create_in_erp",
    "Create the vendor in the ERP",
    partner="erp",
    result=ErpVendor,
    undo="Deactivate the vendor in the ERP",
    owner="erp_support",
)
OPEN_PAYEE = Step(
    "open_payee",
    "Open the payee at the bank",
    partner="bank",
    result=Payee,
    undo="Close the payee at the bank",
    owner="treasury",
    skip_roles=frozenset({SENIOR_OPERATOR}),
)
WELCOME = Step(
    "send_welcome",
    "Mail the welcome letter",
    partner="mail",
    result=Mailed,
    undo=NONE_NEEDED,
)
BLOCK_IN_ERP = Step(
    "block_in_erp",
    "Block the vendor in the ERP",
    partner="erp",
    result=Done,
    undo="Unblock the vendor in the ERP",
    owner="erp_support",
)
SUSPEND_PAYEE = Step(
    "suspend_payee",
    "Suspend payments to the vendor",
    partner="bank",
    result=Done,
    undo="Resume payments to the vendor",
    owner="treasury",
)
UNBLOCK_IN_ERP = Step(
    "unblock_in_erp",
    "Unblock the vendor in the ERP",
    partner="erp",
    result=Done,
    undo="Block the vendor in the ERP again",
    owner="erp_support",
)
RESUME_PAYEE = Step(
    "resume_payee",
    "Resume payments to the vendor",
    partner="bank",
    result=Done,
    undo="Suspend payments to the vendor again",
    owner="treasury",
)

VENDOR_ONBOARDING = Process(
    "vendor_onboarding",
    "Vendor onboarding",
    subject=Vendor,
    headline=lambda vendor: f"{vendor.legal_name} ({vendor.country})",
    owner="vendor_desk",
    teams=frozenset({"vendor_desk", "compliance", "treasury", "erp_support"}),
    roles=(
        Role(REQUESTER, "Vendor requester"),
        Role(REVIEWER, "Vendor reviewer"),
        Role(LEAD, "Vendor review lead"),
    ),
    states=(
        State("draft", "Draft", "The vendor is being drafted and was not submitted yet.", waiting_on=REQUESTER),
        State("screening", "Screening", "We are checking tax id, sanctions lists and bank account."),
        State(
            "in_review",
            "In review",
            "The checks are done. A reviewer decides.",
            waiting_on=REVIEWER,
            deadline=Deadline(after=timedelta(days=2), then=Escalate(LEAD)),
        ),
        State(
            "changes_requested",
            "Changes requested",
            "Something has to be corrected before this vendor can be reviewed.",
            waiting_on=REQUESTER,
        ),
        State("activating", "Activating", "Approved. We are setting the vendor up with our bank and ERP."),
        State("active", "Active", "The vendor can be ordered from and paid."),
        State("suspending", "Suspending", "We are stopping orders and payments."),
        State("suspended", "Suspended", "No orders and no payments until the vendor is reinstated."),
        State("reinstating", "Reinstating", "We are allowing orders and payments again."),
        State("cancelling", "Cancelling", "We are taking back what was set up so far."),
        State("rejected", "Rejected", "The vendor was refused.", final=True),
        State("cancelled", "Cancelled", "The request was withdrawn.", final=True),
    ),
    transitions=(
        Transition("open", "Draft a vendor", to="draft", roles=frozenset({REQUESTER})),
        Transition(
            "submit",
            "Submit",
            source=frozenset({"draft"}),
            pending="screening",
            to=("in_review", "changes_requested"),
            roles=frozenset({REQUESTER}),
            steps=(CHECK_TAX_ID, SCREEN_SANCTIONS, VERIFY_ACCOUNT),
        ),
        Transition(
            "resubmit",
            "Submit the correction",
            source=frozenset({"changes_requested"}),
            pending="screening",
            to=("in_review", "changes_requested"),
            roles=frozenset({REQUESTER}),
            steps=(CHECK_TAX_ID, SCREEN_SANCTIONS, VERIFY_ACCOUNT),
            input=Correction,
            revise=lambda _vendor, correction: correction.vendor,
        ),
        Transition(
            "approve",
            "Approve",
            source=frozenset({"in_review"}),
            pending="activating",
            to="active",
            roles=frozenset({REVIEWER, LEAD}),
            steps=(CREATE_IN_ERP, OPEN_PAYEE, WELCOME),
            four_eyes=frozenset({"open", "submit", "resubmit"}),
        ),
        Transition(
            "request_changes",
            "Request changes",
            source=frozenset({"in_review"}),
            to="changes_requested",
            roles=frozenset({REVIEWER, LEAD}),
            input=Grounds,
        ),
        Transition(
            "reject",
            "Reject",
            source=frozenset({"in_review"}),
            to="rejected",
            roles=frozenset({REVIEWER, LEAD}),
            input=Grounds,
        ),
        Transition(
            "cancel",
            "Withdraw the request",
            source=frozenset({"draft", "screening", "in_review", "changes_requested", "activating"}),
            pending="cancelling",
            to="cancelled",
            roles=frozenset({REQUESTER, LEAD}),
        ),
        Transition(
            "suspend",
            "Suspend",
            source=frozenset({"active"}),
            pending="suspending",
            to="suspended",
            roles=frozenset({REVIEWER, LEAD}),
            steps=(BLOCK_IN_ERP, SUSPEND_PAYEE),
            input=Grounds,
        ),
        Transition(
            "reinstate",
            "Reinstate",
            source=frozenset({"suspended"}),
            pending="reinstating",
            to="active",
            roles=frozenset({LEAD}),
            steps=(RESUME_PAYEE, UNBLOCK_IN_ERP),
        ),
        Transition(
            "reopen",
            "Reopen",
            source=frozenset({"rejected", "cancelled"}),
            to="draft",
            roles=frozenset({REQUESTER, LEAD}),
        ),
    ),
    force_cancel=ForceCancel(pending="cancelling", to="cancelled"),
)
