"""Specs that the tests of the synthetic source share."""

from pathlib import Path
from typing import Any

import yaml

from recd_dist.synthetic.spec import SyntheticSpec

CONFIGS = Path(__file__).parents[2] / "configs" / "data"

SMALL: dict[str, Any] = {
    "num_samples": 3000,
    "num_users": 100,
    "tables": {"item": 200, "category": 10, "region": 20},
    "groups": {
        "history": {
            "stay": 0.8,
            "update": "shift",
            "ids": {"clicks": {"table": "item", "length": 6}, "clicks_category": {"table": "category", "length": 6}},
        },
        "profile": {"stay": 0.95, "ids": ["region"], "dense": ["age"]},
        "sample": {"ids": {"candidate": {"table": "item"}, "kind": {"table": "category"}}, "dense": ["price"]},
    },
}


def small_spec(**changes: Any) -> SyntheticSpec:
    return SyntheticSpec.from_dict({**SMALL, **changes})


def preset_config(name: str) -> dict[str, Any]:
    """A data config as Hydra composes it: the preset over synthetic.yaml."""

    def merge(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        inner = [key for key in value if isinstance(value[key], dict) and isinstance(base.get(key), dict)]
        return base | value | {key: merge(base[key], value[key]) for key in inner}

    value = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert value.pop("defaults") == ["synthetic", "_self_"]
    return merge(yaml.safe_load((CONFIGS / "synthetic.yaml").read_text()), value)
