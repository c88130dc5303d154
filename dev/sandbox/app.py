"""The application: every call of every partner as a route, or by SMTP; faults on the way, the ledger behind."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dev.sandbox.callbacks import Later
from dev.sandbox.faults import LATER, PROBE, Fault, FaultOrder, Faults
from dev.sandbox.ledger import Done, Ledger, Order, Pending, Promise
from dev.sandbox.mailbox import Mailbox
from dev.sandbox.partner import Call, Partner, Refusal
from dev.sandbox.partners.mail import MAIL
from dev.sandbox.server import HangUp
from dev.sandbox.smtp import Post, PostOffice

CALLBACKS = {"acknowledge": 1, "callback_twice": 2, "callback_never": 0}
MAX_BODY = 1 << 20
NUMBER = re.compile("[0-9]{1,18}")

_OBJECT = TypeAdapter(dict[str, Any])


class Unacceptable(Exception):
    """The request is malformed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Sandbox:
    """All partners behind one port."""

    def __init__(
        self, partners: tuple[Partner, ...], *, ledger: Ledger, later: Later, smtp: socket.socket | None = None
    ) -> None:
        self._partners = {partner.name: partner for partner in partners}
        self._ledger = ledger
        self._later = later
        self._smtp = smtp
        self._faults = Faults(self._partners)
        self._mailbox = Mailbox(ledger)

    def application(self) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/health/live", self._live, methods=["GET"]),
            Route("/_control/ledger", self._list_ledger, methods=["GET"]),
            Route("/_control/callbacks", self._list_callbacks, methods=["GET"]),
            Route("/_control/promises", self._list_promises, methods=["GET"]),
            Route("/_control/promises/{key:path}", self._keep_promises, methods=["POST"]),
            Route("/_control/faults", self._list_faults, methods=["GET"]),
            Route("/_control/faults", self._set_fault, methods=["POST"]),
            Route("/_control/faults", self._clear_faults, methods=["DELETE"]),
            *self._mailbox.routes(),
        ]
        for partner in self._partners.values():
            routes += [
                Route(f"/{partner.name}{call.path}", partial(self._called, partner, call), methods=["POST"])
                for call in partner.calls
                if call.path is not None
            ]
            if partner.probe:
                path = f"/{partner.name}/effects/{{key:path}}"
                routes.append(Route(path, partial(self._probed, partner), methods=["GET"]))
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _no_such_path, Unacceptable: _unacceptable},
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        self._later.resume()
        office = PostOffice(MAIL, ledger=self._ledger, faults=self._faults)
        post = None
        if self._smtp is not None:
            post = await asyncio.get_running_loop().create_server(lambda: Post(office), sock=self._smtp)
        try:
            yield
        finally:
            if post is not None:
                post.close()
            await self._later.aclose()
            self._ledger.close()

    async def _called(self, partner: Partner, call: Call[Any], request: Request) -> ASGIApp:
        order = await _read_order(partner, call, request)
        fault = self._faults.take(partner.name, call.name, order.content, order.key)
        if fault is not None and fault.order.mode in LATER:
            meant = CALLBACKS[fault.order.mode]
            return self._acknowledge(order, fault.seconds, callbacks=meant, outcome=fault.order.outcome)
        if fault is None and call.later is not None:
            return self._acknowledge(order, call.later)
        if fault is None:
            return self._perform(order)
        return await self._faulty(partner, fault, request, partial(self._perform, order))

    async def _probed(self, partner: Partner, request: Request) -> ASGIApp:
        def tell() -> Response:
            try:
                known = self._ledger.known(partner, request.path_params["key"])
            except Refusal as refusal:
                return _error(refusal.status, refusal.code, refusal.message)
            if known is None:
                return _error(404, "effect_unknown", "Nothing happened under this key")
            return _answer(known)

        fault = self._faults.take(partner.name, PROBE, None, request.path_params["key"])
        return tell() if fault is None else await self._faulty(partner, fault, request, tell)

    def _perform(self, order: Order) -> Response:
        try:
            return _answer(self._ledger.perform(order))
        except Refusal as refusal:
            return _error(refusal.status, refusal.code, refusal.message)

    def _acknowledge(
        self, order: Order, seconds: float, *, callbacks: int = 1, outcome: Literal["succeeded", "failed"] = "succeeded"
    ) -> Response:
        try:
            taken = self._ledger.promise(order, due_at=time.time() + seconds, callbacks=callbacks, outcome=outcome)
        except Refusal as refusal:
            return _error(refusal.status, refusal.code, refusal.message)
        if isinstance(taken, Promise):
            self._later.expect(taken)
            return _answer(Pending())
        return _answer(taken)

    async def _faulty(self, partner: Partner, fault: Fault, request: Request, do: Callable[[], Response]) -> ASGIApp:
        match fault.order.mode:
            case "error":
                return _error(500, "internal_error", "Something broke on our side, nothing was done")
            case "reject":
                return _error(partner.refusal.status, partner.refusal.code, partner.refusal.message)
            case "slow":
                answer = do()
                await asyncio.sleep(fault.seconds)
                return answer
            case "lose_reply":
                do()
                return HangUp(request)
            case _:  # lose_request and down differ in whom they hit, not in how it feels
                return HangUp(request)

    async def _live(self, _request: Request) -> Response:
        return _json(200, {"status": "live"})

    async def _list_ledger(self, request: Request) -> Response:
        partner, key = (request.query_params.get(name) or None for name in ("partner", "key"))
        after = request.query_params.get("after") or "0"
        if not NUMBER.fullmatch(after):
            return _error(422, "number_invalid", "`after` takes the number of an entry")
        return _json(200, await asyncio.to_thread(self._ledger.entries, partner, key, after=int(after)))

    async def _list_callbacks(self, request: Request) -> Response:
        return _json(200, await asyncio.to_thread(self._ledger.events, request.query_params.get("partner") or None))

    async def _list_promises(self, _request: Request) -> Response:
        now = time.time()
        return _json(200, [{"due_in": promise.due_at - now} for promise in self._ledger.open_promises()])

    async def _keep_promises(self, request: Request) -> Response:
        key = request.path_params["key"]
        promises = self._ledger.open_promises(key)
        if not promises:
            return _error(404, "promise_unknown", "Nothing is owed under this key")
        for promise in promises:
            self._later.keep_now(promise)
        return Response(status_code=204)

    async def _list_faults(self, _request: Request) -> Response:
        return _json(200, self._faults.documents())

    async def _set_fault(self, request: Request) -> Response:
        try:
            fault = self._faults.add(FaultOrder.model_validate_json(await _read_body(request)))
        except ValidationError as error:
            return _error(422, "fault_invalid", _faults_of(error))
        except ValueError as error:
            return _error(422, "fault_invalid", str(error))
        return _json(201, fault.document())

    async def _clear_faults(self, _request: Request) -> Response:
        self._faults.clear()
        return Response(status_code=204)


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, "The body is too large")
    return body


