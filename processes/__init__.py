"""The catalogue: every process that runs here, one line each."""

from caseward.process import Catalogue
from processes.vendor_onboarding import VENDOR_ONBOARDING

# What our contracts with the partners allow a second; bulk runs keep to it by themselves.
LIMITS = {"bank": 50, "erp": 50, "mail": 50, "registry": 20, "screening": 20}

CATALOGUE = Catalogue([VENDOR_ONBOARDING], limits=LIMITS)
