"""The catalogue: every process that runs here, one line each."""

from caseward.process import Catalogue
from processes.vendor_onboarding import VENDOR_ONBOARDING

CATALOGUE = Catalogue([VENDOR_ONBOARDING])
