"""HTTP to partners: one request, one outcome. What an answer MEANS is a table; doubt is always `PartnerSilent`.

The rule behind every line: nothing is called failed unless it is certain that nothing happened, and nothing is called
done unless the partner's answer says so in a form we understand.
"""

import asyncio
import time
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from ssl import SSLContext
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, cast
from urllib.parse import quote

import httpx2
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import from_json

from caseward.errors import ErrorClass, LeaseTooShort, PartnerAcknowledged, PartnerFailed, PartnerSilent
from caseward.partner import Sending

Meaning = Literal["done", "acknowledged", "transient", "rejected", "unauthorized", "invalid", "unknown"]

# By status, or by its class where the status itself is not listed.
MEANINGS: Mapping[str, Meaning] = {
    "2xx": "done",
    "202": "acknowledged",
    "3xx": "unknown",  # a redirect may be the answer of something that was done
    "4xx": "rejected",
    "400": "invalid",
    "401": "unauthorized",
    "403": "unauthorized",
    "408": "transient",  # the partner gave up waiting for our request to be complete
    "413": "invalid",
    "415": "invalid",
    "425": "transient",
    "429": "transient",
    "5xx": "unknown",
    "503": "transient",
}

# For partners who promise that an error on their side means that nothing was done. 502 and 504 stay unknown: they speak
# for a proxy in between, who doesn't know either.
ERRORS_MEAN_NOTHING_DONE: Mapping[str, Meaning] = {"500": "transient"}

MAX_ANSWER = 1 << 20  # bytes; our partners' answers have a few hundred
MAX_RETRY_AFTER = timedelta(hours=1)  # a partner may slow us down, not send us home
MAX_CODE = 64
MAX_MESSAGE = 500

# Parts of the whole deadline. They end first, so that "could not even connect" is certain knowledge: nothing was sent.
CONNECT_SHARE = 0.4
POOL_SHARE = 0.2

# Below what servers keep idle connections for (5 s and more): a request that meets a closing connection is an unknown.
KEEPALIVE_SECONDS = 4.0

CLASSES: Mapping[Meaning, ErrorClass] = {
    "transient": "transient",
    "rejected": "rejected",
    "unauthorized": "unauthorized",
    "invalid": "invalid",
}


def _without_control_characters(text: str) -> str:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        message = "contains control characters"
        raise ValueError(message)
    return text


# NUL and lone surrogates pass JSON, but not Postgres: an answer that can't be stored is one we don't understand.
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_without_control_characters)]
Word = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class Answer(BaseModel):
    """What a partner answered. Fields that we don't know are left out: partners may grow."""

    model_config = ConfigDict(frozen=True, extra="ignore")


A = TypeVar("A", bound=Answer)


