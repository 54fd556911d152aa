"""What a run has written, before it is put in place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recd_dist.etl.source.inspection import Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.part_result import PartResult
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.write_all_parts import WrittenParts
from recd_dist.table.announcement import Announcement
from recd_dist.table.manifest import Manifest
from recd_dist.table.raw_file import RawFile


@dataclass(frozen=True)
class RunOutput:
    """What a run has written, before it is put in place.

    Attributes:
        source: the source of the samples.
        inspection: the inspected source.
        form: what all new parts have in common.
        written: the new parts.
        run: id of the run.
        replaces: for each split the numbers of the old parts that the new parts replace, such as those of partitions
            that are written again.
        describes: the manifest that describes how the samples were made, where a run has only merged parts.
        announcements: what was found in the logs that people may not expect.
        raw_files: the files of the samples; none where a run has only merged parts.
    """

    source: Source
    inspection: Inspection
    form: TableForm
    written: WrittenParts
    run: str
    replaces: Mapping[str, frozenset[int]] = field(default_factory=dict)
    describes: Manifest | None = None
    announcements: tuple[Announcement, ...] = ()
    raw_files: tuple[RawFile, ...] = ()

    @property
    def results(self) -> list[PartResult]:
        """The new parts of all splits."""
        return [result for results in self.written.parts.values() for result in results]
