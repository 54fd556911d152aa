"""``recd bench``: the reader on the user's table, the scripts of the checkout, and what is no benchmark."""

import json
import sys

import pytest

from recd_dist import cli
from recd_dist.commands import bench

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def test_the_reader_of_a_table(tiny, tmp_path, capsys) -> None:
    file = tmp_path / "reader.json"
    assert cli.main(["bench", "reader", *tiny, "batch_size=200", "--seconds", "0.3", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "time by stage" in shown
    assert "hints" in shown
    found = json.loads(file.read_text())
    assert found["num_samples"] > 0
    assert set(found["stage_s"]) == {"io", "decode", "convert", "transform", "collate", "queue"}


def test_alone_it_lists_what_there_is(capsys) -> None:
    assert cli.main(["bench"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in ("reader", *bench._scripts()) if f"\n{name}" not in shown] == []
    assert "step" in bench._scripts()


def test_a_script_runs_with_its_flags(tmp_path, monkeypatch, capfd) -> None:
    script = tmp_path / "mine.py"
    script.write_text('"""Mine."""\nimport sys\nif __name__ == "__main__":\n    print(sys.argv[1:])\n    sys.exit(3)\n')
    monkeypatch.setattr(bench, "_scripts", lambda: {"mine": script})
    assert cli.main(["bench", "mine", "--quick", "--json", "x.json"]) == 3
    assert "['--quick', '--json', 'x.json']" in capfd.readouterr().out
    assert sys.executable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stpe"], "recd bench stpe: there is none of this name; did you mean 'step'?"),
        (["reader", "step", "data=tiny"], "one at a time"),
        (["data=tiny"], "which one? `recd bench reader data=tiny`"),
        (["step", "data=tiny"], "takes no config, found data=tiny"),
        (["reader", "data=tiny", "--seconds", "0"], "--seconds 0.0: must be above 0"),
        (["reader"], "say which data"),
        (["reader", "data=tiny", "data.table=none"], "no clustered table at 'none/train'"),
    ],
)
def test_what_is_no_benchmark(arguments, message, capsys) -> None:
    assert cli.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
