"""The partners that the sandbox plays. A new one is a file here, and a line in this list."""

from dev.sandbox.partner import Partner
from dev.sandbox.partners.bank import BANK
from dev.sandbox.partners.erp import ERP
from dev.sandbox.partners.mail import MAIL
from dev.sandbox.partners.registry import REGISTRY
from dev.sandbox.partners.screening import SCREENING

PARTNERS: tuple[Partner, ...] = (REGISTRY, SCREENING, BANK, ERP, MAIL)
