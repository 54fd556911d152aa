"""A spec names the mistakes in its section; the presets describe the same features to the generator and to the ETL."""

from typing import Any

import pytest
from tests.synthetic.specs import preset_config, small_spec

from recd_dist.errors import ConfigError
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.schema import SAMPLE

PRESETS = ("tiny", "rm1", "rm2", "rm3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sesion_mean": 3}, "unknown key 'sesion_mean'; did you mean 'session_mean'"),
        ({"num_samples": "many"}, "data.synthetic.num_samples is 'many'; it must be a whole number"),
        ({"num_samples": 0}, "num_samples is 0; it must be positive"),
        ({"session_mean": 5}, "they must rise"),
        ({"click_rate": 1.5}, "click_rate is 1.5"),
        ({"shares": {"dens": 1}}, "unknown term 'dens'; did you mean 'dense'"),
        ({"tables": {"item": 200, "category": 10, "regoin": 20}}, "'region' draws from table 'region'; did you mean"),
        ({"groups": {"history": {"stay": 1.5, "ids": ["region"]}}}, "stay is 1.5; it is a probability"),
        ({"groups": {"history": {"updat": "shift"}}}, "unknown key 'updat'; did you mean 'update'"),
        ({"groups": {"sample": {"stay": 0.5, "ids": ["region"]}}}, "drawn anew for every sample"),
        ({"groups": {}}, "no features"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        small_spec(**change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_the_same_groups_to_the_etl(name: str) -> None:
    value = preset_config(name)
    spec = SyntheticSpec.from_dict(value["synthetic"])
    described = {group: options["features"] for group, options in value["groups"].items()}
    assert described == {g.name: [*(f.name for f in g.ids), *g.dense] for g in spec.groups if g.name != SAMPLE}
    tables = {feature: options["table"] for feature, options in value["features"].items()}
    assert tables == {f.name: f.table for _, f in spec.features if f.name != f.table}
