"""Keys and labels, guessed from names and data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.suggest.planted import flat_source, plant_table, sample_of, source

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.source import Source
from recd_dist.suggest.guess_keys import Choice, guess_keys


def choices_of(bare: Source) -> dict[str, Choice]:
    with engine.connect() as connection:
        return {choice.role: choice for choice in guess_keys(bare, connection).choices}


def test_keys_and_label_from_names_and_data(tmp_path: Path) -> None:
    plant_table(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=1000)
    choices = choices_of(Source("mine", str(tmp_path / "t.parquet"), labels=()))
    assert {role: choice.column for role, choice in choices.items()} == {
        "session": "visit",
        "request": None,
        "timestamp": "time",
        "label": "clicked",
    }
    assert (choices["timestamp"].sure, choices["timestamp"].why) == ("sure", "a TIMESTAMP column")
    assert choices["session"].sure == "likely"
    assert choices["label"].sure == "likely"
    assert "only 0 and 1" in choices["label"].why


def test_a_session_that_has_one_user_is_sure_and_requests_lie_in_it(tmp_path: Path) -> None:
    session = np.repeat(np.arange(50), 8)
    bare = flat_source(
        tmp_path / "t.parquet",
        customer=session // 3,
        session_id=session,
        impression_id=np.repeat(np.arange(200), 2),
        ts=1_700_000_000 + np.arange(400) * 7,
        converted=np.arange(400) % 9 == 0,
    )
    choices = choices_of(bare)
    assert (choices["session"].column, choices["session"].sure) == ("session_id", "sure")
    assert (choices["request"].column, choices["user"].column) == ("impression_id", "customer")
    assert (choices["timestamp"].column, choices["label"].column) == ("ts", "converted")
    assert "seconds since 1970" in choices["timestamp"].why


def test_without_a_session_the_user_and_without_a_name_the_data_speaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(100), 10)
    columns = {"a": rng.integers(0, 9, 1000), "b": who * 17 % 31, "c": who * 5 % 23, "d": rng.integers(0, 99, 1000)}
    named = choices_of(flat_source(tmp_path / "t.parquet", user_id=who, **columns))
    assert (named["session"].column, named["session"].sure) == ("user_id", "likely")
    unnamed = choices_of(flat_source(tmp_path / "t.parquet", who=who, **columns))
    assert (unnamed["session"].column, unnamed["session"].sure) == ("who", "guess")
    nothing = choices_of(flat_source(tmp_path / "t.parquet", a=rng.integers(0, 10**9, 1000), d=rng.random(1000)))
    assert nothing["session"].column is None
    assert "data.keys.session=COLUMN" in nothing["session"].why


def test_columns_that_are_no_features_are_left_out(tmp_path: Path) -> None:
    times = pa.array(np.arange(40)).cast(pa.timestamp("us"))
    bare = flat_source(
        tmp_path / "t.parquet", visit=np.arange(40) // 4, time=times, until=times, clicked=np.arange(40) % 2
    )
    with engine.connect() as connection:
        guess = guess_keys(bare, connection)
        assert (guess.source.drop, dict(guess.left_out)) == (("until",), {"until": "a TIMESTAMP is no feature"})


def test_what_the_config_says_is_kept_and_a_wrong_column_is_named(tmp_path: Path) -> None:
    plant_table(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=500)
    given = source(tmp_path / "t.parquet")
    assert {role: c.sure for role, c in choices_of(given).items()} == {
        "session": "given",
        "timestamp": "given",
        "label": "given",
        "request": "none",
    }
    with pytest.raises(DataError, match="did you mean 'visit'"):
        sample_of(source(tmp_path / "t.parquet", keys={"session": "visitt"}))
