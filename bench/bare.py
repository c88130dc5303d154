"""The yardstick: a plain Temporal workflow whose three activities call the same partners, and its worker.

No database, no policy, no recovery: what Temporal alone costs for the same three calls.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from caseward.partner import Sending
    from dev.service import IN_THE_BACKGROUND
    from partners import Partners, SmtpServer

QUEUE = "bare"
READY = "bare worker ready"
# Whatever the sending asks for, a plain workflow has no lease: it may always send.
NO_LEASE = float("inf")


@dataclass(frozen=True)
class Vendor:
    """The same data that an approval sends."""

    key: str
    legal_name: str
    country: str
    tax_id: str
    iban: str
    email: str


class Activities:
    """The three calls of an approval."""

    def __init__(self, partners: Partners) -> None:
        self.partners = partners

    @activity.defn(name="bare.create_in_erp")
    async def create_in_erp(self, vendor: Vendor) -> str:
        created = await self.partners.erp.create_vendor(
            sending(vendor, "erp"),
            legal_name=vendor.legal_name,
            country=vendor.country,
            tax_id=vendor.tax_id,
            iban=vendor.iban,
        )
        return created.vendor_number

    @activity.defn(name="bare.open_payee")
    async def open_payee(self, vendor: Vendor) -> str:
        opened = await self.partners.bank.open_payee(
            sending(vendor, "bank"), iban=vendor.iban, holder=vendor.legal_name
        )
        return opened.payee_id

    @activity.defn(name="bare.send_welcome")
    async def send_welcome(self, vendor: Vendor) -> str:
        values: dict[str, Any] = {"legal_name": vendor.legal_name}
        mailed = await self.partners.mail.send(
            sending(vendor, "mail"), to=[vendor.email], template="vendor_welcome", values=values
        )
        return mailed.message_id


def sending(vendor: Vendor, call: str) -> Sending:
    """A leave to send without end."""
    return Sending(
        key=f"{vendor.key}:{call}",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline=timedelta(seconds=5),
        send_before=NO_LEASE,
    )


@workflow.defn(name="bare")
class Bare:
    """Three activities, one after the other."""

    @workflow.run
    async def run(self, vendor: Vendor) -> None:
        for name in ("bare.create_in_erp", "bare.open_payee", "bare.send_welcome"):
            await workflow.execute_activity(name, vendor, start_to_close_timeout=timedelta(seconds=30))


async def serve(address: str, namespace: str, sandbox_url: str, smtp_port: str) -> None:
    """Work until killed."""
    os.nice(IN_THE_BACKGROUND)  # as the embedded stack's own worker
    client = await Client.connect(address, namespace=namespace)
    activities = Activities(
        Partners.connect(
            sandbox_url, SmtpServer(host="127.0.0.1", port=int(smtp_port), mail_from="bench@caseward.test")
        )
    )
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Bare],
        activities=[activities.create_in_erp, activities.open_payee, activities.send_welcome],
        max_cached_workflows=2000,
    )
    async with worker:
        print(READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(*sys.argv[1:]))
    os._exit(0)
