"""Compliance approval: documents are looked at, two groups approve, and every half year somebody looks again."""

from datetime import timedelta
from typing import Annotated

from pydantic import ConfigDict, EmailStr, Field

from caseward.process import (
    NONE_NEEDED,
    Confirmation,
    Deadline,
    DocumentKind,
    Documents,
    Escalate,
    ForceCancel,
    Made,
    Process,
    Role,
    State,
    Step,
    Strict,
    Take,
    Transition,
    Verdict,
)
from processes.fields import Line, Sha256

APPLICANT, OFFICER = "compliance_applicant", "compliance_officer"
LEGAL, RISK, SECURITY = "legal_approver", "risk_approver", "security_approver"
APPROVERS = frozenset({LEGAL, RISK, SECURITY})
# Two of three, and never without legal; whoever proposes it is one of them.
TWO_OF_THREE = Confirmation(
    by=2, roles=APPROVERS, groups=frozenset({LEGAL}), expires=timedelta(days=14), proposer_counts=True
)
REVIEWED_AGAIN_AFTER = timedelta(days=182)  # twice a year, as our certifier demands


class Application(Strict):
    """Who wants to be approved for what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "holder": "Northwind Tools GmbH",
                    "scope": "Processing of payment data",
                    "contact": "ada.berg@example.com",
                }
            ]
        }
    )

    holder: Line
    scope: Line
    contact: EmailStr


class Grounds(Strict):
    """What the applicant is told."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grounds": "The audit report is of the year before."}]})

    grounds: Annotated[str, Field(min_length=3, max_length=2000)]


class Numbered(Strict):
    """The number that the register keeps for it."""

    number: str


class Entered(Strict):
    """Its entry in the register."""

    entry: str


class Certificate(Strict):
    """The certificate, as the archive has it."""

    number: str
    sha256: Sha256
    size: int


class Mailed(Strict):
    """The mail system's receipt."""

    message_id: str


VALIDATE = Step(
    "validate_document",
    "Look at the document",
    partner="checker",
    result=Verdict,
    undo=NONE_NEEDED,
    skip_roles=frozenset(),  # what nobody could read, nobody can approve
    each=True,
)
RESERVE = Step("reserve_number", "Reserve a number", partner="register", result=Numbered, undo="Give the number back")
ENTER = Step(
    "enter_in_register", "Enter it in the register", partner="register", result=Entered, undo="Strike the entry"
)
CERTIFY = Step(
    "make_certificate",
    "Make the certificate",
    partner="archive",
    result=Certificate,
    undo="Withdraw the certificate",
    makes=Made("Certificate", "application/pdf"),
)
SEND = Step("send_certificate", "Mail the certificate's number", partner="mail", result=Mailed, undo=NONE_NEEDED)
TELL = Step("tell_revoked", "Mail that it is revoked", partner="mail", result=Mailed, undo=NONE_NEEDED)

COMPLIANCE_APPROVAL = Process(
    "compliance_approval",
    "Compliance approval",
    subject=Application,
    headline=lambda application: f"{application.holder}: {application.scope}",
    owner="compliance_desk",
    teams=frozenset({"compliance_desk"}),
    roles=(
        Role(APPLICANT, "Applicant"),
        Role(LEGAL, "Legal approver"),
        Role(RISK, "Risk approver"),
        Role(SECURITY, "Security approver"),
        Role(OFFICER, "Compliance officer"),
    ),
    documents=Documents(
        kinds=(
            DocumentKind(
                "evidence",
                "Evidence",
                roles=frozenset({APPLICANT}),
                states=frozenset({"draft", "changes_requested", "in_review"}),
            ),
        ),
        checked_by=VALIDATE,
    ),
    states=(
        State("draft", "Draft", "The application is being put together.", waiting_on=APPLICANT),
        State("checking", "Checking", "We are looking whether every document can be read."),
        State(
            "in_review",
            "In review",
            "The documents can be read. Two groups of approvers decide, legal among them.",
            waiting_on=LEGAL,
            deadline=Deadline(after=timedelta(days=10), then=Escalate(OFFICER)),
        ),
        State(
            "changes_requested",
            "Changes requested",
            "Something has to be corrected before this can be reviewed.",
            waiting_on=APPLICANT,
        ),
        State("certifying", "Certifying", "Approved. We are entering it in the register and making the certificate."),
        State(
            "approved",
            "Approved",
            "The approval stands, and is in the register.",
            deadline=Deadline(after=REVIEWED_AGAIN_AFTER, then=Take("review_again")),
        ),
        State(
            "under_review",
            "Under review again",
            "The approval stands while somebody looks whether it still should.",
            waiting_on=LEGAL,
            deadline=Deadline(after=timedelta(days=30), then=Escalate(OFFICER)),
        ),
        State("revoking", "Revoking", "We are striking the entry and withdrawing the certificate."),
        State("withdrawing", "Withdrawing", "We are taking back what was done so far."),
        State("revoked", "Revoked", "The approval holds no more.", final=True),
        State("refused", "Refused", "It was not approved.", final=True),
        State("withdrawn", "Withdrawn", "The application was taken back.", final=True),
    ),
    transitions=(
        Transition("open", "Draft an application", to="draft", roles=frozenset({APPLICANT})),
        Transition(
            "submit",
            "Submit",
            source=frozenset({"draft", "changes_requested"}),
            pending="checking",
            to=("in_review", "changes_requested"),
            roles=frozenset({APPLICANT}),
            steps=(VALIDATE,),
        ),
        Transition(
            "approve",
            "Approve",
            source=frozenset({"in_review"}),
            pending="certifying",
            to=("approved", "changes_requested"),
            roles=APPROVERS,
            steps=(VALIDATE, RESERVE, ENTER, CERTIFY, SEND),
            four_eyes=frozenset({"open", "submit"}),
            confirmation=TWO_OF_THREE,
        ),
        Transition(
            "request_changes",
            "Request changes",
            source=frozenset({"in_review"}),
            to="changes_requested",
            roles=APPROVERS | {OFFICER},
            input=Grounds,
        ),
        Transition(
            "refuse",
            "Refuse",
            source=frozenset({"in_review"}),
            to="refused",
            roles=APPROVERS | {OFFICER},
            input=Grounds,
        ),
        Transition(
            "review_again",
            "Review again",
            source=frozenset({"approved"}),
            to="under_review",
            roles=frozenset({OFFICER}),
        ),
        Transition(
            "renew",
            "Renew",
            source=frozenset({"under_review"}),
            to="approved",
            roles=APPROVERS,
            four_eyes=frozenset({"open", "submit"}),
            confirmation=TWO_OF_THREE,
        ),
        Transition(
            "revoke",
            "Revoke",
            source=frozenset({"approved", "under_review"}),
            pending="revoking",
            to="revoked",
            roles=frozenset({OFFICER}),
            steps=(TELL,),
            undoes=(CERTIFY, ENTER, RESERVE),
            input=Grounds,
        ),
        Transition(
            "withdraw",
            "Withdraw the application",
            source=frozenset({"draft", "checking", "in_review", "changes_requested", "certifying"}),
            pending="withdrawing",
            to="withdrawn",
            roles=frozenset({APPLICANT}),
        ),
        Transition(
            "reopen",
            "Reopen",
            source=frozenset({"revoked", "refused", "withdrawn"}),
            to="draft",
            roles=frozenset({APPLICANT}),
        ),
    ),
    # What two groups approved is done again over the same documents, or not at all: one more pair of eyes will do.
    confirmations={"replay": Confirmation(by=1, roles=APPROVERS)},
    force_cancel=ForceCancel(pending="withdrawing", to="withdrawn"),
)
