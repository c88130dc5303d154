"""A second, tiny business, so that one process's people and addresses can be tried on the other's cases."""

from typing import Annotated

from pydantic import Field

from caseward.faults import HASH
from caseward.objects import hash_of
from caseward.process import (
    NONE_NEEDED,
    DocumentKind,
    Documents,
    ForceCancel,
    Made,
    Process,
    Role,
    State,
    Step,
    Strict,
    Transition,
    Verdict,
)

CLERK = "parcel_clerk"


class Parcel(Strict):
    number: Annotated[str, Field(min_length=1, max_length=40)]


NOTE = b"%PDF-1.7 a credit note"


class Refunded(Strict):
    reference: str
    sha256: Annotated[str, Field(pattern=HASH)] = hash_of(NOTE)
    size: int = len(NOTE)


LOOK = Step("look", "Look at the photograph", partner="checker", result=Verdict, undo=NONE_NEEDED, each=True)
REFUND = Step(
    "pay_back",
    "Pay back",
    partner="bank",
    result=Refunded,
    undo="Collect it again",
    makes=Made("Credit note", "application/pdf"),
)

PARCEL_RETURN = Process(
    "parcel_return",
    "Parcel return",
    subject=Parcel,
    headline=lambda parcel: parcel.number,
    owner="returns",
    teams=frozenset({"returns"}),
    roles=(Role(CLERK, "Parcel clerk"),),
    documents=Documents(
        kinds=(
            DocumentKind("receipt", "Receipt", roles=frozenset({CLERK}), states=frozenset({"received"}), most=2),
            DocumentKind(
                "photo",
                "Photograph",
                roles=frozenset({CLERK}),
                states=frozenset({"received"}),
                media_types=frozenset({"image/png", "image/jpeg"}),
            ),
        ),
        checked_by=LOOK,
    ),
    states=(
        State("inspecting", "Inspecting", "We are looking at what the customer sent."),
        State("received", "Received", "The parcel is here.", waiting_on=CLERK, claimable_by=frozenset({CLERK})),
        State("refunding", "Refunding", "We are paying back."),
        State("refunded", "Refunded", "Paid back.", final=True),
        State("refused", "Refused", "Nothing is paid back.", final=True),
        State("cancelling", "Cancelling", "We are taking it back."),
    ),
    transitions=(
        Transition("receive", "Receive", to="received", roles=frozenset({CLERK})),
        Transition(
            "refund",
            "Refund",
            source=frozenset({"received"}),
            pending="refunding",
            to="refunded",
            roles=frozenset({CLERK}),
            steps=(REFUND,),
        ),
        Transition(
            "inspect",
            "Inspect",
            source=frozenset({"received"}),
            pending="inspecting",
            to="received",
            roles=frozenset({CLERK}),
            steps=(LOOK,),
        ),
        Transition("refuse", "Refuse", source=frozenset({"received"}), to="refused", roles=frozenset({CLERK})),
    ),
    force_cancel=ForceCancel(pending="cancelling", to="refused"),
)
