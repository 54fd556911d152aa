"""``recd doctor``: a healthy machine, whose ranks truly meet, and jobs that could not run."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd_dist.cli import main
from recd_dist.commands import doctor
from recd_dist.ranks.health.finding import Finding, ok


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what has tests of its own: the checks of the host, and the ranks that meet."""
    monkeypatch.setattr(doctor, "check_all", lambda wanted: iter([ok("python", "3")]))

    def met(*args: object) -> Iterator[Finding]:
        yield ok("exchange", "met")

    monkeypatch.setattr(doctor, "_meet", met)


def test_a_healthy_machine(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "found.json"
    assert main(["doctor", *tiny, f"run_dir={run_dir}", "--nproc", "2", "--json", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    found = {finding["check"]: finding for finding in json.loads(out.read_text())}
    assert {line.split("  ")[0].strip() for line in shown[:-1]} <= {"ok", "warn"}
    assert len(shown) == len(json.loads(out.read_text())) + 1
    assert shown[-1].startswith(f"{len(shown) - 1} checks: ")
    assert found["exchange"]["value"].startswith("2 ranks on 1 host by gloo: all-to-all in ")
    assert found["clocks"]["value"].startswith("those of 2 ranks agree within 0.")
    assert found["libraries"]["value"] == "numpy, pyarrow, duckdb, numba, torch, fbgemm_gpu, torchrec load"
    assert found["data"]["value"].startswith(tiny[2].partition("=")[2])
    assert str(run_dir) in found["disk, run_dir"]["value"]
    assert not run_dir.exists()


def test_ranks_that_cannot_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "check_all", lambda wanted: iter([]))
    where = ["--nnodes", "2", "--node", "1", "--rdzv-endpoint", "127.0.0.1:9"]  # discard: nobody listens there
    assert main(["doctor", *where, "--timeout", "1"]) == 1
    shown = capsys.readouterr().out
    assert "the first host does not answer: 127.0.0.1:9: Connection refused for 1 s; start `recd doctor`" in shown
    assert "1 checks: 1 failed" in shown


@pytest.mark.usefixtures("quick")
def test_a_table_that_cannot_be_read(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Path(tiny[2].partition("=")[2])
    copy = tmp_path / "table"
    for path in (p for p in table.rglob("*") if p.is_file()):
        (copy / path.relative_to(table)).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, copy / path.relative_to(table))
    part = next((copy / "train" / "samples").rglob("*.parquet"))
    content = part.read_bytes()
    part.unlink()
    part.write_bytes(content[: len(content) // 2])
    assert main(["doctor", *tiny[:2], f"data.table={copy}"]) == 1
    shown = capsys.readouterr().out
    assert "fail  data" in shown
    assert f"{part}: {len(content) // 2:,} bytes, {len(content):,} were written" in shown
    assert main(["doctor", *tiny]) == 0


@pytest.mark.usefixtures("quick")
def test_a_table_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "data=tiny", "data.table=/no/such"]) == 1
    assert "make it with `recd etl data=tiny`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", "0"], "--nproc 0: must be at least 1"),
        (["--nnodes", "2"], "--nnodes: several hosts meet at --rdzv-endpoint HOST:PORT, the first of them"),
        (["--nnodes", "2", "--node", "2"], "--node 2: the hosts are numbered from 0 to 1 (--nnodes)"),
        (["data=tiny", "bach_size=1"], "unknown option 'bach_size'; did you mean 'batch_size'?"),
    ],
)
def test_command_lines_that_cannot_be(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert capsys.readouterr().err == f"recd: error: {message}\n"
