"""A table in a store is whole or absent, wherever an upload dies; readers of the old table are not disturbed."""

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.reader.conftest import samples_of, write_table
from tests.table.object_store import Killed, Objects, names, objects

from recd_dist.errors import DataError
from recd_dist.etl.place.publish import check_notes, check_store_free, first_part, publish
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import StoreError
from recd_dist.table.manifest import FileEntry, Manifest, splits_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def reset_objects():
    Objects.reset()
    yield
    Objects.reset()


def write_tables(out: Path, label: int = 0, sessions: int = 12, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """Writes tables of several parts, in which every sample has the same label."""
    for split in splits:
        num_sessions = sessions if split == "train" else sessions // 3
        samples = [replace(s, clicked=float(label)) for s in samples_of(num_sessions, seed=label)]
        write_table(out / split, samples, row_group_size=10, row_groups_per_part=2, split=split)
    return out


def renumber(out: Path, by: int) -> Path:
    """Gives the parts of tables other numbers, as an ETL does that replaces a table."""
    for split in splits_of(out):
        manifest = Manifest.load(out / split)

        def move(entry: FileEntry, split: str = split) -> FileEntry:
            path = re.sub(r"part-(\d+)", lambda found: f"part-{int(found[1]) + by:05d}", entry.path)
            (out / split / entry.path).rename(out / split / path)
            return replace(entry, path=path)

        parts = tuple(
            replace(p, samples=move(p.samples), groups={g: move(e) for g, e in p.groups.items()}, number=n + by)
            for n, p in reversed([*enumerate(manifest.parts)])
        )[::-1]
        replace(manifest, parts=parts, next_part=len(parts) + by).save(out / split)
    return out


def read_files(table: Path) -> dict[str, bytes]:
    """The contents of every file of a directory, by relative path."""
    return {str(path.relative_to(table)): path.read_bytes() for path in table.rglob("*") if path.is_file()}


def read_labels(table) -> list[float]:
    """Reads the labels of a split, and checks the table's files."""
    files = TableFiles(ClusteredTable.load(table))
    assert list(files.table.find_damage()) == []
    parts = enumerate(files.table.manifest.parts)
    groups = [RowGroup(n, i, rows) for n, part in parts for i, rows in enumerate(part.samples.row_groups)]
    return [label for group in groups for label in files.read(group).labels[:, 0].tolist()]


def test_a_table_is_published_data_first_and_train_last(tmp_path, caplog):
    built, target = write_tables(tmp_path / "built"), objects(tmp_path / "store/shop")
    sent = []
    with caplog.at_level("INFO"):
        publish(built, target, progress=sent.append)
    assert read_files(tmp_path / "store/shop") == read_files(built)
    assert read_labels(target / "train") == read_labels(built / "train")
    kinds = [what.replace(f"{tmp_path}/store/shop/", "") for what in Objects.writes]
    assert kinds[0] == "put upload.json"
    assert all("/part-" in kind for kind in kinds[1:-3])
    assert kinds[-3:] == ["put test/manifest.json", "put train/manifest.json", "delete upload.json"]
    num_bytes = sum(Manifest.load(built / split).num_bytes for split in ("train", "test"))
    assert sum(sent) == num_bytes
    assert f"uploading {len(sent)} files, {num_bytes / 1e6:.1f} MB" in caplog.text


def test_dying_at_any_write_leaves_no_table_or_a_whole_one(tmp_path):
    """First publish: nothing is visible before the manifests, and the next publish uploads each file once in all."""
    built = write_tables(tmp_path / "built")
    store = tmp_path / "store/shop"
    publish(built, objects(store))
    num_writes = len(Objects.writes)
    for die_at in range(num_writes):
        shutil.rmtree(store)
        Objects.reset()
        Objects.die_at = die_at
        with pytest.raises(Killed):
            publish(built, objects(store))
        there = splits_of(objects(store))
        assert there in ([], ["test"], ["test", "train"])
        for split in there:
            assert read_labels(objects(store) / split) == read_labels(built / split)
        if "train" in there:
            with pytest.raises(DataError, match="a table is already there"):
                check_store_free(objects(store), overwrite=False)
        Objects.die_at = None
        publish(built, objects(store), overwrite="train" in there)
        assert read_files(store) == read_files(built)
        data = [what for what in Objects.writes if "/part-" in what]
        assert len(data) == len(set(data)) == len([name for name in read_files(built) if "/part-" in name])


def test_replacing_dies_at_any_write_and_readers_never_break(tmp_path):
    """Both splits are at any time the old or the new table, whole; train is never newer than test."""
    old = write_tables(tmp_path / "old", label=0)
    store = tmp_path / "store/shop"
    publish(old, objects(store))
    new = renumber(write_tables(tmp_path / "new", label=1, sessions=16), 10)
    shutil.copytree(store, tmp_path / "kept")
    Objects.reset()
    publish(new, objects(store), overwrite=True)
    assert read_files(store) == read_files(new)
    for die_at in range(len(Objects.writes)):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "kept", store)
        Objects.reset()
        Objects.die_at = die_at
        opened = {split: ClusteredTable.load(objects(store) / split) for split in ("train", "test")}
        with pytest.raises(Killed):
            publish(new, objects(store), overwrite=True)
        is_new = {split: read_labels(objects(store) / split)[0] == 1.0 for split in ("train", "test")}
        for split, table in opened.items():
            assert read_labels(objects(store) / split) == read_labels((new if is_new[split] else old) / split)
            if not is_new["train"]:  # opened before: all its files are there
                assert list(table.find_damage()) == []
        assert is_new["test"] >= is_new["train"]
        Objects.die_at = None
        publish(new, objects(store), overwrite=True)
        assert read_files(store) == read_files(new)


