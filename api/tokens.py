"""Bearer tokens: JWTs signed with ES256 by a key from one configured file, and nothing a token says about itself."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, GuestProtocol

from api.errors import TokenInvalid, TokenMissing
from caseward.situation import SYSTEM, Actor

ALGORITHM = "ES256"
LEEWAY = 30  # seconds by which two clocks may differ
TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068: an id token is no access token
# What would let a token name its own key, or demand an extension we don't have.
REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
BEARER = re.compile(r"bearer +([\w-]+\.[\w-]+\.[\w-]+)", re.IGNORECASE | re.ASCII)
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
# Actors inside the engine: nobody outside may be taken for one of them.
RESERVED = frozenset({SYSTEM.id, "temporal"})


@dataclass(frozen=True)
class Identity:
    """Who holds a token, and until when."""

    actor: Actor
    expires_at: datetime


class Verifier:
    """Turns an Authorization header into an actor, or refuses it."""

    def __init__(self, jwks_file: Path, *, issuer: str, audience: str) -> None:
        self._file = jwks_file
        self._keys: dict[str, ECKey] = {}
        self._read_stamp: tuple[int, int] | None = None
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    def identify(self, authorization: Sequence[str]) -> Identity:
        """The holder of the token. Raises TokenMissing, TokenInvalid."""
        if not authorization:
            raise TokenMissing
        found = BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
        if found is None:
            raise TokenInvalid("malformed")
        try:
            token = jwt.decode(found[1], self._key, algorithms=[ALGORITHM])
            self._claims.validate(token.claims)
        except ExpiredTokenError as fault:
            raise TokenInvalid("expired") from fault
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as fault:
            raise TokenInvalid("not valid here") from fault
        return _identity(token.claims)

    def _key(self, token: GuestProtocol) -> ECKey:
        header = token.headers()
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or header.get("typ") not in TYPES or not isinstance(kid, str):
            raise TokenInvalid("of another kind")
        if REFUSED_HEADERS & set(header):
            raise TokenInvalid("of another kind")
        self._refresh()
        if kid not in self._keys:
            raise TokenInvalid("signed by an unknown key")
        return self._keys[kid]

    def _refresh(self) -> None:
        """Read the file again when it was replaced: keys rotate while the server runs."""
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._read_stamp:
                listed = cast("dict[str, Any]", json.loads(self._file.read_text()))["keys"]
                usable = [key for key in listed if key.get("kty") == "EC" and key.get("crv") == "P-256"]
                self._keys = {key["kid"]: ECKey.import_key(key) for key in usable if "kid" in key}
                self._read_stamp = stamp
        except (OSError, ValueError, KeyError, TypeError, JoseError) as fault:
            if not self._keys:
                raise TokenInvalid("not valid here") from fault


def _identity(claims: dict[str, Any]) -> Identity:
    subject, roles = claims["sub"], claims.get("roles", [])
    listed = isinstance(roles, list) and all(isinstance(role, str) for role in cast("list[Any]", roles))
    if not NAME.fullmatch(subject) or subject in RESERVED or not listed:
        raise TokenInvalid("not valid here")
    try:
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    except (OverflowError, ValueError, OSError):
        expires_at = datetime.max.replace(tzinfo=UTC)
    return Identity(Actor(subject, frozenset(cast("list[str]", roles))), expires_at)
