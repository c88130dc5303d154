"""The ERP: keeps the vendors we pay."""

from secrets import randbelow
from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class NewVendor(Request):
    legal_name: str
    country: str
    tax_id: str
    iban: str


class Vendor(Request):
    vendor_number: str


def create_vendor(request: NewVendor) -> dict[str, Any]:  # noqa: ARG001  the sandbox ERP takes every vendor
    return {"vendor_number": f"V{randbelow(10**10):010}"}


def deactivate_vendor(request: Vendor) -> dict[str, Any]:
    return {"vendor_number": request.vendor_number, "active": False}


def block_vendor(request: Vendor) -> dict[str, Any]:
    return {"vendor_number": request.vendor_number, "blocked": True}


def unblock_vendor(request: Vendor) -> dict[str, Any]:
    return {"vendor_number": request.vendor_number, "blocked": False}


ERP = Partner(
    name="erp",
    idempotent=True,
    calls=(
        Call("create_vendor", "/vendors", NewVendor, create_vendor),
        Call("deactivate_vendor", "/vendors/{vendor_number}/deactivate", Vendor, deactivate_vendor),
        Call("block_vendor", "/vendors/{vendor_number}/block", Vendor, block_vendor),
        Call("unblock_vendor", "/vendors/{vendor_number}/unblock", Vendor, unblock_vendor),
    ),
    refusal=Refusal("company_code_closed", "The company code is closed for postings"),
)
