"""The catalogue: every process that runs here, one line each."""

from caseward.process import Catalogue
from processes.booking import BOOKING
from processes.compliance_approval import COMPLIANCE_APPROVAL
from processes.payment_review import PAYMENT_REVIEW
from processes.vendor_onboarding import VENDOR_ONBOARDING

# What our contracts with the partners allow a second; bulk runs keep to it by themselves.
LIMITS = {
    "archive": 100,
    "bank": 50,
    "car_rental": 20,
    "checker": 10,
    "erp": 50,
    "hotel": 20,
    "mail": 50,
    "register": 20,
    "registry": 20,
    "reporting": 10,
    "scoring": 50,
    "screening": 20,
    "vouchers": 20,
}

CATALOGUE = Catalogue(
    [
        VENDOR_ONBOARDING,
        BOOKING,
        PAYMENT_REVIEW,
        COMPLIANCE_APPROVAL,
    ],
    limits=LIMITS,
)