def test_killed_process_leaves_nothing_and_the_next_one_goes_on(tmp_path, caplog):
    built, store = write_tables(tmp_path / "built", sessions=40), tmp_path / "store/shop"
    code = (
        "from pathlib import Path\nfrom tests.table.object_store import Objects, objects\n"
        "from recd_dist.etl.place.publish import publish\n"
        f"Objects.chunk_s = 0.05\npublish(Path({str(built)!r}), objects(Path({str(store)!r})))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        end = time.monotonic() + 60
        while not list(store.glob("*/*/part-*")) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    arrived = {name for name in names(objects(store)) if "/part-" in name}
    assert 0 < len(arrived) < len([name for name in read_files(built) if "/part-" in name])
    assert splits_of(objects(store)) == []
    with pytest.raises(DataError, match="no clustered table here"):
        ClusteredTable.load(objects(store) / "train")
    with caplog.at_level("INFO"):
        publish(built, objects(store))
    assert f"; {len(arrived)} are there already" in caplog.text
    assert not arrived & {what.replace(f"put {store}/", "") for what in Objects.writes}
    assert read_files(store) == read_files(built)


def test_a_file_of_another_build_is_not_taken_for_its_namesake(tmp_path):
    """Same name, same size, other bytes: left by an interrupted publish of other data."""
    built, store = write_tables(tmp_path / "built"), tmp_path / "store/shop"
    other = tmp_path / "other"
    shutil.copytree(built, other)
    manifest = Manifest.load(other / "train")
    entry = manifest.parts[0].samples
    data = (other / "train" / entry.path).read_bytes()
    (other / "train" / entry.path).write_bytes(bytes(len(data)))
    parts = (replace(manifest.parts[0], samples=replace(entry, crc32=1)), *manifest.parts[1:])
    replace(manifest, parts=parts).save(other / "train")
    Objects.die_at = len(read_files(built)) - 1  # all data, no manifest
    with pytest.raises(Killed):
        publish(other, objects(store))
    assert (store / "train" / entry.path).read_bytes() == bytes(len(data))
    Objects.reset()
    publish(built, objects(store))
    assert read_files(store) == read_files(built)
    assert [what for what in Objects.writes if entry.path in what and "/train/" in what] == [
        f"delete {store}/train/{entry.path}",
        f"put {store}/train/{entry.path}",
    ]


def test_a_split_that_is_no_more_goes_with_its_files(tmp_path):
    store = tmp_path / "store/shop"
    publish(write_tables(tmp_path / "old"), objects(store))
    new = renumber(write_tables(tmp_path / "new", splits=("train",)), 10)
    publish(new, objects(store), overwrite=True)
    assert read_files(store) == read_files(new)
    assert splits_of(objects(store)) == ["train"]


def test_a_table_grows_by_parts(tmp_path):
    """Appending: the new manifest names old files too, which are not in the local tree and are not sent again."""
    whole, store = write_tables(tmp_path / "whole", splits=("train",)), tmp_path / "store/shop"
    manifest = Manifest.load(whole / "train")
    assert len(manifest.parts) > 1
    shutil.copytree(whole, tmp_path / "begun")
    for part in manifest.parts[1:]:
        for entry in part.files:
            (tmp_path / "begun/train" / entry.path).unlink()
    replace(manifest, parts=manifest.parts[:1]).save(tmp_path / "begun/train")
    publish(tmp_path / "begun", objects(store))
    complete = read_files(whole)
    for entry in manifest.parts[0].files:
        (whole / "train" / entry.path).unlink()
    Objects.reset()
    publish(whole, objects(store), overwrite=True)
    assert read_files(store) == complete
    assert [what for what in Objects.writes if "part-00000" in what] == []
    shutil.rmtree(store)
    with pytest.raises(DataError, match=r"part-00000.parquet: the manifest names it, but it is neither in"):
        publish(whole, objects(store))


def test_names_of_a_standing_table_are_not_given_again(tmp_path):
    store = tmp_path / "store/shop"
    publish(write_tables(tmp_path / "old", label=0), objects(store))
    before = read_files(store)
    with pytest.raises(DataError, match=r"has another file of this name; number the parts from \d+"):
        publish(write_tables(tmp_path / "new", label=1), objects(store), overwrite=True)
    assert read_files(store) == before


def test_first_part_is_the_largest_next_part(tmp_path):
    store = tmp_path / "store/shop"
    assert first_part(objects(store)) == 0
    publish(renumber(write_tables(tmp_path / "old"), 10), objects(store))
    numbers = [Manifest.load(store / split).next_part for split in ("train", "test")]
    assert first_part(objects(store)) == first_part(store) == max(numbers) > 10
    (store / "train/manifest.json").write_text('{"format": "recd_dist.table", "version": 1}')
    (store / "train/samples/part-00040.parquet").write_bytes(b"x")
    assert first_part(objects(store)) == 41


def test_what_is_there_already(tmp_path):
    built, store = write_tables(tmp_path / "built"), tmp_path / "store/shop"
    publish(built, objects(store))
    before = read_files(store)
    with pytest.raises(DataError, match="a table is already there; overwrite=true replaces it"):
        publish(built, objects(store))
    assert read_files(store) == before
    thesis = tmp_path / "store/thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"something else than a clustered table is there \(chapter.txt\)"):
            publish(built, objects(thesis), overwrite)
    assert names(objects(thesis)) == ["chapter.txt"]


def test_an_interrupted_replacement_still_asks_for_overwrite(tmp_path):
    store = tmp_path / "store/shop"
    publish(write_tables(tmp_path / "old"), objects(store))
    new = renumber(write_tables(tmp_path / "new", label=1), 10)
    Objects.reset()
    Objects.die_at = 3
    with pytest.raises(Killed):
        publish(new, objects(store), overwrite=True)
    Objects.die_at = None
    with pytest.raises(DataError, match="a table is already there"):
        publish(new, objects(store))
    publish(new, objects(store), overwrite=True)


def test_notes_of_an_interrupted_replacement_are_not_appended_to(tmp_path):
    """Sketches beside the old manifest that are already the new table's; a moment before or after, all is well."""
    old, new = write_tables(tmp_path / "old"), renumber(write_tables(tmp_path / "new", label=1), 10)
    store = tmp_path / "store/shop"
    for built, text in ((old, "old"), (new, "new")):
        for split in ("train", "test"):
            (built / split / "sketches").write_text(text)
    publish(old, objects(store))
    shutil.copytree(store, tmp_path / "kept")
    Objects.reset()
    publish(new, objects(store), overwrite=True)
    refused = []
    for die_at in range(len(Objects.writes)):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "kept", store)
        Objects.reset()
        Objects.die_at = die_at
        with pytest.raises(Killed):
            publish(new, objects(store), overwrite=True)
        are_new = [(store / split / "sketches").read_text() == "new" for split in ("train", "test")]
        stand = [read_labels(objects(store) / split)[0] == 1.0 for split in ("train", "test")]
        mixed = are_new != stand
        refused.append(mixed)
        if mixed:
            with pytest.raises(DataError, match="its replacement was interrupted; finish it by the command"):
                check_notes(objects(store))
        else:
            check_notes(objects(store))
    assert any(refused)
    assert not all(refused)
    Objects.die_at = None
    publish(new, objects(store), overwrite=True)
    check_notes(objects(store))


