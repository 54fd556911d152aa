"""The services of compose: servers of the reader are found by the trainer and have the token that is asked for."""

import re
from pathlib import Path

import yaml

from recd_dist.cli import _parse
from recd_dist.job.config import load
from recd_dist.reader.tier.announcements import announce, announced, token_of
from recd_dist.reader.tier.server_address import Address

FILE = Path(__file__).resolve().parents[2] / "docker/compose.yaml"


def test_the_service_asks_for_a_token_and_says_whether_it_is_ready() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    recd, *command = services["server"]["command"]
    options = _parse(command)
    assert (recd, options.command, options.token_file) == ("recd", "serve", None)
    assert not Address.parse(options.listen).is_loopback
    assert list(services["server"]["environment"]) == ["RECD_SERVE_TOKEN"]
    port = Address.parse(options.listen).port
    assert services["server"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/health/ready" in services["server"]["healthcheck"]["test"][-1]
    assert set(services["server"]["volumes"]) == {"exports:/recd/exports:ro"}
    assert "exports:/recd/exports" in services["trainer"]["volumes"]


def test_servers_are_where_the_trainer_looks_for_them(tmp_path):
    services = yaml.safe_load(FILE.read_text())["services"]
    [overrides] = re.findall(r'RECD_OVERRIDES="(data=tiny reader[^"]*)"', FILE.read_text())
    assert overrides in (FILE.parents[1] / "docs/docker.md").read_text()
    wanted = load("train", overrides.split()).reader
    recd, *command = services["reader"]["command"]
    options = _parse(command)
    assert (recd, options.announce) == ("recd", Path("/recd") / wanted.servers_dir)
    assert wanted.num_workers > 0
    assert set(services["reader"]["volumes"]) <= {*services["trainer"]["volumes"], "tables:/recd/tables:ro"}
    assert not Address.parse(options.listen).is_loopback
    _, _, *asks = services["reader"]["healthcheck"]["test"]
    asked = _parse(asks)
    assert Address.parse(asked.stats).port == Address.parse(options.listen).port
    directory = tmp_path / "readers"
    with announce(directory, Address("reader", 8815)):
        assert asked.token_file == options.announce / token_of(directory).name
        assert announced(directory) == [Address("reader", 8815)]
