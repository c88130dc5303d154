"""Whether a JSON schema still takes all that another one took. What can't be shown to be so counts as narrowed."""

from collections.abc import Iterator
from typing import Any, cast

Schema = dict[str, Any]
_UNSAID = frozenset({"title", "description", "examples", "example", "default", "$defs", "deprecated", "discriminator"})
# By name: whether the new bound lets through all that the old one did.
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def narrowings(old: Schema, new: Schema) -> list[str]:
    """What `old` took and `new` would refuse, each with the place; empty where stored values can still be read."""
    return list(_Comparison(old, new).of(old, new, ""))


class _Comparison:
    """Two schemas with their own definitions."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._seen: set[tuple[str, str]] = set()  # a type may name itself

    def of(self, old: Any, new: Any, where: str) -> Iterator[str]:
        if new is True or old is False or old == new == {}:
            return
        if not isinstance(old, dict) or not isinstance(new, dict):
            if old != new:
                yield f"{_at(where)} is not taken any more"
            return
        old, new = cast("Schema", old), cast("Schema", new)
        pair = (str(old.get("$ref")), str(new.get("$ref")))
        if "None" not in pair:
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if "anyOf" in old or "anyOf" in new:
            yield from self._choices(old, new, where)
            return
        yield from self._words(old, new, where)
        yield from self._object(old, new, where)
        if "items" in new:
            yield from self.of(old.get("items", {}), new["items"], f"{where}[]")

    def _choices(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        seen = set(self._seen)
        for each in old.get("anyOf", [old]):
            tried: list[list[str]] = []
            for other in new.get("anyOf", [new]):
                self._seen = set(seen)
                tried.append(list(self.of(each, other, where)))
            if all(tried):
                yield from min(tried, key=len)

    def _words(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        looser = {*_LOWER, *_UPPER, "type", "enum", "const", "required", "properties", "additionalProperties", "items"}
        if not _types(old) <= _types(new):
            yield f"{_at(where)} was {_name(old)}, now {_name(new)}"
            return
        allowed = _values(new)
        if allowed is not None:
            had = _values(old)
            lost = None if had is None else [value for value in had if value not in allowed]
            if lost is None or lost:
                yield f"{_at(where)} takes only {allowed} now"
        for name in _LOWER:
            if name in new and (name not in old or old[name] < new[name]):
                yield f"{_at(where)}: {name} is {new[name]} now, was {old.get(name, 'none')}"
        for name in _UPPER:
            if name in new and (name not in old or old[name] > new[name]):
                yield f"{_at(where)}: {name} is {new[name]} now, was {old.get(name, 'none')}"
        for name in sorted(new.keys() - _UNSAID - looser):
            if new[name] != old.get(name):
                yield f"{_at(where)}: {name} has changed"

    def _object(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        had, has = old.get("properties", {}), new.get("properties", {})
        for name in new.get("required", []):
            if name not in old.get("required", []):
                yield f"{_at(f'{where}.{name}')} is required now"
        for name in had:
            if name in has:
                yield from self.of(had[name], has[name], f"{where}.{name}")
            elif new.get("additionalProperties") is False:
                yield f"{_at(f'{where}.{name}')} is gone"
        further = new.get("additionalProperties", True)
        if further is not False:
            yield from self.of(old.get("additionalProperties", {}), further, f"{where}.*")
        elif old.get("additionalProperties") not in (None, False):
            yield f"{_at(where)} takes no other fields any more"


def _resolved(schema: Schema, root: Schema) -> Schema:
    named = schema.get("$ref")
    if named is None:
        return schema
    beside = {word: value for word, value in schema.items() if word != "$ref"}
    return root["$defs"][named.rpartition("/")[2]] | beside


def _types(schema: Schema) -> set[str]:
    said: Any = schema.get("type", ["string", "number", "integer", "boolean", "object", "array", "null"])
    types = {said} if isinstance(said, str) else set(said)
    return types | {"integer"} if "number" in types else types


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _name(schema: Schema) -> str:
    return " or ".join(sorted(_types(schema))) if "type" in schema else "anything"


def _at(where: str) -> str:
    return where.lstrip(".") or "the value"
