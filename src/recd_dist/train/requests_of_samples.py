"""Samples of a table as requests: neighbours that have the same row in every group are the candidates of one user."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd_dist.reader.open_files import AnyTable, open_files
from recd_dist.reader.order import RowGroup
from recd_dist.reader.row_group_columns import DecodedRowGroup
from recd_dist.table.column import Column, Windows
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema


@dataclass(frozen=True)
class SampledRequest:
    """Samples that follow each other, as a request.

    Attributes:
        user: for each feature of the user its value, ready for JSON.
        candidates: for each feature of the samples their values, ready for JSON.
        start, end: the samples [start, end) of the split, in its order.
    """

    user: dict[str, Any]
    candidates: dict[str, list[Any]]
    start: int
    end: int


def sample_requests(table: AnyTable, stored: Schema, most: int) -> Iterator[SampledRequest]:
    """The first samples of a split as requests.

    Args:
        table: the split.
        stored: the features to give, in the groups of the table.
        most: the number of candidates of a request at most.
    """
    files, first = open_files(table, stored), 0
    for number, part in enumerate(table.manifest.parts):
        for index, size in enumerate(part.samples.row_groups):
            rows = files.read(RowGroup(number, index, size))
            columns = {f.name: _to_lists(rows, f) for f in stored.features}
            for start, end in _runs(rows, stored, most):
                yield _request(rows, columns, stored, start, end, first)
            first += size


def _to_lists(rows: DecodedRowGroup, feature: Feature) -> Column:
    column = rows.columns[feature.name]
    return column.to_lists() if isinstance(column, Windows) else column


def _runs(rows: DecodedRowGroup, stored: Schema, most: int) -> Iterator[tuple[int, int]]:
    """Runs of samples with equal rows in every group."""
    size = len(rows.sample_ids)
    changes = np.zeros(size + 1, bool)
    changes[[0, size]] = True
    for group in stored.dedup_groups:
        of_sample = rows.row_of_sample[group]
        changes[1:size] |= of_sample[1:] != of_sample[:-1]
    borders = np.flatnonzero(changes)
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        for at in range(start, end, most):
            yield at, min(at + most, end)


def _request(
    rows: DecodedRowGroup, columns: Mapping[str, Column], stored: Schema, start: int, end: int, first: int
) -> SampledRequest:
    user, candidates = dict[str, Any](), dict[str, list[Any]]()
    for feature in stored.features:
        if feature.home == SAMPLE:
            for name, values in _values_of(columns[feature.name], feature, range(start, end)).items():
                candidates[name] = values
        else:
            row = int(rows.row_of_sample[feature.home][start])
            for name, values in _values_of(columns[feature.name], feature, range(row, row + 1)).items():
                user[name] = values[0]
    return SampledRequest(user, candidates, first + start, first + end)


def _values_of(column: Column, feature: Feature, numbers: range) -> dict[str, list[Any]]:
    """The rows of a feature, and of its weights, as JSON has them."""
    if column.offsets is None:
        values = column.values[numbers.start : numbers.stop].tolist()
        if feature.kind is Kind.dense:
            return {feature.name: [v if math.isfinite(v) else None for v in values]}
        return {feature.name: [[v] for v in values] if feature.kind is Kind.ids else values}
    bounds = [(int(column.offsets[n]), int(column.offsets[n + 1])) for n in numbers]
    found = {feature.name: [column.values[a:b].tolist() for a, b in bounds]}
    if feature.weights is not None and column.weights is not None:
        found[feature.weights] = [column.weights[a:b].tolist() for a, b in bounds]
    return found
