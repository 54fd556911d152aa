"""Values that JSON can hold."""

import json
import math

from recd_dist.table.stats.json_values import to_json_value


def test_nan_becomes_none_and_keys_become_strings() -> None:
    value = to_json_value({512: (1.5, math.nan), "name": {4096: [math.inf, None, True, 3]}})
    assert value == {"512": [1.5, None], "name": {"4096": [None, None, True, 3]}}
    assert json.loads(json.dumps(value, allow_nan=False)) == value
