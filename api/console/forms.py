"""Forms made from JSON Schemas, and what comes back from them as the JSON that the API would take.

A field is named by its path: `input.contacts.0.name`. What was left empty was not given; whether that is enough says
the same model that the API asks.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticCustomError

from api.bodies import Storable, storable

Json = dict[str, Any]
Kind = Literal["line", "text", "number", "choice", "date", "instant", "email", "json", "group", "rows", "fixed"]
LONG = 200  # characters, beyond which a text is written on several lines
JSON_SUFFIX = ":json"
LETTER_WITHIN = re.compile(r"(?<=[a-z])[A-Z](?=[a-z])")
MOST_ROWS = 50  # that can be asked for in one list of a form; the longest declared list has twenty
LONGEST_NAME = 200  # characters of a field's name, and so a bound on its numbers and on how deep it goes
NO_FIELD = "This is no field of the form."
# By how the message of a program begins.
WORDS = {
    "Field required": "This is needed.",
    "Input should be a valid integer": "This must be a whole number, in digits.",
    "String should match pattern": "This is not written as it has to be.",
}
# Which kind of field a format of JSON Schema asks for.
FORMATS: Mapping[str, Kind] = {"date": "date", "date-time": "instant", "email": "email"}


@dataclass(frozen=True)
class Choice:
    """What may be chosen."""

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field, or one group of fields."""

    name: str
    title: str
    kind: Kind
    required: bool = False
    """The browser insists on it."""
    optional: bool = True
    """It may be empty even where what it stands in is not."""
    help: str = ""
    value: str = ""
    wrong: str = ""
    choices: tuple[Choice, ...] = ()
    longest: int | None = None
    least: str | None = None
    most: str | None = None
    fields: tuple["Field", ...] = ()
    """Of a group; of a list one group for each row."""


@dataclass(frozen=True)
class Form:
    """A schema with what was given and what is wrong with it."""

    schema: Json
    given: Json
    errors: Mapping[str, str]

    def fields(self, *, without: Iterable[str] = ()) -> tuple[Field, ...]:
        """All of them; those below `input` stand beside the others, because the word says nothing to people."""
        made: list[Field] = []
        left_out = frozenset(without)
        for field in self._members(self.schema, self.given, "", (), required=True, example=_example(self.schema)):
            if field.name.removesuffix(JSON_SUFFIX) not in left_out:
                made += field.fields if field.name == "input" else [field]
        return tuple(made)

    def _members(
        self, schema: Json, given: Any, prefix: str, seen: tuple[str, ...], *, required: bool, example: Any
    ) -> Sequence[Field]:
        """No browser insists on what is within something that may be left empty as a whole."""
        known = cast("Json", given) if isinstance(given, dict) else {}
        shown = cast("Json", example) if isinstance(example, dict) else {}
        needed = set(schema.get("required", ()))
        return [
            self._field(
                inner,
                known.get(name),
                f"{prefix}{name}",
                seen,
                needed=name in needed,
                required=required and name in needed,
                example=shown.get(name),
            )
            for name, inner in schema.get("properties", {}).items()
        ]

    def _field(
        self,
        schema: Json,
        given: Any,
        name: str,
        seen: tuple[str, ...],
        *,
        needed: bool,
        required: bool,
        example: Any = None,
    ) -> Field:
        declared = self._resolved(schema)
        if example is None:  # where that of the whole says nothing of it
            example = _example(schema) or _example(declared)
        about: Json = {
            "name": name,
            "title": schema.get("title") or spoken(declared.get("title") or name.rpartition(".")[2]),
            "required": required,
            "optional": not needed,
            "help": schema.get("description") or declared.get("description", ""),
            "wrong": in_words(self.errors.get(name, "")),
        }
        reference = schema.get("$ref", "")
        if reference and reference in seen:  # a type within itself: as deep as a form can go
            about["name"] = name + JSON_SUFFIX
            return Field(kind="json", value=_as_json(given), **about)
        inside = (*seen, reference) if reference else seen
        if "properties" in declared:
            members = self._members(declared, given, f"{name}.", inside, required=required, example=example)
            return Field(kind="group", fields=tuple(members), **about)
        if declared.get("type") == "array" and "items" in declared:
            rows = cast("list[Any]", given) if isinstance(given, list) else []
            shows = cast("list[Any]", example)[:1] if isinstance(example, list) else []
            least = declared.get("minItems", 0)
            shown = max(len(rows), least, 1)
            made = [
                self._field(
                    declared["items"],
                    row,
                    f"{name}.{number}",
                    inside,
                    needed=number < least,
                    required=required and number < least,
                    example=next(iter(shows), None),
                )
                for number, row in enumerate([*rows, *[None] * (shown - len(rows))])
            ]
            return Field(kind="rows", fields=tuple(made), **about)
        return self._single(declared, given, about, example)

    def _single(self, declared: Json, given: Any, about: Json, example: Any) -> Field:
        value = "" if given is None else str(given).lower() if isinstance(given, bool) else str(given)
        if "const" in declared:
            return Field(kind="fixed", value=str(declared["const"]), **about)
        choices = declared.get("enum")
        if declared.get("type") == "boolean":
            return Field(kind="choice", value=value, choices=(Choice("true", "Yes"), Choice("false", "No")), **about)
        if choices:
            named = tuple(Choice(str(each), str(each).replace("_", " ")) for each in choices)
            return Field(kind="choice", value=value or str(declared.get("default", "")), choices=named, **about)
        if isinstance(example, (str, int, float)) and declared.get("format") != "date":
            about["help"] = f"{about['help']} For example: {example}".lstrip()
        if declared.get("type") in {"integer", "number"}:
            least, most = _limit(declared, "minimum"), _limit(declared, "maximum")
            return Field(kind="number", value=value, least=least, most=most, **about)
        if declared.get("type") == "string":
            longest = declared.get("maxLength")
            long = longest is not None and longest > LONG
            kind: Kind = FORMATS.get(declared.get("format", ""), "text" if long else "line")
            return Field(kind=kind, value=value, longest=longest, **about)
        about["name"] += JSON_SUFFIX
        return Field(kind="json", value=_as_json(given), **about)

    def _resolved(self, schema: Json) -> Json:
        """The schema itself, behind its references and beside null."""
        while True:
            if "$ref" in schema:
                schema = self.schema["$defs"][schema["$ref"].rpartition("/")[2]]
            elif "anyOf" in schema:
                others = [each for each in schema["anyOf"] if each.get("type") != "null"]
                if len(others) != 1:
                    # A number that may also come as text: the text says it exactly.
                    text = next((each for each in others if each.get("type") == "string"), None)
                    return text or {key: value for key, value in schema.items() if key != "anyOf"}
                schema = {**{k: v for k, v in schema.items() if k not in {"anyOf", "default"}}, **others[0]}
            else:
                return schema


