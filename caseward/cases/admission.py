"""Overrides that came by a Temporal signal or update: admitted by the same command as all others."""

import json
import re
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from caseward.cases.commands import field_errors, refuse, request_override
from caseward.cases.envelope import Envelope
from caseward.db.session import Database
from caseward.errors import ActionNotAllowed, CaseNotFound, CommandRefused, InputInvalid, Reason
from caseward.messages import AdmitAnswer, AdmitCall
from caseward.overrides import OVERRIDES
from caseward.process import OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import Actor
from caseward.trace import continue_trace

# Whoever can signal a workflow can claim any name, so all of them are one actor whose rights the settings bound.
TEMPORAL = Actor("temporal", frozenset({OPERATOR, SENIOR_OPERATOR}), "temporal")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # escaped, as JSON always has it
KNOWN = frozenset({"override", "step", "item", "reason", "actor", "key", "happened", "result"})


async def admit_override(
    database: Database, catalogue: Catalogue, call: AdmitCall, *, allowed: frozenset[str]
) -> AdmitAnswer:
    """Accept or refuse; a refusal becomes a timeline entry and is answered as a problem, never raised."""
    case_id = UUID(call.case_id)
    try:
        async with database.transaction() as session:
            name, data = _read(call, allowed)
            accepted = await request_override(
                session,
                catalogue,
                case_id=case_id,
                override=name,
                input=OVERRIDES[name].input.model_validate(data),
                # The sender's key is the case's own: people send one signal to many cases.
                envelope=Envelope(
                    actor=TEMPORAL, idempotency_key=f"{case_id}:{call.key}", traceparent=continue_trace(None)
                ),
            )
        return AdmitAnswer(accepted=True, operation_id=str(accepted.operation_id), proposed=accepted.proposed)
    except ValidationError as fault:
        refusal: CommandRefused = InputInvalid("The input is wrong.", errors=field_errors(fault))
    except CaseNotFound as fault:  # no timeline to write the refusal to
        return AdmitAnswer(accepted=False, problem={"code": fault.code, "detail": fault.detail})
    except CommandRefused as fault:
        refusal = fault
    message = refusal.detail
    if refusal.members.get("errors"):
        message += " " + " ".join(f"{error['field']}: {error['message']}" for error in refusal.members["errors"])
    message = _shown(message, 500)
    override = _shown(call.payload.get("override") or "an override", 100)
    claimed = _shown(call.payload.get("actor") or "nobody", 100)
    async with database.transaction() as session:
        await refuse(
            session, catalogue, case_id=case_id, actor=TEMPORAL, override=override, message=message, claimed_by=claimed
        )
    code = refusal.first_code if isinstance(refusal, ActionNotAllowed) else refusal.code
    return AdmitAnswer(accepted=False, problem={"code": code, "detail": message})


def _shown(value: object, length: int) -> str:
    """What somebody sent, as far as it is fit for a timeline."""
    return "".join(character for character in str(value) if character.isprintable())[:length]


def _can_be_stored(value: object) -> bool:
    """JSON may hold NUL and half surrogate pairs; Postgres and UTF-8 may not, and an error would be tried for ever."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _NUL.search(text) is None


def _read(call: AdmitCall, allowed: frozenset[str]) -> tuple[str, dict[str, Any]]:
    payload = call.payload
    if not _can_be_stored([call.key, payload]):
        raise InputInvalid("The payload has characters that can't be stored.")
    name = payload.get("override")
    unknown = sorted(set(payload) - KNOWN)
    if unknown:
        detail = "The payload has fields that no override knows."
        raise InputInvalid(detail, errors=[{"field": field, "message": "unknown"} for field in unknown])
    if not isinstance(name, str) or name not in OVERRIDES:
        detail = f"There is no override {name}."
        raise InputInvalid(detail, errors=[{"field": "override", "message": detail}])
    if name not in allowed:
        raise ActionNotAllowed([Reason("not_by_signal", f"{OVERRIDES[name].title}: not by a signal, by settings.")])
    fields = OVERRIDES[name].input.model_fields
    data = {field: value for field, value in payload.items() if field in fields and value is not None}
    claimed = str(payload.get("actor") or "")[:100]
    if claimed and isinstance(data.get("reason"), str):
        data["reason"] += f" (claimed by {claimed})"
    return name, data
