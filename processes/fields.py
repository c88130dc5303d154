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


Country = Annotated[str, Field(pattern="^[A-Z]{2}$", examples=["DE"]), AfterValidator(_country)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["EUR"]), AfterValidator(_currency)]
Iban = Annotated[str, Field(min_length=15, max_length=42, examples=["DE89370400440532013000"]), AfterValidator(_iban)]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Money(Strict):
    """An amount in minor units of its currency: 12.50 EUR is `{"minor_units": 1250, "currency": "EUR"}`."""

    minor_units: Annotated[int, Field(ge=1, le=MOST_MINOR_UNITS)]
    currency: Currency
