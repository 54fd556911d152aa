"""The probe measures every figure that it replaces; their size depends on the machine and is not tested."""

import pytest
import torch

from recd_dist.plan import probe


@pytest.mark.filterwarnings("ignore")
def test_every_figure_is_a_number_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "NUM_IDS", 2048)
    monkeypatch.setattr(probe, "REPEATS", 1)
    monkeypatch.setattr(probe, "measure_loopback", dict)
    threads = torch.get_num_threads()
    figures = probe.measure_machine("cpu")
    assert figures.pop("source").startswith("`recd plan --probe`: ")
    assert set(figures) == {
        "call_ms", "lookup_ns_per_id", "lookup_ns_per_row", "gather_bytes_per_s", "distinct_ns_per_id",
        "expand_bytes_per_s", "dense_flops_per_s",
    }  # fmt: skip
    assert all(figure > 0 for figure in figures.values())
    assert torch.get_num_threads() == threads
