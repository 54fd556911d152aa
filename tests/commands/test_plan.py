"""``recd plan``: what a user types and reads, for this machine and for a thousand ranks."""

import json
from pathlib import Path

import pytest

from recd_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_logging")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def lines_of(text: str, title: str) -> list[list[str]]:
    """The words of a table's rows."""
    after = text.partition(title)[2].splitlines()
    start = next(n for n, line in enumerate(after) if set(line.strip()) == {"─"})
    rows = []
    for line in after[start + 1 :]:
        if not line.strip():
            break
        rows.append(line.split())
    return rows


def test_tables_choices_and_a_step(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *tiny, "plan=row_wise", "device=cpu", "plan.send.item=ids")

    assert "on 2 ranks, 1 host (cpu)" in text
    assert [row[0] for row in lines_of(text, " samples a rank")] == [
        "item",
        "category",
        "region",
        "device",
        "position",
    ]
    assert {row[6] for row in lines_of(text, " samples a rank")} <= {"RW", "ids", "rows", "0-1"}
    assert {tuple(row[:3]) for row in lines_of(text, "Groups")} == {
        ("history", "unique", "rows"),
        ("profile", "unique", "rows"),
    }
    assert "plan.send says so; ids cost" in text
    parts = {row[0]: row[1:] for row in lines_of(text, "A step of the tables, by formula")}
    assert list(parts)[:4] == ["input", "lookup", "output", "backward"]
    assert max(map(len, text.splitlines())) <= 120


def test_the_tables_share_of_a_whole_step_is_said(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = " ".join(shown(capsys, *tiny, "device=cpu", "--json", str(tmp_path / "plan.json")).split())
    step = json.loads((tmp_path / "plan.json").read_text())["step"]
    parts = [step[side]["time"] for side in ("expanded", "unique")]
    # The ids of the next batch travel meanwhile.
    before, after = (max(sum(part.values()) - part["input"], part["input"]) for part in parts)
    share, gain = after / (after + step["dense_ms"]), (before + step["dense_ms"]) / (after + step["dense_ms"])
    assert 1 < gain < before / after
    assert f"The tables' part is about {share:.0%} of a step, so that a whole step gains about {gain:.2f}x." in text
    assert "6 operations a parameter and sample, on either side (on unique rows it is less), 40 billion" in text
    assert "the reader and Python are unknown" in text


def test_a_thousand_ranks_of_other_machines(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ["plan.world_size=1024", "plan.topology=h100x8", "plan=table_wise"]
    text = shown(capsys, *tiny, *where, "--simulate", "--json", str(tmp_path / "all.json"))

    assert "on 1024 ranks, 128 hosts (h100x8)" in text
    assert "to other hosts" in text
    assert [row[:2] for row in lines_of(text, "More ranks")][-2:] == [["512", "64"], ["1024", "128"]]
    found = json.loads((tmp_path / "all.json").read_text())
    assert [each["world_size"] for each in found["simulation"]] == [2**n for n in range(11)]
    assert found["step"]["unique"]["time"]["lookup"] < found["step"]["expanded"]["time"]["lookup"]
    assert {group["group"] for group in found["groups"]} == {"history", "profile"}


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_the_planner_sends_no_more_to_other_hosts_than_expanded_batches(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, optimizer: str
) -> None:
    where = ["plan.topology=h100x8", "plan.sharding=planner", f"optim.tables.name={optimizer}", "--nproc", "64"]
    text = shown(capsys, *tiny, *where, "--json", str(tmp_path / "plan.json"))
    step = json.loads((tmp_path / "plan.json").read_text())["step"]
    exchanged = [step[side]["between_bytes"] for side in ("unique", "expanded")]
    ours, expanded = (step[side]["between_bytes"] + step[side]["copied_bytes"] for side in ("unique", "expanded"))
    assert ours < expanded if any(exchanged) else ours == expanded
    assert any(exchanged) == (optimizer == "adam")
    assert ("hosts exchange gradients only" in " ".join(text.split())) == (optimizer != "adam")


def test_a_plan_is_saved_compared_and_taken(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = str(tmp_path / "plan.json")
    shown(capsys, *tiny, "device=cpu", "plan=row_wise", "plan.send.item=ids", "--save", saved)
    text = shown(capsys, *tiny, "device=cpu", f"plan.file={saved}", "--diff", saved)

    assert "nothing differs" in text
    changed = lines_of(shown(capsys, *tiny, "device=cpu", "--diff", saved), "Compared with")
    assert changed[0][4:6] == ["RW,", "ids"]
    assert main(["plan", *tiny, f"plan.file={saved}", "plan.world_size=4"]) == 2
    assert "made for 2 ranks, this job has 4; plan again" in capsys.readouterr().err


def test_groups_are_expanded_as_asked(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *tiny, "plan.expand=[profile]")

    assert ["profile", "expanded"] in [row[:2] for row in lines_of(text, "Groups")]
    assert "plan.expand says so" in text


def test_a_probe_is_kept_and_used(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recd_dist.plan.probe.measure_machine", lambda device: {"call_ms": 0.5, "source": "a test"})
    costs = tmp_path / "costs.json"
    text = shown(capsys, *tiny, f"plan.costs={costs}", "--probe")

    assert "Figures: a test." in text
    assert json.loads(costs.read_text())["call_ms"] == 0.5
    assert "Figures: a test." in shown(capsys, *tiny, f"plan.costs={costs}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan.topology=h10x8"], "plan.topology=h10x8: unknown; did you mean 'h100'?; NAMExN has N ranks a host"),
        (["--diff", "no.json"], "--diff no.json: cannot be read (No such file or directory); `recd plan --save` writes "
         "one"),
        (["--save", "no/such/plan.json"], "--save no/such/plan.json: cannot be written (No such file or directory)"),
        (["plan.tables.item={type: GRID, hosts: [0, 1]}"], "plan.item: host 1 is named, this job has 1 host (0 to 0); "
         "wrong world size for this plan: start more ranks or plan again"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned(
    tiny: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["plan", *tiny, *arguments]) == 2
    assert capsys.readouterr().err == f"recd: error: {message}\n"
