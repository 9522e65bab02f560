"""The reader of JSON: what is read can be written and read again; what is hostile is one error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regularizers import json_files
from regularizers.json_files import JsonError

HOSTILE = {
    "nothing": (b"", "Expecting value"),
    "cut off": (b'{"a": [1', "Expecting"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8: invalid start byte"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "NaN": (b'{"a": NaN}', "NaN is not a number"),
    "infinite": (b"[-Infinity]", "-Infinity is not a number"),
    "beyond floats": (b"[1e400]", "1e400 is beyond the largest number"),
    "2^63": (b"[9223372036854775808]", "an integer of 19 digits is beyond 64 bits"),
    "-2^63 - 1": (b"[-9223372036854775809]", "beyond 64 bits"),
    "many digits": (b"9" * 100_000, "an integer of 100000 digits is beyond 64 bits"),
    "twice": (b'[{"a": 1, "b": 2, "a": 3}]', "an object has the name 'a' twice"),
    "half a character": (rb'["\ud800"]', "not UTF-8: surrogates not allowed"),
    "half a name": (rb'{"\uDC00": 1}', "not UTF-8: surrogates not allowed"),
    "65 levels": (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
    "65 objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
    "100,000 levels": (b"[" * 100_000, "nested deeper than 64 levels"),
    "too many arrays": (b"[" + b"[]," * 200_000 + b"[]]", "more than 200,000 arrays and objects"),
    "too long": (b" " * (json_files.MOST_BYTES + 1), "more than 16,777,216 bytes"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_one_error(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(JsonError, match=message):
        json_files.parse(text)
    with pytest.raises(JsonError, match=message):
        json_files.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 64 + "]" * 64, json.loads("[" * 64 + "]" * 64)),
        ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
        ('"12345678901234567890"', "12345678901234567890"),
        (r'["\ud83d\ude00"]', ["\N{GRINNING FACE}"]),
        ("null", None),
        (b"[1.5e3, true]", [1500.0, True]),
    ],
)
def test_what_is_within_the_bounds_is_read(text, value):
    assert json_files.parse(text) == value


def test_a_string_with_half_a_character_is_refused():
    with pytest.raises(JsonError, match="not UTF-8: surrogates not allowed"):
        json_files.parse('"\ud800"')


@pytest.mark.parametrize(
    ("text", "found"), [("null", "null"), ("5", "int"), ("[]", "list"), ('"a"', "str")]
)
def test_an_object_is_an_object(tmp_path, text, found):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(JsonError, match=f"expected an object, found {found}"):
        json_files.read_object(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert json_files.read_object(tmp_path / "a.json") == {"a": 1}


def test_no_more_is_read_than_may_be(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it would need a TiB
    with pytest.raises(JsonError, match="more than 1,000 bytes"):
        json_files.read(tmp_path / "a.json", most_bytes=1000)


def test_records_but_for_a_last_one_that_was_cut_off(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert list(json_files.read_records(path)) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(JsonError, match="line 2: Expecting value"):
        list(json_files.read_records(path))
    path.write_text('{"a": 1}\nnull\n')
    with pytest.raises(JsonError, match="line 2: expected an object, found null"):
        list(json_files.read_records(path))
    path.write_text("")
    assert list(json_files.read_records(path)) == []


def test_what_is_not_finite_is_null():
    found = json_files.finite({"a": [1.5, float("nan"), (float("inf"), 2)], "b": "NaN"})
    assert found == {"a": [1.5, None, [None, 2]], "b": "NaN"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_read_can_be_written_and_read_again(value):
    found = json_files.parse(json.dumps(value, allow_nan=False))
    assert found == value
    assert json_files.parse(json.dumps(found, allow_nan=False, ensure_ascii=False)) == value


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:-0123456789.eE\\unaltrfsI ', max_size=60))
def test_whatever_it_is_it_is_read_or_refused(text):
    try:
        value = json_files.parse(text)
    except JsonError:
        return
    assert json_files.parse(json.dumps(value, allow_nan=False)) == value
