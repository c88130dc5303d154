"""Every error of the engine, each a fact with a stable code.

CasewardError
├── DeclarationInvalid            a process is declared wrongly; found at load
├── CommandRefused                a command changed nothing; carries a code and an HTTP status
│   ├── CaseNotFound              404
│   ├── OperationNotFound         404
│   ├── MessageNotFound           404
│   ├── MessageNeeded             409
│   ├── CallbackNotFound          404
│   ├── CallbackNeeded            409
│   ├── BulkNotFound              404
│   ├── PauseNotFound             404
│   ├── DelegationNotFound        404
│   ├── DocumentNotFound          404
│   ├── DocumentTooLarge          413
│   ├── DocumentTypeRefused       415
│   ├── ActionNotAllowed          403 or 409, with the policy's reasons
│   ├── BusinessKeyTaken          409
│   ├── VersionStale              412
│   ├── InputInvalid              422
│   ├── IdempotencyKeyMissing     400
│   ├── IdempotencyKeyInvalid     400
│   └── IdempotencyKeyReused      422
└── PartnerAnswer                 how a gateway reports anything but plain success
    ├── PartnerFailed             nothing happened, and why
    ├── PartnerSilent             we can't know whether it happened
    ├── PartnerAcknowledged       the partner will do it later
    └── LeaseTooShort             nothing was sent: our own time ran out
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

ErrorClass = Literal["transient", "rejected", "unauthorized", "invalid"]


@dataclass(frozen=True)
class Reason:
    """Why something is refused: a stable code for programs, a sentence for people."""

    code: str
    message: str


class CasewardError(Exception):
    """The root of everything the engine raises on purpose."""


class DeclarationInvalid(CasewardError):
    """A declaration is wrong; every fault says what and where."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class CommandRefused(CasewardError):
    """A command was refused and changed nothing. `members` become members of the problem document."""

    code: ClassVar[str] = "command_refused"
    status: ClassVar[int] = 409
    title: ClassVar[str] = "Refused"

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class CaseNotFound(CommandRefused):
    """No case has this id, or none that this actor may see under this address."""

    code = "case_not_found"
    status = 404
    title = "No such case"

    def __init__(self) -> None:
        super().__init__("No case has this id here.")


class OperationNotFound(CommandRefused):
    """No operation has this id, or none that this actor may see."""

    code = "operation_not_found"
    status = 404
    title = "No such operation"

    def __init__(self) -> None:
        super().__init__("No operation has this id.")


class MessageNeeded(CommandRefused):
    """An unfinished operation, or a partner's answer that was not taken in yet, depends on this message."""

    code = "message_needed"
    status = 409
    title = "Still needed"

    def __init__(self) -> None:
        super().__init__("An unfinished operation, or a partner's answer that was not taken in yet, depends on it.")


class MessageNotFound(CommandRefused):
    """No parked outbox message has this id."""

    code = "message_not_found"
    status = 404
    title = "No such message"

    def __init__(self) -> None:
        super().__init__("No parked message has this id.")


class CallbackNotFound(CommandRefused):
    """No parked callback has this event id of this partner."""

    code = "callback_not_found"
    status = 404
    title = "No such callback"

    def __init__(self) -> None:
        super().__init__("No parked callback of this partner has this event id.")


class CallbackNeeded(CommandRefused):
    """A step of a case has the key of this callback, and still waits for it."""

    code = "callback_needed"
    status = 409
    title = "Still needed"

    def __init__(self) -> None:
        super().__init__("A step of a case waits for it: with its process declared, have the partner send it again.")


class BulkNotFound(CommandRefused):
    """No bulk run has this id."""

    code = "bulk_not_found"
    status = 404
    title = "No such bulk run"

    def __init__(self) -> None:
        super().__init__("No bulk run has this id.")


class PauseNotFound(CommandRefused):
    """No process, partner or case has a pause of this id."""

    code = "pause_not_found"
    status = 404
    title = "No such pause"

    def __init__(self) -> None:
        super().__init__("No pause has this id.")


class DelegationNotFound(CommandRefused):
    """No delegation has this id, or none that this actor has to do with."""

    code = "delegation_not_found"
    status = 404
    title = "No such delegation"

    def __init__(self) -> None:
        super().__init__("No delegation has this id.")


class DocumentNotFound(CommandRefused):
    """The case has no document of this id, or none of this kind."""

    code = "document_not_found"
    status = 404
    title = "No such document"

    def __init__(self) -> None:
        super().__init__("The case has no document of this id.")


class DocumentTooLarge(CommandRefused):
    """The document is larger than what is taken here."""

    code = "document_too_large"
    status = 413
    title = "The document is too large"


class DocumentTypeRefused(CommandRefused):
    """The content of the document is not of a type that its kind takes, whatever its name says."""

    code = "document_type_refused"
    status = 415
    title = "The document is of another type"


class ActionNotAllowed(CommandRefused):
    """The policy denies the action; the reasons are the ones its case document shows."""

    title = "Not allowed now"

    # These are about who asks, everything else is about where the case stands.
    FORBIDDEN: ClassVar[frozenset[str]] = frozenset({"role_missing", "four_eyes", "group_missing"})

    def __init__(self, reasons: Sequence[Reason], **members: Any) -> None:
        super().__init__(
            " ".join(reason.message for reason in reasons),
            reasons=[{"code": reason.code, "message": reason.message} for reason in reasons],
            **members,
        )
        self.reasons = tuple(reasons)

    @property
    def first_code(self) -> str:
        """The code of the most telling reason; the problem document's own code."""
        return self.reasons[0].code

    @property
    def http_status(self) -> int:
        """403 where another person could, 409 where the case must move first."""
        return 403 if self.first_code in self.FORBIDDEN else 409


class BusinessKeyTaken(CommandRefused):
    """Another open case of this process has the business key."""

    code = "business_key_taken"
    status = 409
    title = "This business key has an open case"


class VersionStale(CommandRefused):
    """The case changed since the version named in If-Match."""

    code = "version_stale"
    status = 412
    title = "The case has changed"


class InputInvalid(CommandRefused):
    """The input does not fit; `errors` names each field."""

    code = "input_invalid"
    status = 422
    title = "The input is wrong"


class IdempotencyKeyMissing(CommandRefused):
    """Commands need an Idempotency-Key header."""

    code = "idempotency_key_missing"
    status = 400
    title = "Idempotency-Key is missing"


class IdempotencyKeyInvalid(CommandRefused):
    """An Idempotency-Key is 1 to 200 visible ASCII characters."""

    code = "idempotency_key_invalid"
    status = 400
    title = "Idempotency-Key is malformed"


class IdempotencyKeyReused(CommandRefused):
    """The Idempotency-Key belongs to a command with other content."""

    code = "idempotency_key_reused"
    status = 422
    title = "Idempotency-Key was used for something else"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key belongs to a command with other content.")


class PartnerAnswer(CasewardError):
    """What a gateway raises in place of a plain answer: an outcome, not an accident."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class PartnerFailed(PartnerAnswer):
    """The outside change did not happen, and the partner (or the network before it) says why."""

    def __init__(
        self, error_class: ErrorClass, code: str, message: str, *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(code, message)
        self.error_class: ErrorClass = error_class
        self.retry_after = retry_after


class PartnerSilent(PartnerAnswer):
    """The request may have arrived and no answer came: nobody here can know."""


class PartnerAcknowledged(PartnerAnswer):
    """The partner took the request and will do it later."""


class LeaseTooShort(PartnerAnswer):
    """The gateway's whole deadline no longer fits into the lease, so nothing was sent."""
