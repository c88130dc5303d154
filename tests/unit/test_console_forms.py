"""Forms made from schemas: what comes back from them is what the API would take."""

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from api.console.forms import MOST_ROWS, Form, FormWrong, Json, decoded, in_words, one_more, spoken
from api.console.pages import limit
from caseward.cases.commands import field_errors

TAGS: Json = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
}


class TestRows:
    def test_one_more_of_plain_values_is_empty(self):
        given: Json = {"tags": ["a"]}
        one_more(given, "tags")
        (tags,) = Form(TAGS, given, {}).fields()
        assert [row.value for row in tags.fields] == ["a", ""]

    def test_the_first_row_of_a_list_of_which_nothing_was_given_is_there_already(self):
        given: Json = {}
        one_more(given, "tags")
        (tags,) = Form(TAGS, given, {}).fields()
        assert [row.value for row in tags.fields] == ["", ""]

    def test_there_is_an_end_to_it_and_nothing_is_cut(self):
        given: Json = {"tags": [str(number) for number in range(MOST_ROWS)]}
        with pytest.raises(FormWrong, match="50 rows at most"):
            one_more(given, "tags")
        given["tags"] += ["more", "by the API"]
        (tags,) = Form(TAGS, given, {}).fields()
        assert len(tags.fields) == MOST_ROWS + 2


class TestTitles:
    @pytest.mark.parametrize(
        ("name", "title"), [("BankAccount", "Bank account"), ("IBAN", "IBAN"), ("reason", "reason")]
    )
    def test_names_of_types_are_written_as_people_would(self, name: str, title: str):
        assert spoken(name) == title


class TestHelp:
    def test_is_what_the_schema_describes_with_the_example_of_the_whole_or_its_own(self):
        schema: Json = {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "iban": {"type": "string", "description": "With or without spaces.", "examples": ["DE89"]},
                "amount": {"$ref": "#/$defs/Amount"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "when": {"type": "string", "format": "date"},
                "size": {"enum": ["small", "large"]},
            },
            "$defs": {
                "Amount": {"description": "How much.", "properties": {"units": {"type": "integer"}}},
            },
            "examples": [
                {"name": "Ada", "amount": {"units": 1250}, "tags": ["new"], "when": "2031-05-03", "size": "small"}
            ],
        }
        name, iban, amount, tags, when, size = Form(schema, {}, {}).fields()
        assert (name.help, iban.help) == ("For example: Ada", "With or without spaces. For example: DE89")
        assert (amount.help, amount.fields[0].help) == ("How much.", "For example: 1250")
        assert (tags.help, tags.fields[0].help) == ("", "For example: new")
        assert (when.help, size.help) == ("", ""), "what is picked needs no example"


class Asked(BaseModel):
    hits: int
    score: int
    country: str = Field(pattern="^[A-Z]{2}$")
    iban: str
    name: str

    @field_validator("iban")
    @classmethod
    def _known(cls, iban: str) -> str:
        message = f"not an IBAN: {iban}"
        raise ValueError(message)


class TestWords:
    def test_of_what_is_wrong_are_those_of_people(self):
        with pytest.raises(ValidationError) as fault:
            Asked.model_validate({"hits": "many", "score": "1.5", "country": "de", "iban": "DE1"})
        assert {each["field"]: in_words(each["message"]) for each in field_errors(fault.value)} == {
            "hits": "This must be a whole number, in digits.",
            "score": "This must be a whole number, in digits.",
            "country": "This is not written as it has to be.",
            "iban": "not an IBAN: DE1",
            "name": "This is needed.",
        }

    @pytest.mark.parametrize(
        ("size", "words"), [(20 * 2**20, "20 MiB"), (2_000_000, "2 MB"), (1536, "1536 bytes"), (3072, "3 KiB")]
    )
    def test_of_a_limit_are_in_the_unit_in_which_it_was_meant(self, size: int, words: str):
        assert limit(size) == words


class TestDecoding:
    def test_what_is_no_json_stays_in_its_field_and_all_others_in_theirs(self):
        schema: Json = {
            "type": "object",
            "properties": {"note": {"type": "string"}, "first": {}, "second": {}, "third": {}},
        }
        sent = {"note": "Kept", "first:json": "{no", "second:json": '{"a": 1}', "third:json": "[1,"}
        given, wrong = decoded(sent)
        assert set(wrong) == {"first", "third"}
        shown = {field.name: (field.value, bool(field.wrong)) for field in Form(schema, given, wrong).fields()}
        assert shown == {
            "note": ("Kept", False),
            "first:json": ("{no", True),
            "second:json": ('{\n  "a": 1\n}', False),
            "third:json": ("[1,", True),
        }

    def test_a_field_within_a_text_is_refused_by_its_name(self):
        assert decoded({"a": "text", "a.b": "more"}) == ({"a": "text"}, {"a.b": "This is no field of the form."})

    def test_rows_of_which_nothing_was_given_are_left_out(self):
        sent = {"rows.0.name": "", "rows.0.at": " ", "rows.1.name": "Ada", "others.0.name": ""}
        assert decoded(sent) == ({"rows": [{"name": "Ada"}]}, {})

    @pytest.mark.parametrize("name", [".".join(["x"] * 5000), f"rows.{'1' * 5000}.name"], ids=["deep", "numbered"])
    def test_a_name_beyond_every_form_is_refused(self, name: str):
        assert decoded({name: "1"}) == ({}, {name: "This is no field of the form."})
        with pytest.raises(FormWrong, match="no field of the form"):
            one_more({}, name)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"a":' * 900 + "1" + "}" * 900, "The value is nested more than 32 levels deep."),
            ('"\\ud800"', "The value contains half of a surrogate pair."),
            ('{"\\ud800": 1}', "The value contains half of a surrogate pair."),
        ],
        ids=["deep", "half a character", "half a character in a name"],
    )
    def test_json_that_can_not_be_kept_stays_in_its_field_as_it_was_typed(self, text: str, message: str):
        assert decoded({"first:json": text}) == ({"first": text}, {"first": message})

    def test_an_object_that_was_given_as_json_is_no_list_whatever_its_names(self):
        assert decoded({"years:json": '{"2031": "a", "2030": "b"}'}) == ({"years": {"2031": "a", "2030": "b"}}, {})
