"""Tokens of the embedded stack: signed with the private key that its first start made."""

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import ECKey

from settings import Settings

DAY = timedelta(hours=12)  # long enough for a working day with a script, short enough to matter when it leaks


def sign_token(settings: Settings, *, actor: str, roles: Sequence[str], lasts: timedelta = DAY) -> str:
    """A bearer token for an actor. Raises FileNotFoundError where the embedded stack was never started."""
    key = ECKey.import_key(json.loads((settings.data_dir / "keys" / "private.json").read_text()))
    now = int(time.time())
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    claims = {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": actor,
        "roles": list(roles),
        "iat": now,
        "nbf": now,
        "exp": now + int(lasts.total_seconds()),
        "jti": str(uuid4()),
    }
    return jwt.encode(header, claims, key)
