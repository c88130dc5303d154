"""The object store: contents by their hash, and receipts by their key; on disk, in S3, or in memory.

Nothing in it is ever changed or removed by us. What is written twice is written once: whoever comes second finds it.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

CHUNK = 256 * 1024  # bytes at a time on their way to a client


class ObjectMissing(Exception):
    """The object store has nothing under this key."""


class Objects:
    """One object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def connect(cls, url: str) -> Self:
        """`file:///folder`, or `s3://bucket/prefix` with the keys and region in the usual variables of AWS."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            return cls(LocalStore(Path(unquote(parts.path)), mkdir=True))
        return cls(from_url(url))

    @classmethod
    def in_memory(cls) -> Self:
        """Gone with the process."""
        return cls(MemoryStore())

    async def keep(self, content: IO[bytes] | bytes, sha256: str) -> None:
        """Store a content under its hash. Whole or not at all; a second time changes nothing."""
        try:
            await obstore.put_async(self._store, _content_key(sha256), content, mode="create")
        except AlreadyExistsError:
            return

    async def content(self, sha256: str) -> bytes:
        """All of it at once. Raises ObjectMissing."""
        return await self._read(_content_key(sha256))

    async def stream(self, sha256: str) -> AsyncIterator[bytes]:
        """Piece by piece; that it is there is known before the first piece is asked for. Raises ObjectMissing."""
        try:
            found = await obstore.get_async(self._store, _content_key(sha256))
        except FileNotFoundError as fault:
            raise ObjectMissing from fault
        pieces = found.stream(min_chunk_size=CHUNK)

        async def read() -> AsyncIterator[bytes]:
            async for piece in pieces:
                yield bytes(piece)

        return read()

    async def note(self, key: str, receipt: dict[str, Any]) -> dict[str, Any]:
        """Keep a receipt under a key, once; answers what stands there, which may be an earlier one."""
        try:
            await obstore.put_async(self._store, _receipt_key(key), json.dumps(receipt).encode(), mode="create")
        except AlreadyExistsError:
            return await self.noted(key) or receipt
        return receipt

    async def noted(self, key: str) -> dict[str, Any] | None:
        """The receipt under a key."""
        try:
            return json.loads(await self._read(_receipt_key(key)))
        except ObjectMissing:
            return None

    async def receipts(self) -> list[dict[str, Any]]:
        """All of them, in no order: the ledger of whoever leaves them."""
        found = obstore.list(self._store, "receipts")  # pyright: ignore[reportUnknownMemberType] - Arrow's, not ours
        paths = [meta["path"] for batch in found for meta in batch]
        return [json.loads(await self._read(path)) for path in paths]

    async def _read(self, path: str) -> bytes:
        try:
            found = await obstore.get_async(self._store, path)
        except FileNotFoundError as fault:
            raise ObjectMissing from fault
        return bytes(await found.bytes_async())


def _content_key(sha256: str) -> str:
    return f"documents/{sha256[:2]}/{sha256}"


def _receipt_key(key: str) -> str:
    # Effect keys have colons, which not every file system takes, and one is the beginning of another.
    return f"receipts/{key.replace(':', '/')}.json"


def hash_of(content: bytes) -> str:
    """As contents are named."""
    return hashlib.sha256(content).hexdigest()
