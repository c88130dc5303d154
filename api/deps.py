"""What routes ask for: the wiring, who asks, the envelope of a command, a transaction."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import IfMatchMalformed, TokenMissing
from api.notices import Notices
from api.tokens import Identity
from api.uploads import Uploads
from caseward.cases.delegations import standing_in
from caseward.cases.envelope import Envelope
from caseward.db.session import Database
from caseward.errors import ActionNotAllowed, IdempotencyKeyInvalid, IdempotencyKeyMissing, Reason
from caseward.failpoints import failpoint
from caseward.process import AUDITOR, OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import Actor

MAX_WAIT = timedelta(seconds=60)  # below what proxies on the way usually grant
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")
ENTITY_TAG = r'(?:W/)?"[!#-~]*"'
IF_MATCH = re.compile(rf"(?:\*|{ENTITY_TAG}(?:\s*,\s*{ENTITY_TAG})*)")
OUR_TAG = re.compile(r'(?<!W/)"(\d{1,18}(?:\.\d{1,18})?)"')
WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,6})"?\s*(?=$|[,;])', re.IGNORECASE)


@dataclass(frozen=True)
class Wiring:
    """Everything the routes work with, made once by the entry point."""

    database: Database
    catalogue: Catalogue
    notices: Notices
    revisions: tuple[str, ...]
    """Revisions of the database that this version knows, the newest first."""
    uploads: Uploads

    @cached_property
    def partners(self) -> frozenset[str]:
        """Every partner that some process works with."""
        return frozenset(step.partner for process in self.catalogue.values() for step in process.steps.values())

    @asynccontextmanager
    async def command(self) -> AsyncGenerator[AsyncSession]:
        """The one transaction of a command: over, one way or the other, before anything is answered."""
        async with self.database.transaction() as session:
            yield session
            await failpoint("command.before_commit")
        await failpoint("command.after_commit")


async def get_wiring(request: Request) -> Wiring:
    """The wiring of the application."""
    return cast("Wiring", request.app.state.wiring)


Wired = Annotated[Wiring, Depends(get_wiring)]


async def get_session(wiring: Wired) -> AsyncIterator[AsyncSession]:
    """A transaction for reading."""
    async with wiring.database.transaction() as session:
        yield session


# Ended before the response is sent; FastAPI's default would hold the connection while a slow client reads.
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]

BEARER = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="JWT",
    description="A JWT (RFC 9068) signed with ES256. `caseward token` prints one for the embedded stack.",
    auto_error=False,
)


async def get_identity(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> Identity:
    """Whose token the front door accepted. Raises TokenMissing for a route that the front does not guard."""
    identity = getattr(request.state, "identity", None)
    if not isinstance(identity, Identity):
        raise TokenMissing
    return identity


Holder = Annotated[Identity, Depends(get_identity)]


async def get_actor(holder: Holder, wiring: Wired) -> Actor:
    """Who asks, with the roles of those for whom they stand in."""
    async with wiring.database.transaction() as session:
        return await standing_in(session, holder.actor)


CurrentActor = Annotated[Actor, Depends(get_actor)]


class AnyOf:
    """The dependency that lets only some roles pass."""

    def __init__(self, *roles: str) -> None:
        self.roles = frozenset(roles)

    def lets(self, actor: Actor) -> bool:
        """The actor passes."""
        return bool(self.roles & actor.roles)

    async def __call__(self, actor: CurrentActor) -> Actor:
        """The actor. Raises ActionNotAllowed."""
        if not self.lets(actor):
            names = " or ".join(sorted(role.replace("_", " ") for role in self.roles))
            raise ActionNotAllowed([Reason("role_missing", f"That takes the role {names}.")])
        return actor


# What goes beyond single cases: the outbox, pauses, bulk runs, numbers.
OVERSEES = AnyOf(OPERATOR, SENIOR_OPERATOR, AUDITOR)
OverseeingActor = Annotated[Actor, Depends(OVERSEES)]
OPERATES = AnyOf(OPERATOR, SENIOR_OPERATOR)
OperatingActor = Annotated[Actor, Depends(OPERATES)]
# The whole business data of a case, every revision of it, to be taken away.
EvidenceReader = Annotated[Actor, Depends(AnyOf(SENIOR_OPERATOR, AUDITOR))]


async def get_envelope(request: Request, actor: CurrentActor) -> Envelope:
    """What a command carries beside its content. Raises IdempotencyKeyMissing, ...Invalid, IfMatchMalformed."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        raise IdempotencyKeyMissing("Send an Idempotency-Key: the same one only with the same command.")
    if len(keys) > 1 or not IDEMPOTENCY_KEY.fullmatch(keys[0]):
        raise IdempotencyKeyInvalid("An Idempotency-Key is 1 to 200 visible ASCII characters, without spaces.")
    return Envelope(
        actor=actor,
        idempotency_key=keys[0],
        traceparent=request.state.traceparent,
        if_match=_versions(request.headers.getlist("if-match")),
    )


def _versions(if_match: list[str]) -> frozenset[int | str] | None:
    """The versions that an If-Match names; well-formed tags that are not ours match nothing."""
    if not if_match:
        return None
    listed = ", ".join(if_match).strip()
    if not IF_MATCH.fullmatch(listed):
        raise IfMatchMalformed
    return None if listed == "*" else frozenset(OUR_TAG.findall(listed))


async def get_wait(request: Request) -> timedelta | None:
    """How long the client would wait for the outcome (RFC 7240); what is malformed is no preference."""
    found = WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(timedelta(seconds=int(found[1])), MAX_WAIT) if found else None


Sealed = Annotated[Envelope, Depends(get_envelope)]
Wait = Annotated[timedelta | None, Depends(get_wait)]

# The headers as the OpenAPI document declares them; the functions above read them, so that each has its own refusal.
_HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "required": True,
        "description": "Names this command. The same key with the same content gives the same operation.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]{1,200}$"},
    },
    "If-Match": {
        "description": "The ETag of the case as you saw it; refused with 412 when it has changed since.",
        "schema": {"type": "string", "pattern": f"^{IF_MATCH.pattern}$"},
    },
    "Prefer": {
        "description": "`wait=10` waits up to 10 s (60 at most) for the outcome.",
        "schema": {"type": "string"},
    },
}


def header_parameters(*names: str) -> dict[str, Any]:
    """`openapi_extra` that declares these headers."""
    return {"parameters": [{"name": name, "in": "header", **_HEADERS[name]} for name in names]}
