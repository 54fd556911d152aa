"""Figures of machines: by name, and measured ones from a file."""

from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.plan.machines import PRESETS, find_machine, load_costs, save_costs


def test_topologies() -> None:
    assert find_machine(None) is PRESETS["cpu"]
    assert find_machine(None, "cuda").name == "h100"
    eight = find_machine("a100x4")
    assert (eight.ranks_per_host, eight.local_world_size(2), eight.local_world_size(64)) == (4, 2, 4)
    assert find_machine("cpu_1gbit").between_bytes_per_s < 0.125e9
    for name in ("h200", "h100x0", "x8"):
        with pytest.raises(ConfigError, match=f"plan.topology={name}: unknown"):
            find_machine(name)


def test_measured_figures_replace_those_of_the_topology(tmp_path: Path) -> None:
    save_costs(tmp_path / "costs.json", {"call_ms": 7.5, "source": "here"})
    measured = find_machine("h100x8", measured=tmp_path / "costs.json")
    assert (measured.call_ms, measured.source, measured.ranks_per_host) == (7.5, "here", 8)
    assert measured.inside_bytes_per_s == PRESETS["h100"].inside_bytes_per_s


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "recd_dist.costs", "call_ms": "fast"}'])
def test_a_file_without_figures_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(ConfigError, match="recd plan --probe"):
        load_costs(tmp_path / "costs.json")
