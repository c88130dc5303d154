"""Uploads: a body that is read piece by piece, counted, hashed and looked at, before the object store gets it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

import puremagic
from starlette.requests import ClientDisconnect

from caseward.cases.documents import Uploaded
from caseward.errors import DocumentTooLarge, DocumentTypeRefused, InputInvalid
from caseward.objects import Objects
from caseward.process import DocumentKind

IN_MEMORY = 1 << 20  # bytes; what is larger waits on disk until all of it is there
HEAD = 8192  # bytes by which a content shows what it is
UNKNOWN = "application/octet-stream"


@dataclass(frozen=True)
class Uploads:
    """Where documents go, and how large they may be."""

    objects: Objects
    limit: int

    async def take_in(
        self, body: AsyncIterator[bytes], *, announced: int | None, name: str, kind: DocumentKind
    ) -> Uploaded:
        """Read a document and have the object store keep it, before anybody promises to have it.

        Should nobody come to promise it, an object stays behind that no row names: nobody can reach it, and whoever
        uploads the same content uses it. Raises DocumentTooLarge, DocumentTypeRefused, InputInvalid.
        """
        if announced is not None and announced > self.limit:
            raise self._too_large()
        digest, size, head = hashlib.sha256(), 0, b""
        with SpooledTemporaryFile(max_size=IN_MEMORY) as file:
            try:
                async for piece in body:
                    size += len(piece)
                    if size > self.limit:
                        raise self._too_large()
                    digest.update(piece)
                    head += piece[: HEAD - len(head)]
                    await asyncio.to_thread(file.write, piece)
            except ClientDisconnect:
                raise InputInvalid(
                    "The body ended early.", errors=[{"field": "body", "message": "ended early"}]
                ) from None
            media_type = media_type_of(head)
            if media_type not in kind.media_types:
                wanted = " or ".join(sorted(kind.media_types))
                message = f"{kind.title} must be {wanted}; by its content this is {media_type}."
                raise DocumentTypeRefused(message, media_type=media_type)
            file.seek(0)
            await self.objects.keep(file, digest.hexdigest())
        return Uploaded(name=name, media_type=media_type, size=size, sha256=digest.hexdigest())

    def _too_large(self) -> DocumentTooLarge:
        return DocumentTooLarge(f"A document may have {self.limit} bytes.", limit=self.limit)


def media_type_of(head: bytes) -> str:
    """What a content is by its first bytes; its name and its sender's word count for nothing."""
    try:
        found = puremagic.from_string(head, mime=True)  # pyright: ignore[reportUnknownMemberType] - its other arguments
    except (puremagic.PureError, ValueError):
        return UNKNOWN
    return found or UNKNOWN
