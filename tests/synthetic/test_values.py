"""Feature values have the statistics that a spec asks for."""

import numpy as np
import pytest
from tests.synthetic.specs import preset_config

from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.synthetic.values import FeatureValues
from recd_dist.synthetic.visits import draw_traffic
from recd_dist.table.schema import SAMPLE


def test_calibration_of_rm1() -> None:
    """Sessions of 16.3 in the mean and 10 in the median; 1.2 of each in 4096; ids 5.6 times fewer when clustered."""
    spec = SyntheticSpec.from_dict(preset_config("rm1")["synthetic"])
    seen = draw_traffic(spec)
    sizes = np.bincount(seen.session)
    assert sizes.mean() == pytest.approx(16.3, rel=0.03)
    assert np.median(sizes) == pytest.approx(10, abs=1)
    assert 300 < sizes.max() <= 600
    batches = [seen.session[i : i + 4096] for i in range(0, len(seen) - 4096, 4096)]
    assert 1.1 < np.mean([4096 / len(np.unique(sessions)) for sessions in batches]) < 1.25

    values = FeatureValues(spec, seen)
    some = np.sort(np.random.default_rng(0).choice(len(seen), 500, replace=False))
    num_ids = {feature.name: len(rows.values) / len(some) for feature, rows in values.ids(some)}
    order = np.lexsort((seen.timestamp_us, seen.session))
    same = seen.session[order][1:] == seen.session[order][:-1]
    unique = 0.0
    for group in spec.groups:
        per_sample = sum(num_ids[f.name] for f in group.ids)
        if group.name != SAMPLE:
            version = seen.versions[group.name][order]
            stays = same & (version[1:] == version[:-1])
            assert stays.sum() / same.sum() == pytest.approx(group.stay, abs=0.01)
            per_sample *= 1 - stays.mean()
        unique += per_sample
    assert sum(num_ids.values()) == pytest.approx(787, rel=0.02)
    assert sum(num_ids.values()) / unique == pytest.approx(5.64, rel=0.05)
