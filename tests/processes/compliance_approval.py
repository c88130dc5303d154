"""What the recovery suites must know of compliance approval beside its declaration."""

from processes.compliance_approval import COMPLIANCE_APPROVAL
from tests.pdfs import pdf
from tests.playbook import EXAMPLE_OF, Json, Playbook

EXAMPLE = EXAMPLE_OF(COMPLIANCE_APPROVAL)
GROUNDS: Json = {"grounds": "The audit report is of the year before."}


def application(name: str, **changes: str) -> Json:
    """A holder named as its case, so that a partner's fault can be aimed at it."""
    return {**EXAMPLE, "holder": name, **changes}


PLAYBOOK = Playbook(
    process=COMPLIANCE_APPROVAL,
    people={
        "applicant": ("compliance_applicant",),
        "legal": ("legal_approver",),
        "risk": ("risk_approver",),
        "security": ("security_approver",),
        "officer": ("compliance_officer",),
    },
    subjects=(application, lambda name: application(name, scope="Storage of health data")),
    takes={
        "open": "applicant",
        "submit": "applicant",
        "approve": "legal",
        "request_changes": "legal",
        "refuse": "risk",
        "review_again": "officer",
        "renew": "legal",
        "revoke": "officer",
        "withdraw": "applicant",
        "reopen": "applicant",
    },
    inputs=dict.fromkeys(("request_changes", "refuse", "revoke"), lambda _case: GROUNDS),
    document=pdf(),
    onward={
        "draft": "submit",
        "in_review": "approve",
        "changes_requested": "submit",
        "approved": "review_again",
        "under_review": "renew",
        "revoked": "reopen",
        "refused": "reopen",
        "withdrawn": "reopen",
    },
    calls={
        "validate_document": "check",
        "reserve_number": "reserve_number",
        "reserve_number:undo": "give_back",
        "enter_in_register": "enter",
        "enter_in_register:undo": "strike",
        "make_certificate": "make",
        "make_certificate:undo": "withdraw",
        "send_certificate": "send",
        "tell_revoked": "send",
    },
    named_in=frozenset({"reserve_number", "enter", "send"}),
    in_house=frozenset({"checker", "archive"}),
    main="approve",
    middle="enter_in_register",
    last="send_certificate",
    supersedes="withdraw",
    confirmer="risk",
    never_at=frozenset({"callback.before_commit", "callback.after_commit"}),  # its partners answer at once
)
