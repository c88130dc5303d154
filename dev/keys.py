"""The embedded stack's key pair: `caseward token` signs with the private half, the API checks with the public one."""

import json
import os
from pathlib import Path

from joserfc.jwk import ECKey

ALGORITHM = "ES256"
_CURVE = "P-256"


def ensure_keys(folder: Path) -> None:
    """Make `private.json` and `jwks.json` at the first start; later starts leave them alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    private_file, public_file = folder / "private.json", folder / "jwks.json"
    if not private_file.exists():
        key = ECKey.generate_key(_CURVE, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
        _write(private_file, key.as_dict(private=True), mode=0o600)
    if not public_file.exists():
        key = ECKey.import_key(json.loads(private_file.read_text()))
        _write(public_file, {"keys": [key.as_dict(private=False)]}, mode=0o644)


def _write(path: Path, content: object, *, mode: int) -> None:
    # Renamed into place: a reader sees a whole file or none, and nobody ever sees the secret with other rights.
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        json.dump(content, file, indent=2)
    new.rename(path)
