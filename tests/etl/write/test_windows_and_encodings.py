"""Which histories are stored as windows: where they shift, whatever the direction, and where the config says so."""

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write.stored_types import list_type
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.windows_and_encodings import choose_windows_and_encodings
from recd_dist.table.schema import Feature, Kind, Schema

NUM = 400
IDS = np.random.default_rng(0).integers(0, 10**6, (NUM, 40))
STREAM = np.random.default_rng(1).integers(0, 10**6, NUM + 40).tolist()
LISTS = {
    "shifts": [STREAM[i : i + 20] for i in range(NUM)],
    "newest_first": [STREAM[i : i + 20][::-1] for i in range(NUM)],
    "other": [row[:20].tolist() for row in IDS],
    "half": [[*STREAM[i : i + 4], *row[:16].tolist()] for i, row in enumerate(IDS)],
    "short": [STREAM[i : i + 2] for i in range(NUM)],
    "empty": [[]] * NUM,
    "reweighted": [STREAM[i : i + 20] for i in range(NUM)],
}


def choose(names: dict[str, str], wanted: dict[str, bool] | None = None, **named: list[object]) -> dict[str, bool]:
    """Which of the lists get windows; names maps features to lists."""
    features = tuple(
        Feature(name, Kind.ids, "user", "item", weights="weights" if what == "reweighted" else None)
        for name, what in names.items()
    )
    weights = pa.array([[j / 20 for j in range(20)]] * NUM, pa.list_(pa.float32()))  # of the place, not of the id
    columns = {name: pa.array(LISTS[what], pa.list_(pa.int64())) for name, what in names.items()}
    keys = {
        SESSION: np.arange(NUM) // 50,
        REQUEST: np.arange(NUM),
        TIMESTAMP: np.arange(NUM),
    }
    shard = pa.table(keys | columns | {"label": pa.array([0.0] * NUM, pa.float32()), "weights": weights})
    extra = {name: pa.int32() for name in named}
    for name, values in named.items():
        shard = shard.append_column(name, pa.array(values, pa.int64()))
    features += tuple(Feature(name, Kind.id, "user", name) for name in named)
    form = TableForm(Schema(features), dict.fromkeys(names, list_type(pa.int32())) | extra, {}, 100, "zstd")
    found = choose_windows_and_encodings(form, shard, np.arange(NUM), wanted)
    assert ("user.stream" in found.encodings) == any(f.window for f in found.schema.features)
    return {f.name: f.window for f in found.schema.features if f.name in names}


def test_the_data_choose():
    assert choose({name: name for name in LISTS}) == {
        "shifts": True,
        "newest_first": True,
        "other": False,
        "half": False,  # its rows share nothing that reaches to their end
        "short": False,  # two ids a row cost no more than a start and a length
        "empty": False,
        "reweighted": False,  # the ids shift, each time with other weights
    }


def test_the_config_overrides():
    names = {"shifts": "shifts", "other": "other"}
    assert choose(names, {"shifts": False, "other": True}) == {"shifts": False, "other": True}


def test_names_that_windows_would_need():
    assert choose({"h": "shifts"}, h_start=[0] * NUM) == {"h": False}
    assert choose({"h": "shifts"}, stream=[0] * NUM) == {"h": False}
    with pytest.raises(
        ConfigError, match=r"features.h.window: the group has a column 'h_length'; rename it in the SQL"
    ):
        choose({"h": "shifts"}, {"h": True}, h_length=[0] * NUM)