def test_an_object_that_arrives_short_is_found_before_the_manifest(tmp_path, monkeypatch):
    visible = Objects._visible

    def cut(self, path, data):
        visible(self, path, data[:-1] if path.endswith("train/user/part-00000.parquet") else data)

    monkeypatch.setattr(Objects, "_visible", cut)
    built, store = write_tables(tmp_path / "built"), tmp_path / "store/shop"
    with pytest.raises(DataError, match=r"train/user/part-00000.parquet: \d+ bytes were uploaded, \d+ bytes arrived"):
        publish(built, objects(store))
    assert splits_of(objects(store)) == []
    monkeypatch.undo()
    publish(built, objects(store))
    assert read_files(store) == read_files(built)


def test_a_store_that_refuses_is_one_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(Objects, "put_file", refuse)
    built, store = write_tables(tmp_path / "built"), tmp_path / "store/shop"
    with pytest.raises(
        StoreError, match=r"part-0000\d.parquet: the store answers with PermissionError .*Access Denied"
    ):
        publish(built, objects(store))
    assert names(objects(store)) == ["upload.json"]


def test_a_tree_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(DataError, match="no finished table to publish"):
        publish(tmp_path, objects(tmp_path / "store"))
    built = write_tables(tmp_path / "built")
    path = next((built / "train/samples").iterdir())
    path.write_bytes(b"cut")
    with pytest.raises(DataError, match=r"3 bytes, written were \d+; make the table again"):
        publish(built, objects(tmp_path / "store"))
    assert names(objects(tmp_path / "store")) == []
