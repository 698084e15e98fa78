"""JSON into messages and back, against protobuf's own mapping where the two agree."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Catalog
from gateway.faults import MAX_FAULTS, Faults, Place, TooManyFaults
from gateway.json_in import JsonReader, Malformed, decode
from gateway.json_out import JsonWriter
from tests.proto.compiled import descriptor_set

LIBRARY = Catalog(descriptor_set())
PUT = next(method for method in LIBRARY.methods if method.name == "PutBook")
BOOK = PUT.response_class
FILL = JsonReader().filler(PUT.response)
PRINT = JsonWriter().printer(PUT.response)

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)
COVER = st.sampled_from(["COVER_UNSPECIFIED", "SOFT", "HARD"])
SHELF = st.fixed_dictionaries({}, optional={"name": TEXT, "height": INT64})
TIME = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": TEXT,
    "cover": COVER,
    "small": INT32,
    "positive": st.integers(0, 2**32 - 1),
    "large": INT64,
    "huge": st.integers(0, 2**64 - 1),
    "zigzag": INT64,
    "weight": DOUBLE,
    "lent": st.booleans(),
    "subtitle": TEXT,
    "copies": INT64,
    "years": st.lists(INT64, max_size=4),
    "covers": st.lists(COVER, max_size=4),
    "shelves": st.lists(SHELF, max_size=3),
    "notes": st.dictionaries(TEXT, TEXT, max_size=3),
    "prices": st.dictionaries(INT32.map(str), DOUBLE, max_size=3),
    "places": st.dictionaries(st.sampled_from(["true", "false"]), SHELF, max_size=2),
    "editions": st.dictionaries(TEXT, COVER, max_size=3),
    "printed_at": TIME,
    "lent_at": st.lists(TIME, max_size=3),
    "shelf": SHELF,
}
PLAIN = st.fixed_dictionaries({}, optional=FIELDS)
BOOKS = st.builds(
    lambda outer, inner: {**outer, "before": inner}, PLAIN, st.one_of(st.none(), PLAIN)
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), DOUBLE, TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(TEXT, st.sampled_from(list(FIELDS))), inner, max_size=4),
    ),
    max_leaves=12,
)


def read(body: bytes | str) -> tuple[Any, list[tuple[str, str]]]:
    """The message and the faults of a body."""
    message, place = BOOK(), Place(Faults())
    FILL(message, decode(body.encode() if isinstance(body, str) else body), place)
    return message, place.faults.found


def fields_of(body: str) -> list[str]:
    return [field for field, _ in read(body)[1]]


@given(BOOKS)
@settings(max_examples=50, deadline=None)
def test_what_protobuf_takes_is_taken_alike(book: dict[str, Any]) -> None:
    body = json.dumps(book)
    message, faults = read(body)
    assert faults == []
    theirs = BOOK()
    json_format.ParseDict(book, theirs)
    # A given field is present with us even where it is empty; protobuf's parser agrees.
    assert message == theirs


@given(BOOKS)
@settings(max_examples=50, deadline=None)
def test_what_is_printed_is_read_again(book: dict[str, Any]) -> None:
    message, _ = read(json.dumps(book))
    printed = msgspec.json.encode(PRINT(message))
    # `null` means not set, for a message and for an optional field.
    again, faults = read(printed)
    assert faults == []
    assert again == message


@given(BOOKS)
@settings(max_examples=50, deadline=None)
def test_what_is_printed_is_what_protobuf_prints(book: dict[str, Any]) -> None:
    message, _ = read(json.dumps(book))
    ours = json.loads(msgspec.json.encode(PRINT(message)))
    theirs = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert set(theirs) <= set(ours)
    assert normal(ours) == normal(theirs)


def normal(value: Any) -> Any:
    """Drops what is null, and makes numbers and their texts equal."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, bool):
        return value
    return str(value) if isinstance(value, int) else value


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_any_json_is_read_or_named_field_by_field(value: Any) -> None:
    message, faults = read(json.dumps(value))
    if faults:
        assert all(isinstance(field, str) and text for field, text in faults)
    else:
        json_format.MessageToDict(message)


