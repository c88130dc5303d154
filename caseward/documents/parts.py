"""What every document is made of: its root, who acted, and why something is refused."""

from pydantic import BaseModel, ConfigDict

from caseward.policy import Decision


class Document(BaseModel):
    """The root of all documents: they may grow, clients ignore what they don't know."""

    model_config = ConfigDict(frozen=True)


class ReasonDocument(Document):
    """Why something is refused."""

    code: str
    message: str


class ActorDocument(Document):
    """Who, in what capacity, through which door."""

    id: str
    role: str | None
    via: str
    on_behalf_of: str | None = None
    """The person for whom they stood in."""


def reason_documents(decision: Decision) -> list[ReasonDocument]:
    """Why not, as documents."""
    return [ReasonDocument(code=reason.code, message=reason.message) for reason in decision.reasons]
