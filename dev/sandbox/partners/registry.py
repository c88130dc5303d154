"""The business registry: knows every tax id, except those that end with 000000."""

from typing import Any

from dev.sandbox.partner import Call, Partner, Refusal, Request


class CheckTaxId(Request):
    country: str
    tax_id: str
    legal_name: str


def check_tax_id(request: CheckTaxId) -> dict[str, Any]:
    registered = not request.tax_id.endswith("000000")
    return {"registered": registered, "registered_name": request.legal_name if registered else None}


REGISTRY = Partner(
    name="registry",
    idempotent=True,
    calls=(Call("check_tax_id", "/tax-id-checks", CheckTaxId, check_tax_id),),
    refusal=Refusal("country_not_served", "This registry does not serve the country"),
)