@given(st.binary(max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    try:
        decode(body)
    except Malformed:
        return


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("1e-4", "1e-4"),
        ("0.10", "0.10"),
        ("1E5", "1E5"),
        ("3", "3"),
        ("-7", "-7"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("false", "false"),
        ('"1e-4"', "1e-4"),
        ('""', ""),
    ],
)
def test_maps_of_strings_keep_the_json_text(text: str, kept: str) -> None:
    message, faults = read(f'{{"notes": {{"x": {text}}}}}')
    assert (dict(message.notes), faults) == ({"x": kept}, [])


@pytest.mark.parametrize("text", ["null", "[]", "{}", "[1]", '{"a": "b"}'])
def test_maps_of_strings_take_nothing_else(text: str) -> None:
    assert read(f'{{"notes": {{"x": {text}}}}}')[1] == [
        ('notes["x"]', "must be a string, a number or a boolean")
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"title": 1}', "title"),
        ('{"title": 1.5}', "title"),
        ('{"cover": 1}', "cover"),
        ('{"cover": "PAPER"}', "cover"),
        ('{"small": 2147483648}', "small"),
        ('{"small": "7"}', "small"),
        ('{"small": true}', "small"),
        ('{"small": 1.5}', "small"),
        ('{"positive": -1}', "positive"),
        ('{"large": 9223372036854775808}', "large"),
        ('{"large": "1.5"}', "large"),
        ('{"weight": "1"}', "weight"),
        ('{"weight": true}', "weight"),
        ('{"weight": 1e999}', "weight"),
        ('{"lent": 1}', "lent"),
        ('{"lent": "true"}', "lent"),
        ('{"scan": "?"}', "scan"),
        ('{"years": 1}', "years"),
        ('{"years": [1, null]}', "years[1]"),
        ('{"shelves": [{}, []]}', "shelves[1]"),
        ('{"shelves": [{"name": 1}]}', "shelves[0].name"),
        ('{"notes": []}', "notes"),
        ('{"prices": {"x": 1}}', 'prices["x"]'),
        ('{"places": {"true": {"height": []}}}', 'places["true"].height'),
        ('{"places": {"maybe": {}}}', 'places["maybe"]'),
        ('{"printed_at": "yesterday"}', "printed_at"),
        ('{"printed_at": 5}', "printed_at"),
        ('{"printed_at": "2026-02-30T00:00:00Z"}', "printed_at"),
        ('{"printed_at": "2026-01-01T00:00:60Z"}', "printed_at"),
        ('{"printed_at": "0001-01-01T00:00:00+01:00"}', "printed_at"),
        ('{"shelf": "top"}', "shelf"),
        ('{"shelf": {"nam": 1}}', "shelf.nam"),
        ('{"before": {"before": {"colour": 1}}}', "before.before.colour"),
        ('{"person": "p", "office": {}}', "person"),
        ("[]", "body"),
        ('"text"', "body"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(body: str, field: str) -> None:
    assert fields_of(body) == [field]


def test_all_faults_of_a_body_are_found_at_once() -> None:
    body = '{"title": 1, "small": "x", "shelf": {"height": []}, "colour": 1, "notes": {"a": []}}'
    assert fields_of(body) == ["title", "small", "shelf.height", "colour", 'notes["a"]']


def test_faults_are_bounded_in_number_and_length() -> None:
    faults = Faults()
    body = decode(json.dumps({"x" * 5000 + str(i): i for i in range(1000)}).encode())
    with pytest.raises(TooManyFaults):
        FILL(BOOK(), body, Place(faults))
    assert len(faults.found) == MAX_FAULTS
    assert max(len(field) for field, _ in faults.found) < 300


def test_deep_nesting_is_refused() -> None:
    body = '{"before":' * 500 + "{}" + "}" * 500
    assert read(body)[1][0][1] == "is nested too deeply"
    with pytest.raises(Malformed):
        decode(b"[" * 100_000)


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "{",
        '{"a":1}x',
        "nan",
        '{"a": NaN}',
        "{'a': 1}",
        '{"a": 01}',
        "\ufeff{}",
        '"\\ud800"',
    ],
)
def test_what_is_not_json_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        decode(body.encode())
    with pytest.raises(Malformed):
        decode(b'{"a": "\xff"}')


def test_null_leaves_a_field_as_it_is() -> None:
    message, faults = read('{"title": null, "subtitle": null, "shelf": null, "years": null}')
    assert (message, faults) == (BOOK(), [])


def test_an_empty_object_sets_a_message() -> None:
    message, _ = read('{"shelf": {}}')
    assert message.HasField("shelf")
    assert PRINT(message)["shelf"] == {"name": "", "height": 0}


@pytest.mark.parametrize(
    ("number", "printed"),
    [(2**53, 2**53), (2**53 + 1, str(2**53 + 1)), (-(2**53) - 1, str(-(2**53) - 1))],
)
def test_long_integers_are_numbers_where_a_double_holds_them(number: int, printed: Any) -> None:
    assert PRINT(BOOK(large=number, years=[number]))["large"] == printed
    assert PRINT(BOOK(large=number, years=[number]))["years"] == [printed]
    assert read(json.dumps({"large": printed}))[0].large == number


@pytest.mark.parametrize(
    ("number", "printed"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (0.1, 0.1)],
)
def test_doubles_that_json_lacks_are_words(number: float, printed: Any) -> None:
    assert PRINT(BOOK(weight=number, prices={1: number}))["weight"] == printed
    assert PRINT(BOOK(prices={1: number}))["prices"] == {"1": printed}


def test_every_field_is_printed() -> None:
    printed = PRINT(BOOK())
    assert list(printed) == [field.name for field in PUT.response.fields]
    assert printed["years"] == []
    assert printed["notes"] == {}
    assert (printed["subtitle"], printed["copies"], printed["shelf"]) == (None, None, None)
    assert (printed["title"], printed["large"], printed["cover"]) == ("", 0, "COVER_UNSPECIFIED")
    assert (printed["person"], printed["office"], printed["printed_at"]) == (None, None, None)


def test_an_enum_value_of_a_newer_coordinator_is_its_number() -> None:
    assert PRINT(BOOK(cover=99, covers=[1, 99]))["covers"] == ["SOFT", 99]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.500Z"),
        ("1969-12-31T23:59:59.000001Z", "1969-12-31T23:59:59.000001Z"),
        ("2026-01-31T12:00:00.123456789-00:30", "2026-01-31T12:30:00.123456789Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(text: str, printed: str) -> None:
    message, faults = read(json.dumps({"printed_at": text}))
    assert faults == []
    assert PRINT(message)["printed_at"] == printed
    assert message.printed_at.ToJsonString() == printed


def test_bytes_are_base64() -> None:
    message, _ = read('{"scan": "aGk="}')
    assert message.scan == b"hi"
    assert PRINT(message)["scan"] == "aGk="
