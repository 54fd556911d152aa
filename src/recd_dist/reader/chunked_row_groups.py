"""Reads row groups of a table by ``chunks``, where all of their columns are as the ETL writes them.

What is not, for whatever reason, is not judged here: ``read`` returns nothing, and ``table_files`` reads it by pyarrow,
with a look at everything and an error that says what is wrong. What a column is, and where it lies among the columns of
all files of a part, is found once a part; a row group takes a few calls of compiled loops.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recd_dist.reader import kernels
from recd_dist.reader.chunks.column_chunks import ChunkFile, ChunkReader, DecodedChunks, Scratch
from recd_dist.reader.number_chains import NumberChains
from recd_dist.reader.row_group_columns import DecodedColumns, DecodedRowGroup, Origin
from recd_dist.reader.row_group_file import RowGroupFile
from recd_dist.reader.row_group_kernels import count_from_first, place_windows
from recd_dist.reader.stages import measure
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Array, Column, Rows, Windows
from recd_dist.table.location import Location
from recd_dist.table.manifest import ROW, STREAM, FileEntry, Part, length_of, start_of
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature, Kind, Schema

_KEYS = (SAMPLE_ID, SESSION_ID, REQUEST_ID)
_MAX_OPEN_FILES = 64
_MAX_PARTS = 1024
"""Parts of which it is known where their columns lie: 0.1 MB each, and 7 ms to find out again (rm1)."""


class _Unusual(Exception):
    """A row group is not as this module reads it."""


class ChunkedRowGroups:
    """Row groups of a table, decoded without pyarrow's reader.

    Args:
        path: the directory of the table.
        open_file: opens and checks a file of it.
        features: for each group the features to read, as the table has them.
        schema: the same features, and the labels.
        may_miss: for each label whether it may be missing in some samples.
    """

    def __init__(
        self,
        path: Location,
        open_file: Callable[[FileEntry], RowGroupFile],
        features: Mapping[str, Sequence[Feature]],
        schema: Schema,
        may_miss: Sequence[bool],
    ) -> None:
        self._path, self._open_file, self._features = path, open_file, features
        self._schema, self._may_miss = schema, may_miss
        self._parts: OrderedDict[str, _JoinedPart | None] = OrderedDict()
        self._open: OrderedDict[str, _JoinedPart] = OrderedDict()
        self._scratch = Scratch()

    def read(self, part: Part, index: int) -> DecodedRowGroup | None:
        """Reads one row group of the samples and of every group; None where something is not as usual.

        Args:
            part: a part of the table.
            index: place of the row group in it, counted from 0.

        Raises:
            DataError: a file is missing, cut off or replaced.
        """
        if not isinstance(self._path, Path):
            return None
        name = part.samples.path
        if name not in self._parts:
            self._parts[name] = self._join(part)
            if len(self._parts) > _MAX_PARTS:
                self._parts.popitem(last=False)
        self._parts.move_to_end(name)
        if (joined := self._parts[name]) is None:
            return None
        self._close_others(name, joined)
        try:
            return joined.read(index)
        except OSError:  # a file is gone; if another one is there in its place by now, that is opened next time
            del self._parts[name]
            return None
        except (_Unusual, ValueError):
            return None

    def _close_others(self, name: str, joined: "_JoinedPart") -> None:
        """Closes the files of parts that were read longest ago, where too many are open with those of this one."""
        self._open[name] = joined
        self._open.move_to_end(name)
        while len(self._open) > 1 and sum(part.num_files for part in self._open.values()) > _MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()

    def _join(self, part: Part) -> "_JoinedPart | None":
        """Opens the files of a part."""
        what = self._features, self._schema, self._may_miss, self._scratch
        try:
            return _JoinedPart(Path(str(self._path)), part, self._open_file, *what)
        except (_Unusual, ValueError, KeyError, OSError):
            return None


class _OpenFile:
    """A file of a part, and the numbers of its columns among those of the whole part.

    Args:
        file: where its chunks lie.
        names: its columns that are read.
        first: the number of the first of them.
    """

    def __init__(self, file: ChunkFile, names: Sequence[str], first: int) -> None:
        self._file, self._places, self._first = file, {name: n for n, name in enumerate(names)}, first

    def number(self, name: str, *types: type[np.generic], is_list: bool = False) -> int:
        """The number of a column, which must be of one of some types."""
        place = self._places[name]
        if self._file.types[place] not in types or self._file.is_list[place] != is_list:
            raise _Unusual
        return self._first + place

    def feature(self, feature: Feature) -> "_Stored":
        """A feature that is stored as its kind asks for."""
        is_list = feature.kind is Kind.ids
        types = (np.float32,) if feature.kind is Kind.dense else (np.int32, np.int64)
        number = self.number(feature.name, *types, is_list=is_list)
        weights = None if feature.weights is None else self.number(feature.weights, np.float32, is_list=True)
        is_wide = self._file.types[self._places[feature.name]].itemsize == 8
        return _Stored(feature, number, weights, is_plain=weights is None and not is_wide)


@dataclass(frozen=True)
class _Stored:
    """A feature among the columns of a part.

    Attributes:
        feature: which one.
        values: the number of its column.
        weights: the number of the column of its weights; None where there are none.
        is_plain: its rows can stay where they were decoded.
    """

    feature: Feature
    values: int
    weights: int | None
    is_plain: bool


@dataclass(frozen=True)
class _Window:
    """A feature that is stored as windows: the numbers of the columns of starts, lengths and streams.

    ``pair`` is the number of the pair of columns that names the stream of each row.
    """

    stored: _Stored
    starts: int
    lengths: int
    pair: int


class _JoinedPart:
    """The files of a part of a table, whose row groups are read together.

    Args:
        path: the directory of the table.
        part: which.
        open_file, features, schema, may_miss, scratch: see ``ChunkedRowGroups``.

    Attributes:
        num_files: how many there are.
        close: closes them; they are opened again for the next row group.
    """

    def __init__(
        self,
        path: Path,
        part: Part,
        open_file: Callable[[FileEntry], RowGroupFile],
        features: Mapping[str, Sequence[Feature]],
        schema: Schema,
        may_miss: Sequence[bool],
        scratch: Scratch,
    ) -> None:
        self._root, self._open_file = path, open_file
        files: list[ChunkFile] = []
        self._groups, self._may_miss, own = schema.dedup_groups, may_miss, features.get(SAMPLE, ())
        references = [f"{group}_{ROW}" for group in self._groups]
        samples = self._open(files, part.samples, [*_KEYS, *schema.labels, *references, *_stored_names(own)])
        self._keys = [samples.number(name, np.int64) for name in _KEYS]
        self._labels = np.array([samples.number(name, np.float32) for name in schema.labels], np.int64)
        self._label_chains = NumberChains([()] * len(self._labels))
        self._origins = {SAMPLE: path / part.samples.path}
        stored, pairs = [samples.feature(f) for f in own], list[tuple[int, int]]()
        streams = list[tuple[int, int]]()
        windows: list[_Window] = []
        for group, reference in zip(self._groups, references, strict=True):
            own_windows = [f for f in features[group] if f.window]
            single = [f for f in features[group] if not f.window]
            names = [ROW, *_stored_names(single), *([STREAM] if own_windows else [])]
            names += [name for f in own_windows for name in (start_of(f.name), length_of(f.name))]
            rows = self._open(files, part.groups[group], names)
            self._origins[group] = path / part.groups[group].path
            stored += [rows.feature(f) for f in single]
            pairs.append((samples.number(reference, np.int64), rows.number(ROW, np.int64)))
            if own_windows:
                lists = self._open(files, part.streams[group], [STREAM, *_stored_names(own_windows)])
                for f in own_windows:
                    starts, lengths = (rows.number(name(f.name), np.int32) for name in (start_of, length_of))
                    windows.append(_Window(lists.feature(f), starts, lengths, len(self._groups) + len(streams)))
                streams.append((rows.number(STREAM, np.int64), lists.number(STREAM, np.int64)))
        self._numbers, self._stored = np.array([*pairs, *streams], np.int64).reshape(-1, 2).T
        self._place(stored, windows)
        self.num_files = len(files)
        self._reader, self._scratch = ChunkReader(files, scratch), scratch
        self.close = self._reader.close

    def _open(self, files: list[ChunkFile], entry: FileEntry, names: Sequence[str]) -> _OpenFile:
        """Looks into a file, which joins the others; its columns are numbered after those of the files before."""
        first = sum(len(file.types) for file in files)
        files.append(ChunkFile(self._root / entry.path, self._open_file(entry).parquet, names))
        return _OpenFile(files[-1], names, first)

    def _place(self, stored: Sequence[_Stored], windows: Sequence[_Window]) -> None:
        """Numbers the features that stay where they are decoded, and keeps what the others need."""
        plain = [s for s in stored if s.is_plain]
        self._windows = sorted(windows, key=lambda w: not w.stored.is_plain)
        self._others = [s for s in stored if not s.is_plain]
        shared = [w.stored for w in self._windows if w.stored.is_plain]
        self._num_plain, self._num_shared = len(plain), len(shared)
        self._names = {s.feature.name: n for n, s in enumerate([*plain, *shared])}
        self._values = np.array([s.values for s in (*plain, *shared)], np.int64)
        columns = [(w.starts, w.lengths, w.pair, w.stored.values) for w in self._windows]
        self._bounds = np.array(columns, np.int64).reshape(-1, 4)
        self._sized = np.concatenate([self._numbers, self._bounds[:, 0]])
        self._num_rows = self._values.copy()  # the columns that say how many rows each feature has
        self._num_rows[len(plain) :] = self._bounds[: len(shared), 0]

    def read(self, index: int) -> DecodedRowGroup:
        """Reads a row group.

        Raises:
            _Unusual: it is not as this module reads it.
            ValueError, OSError: it cannot be read.
        """
        with measure("io"):
            self._reader.fetch(index)
        with measure("decode"):
            chunks = self._reader.decode(index)
            return self._join(chunks, {group: Origin(path, index) for group, path in self._origins.items()})

    def _join(self, chunks: DecodedChunks, origins: Mapping[str, Origin]) -> DecodedRowGroup:
        """Puts the columns of all files together."""
        sizes, num_pairs, num_plain = chunks.num_rows[self._sized], len(self._numbers), self._num_plain
        ends = np.cumsum(sizes)
        block = self._scratch.slabs.take(4 * int(ends[-1]) if len(ends) else 4).view(np.int32)
        out = address_of(block) + 4 * (ends - sizes)
        stored = chunks.values[self._stored], chunks.num_rows[self._stored]
        if count_from_first(chunks.values[self._numbers], sizes[:num_pairs], *stored, out[:num_pairs]) >= 0:
            raise _Unusual
        starts, lengths, pairs, lists = self._bounds.T
        windows = np.stack([chunks.values[starts], chunks.values[lengths], out[pairs], chunks.offsets[lists]], 1)
        if place_windows(windows, sizes[num_pairs:], out[num_pairs:]) >= 0:
            raise _Unusual
        arrays = [block[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]
        places = np.zeros((len(self._values), 6), np.int64)
        places[:, kernels.VALUES] = chunks.values[self._values]
        places[:num_plain, kernels.OFFSETS] = chunks.offsets[self._values[:num_plain]]
        places[num_plain:, kernels.STARTS] = out[num_pairs : num_pairs + self._num_shared]
        places[num_plain:, kernels.LENGTHS] = windows[: self._num_shared, 1]
        places[num_plain:, kernels.NUM_VALUES] = chunks.num_values[self._values[num_plain:]]

        def rows_of(number: int) -> Rows:
            if number < num_plain:
                return chunks.column(int(self._values[number]))
            return self._rows_of_windows(chunks, number - num_plain, arrays[num_pairs:])

        others: dict[str, Rows] = {s.feature.name: _lists(chunks, s) for s in self._others}
        for number in range(self._num_shared, len(self._windows)):
            name = self._windows[number].stored.feature.name
            others[name] = self._rows_of_windows(chunks, number, arrays[num_pairs:])
        owners = chunks.block, block
        columns = DecodedColumns(self._names, places, chunks.num_rows[self._num_rows], rows_of, others, owners)
        num_rows = dict(zip(self._groups, stored[1].tolist(), strict=False))
        row_of_sample = dict(zip(self._groups, arrays, strict=False))
        ids, sessions, requests = (chunks.array(number) for number in self._keys)
        labels = self._read_labels(chunks)
        return DecodedRowGroup(ids, sessions, requests, labels, row_of_sample, num_rows, columns, origins)

    def _rows_of_windows(self, chunks: DecodedChunks, number: int, starts: Sequence[Array]) -> Windows:
        """The rows of a feature that is stored as windows."""
        window = self._windows[number]
        lists, lengths = _lists(chunks, window.stored), chunks.array(window.lengths)
        return Windows(lists.values, starts[number], lengths, lists.weights)

    def _read_labels(self, chunks: DecodedChunks) -> Array:
        """The labels, float32 [N, number of labels]; nan where one is missing and may be."""
        labels = np.empty((int(chunks.num_rows[self._keys[0]]), len(self._labels)), np.float32)
        if not self._label_chains.run(chunks.values[self._labels], labels):
            for number, may_miss in enumerate(self._may_miss):
                if np.isinf(labels[:, number]).any() or (not may_miss and np.isnan(labels[:, number]).any()):
                    raise _Unusual
        return labels


def _lists(chunks: DecodedChunks, stored: _Stored) -> Column:
    """The rows of a column, with their weights where they are asked for."""
    column = chunks.column(stored.values)
    if stored.weights is None:
        return column
    weights = chunks.column(stored.weights)
    if not np.array_equal(np.asarray(weights.offsets), np.asarray(column.offsets)):
        raise _Unusual
    return replace(column, weights=weights.values)


def _stored_names(features: Sequence[Feature]) -> list[str]:
    """The columns of features that are no windows, with those of their weights."""
    return [name for f in features for name in (f.name, f.weights) if name is not None]
