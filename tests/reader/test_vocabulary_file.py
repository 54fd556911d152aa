"""Vocabularies: files of three kinds, numbers and texts, unknown values, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.errors import ConfigError
from recd_dist.reader import vocabulary_file
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.reader.vocabulary_file import text_id
from recd_dist.table.column import Column


def arguments(argument):
    return REGISTRY["vocabulary"].parse(argument)


def look_up(argument, values):
    return REGISTRY["vocabulary"].apply(Column(np.array(values, np.int64)), **arguments(argument)).values.tolist()


def test_ids_are_the_places_of_values_from_1_on(tmp_path):
    (tmp_path / "v.txt").write_text("30\n-1\n20\n")
    assert look_up(str(tmp_path / "v.txt"), [20, 30, 7, -1, 20]) == [3, 1, 0, 2, 3]


@pytest.mark.parametrize("name", ["v.parquet", "v.csv", "v.tsv", "v.txt"])
def test_texts_of_any_file_are_what_the_table_has_of_them(tmp_path, name):
    values = pa.table({"city": ["Oslo", "Århus", "Rome"], "n": [1, 2, 3]})
    if name == "v.parquet":
        pq.write_table(values, tmp_path / name)
    elif name == "v.txt":
        (tmp_path / name).write_text("Oslo\nÅrhus\nRome\n", encoding="utf-8")
    else:
        tab = "\t" if name == "v.tsv" else ","
        (tmp_path / name).write_text(f"city{tab}n\nOslo{tab}1\nÅrhus{tab}2\nRome{tab}3\n", encoding="utf-8")
    given = {"file": str(tmp_path / name)} | ({} if name == "v.txt" else {"column": "city"})
    assert look_up(given, [text_id("Århus"), text_id("Paris"), text_id("Oslo")]) == [2, 0, 1]
    assert look_up(arguments(given), [text_id("Rome")]) == [3]  # as a checkpoint has it


def test_digits_are_texts_where_the_config_says_so(tmp_path):
    (tmp_path / "v.txt").write_text("7\n8\n")
    assert look_up({"file": str(tmp_path / "v.txt"), "text": True}, [8, text_id("8")]) == [0, 2]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20)
    | st.lists(st.integers(-20, 20), unique=True, max_size=20),
    st.data(),
)
def test_against_a_dict(tmp_path_factory, keys, data):
    file = tmp_path_factory.mktemp("v") / "v.parquet"
    pq.write_table(pa.table({"v": pa.array(keys, pa.int64())}), file)
    values = data.draw(st.lists(st.sampled_from([*keys, 0, -1, 5, 2**63 - 1, -(2**63)]), max_size=20))
    slow = {key: number + 1 for number, key in enumerate(keys)}
    assert look_up(str(file), values) == [slow.get(value, 0) for value in values]


def test_a_changed_file_is_refused(tmp_path):
    file = tmp_path / "v.txt"
    file.write_text("1\n2\n")
    known = arguments(str(file))
    assert arguments(known) == known
    file.write_text("2\n1\n")
    with pytest.raises(ConfigError, match=r"not the file that the run was trained with .*; put that file back"):
        arguments(known)


@pytest.mark.parametrize(
    ("name", "text", "given", "message"),
    [
        ("v.txt", "1\n2\n1\n", {}, "'1' stands there twice, as value 1 and 3; name each value once"),
        ("v.csv", "a,b\n1,2\n", {"column": "c"}, "no column 'c'; there are: a, b"),
        ("v.csv", "a\n1\n\n", {"column": "a", "text": False}, None),
        ("v.csv", "a,b\n1,2\n,3\n", {"column": "a"}, "value 2 is missing; remove it"),
        ("v.csv", "a\n1.5\n", {}, None),
        ("v.csv", "a\n1.5\n", {"text": False}, "its values are double, an id that was no text is an integer"),
        ("v.parquet", "no Parquet", {}, "not readable as Parquet"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path, name, text, given, message):
    (tmp_path / name).write_text(text)
    argument = {"file": str(tmp_path / name), **given}
    if message is None:
        assert arguments(argument)["size"] == 1
        return
    with pytest.raises(ConfigError, match=message):
        arguments(argument)


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); correct the path"):
        arguments(str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="wanted a file, or"):
        arguments({"path": "v.txt"})


def test_an_empty_vocabulary_knows_nothing(tmp_path):
    (tmp_path / "v.txt").write_text("")
    assert look_up(str(tmp_path / "v.txt"), [1, 2]) == [0, 0]
    assert vocabulary_file.UNKNOWN == 0
