"""A config holds no credential, wherever it stands and wherever it comes from."""

from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import load


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data.path", "s3://KEY:pa55@bucket/logs"),
        ("data.path", "https://host/x.parquet?X-Amz-Signature=pa55"),
        ("data.table", "${oc.env:STORE_TOKEN}"),
        ("data.groups.'a.b'.sql", "select 1 from postgres_scan('password=pa55')"),
        ("data.labels", "[x, 'password=pa55']"),
    ],
)
def test_it_is_refused_and_not_shown(option: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "s3-pa55-word")
    with pytest.raises(ConfigError) as error:
        load("train", ["data=parquet", f"{option}={value}"])
    assert f"{option.replace(chr(39), '')}=" in str(error.value)
    assert ": holds " in str(error.value)
    assert "config.yaml, checkpoints, manifests, TensorBoard" in str(error.value)
    assert "pa55" not in str(error.value)


def test_a_shared_config_cannot_take_a_secret_variable_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text("defaults: [parquet]\nname: ${oc.env:AWS_SECRET_ACCESS_KEY}\n")
    with pytest.raises(ConfigError, match=r"data\.name=\*\*\*: holds the value of .* AWS_SECRET_ACCESS_KEY"):
        load("etl", ["data=mine"], str(tmp_path))


def test_other_variables_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "s3://logs")
    assert load("etl", ["data=parquet", "data.path=${oc.env:BUCKET}/x.parquet"]).data.path == "s3://logs/x.parquet"
