"""Requests for scores, made from a clustered table: users as its log has them, with candidates of its samples."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from recd_dist.table.flat import flat_view
from recd_dist.table.schema import SAMPLE

POOL = 20_000
"""Samples from which users and candidates are drawn."""


@dataclass(frozen=True)
class MadeRequest:
    """A request: the features of one sample's groups, and of many samples what is the candidate's own.

    Attributes:
        user: feature -> value or list.
        candidates: feature -> a value or a list for each candidate.
    """

    user: Mapping[str, Any]
    candidates: Mapping[str, Sequence[Any]]

    @property
    def body(self) -> bytes:
        """The request as JSON."""
        return json.dumps({"user": self.user, "candidates": self.candidates}, separators=(",", ":")).encode()


def draw_requests(table: Path, num_requests: int, num_candidates: int, seed: int = 0) -> list[MadeRequest]:
    """Draws requests; the same ones each time.

    Args:
        table: a split of a clustered table, such as ``tables/rm1/train``.
        num_requests: how many, each of a sample of its own as long as there are as many.
        num_candidates: of each request.
        seed: of the draw.
    """
    features = json.loads((table / "manifest.json").read_text())["schema"]["features"]
    users = [feature["name"] for feature in features if feature["group"] != SAMPLE]
    candidates = [feature["name"] for feature in features if feature["group"] == SAMPLE]
    wanted = ", ".join(f'"{name}"' for name in users + candidates)
    query = f"select {wanted} from ({flat_view(table)}) using sample reservoir({POOL} rows) repeatable ({seed})"
    with duckdb.connect(config={"threads": 1}) as database:
        rows = database.sql(query).to_arrow_table().combine_chunks()
    draw, places = random.Random(seed), range(rows.num_rows)
    chosen = draw.sample(places, min(num_requests, rows.num_rows))
    chosen += draw.choices(places, k=num_requests - len(chosen))
    made = []
    for place in chosen:
        user = {name: values[0] for name, values in rows.select(users).slice(place, 1).to_pydict().items()}
        others = rows.select(candidates).take(draw.choices(places, k=num_candidates))
        made.append(MadeRequest(user, others.to_pydict()))
    return made