def spoken(name: str) -> str:
    """The name of a type as people would write it: `BankAccount` is a bank account."""
    return LETTER_WITHIN.sub(lambda found: f" {found[0].lower()}", name)


def _example(schema: Json) -> Any:
    return next(iter(schema.get("examples", ())), None)


def _limit(declared: Json, name: str) -> str | None:
    return str(declared[name]) if name in declared else None


def _as_json(given: Any) -> str:
    if isinstance(given, Unread):
        return given
    return "" if given is None else json.dumps(given, indent=2, ensure_ascii=False)


def checked(model: type[BaseModel], given: Json) -> Any:
    """What was given as the model, by the checks of the API's bodies. Raises ValidationError."""
    return TypeAdapter[Any](Annotated[model, Storable]).validate_python(given)  # pyright: ignore[reportArgumentType, reportInvalidTypeForm]


class FormWrong(Exception):
    """A field is none of the form's, or can't have what was asked for."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class Unread(str):
    """What was to be JSON and is none, or none that can be kept: it goes back into its field as it came."""

    __slots__ = ()


class Named(dict[str, Any]):
    """An object that the names of fields have made, not one that was given as JSON."""

    __slots__ = ()


def decoded(fields: Mapping[str, str]) -> tuple[Json, dict[str, str]]:
    """The JSON that these fields say, and by field what is wrong; what is empty is left out, of lists too."""
    tree = Named()
    wrong: dict[str, str] = {}
    for name, text in fields.items():
        value: Any = text.replace("\r\n", "\n")
        if name.endswith(JSON_SUFFIX) and value.strip():
            name = name.removesuffix(JSON_SUFFIX)  # noqa: PLW2901 - the name of what it says
            try:
                value = storable(json.loads(value))
            except PydanticCustomError as fault:
                value, wrong[name] = Unread(value), fault.message()
            except (ValueError, RecursionError):
                value, wrong[name] = Unread(value), "This is not well-formed JSON."
        if not isinstance(value, str) or value.strip():
            try:
                _put(tree, name, value)
            except FormWrong as fault:
                wrong[fault.name] = fault.message
    return {name: _listed(inner) for name, inner in tree.items()}, wrong


def _put(tree: Json, name: str, value: Any) -> None:
    if len(name) > LONGEST_NAME:
        raise FormWrong(name, NO_FIELD)
    *way, last = name.split(".")
    for part in way:
        below = tree.setdefault(part, Named())
        if not isinstance(below, Named):
            raise FormWrong(name, NO_FIELD)
        tree = below
    tree[last] = value


def _listed(value: Any) -> Any:
    """Objects whose members are numbered are lists, with no gaps."""
    if not isinstance(value, Named):
        return value
    members: Json = {name: _listed(inner) for name, inner in value.items()}
    if members and all(name.isdecimal() for name in members):
        return [members[name] for name in sorted(members, key=int)]
    return members


def one_more(given: Json, name: str) -> None:
    """Another empty row in the list of this name. Raises FormWrong."""
    if len(name) > LONGEST_NAME:
        raise FormWrong(name, NO_FIELD)
    below: Any = given
    *way, last = name.split(".")
    try:
        for part in way:
            if isinstance(below, list):
                below = cast("list[Any]", below)[int(part)]
            else:
                below = cast("Json", below).setdefault(part, {})
        rows = cast("Json", below).setdefault(last, [None])
        if len(rows) >= MOST_ROWS:
            raise FormWrong(name, f"A list of a form has {MOST_ROWS} rows at most; the API takes longer ones.")
        rows.append(None)
    except (AttributeError, IndexError, TypeError, ValueError) as fault:
        raise FormWrong(name, NO_FIELD) from fault


def elsewhere(wrong: Mapping[str, str], fields: Sequence[Field]) -> Sequence[str]:
    """What is wrong beside none of these fields."""
    return [in_words(message) for name, message in wrong.items() if name not in _names(fields)]


def in_words(message: str) -> str:
    """What is wrong with a field, for people: what a program is told names types and patterns."""
    for begins, words in WORDS.items():
        if message.startswith(begins):
            return words
    return message.removeprefix("Value error, ")


def _names(fields: Sequence[Field]) -> frozenset[str]:
    return frozenset(name for field in fields for name in (field.name.removesuffix(JSON_SUFFIX), *_names(field.fields)))
