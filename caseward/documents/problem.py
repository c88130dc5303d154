"""What is answered in place of what was asked for."""

from typing import Any

from pydantic import ConfigDict

from caseward.documents.parts import Document, ReasonDocument


class Problem(Document):
    """A problem document (RFC 9457) with a stable code."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str | None = None
    reasons: list[ReasonDocument] | None = None
    state: str | None = None
    version: int | None = None
    errors: list[dict[str, Any]] | None = None
