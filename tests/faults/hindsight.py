"""What only the order of events shows: checked against the timelines, once all is over."""

from collections.abc import Iterator, Mapping
from uuid import UUID

from caseward.db.tables import Effect, Entry

OVER = frozenset({"operation.superseded", "operation.undoing"})
# Partners that can neither be asked nor told twice: whoever tries again must know that it did not happen.
ASK_A_PERSON = frozenset({"mail"})


def out_of_order(timelines: Mapping[UUID, list[Entry]], effects: Mapping[str, Effect]) -> Iterator[str]:
    """Each violation as one line."""
    for case_id, entries in timelines.items():
        for line in (*_nothing_begins_once_taken_over(entries), *_unknown_is_not_repeated(entries, effects)):
            yield f"case {case_id}: {line}"


def _nothing_begins_once_taken_over(entries: list[Entry]) -> Iterator[str]:
    """G4: from the commit of a takeover no effect of the old operation is reserved for the first time."""
    over: set[UUID | None] = set()
    begun: set[str | None] = set()
    for entry in entries:
        if entry.type in OVER:
            over.add(entry.operation_id)
        if entry.type != "attempt.started":
            continue
        key = entry.effect_key or ""
        if key not in begun and not key.endswith(":undo") and UUID(key.partition(":")[0]) in over:
            yield f"{key} began at entry {entry.number}, after its operation was taken over"
        begun.add(key)


def _unknown_is_not_repeated(entries: list[Entry], effects: Mapping[str, Effect]) -> Iterator[str]:
    """G3: nobody tries again blindly where the outcome is unknown and the partner can't help."""
    unknown: set[str | None] = set()
    for entry in entries:
        effect = effects.get(entry.effect_key or "")
        if effect is None or effect.partner not in ASK_A_PERSON:
            continue
        match entry.type:
            case "effect.outcome_unknown":
                unknown.add(effect.key)
            case "effect.ruled_out":
                unknown.discard(effect.key)
            case "attempt.started" if effect.key in unknown:
                yield f"{effect.key} was tried again at entry {entry.number} though nobody knew its outcome"
            case _:
                pass
