"""Fields that several businesses ask for: countries, accounts, money, a line of text."""

from typing import Annotated

import pycountry
from pydantic import AfterValidator, Field
from schwifty import IBAN
from schwifty.exceptions import SchwiftyException

from caseward.process import Strict

MOST_MINOR_UNITS = 10**15  # ten trillion euros; JSON's numbers carry it exactly


def _country(code: str) -> str:
    if pycountry.countries.get(alpha_2=code) is None:
        message = f"{code!r} is no country of ISO 3166-1 alpha-2"
        raise ValueError(message)
    return code


def _currency(code: str) -> str:
    if pycountry.currencies.get(alpha_3=code) is None:  # pyright: ignore[reportUnknownMemberType] - untyped there
        message = f"{code!r} is no currency of ISO 4217"
        raise ValueError(message)
    return code


def _iban(text: str) -> str:
    try:
        return IBAN(text, validate_bban=False).compact
    except SchwiftyException as fault:
        message = f"not an IBAN: {fault}"
        raise ValueError(message) from fault


Country = Annotated[
    str,
    Field(pattern="^[A-Z]{2}$", description="Two capital letters, by ISO 3166-1.", examples=["DE"]),
    AfterValidator(_country),
]
Currency = Annotated[
    str,
    Field(pattern="^[A-Z]{3}$", description="Three capital letters, by ISO 4217.", examples=["EUR"]),
    AfterValidator(_currency),
]
Iban = Annotated[
    str,
    Field(
        min_length=15,
        max_length=42,
        description="The IBAN, with or without spaces.",
        examples=["DE89370400440532013000"],
    ),
    AfterValidator(_iban),
]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of its content, in hexadecimal digits.")]


class Money(Strict):
    """An amount, and in which currency."""

    minor_units: Annotated[
        int,
        Field(ge=1, le=MOST_MINOR_UNITS, description="In the currency's smallest unit: 12.50 EUR are 1250."),
    ]
    currency: Currency
