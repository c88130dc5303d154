"""The thread through everything: a W3C trace context that travels from request to partner."""

import re
import secrets

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def continue_trace(received: str | None) -> str:
    """The caller's traceparent with a span of our own, or a new trace where it sent none that is well-formed."""
    well_formed = received is not None and TRACEPARENT.fullmatch(received)
    trace_id = received.split("-")[1] if well_formed and received else secrets.token_hex(16)
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


def trace_id(traceparent: str) -> str:
    """The part that stays the same the whole way."""
    return traceparent.split("-")[1]
