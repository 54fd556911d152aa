"""The result of a comparison of a table with its source."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from recd_dist.etl.checksum.sample_sums import ROW

_MAX_SHOWN = 12


@dataclass(frozen=True)
class ComparedColumn:
    """The checksums of one column of one split on both sides.

    Attributes:
        split: name of the split; empty where the source does not tell splits apart.
        column: name of the column; ``row`` stands for the whole samples.
        source: checksum of the source, less that of the samples that were left out.
        table: checksum of the table.
    """

    split: str
    column: str
    source: int
    table: int

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same values, as far as 64 bits can tell."""
        return self.source == self.table


@dataclass(frozen=True)
class Verification:
    """The result of a comparison of a table with its source.

    Attributes:
        num_samples: per split the number of samples of the source (less those that were left out) and of the table.
        columns: every column of every split, the whole samples last.
        num_dropped: number of samples that policies left out.
        skipped: what was not compared, and why, as text.
        example: a sample that differs, as text; empty where none can be named.
    """

    num_samples: dict[str, tuple[int, int]]
    columns: tuple[ComparedColumn, ...]
    num_dropped: int
    skipped: tuple[str, ...]
    example: str

    @property
    def equal(self) -> bool:
        """Whether the table holds what the source holds."""
        return all(a == b for a, b in self.num_samples.values()) and all(c.equal for c in self.columns)

    @property
    def differing_columns(self) -> tuple[str, ...]:
        """Names of the columns that differ, without ``row``."""
        return tuple(dict.fromkeys(c.column for c in self.columns if not c.equal and c.column != ROW))

    def render(self) -> Group:
        """The result for a screen: one line when all is equal, else what differs."""
        names = {c.column for c in self.columns} - {ROW}
        in_table = sum(count for _, count in self.num_samples.values())
        lines: list[Any] = []
        if self.equal:
            left = f"; {self.num_dropped:,} left out, as noted in the manifest" if self.num_dropped else ""
            lines.append(Text(f"{len(names)} columns of {in_table:,} samples equal{left}"))
        else:
            lines.append(Text(f"table and source differ: {self._differences(len(names))}"))
            if self.differing_columns:
                lines.append(self._checksum_table())
            if self.example:
                lines.append(Text(self.example))
        return Group(*lines, *(Text(f"not compared: {text}") for text in self.skipped))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; checksums are hexadecimal text, since not every reader of JSON keeps 64 bits."""
        columns = [
            {"split": c.split or "all", "column": c.column, "source": f"{c.source:016x}", "table": f"{c.table:016x}"}
            | {"equal": c.equal}
            for c in self.columns
        ]
        counts = {split or "all": {"source": a, "table": b} for split, (a, b) in self.num_samples.items()}
        rest = {"num_dropped": self.num_dropped, "skipped": list(self.skipped), "example": self.example}
        return {"equal": self.equal, "num_samples": counts, "columns": columns, **rest}

    def _differences(self, num_columns: int) -> str:
        """What differs, as text."""
        differences = [
            f"{b:,} samples instead of {a:,}{f' in {split}' if split else ''}"
            for split, (a, b) in self.num_samples.items()
            if a != b
        ]
        if self.differing_columns:
            differences.append(f"{len(self.differing_columns)} of {num_columns} columns")
        elif not differences:
            differences.append("every column holds the same values, but not in the same samples")
        return ", ".join(differences)

    def _checksum_table(self) -> Table:
        """The checksums of the columns that differ, for a screen."""
        shown = Table("column", "split", "checksum of the source", "of the table", box=None, pad_edge=False)
        differing = [c for c in self.columns if not c.equal and c.column != ROW]
        for c in differing[:_MAX_SHOWN]:
            shown.add_row(c.column, c.split or "all", f"{c.source:016x}", f"{c.table:016x}")
        if len(differing) > _MAX_SHOWN:
            shown.add_row(f"and {len(differing) - _MAX_SHOWN} more")
        return shown
