"""Names of features that torch's containers use themselves."""

import pytest
from torch import nn

from recd_dist.table.module_names import is_taken, module_key, table_name


def test_the_names_are_those_of_torch():
    taken = {name for name in dir(nn.ModuleDict()) if not name.startswith("__")}
    assert {name for name in taken if not is_taken(name)} == set()
    assert not is_taken("item")


@pytest.mark.parametrize("name", ["type", "items", "keys", "values", "float", "item", "training"])
def test_a_module_stands_under_any_name(name):
    modules = nn.ModuleDict({module_key(name): nn.Identity(), table_name(name, [name]): nn.Identity()})
    assert isinstance(modules[module_key(name)], nn.Identity)


def test_tables_of_other_columns_are_not_taken():
    assert table_name("item", ["item"]) == "item"
    assert table_name("keys", ["keys", "keys_table"]) == "keys_table_table"
