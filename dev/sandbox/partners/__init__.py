"""The partners that the sandbox plays. A new one is a file here, and a line in this list."""

from dev.sandbox.partner import Partner
from dev.sandbox.partners.bank import BANK
from dev.sandbox.partners.car_rental import CAR_RENTAL
from dev.sandbox.partners.erp import ERP
from dev.sandbox.partners.hotel import HOTEL
from dev.sandbox.partners.mail import MAIL
from dev.sandbox.partners.register import REGISTER
from dev.sandbox.partners.registry import REGISTRY
from dev.sandbox.partners.reporting import REPORTING
from dev.sandbox.partners.scoring import SCORING
from dev.sandbox.partners.screening import SCREENING
from dev.sandbox.partners.vouchers import VOUCHERS

PARTNERS: tuple[Partner, ...] = (
    REGISTRY,
    SCREENING,
    BANK,
    ERP,
    MAIL,
    HOTEL,
    CAR_RENTAL,
    VOUCHERS,
    SCORING,
    REPORTING,
    REGISTER,
)
