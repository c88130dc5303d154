"""Gateways: our side of each partner. They know no process; what an answer means to the business is not their say."""

from dataclasses import dataclass
from typing import Self

from partners.bank import Bank
from partners.erp import Erp
from partners.mail import Mail
from partners.registry import Registry
from partners.screening import Screening

__all__ = ["Partners"]


@dataclass(frozen=True, kw_only=True)
class Partners:
    """All gateways, made and closed together."""

    registry: Registry
    screening: Screening
    bank: Bank
    erp: Erp
    mail: Mail

    @classmethod
    def connect(cls, base_url: str) -> Self:
        """Every gateway at its place below one address. Nothing is sent yet."""
        base = base_url.rstrip("/")
        return cls(
            registry=Registry(f"{base}/registry"),
            screening=Screening(f"{base}/screening"),
            bank=Bank(f"{base}/bank"),
            erp=Erp(f"{base}/erp"),
            mail=Mail(f"{base}/mail"),
        )

    async def aclose(self) -> None:
        """Close every gateway's connections."""
        for gateway in (self.registry, self.screening, self.bank, self.erp, self.mail):
            await gateway.aclose()
