"""Sessions have the sizes that a spec asks for."""

import numpy as np
from tests.synthetic.specs import small_spec

from recd_dist.synthetic.visits import draw_traffic


def test_sessions_of_one_sample() -> None:
    traffic = draw_traffic(small_spec(session_mean=1, session_median=1))
    assert len(np.unique(traffic.session)) == len(traffic) == 3000
