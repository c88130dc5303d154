"""What the recovery suites must know of vendor onboarding beside its declaration."""

from processes.vendor_onboarding import VENDOR_ONBOARDING
from tests.playbook import EXAMPLE_OF, Json, Playbook

EXAMPLE = EXAMPLE_OF(VENDOR_ONBOARDING)
GROUNDS: Json = {"grounds": "The trade register extract is older than three months."}


def vendor(name: str, **changes: str) -> Json:
    """A vendor named as its case, so that a partner's fault can be aimed at it."""
    return {**EXAMPLE, "legal_name": name, "bank_account": {**EXAMPLE["bank_account"], "holder": name}, **changes}


PLAYBOOK = Playbook(
    process=VENDOR_ONBOARDING,
    people={
        "requester": ("vendor_requester",),
        "reviewer": ("vendor_reviewer",),
        "lead": ("vendor_lead",),
    },
    subjects=(vendor, lambda name: vendor(name, tax_id="DE129000000")),  # the registry does not know the second
    takes={
        "open": "requester",
        "submit": "requester",
        "approve": "reviewer",
        "request_changes": "reviewer",
        "resubmit": "requester",
        "reject": "reviewer",
        "suspend": "reviewer",
        "reinstate": "lead",
        "cancel": "requester",
        "reopen": "requester",
    },
    inputs={
        "request_changes": lambda _case: GROUNDS,
        "reject": lambda _case: GROUNDS,
        "suspend": lambda _case: GROUNDS,
        "resubmit": lambda case: {"vendor": case["subject"]},
    },
    onward={
        "draft": "submit",
        "in_review": "approve",
        "changes_requested": "resubmit",
        "active": "suspend",
        "suspended": "reinstate",
        "rejected": "reopen",
        "cancelled": "reopen",
    },
    ways={"cancelled": ("submit", "cancel")},
    calls={
        "check_tax_id": "check_tax_id",
        "screen_sanctions": "screen",
        "verify_account": "verify_account",
        "create_in_erp": "create_vendor",
        "create_in_erp:undo": "deactivate_vendor",
        "open_payee": "open_payee",
        "open_payee:undo": "close_payee",
        "send_welcome": "send",
        "block_in_erp": "block_vendor",
        "block_in_erp:undo": "unblock_vendor",
        "suspend_payee": "suspend_payee",
        "suspend_payee:undo": "resume_payee",
        "unblock_in_erp": "unblock_vendor",
        "unblock_in_erp:undo": "block_vendor",
        "resume_payee": "resume_payee",
        "resume_payee:undo": "suspend_payee",
    },
    named_in=frozenset({"check_tax_id", "screen", "verify_account", "create_vendor", "open_payee", "send"}),
    answers_later=frozenset({"bank"}),
    main="approve",
    middle="open_payee",
    last="send_welcome",
    supersedes="cancel",
    by_hand={"screen_sanctions": {"reference": "SCR-BY-HAND", "hits": 0}},
    confirmer="lead",
    results={
        "screen_sanctions": lambda answer: {"reference": answer["reference"], "hits": len(answer["hits"])},
        "block_in_erp": lambda answer: {"reference": answer["vendor_number"]},
        "unblock_in_erp": lambda answer: {"reference": answer["vendor_number"]},
        "suspend_payee": lambda answer: {"reference": answer["payee_id"]},
        "resume_payee": lambda answer: {"reference": answer["payee_id"]},
    },
)
