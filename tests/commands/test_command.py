"""What commands that take a config have in common."""

import pytest

from recd_dist.cli import COMMANDS, main

WITH_CONFIG = [command for command in COMMANDS.values() if command.config and not command.of_run]
TYPED = [(command.name, word) for command in WITH_CONFIG for word in ("", *command.words)]


@pytest.mark.parametrize(("name", "word"), TYPED)
def test_a_message_about_an_option_names_the_command_that_was_typed(name, word, capsys):
    typed = [name, word] if word else [name]
    given, shown = ("model=x", "model: x\n") if name == "serve" else ("data=tiny", "data:\n  name: tiny\n")
    assert main([*typed, given, "--options"]) == 0
    assert capsys.readouterr().out.startswith(shown)
    assert main([*typed, given, "nothing_like_it=1", "--options"]) == 2
    assert f"every option: recd {' '.join(typed)} --options" in capsys.readouterr().err


def test_servers_refuse_files_that_are_read_directly(capsys):
    assert main(["reader", "data=parquet", "data.path=logs", "data.reader=direct"]) == 2
    said = capsys.readouterr().err
    assert "data.reader=direct: servers read tables of `recd etl`, not logs itself; make one with `recd etl" in said
