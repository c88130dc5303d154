"""Gateways: our side of each partner. They know no process; what an answer means to the business is not their say."""

from dataclasses import dataclass
from typing import Self

from caseward.objects import Objects
from partners.archive import Archive
from partners.bank import Bank
from partners.car_rental import CarRental
from partners.checker import Checker
from partners.erp import Erp
from partners.hotel import Hotel
from partners.mail import Mail, SmtpServer
from partners.register import Register
from partners.registry import Registry
from partners.reporting import Reporting
from partners.scoring import Scoring
from partners.screening import Screening
from partners.vouchers import Vouchers

__all__ = ["Partners", "SmtpServer"]


@dataclass(frozen=True, kw_only=True)
class Partners:
    """All gateways, made and closed together."""

    registry: Registry
    screening: Screening
    bank: Bank
    erp: Erp
    mail: Mail
    hotel: Hotel
    car_rental: CarRental
    vouchers: Vouchers
    scoring: Scoring
    reporting: Reporting
    register: Register
    checker: Checker
    archive: Archive

    @classmethod
    def connect(cls, base_url: str, smtp: SmtpServer, objects: Objects | None = None) -> Self:
        """Every gateway at its place below one address, mail at its server, our own offices over one object store.

        Nothing is sent yet.
        """
        base = base_url.rstrip("/")
        objects = objects or Objects.in_memory()
        return cls(
            registry=Registry(f"{base}/registry"),
            screening=Screening(f"{base}/screening"),
            bank=Bank(f"{base}/bank"),
            erp=Erp(f"{base}/erp"),
            mail=Mail(smtp),
            hotel=Hotel(f"{base}/hotel"),
            car_rental=CarRental(f"{base}/car_rental"),
            vouchers=Vouchers(f"{base}/vouchers"),
            scoring=Scoring(f"{base}/scoring"),
            reporting=Reporting(f"{base}/reporting"),
            register=Register(f"{base}/register"),
            checker=Checker(objects),
            archive=Archive(objects),
        )

    async def aclose(self) -> None:
        """Close every gateway's connections."""
        everyone = (self.registry, self.screening, self.bank, self.erp, self.mail)
        for gateway in (
            *everyone,
            self.hotel,
            self.car_rental,
            self.vouchers,
            self.scoring,
            self.reporting,
            self.register,
        ):
            await gateway.aclose()