class HttpGateway:
    """The mechanics that every gateway shares; the gateway itself says what the partner's answers mean."""

    name: str
    meanings: ClassVar[Mapping[str, Meaning]] = MEANINGS
    answers: ClassVar[Mapping[str, type[Answer]]] = {}
    """The answer of each call, for probes."""
    fresh_connections: ClassVar[bool] = False
    """For partners who can neither repeat nor tell: an idle connection that breaks under a request costs a person."""

    def __init__(self, base_url: str, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            transport=transport or self._sockets(),
            trust_env=False,
            follow_redirects=False,
            headers={
                "user-agent": "caseward",
                "accept": "application/json",
                "accept-encoding": "identity",  # a compressed answer could be larger than its cap
            },
        )

    def _sockets(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(
            max_connections=200,
            max_keepalive_connections=0 if self.fresh_connections else 100,
            keepalive_expiry=KEEPALIVE_SECONDS,
        )
        return httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=limits)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def probe(self, sending: Sending, call: str) -> dict[str, Any] | None:
        """Can't be asked; gateways whose partner can be say so by overriding this."""
        raise PartnerSilent("probe_not_offered", f"The {self.name} can't be asked about {call} by {sending.key}.")

    async def _post(self, sending: Sending, path: str, content: Mapping[str, Any], answer: type[A]) -> A:
        status, body = await self._exchange(sending, "POST", path, content)
        self._raise_unless_done(status, body)
        return self._read(body.content, answer)

    async def _ask(self, sending: Sending, path: str, call: str, *, unknown: str) -> dict[str, Any] | None:
        """Probe. Only a 404 with the partner's own code `unknown` means "never heard of it".

        Any other 404 may come from a wrong address or a proxy; to believe it would be to do it twice.
        """
        status, body = await self._exchange(sending, "GET", path, None)
        if status == HTTPStatus.NOT_FOUND:
            code, message = self._error(status, body.content)
            if code == unknown:
                return None
            raise PartnerSilent(code, message)
        self._raise_unless_done(status, body)
        return self._read(body.content, self.answers[call]).model_dump(mode="json")

    async def _exchange(
        self, sending: Sending, method: str, path: str, content: Mapping[str, Any] | None
    ) -> tuple[int, "_Received"]:
        seconds = sending.deadline.total_seconds()
        request = self._client.build_request(
            method,
            path,
            json=content,
            headers={"idempotency-key": sending.key, "traceparent": sending.traceparent},
            timeout=httpx2.Timeout(seconds, connect=seconds * CONNECT_SHARE, pool=seconds * POOL_SHARE),
            extensions={"trace": _Awake(time.monotonic() + seconds).look},
        )
        try:
            async with asyncio.timeout(seconds):
                sending.check_lease()
                response = await self._client.send(request, stream=True)
                try:
                    return response.status_code, await _Received.of(response)
                finally:
                    await response.aclose()
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise PartnerFailed("transient", "unreachable", f"The {self.name} could not be reached.") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise PartnerSilent("timeout", f"The {self.name} did not answer within {seconds:g} s.") from error
        except httpx2.TransportError as error:
            raise PartnerSilent("connection_lost", f"The connection to the {self.name} broke.") from error

    def _raise_unless_done(self, status: int, body: "_Received") -> None:
        meaning = self.meanings.get(str(status)) or self.meanings.get(f"{status // 100}xx", "unknown")
        if meaning == "done":
            return
        if meaning == "acknowledged":
            raise PartnerAcknowledged("acknowledged", f"The {self.name} took it and will do it later.")
        code, message = self._error(status, body.content)
        if meaning == "unknown":
            raise PartnerSilent(code, message)
        retry_after = body.retry_after if meaning == "transient" else None
        raise PartnerFailed(CLASSES[meaning], code, message, retry_after=retry_after)

    def _read(self, body: bytes | None, answer: type[A]) -> A:
        if body is None:
            self._not_understood()
        try:
            return answer.model_validate_json(body)
        except ValidationError:
            # Without the cause: pydantic's text would carry the partner's data into our logs.
            self._not_understood()

    def _not_understood(self) -> NoReturn:
        message = f"The {self.name} reported success in a form we don't understand."
        raise PartnerSilent("answer_not_understood", message) from None

    def _error(self, status: int, body: bytes | None) -> tuple[str, str]:
        """The partner's own words, as far as they are fit for screens and logs."""
        try:
            document: object = from_json(body or b"null")
        except ValueError:
            document = None
        said = _member(document, "error")
        code = cleaned(_member(said, "code"), MAX_CODE) or f"http_{status}"
        message = cleaned(_member(said, "message"), MAX_MESSAGE) or f"The {self.name} answered {status}."
        return code, message


class _Received:
    """What we keep of a response: its body, unless it is larger than any real answer, and its patience."""

    def __init__(self, content: bytes | None, retry_after: timedelta | None) -> None:
        self.content = content
        self.retry_after = retry_after

    @classmethod
    async def of(cls, response: httpx2.Response) -> "_Received":
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_ANSWER:
                return cls(None, _retry_after(response))
        return cls(bytes(content), _retry_after(response))


class _Awake:
    """Looks at the clock between connecting and sending.

    `check_lease` granted the whole deadline; a worker frozen while it connected wakes up here, and must not send.
    """

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at

    async def look(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started") and time.monotonic() >= self._ends_at:
            raise LeaseTooShort("lease_too_short", "The attempt's time ended before it could send.")


@cache
def _tls() -> SSLContext:
    # Reading all certificates costs 20 ms and more: once, not for each gateway.
    return httpx2.create_ssl_context(trust_env=False)


def segment(value: str) -> str:
    """A value as one segment of a path, whatever it contains."""
    if value in {"", ".", ".."}:
        raise PartnerFailed("invalid", "reference_invalid", "This reference can't stand in an address.")
    return quote(value, safe="")


def _member(document: object, name: str) -> object:
    return cast("dict[str, object]", document).get(name) if isinstance(document, dict) else None


def cleaned(text: object, length: int) -> str:
    """A partner's own words, as far as they are fit for screens and logs."""
    if not isinstance(text, str):
        return ""
    # Category C: control characters, lone surrogates, and those that reorder or hide what stands beside them.
    return "".join(
        character for character in text[: 4 * length] if not unicodedata.category(character).startswith("C")
    ).strip()[:length]


def _retry_after(response: httpx2.Response) -> timedelta | None:
    header = response.headers.get("retry-after", "").strip()
    try:
        if header.isascii() and header.isdigit():
            wait = timedelta(seconds=int(header[:9]))
        else:
            until = parsedate_to_datetime(header)
            wait = (until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), MAX_RETRY_AFTER)
