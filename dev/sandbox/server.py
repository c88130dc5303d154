"""The socket: the one thing HTTP frameworks don't offer is to hang up without a word, and that is what we test."""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_UP = "sandbox.hang_up"  # the extension of the ASGI scope under which a response finds its connection


class HangUpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with its connection within reach of the application."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: {"call": self._hang_up}}

    def _hang_up(self) -> None:
        # Linger 0 makes the kernel send a reset: the caller sees a broken connection, not a polite end.
        peer = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class HangUp:
    """A response that is none: the connection breaks."""

    def __init__(self, request: Request) -> None:
        self._hang_up = cast("Callable[[], None]", request.scope["extensions"][HANG_UP]["call"])

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        """Break the connection, and wait until uvicorn has noticed: it answers 500 for those who say nothing."""
        self._hang_up()
        async with asyncio.timeout(5):
            while (await receive())["type"] != "http.disconnect":
                pass
