"""Who somebody is to the server, and who stands in for whom."""

from datetime import datetime
from uuid import UUID

from caseward.documents.parts import Document


class Me(Document):
    """The actor as the server sees it."""

    id: str
    roles: list[str]
    stands_in: dict[str, str] = {}
    """By role that is not their own: the person for whom they stand in."""


class DelegationDocument(Document):
    """Somebody stands in for somebody else: in which roles, from when until when, and why."""

    delegation_id: UUID
    by: str
    to: str
    roles: list[str]
    from_at: datetime
    until: datetime
    reason: str
    ended_at: datetime | None
    """When it was ended before its time."""
    ended_by: str | None
    href: str


class DelegationList(Document):
    """Delegations, the newest first."""

    delegations: list[DelegationDocument]
