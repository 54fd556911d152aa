"""The numbers of tests/house.py on a small tree whose numbers can be counted by hand."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.house import House, Lines, measure, render

TREE = {
    "__init__.py": '__version__ = "1"\n',
    "cli.py": "from shop import __version__\nfrom shop.kitchen import cook\n\n\ndef main():\n    import shop.errors\n",
    "errors.py": "",
    "kitchen/__init__.py": "from .oven import bake\n",
    "kitchen/cook.py": "import json\n\nfrom ..errors import Burnt\nfrom shop.hall.serve import serve\n",
    "kitchen/oven.py": "def bake():\n    def heat():\n        return 1\n\n    return heat()\n",
    "kitchen/cold/ice.py": "from shop.kitchen import oven\n",
    "kitchen/cold/cook.py": "import shop.kitchen.cold.ice\n",
    "hall/serve.py": "def serve():\n    from shop.kitchen.cook import cook\n\n\nasync def wait():\n    pass\n",
}
"""cli -> kitchen <-> hall, both above errors; kitchen's cook and cold's cook have one name."""

HOUSE = House(
    loose=["cli.py", "errors.py"],
    rooms=["hall", "kitchen"],
    wings=["kitchen/cold"],
    layers=[{"errors": (1, 0)}, {"hall": (1, 6), "kitchen": (5, 12)}, {"cli": (1, 6)}],
    num_module_layers=3,
    num_arrows=5,
    circles={
        "rooms": [["hall", "kitchen"]],
        "modules": [["hall.serve", "kitchen.cook"]],
        "folders": [["hall", "kitchen"]],
        "neighbours": [],
    },
    doubled={"cook": ["kitchen/cold/cook.py", "kitchen/cook.py"]},
    files=Lines(8, 25, 2.5, 6, (6, "hall/serve.py")),
    functions=Lines(5, 13, 2, 5, (5, "bake (kitchen/oven.py:1)")),
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for path, text in TREE.items():
        (tmp_path / "shop" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / path).write_text(text)
    return tmp_path / "shop"


def test_the_numbers_of_a_small_house(shop: Path) -> None:
    assert measure(shop) == HOUSE


def test_folders_and_neighbours_that_import_each_other(shop: Path) -> None:
    (shop / "kitchen/oven.py").write_text("from .cold import ice\n")

    circles = measure(shop).circles
    assert circles["folders"] == [["hall", "kitchen", "kitchen.cold"]]
    assert circles["neighbours"] == [["kitchen.cold", "kitchen.oven"]]
    assert circles["modules"] == [["hall.serve", "kitchen.cook"], ["kitchen.cold.ice", "kitchen.oven"]]


def test_the_lowest_layer_is_printed_last() -> None:
    assert render(HOUSE).endswith(
        "layer  3  cli (1, 6)\nlayer  2  hall (1, 6), kitchen (5, 12)\nlayer  1  errors (1, 0)\n"
    )
    assert "circles of rooms        1  hall - kitchen\n" in render(HOUSE)
    assert "circles of rooms        0\n" in render(replace(HOUSE, circles={"rooms": []}))


def test_the_command_measures_this_house(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.house", "--json", str(tmp_path / "house.json")]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    assert "arrows between rooms" in printed
    assert (tmp_path / "house.json").read_text().startswith("{")