async def _read_order(partner: Partner, call: Call[Any], request: Request) -> Order:
    key = request.headers.get("idempotency-key")
    if not key:
        raise Unacceptable("idempotency_key_missing", "Calls need an Idempotency-Key header")
    body = await _read_body(request)
    try:
        checked = call.request.model_validate(_OBJECT.validate_json(body or b"{}") | request.path_params)
    except ValidationError as error:
        raise Unacceptable("invalid_request", _faults_of(error)) from error
    return Order(
        partner=partner,
        call=call,
        key=key,
        content=checked.model_dump(mode="json"),
        traceparent=request.headers.get("traceparent"),
    )


def _faults_of(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors(include_url=False)
    )


def _json(status: int, content: bytes | dict[str, Any] | list[Any]) -> Response:
    body = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    return Response(body, status, media_type="application/json")


def _answer(known: Done | Pending) -> Response:
    return _json(200, known.answer.encode()) if isinstance(known, Done) else _json(202, {"status": "accepted"})


def _error(status: int, code: str, message: str) -> Response:
    return _json(status, {"error": {"code": code, "message": message}})


async def _no_such_path(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    codes = {404: "no_such_path", 405: "method_not_allowed", 413: "body_too_large"}
    return _error(status, codes.get(status, "refused"), str(getattr(error, "detail", error)))


async def _unacceptable(_request: Request, error: Exception) -> Response:
    return _error(400, getattr(error, "code", "invalid_request"), str(error))
