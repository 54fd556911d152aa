"""A survey comes back from its rows as it was."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.etl.deal.plan_parts import Survey
from recd_dist.etl.spark.survey_rows import SURVEY_SCHEMA, survey_from_rows, survey_to_rows

SMALL = st.integers(0, 3)


def test_rows_of_counts() -> None:
    rows = survey_to_rows(3, Survey({(0, 1, 0): 420}, {"late": 2}))
    assert rows.schema == SURVEY_SCHEMA
    assert [list(row.values()) for row in rows.to_pylist()] == [
        [3, 0, 1, 0, 0, 0, 420, None],
        [3, -1, -1, -1, -1, -1, -1, '{"late": 2}'],
    ]


def test_rows_of_sessions() -> None:
    survey = Survey(sessions=np.array([[0, 1], [0, 0], [50, 40], [881, 7]]), samples=np.array([12, 5]))
    assert [list(row.values())[:-1] for row in survey_to_rows(0, survey).to_pylist()] == [
        [0, 0, -1, 0, 50, 881, 12],
        [0, 1, -1, 0, 40, 7, 5],
        [0, -1, -1, -1, -1, -1, -1],
    ]


@given(
    counts=st.dictionaries(st.tuples(SMALL, SMALL, SMALL), st.integers(1, 9), max_size=4),
    kept=st.dictionaries(st.text(max_size=3), SMALL, max_size=2),
    sessions=st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), unique=True, max_size=6).map(sorted),
    order=st.randoms(use_true_random=False),
)
def test_a_survey_comes_back_from_its_rows_in_any_order(counts, kept, sessions, order) -> None:
    columns = np.array(sessions, np.int64).reshape(-1, 4).T
    survey = Survey(counts, kept, columns, np.arange(len(sessions)) + 1)
    rows = pa.Table.from_batches([survey_to_rows(5, survey)])
    shuffled = list(range(rows.num_rows))
    order.shuffle(shuffled)
    again = survey_from_rows(rows.take(pa.array(shuffled)))
    assert (again.counts, again.kept) == (counts, kept)
    assert (again.sessions.tolist(), again.samples.tolist()) == (columns.tolist(), survey.samples.tolist())
