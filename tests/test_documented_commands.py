"""The commands of the pages, run one after the other as a reader would; the README's figures are those that come."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from tests import documented

pytestmark = pytest.mark.slow

LEFT_OUT = {
    r"s3://|recd evaluate runs/mine$": "a store, and a run on its table",
    r"data=ebnerd|data=criteo|data=expedia": "data sets that their publishers have",
    r"recd board|recd serve|launch/serve": "serves until Ctrl-C; tests/serve has services",
    r"recd sweep|recd runs": "tests/commands/test_sweep.py runs them",
    r"--nnodes|node7": "hosts that are not there; tests/cluster has some",
    r"recd checkpoint diff": "ends with 1 where tensors differ",
    r"engine=spark": "tests/etl/spark runs it",
    r"runs/kill": "a run that was killed on the way",
    r"data\.label=|data\.path=2026-11-26|runs/loves|user_copy|liked": "logs of two labels, as tests/train has them",
    r"my_package": "a module of the reader's own; tests/model/test_custom.py has some",
    r"logs/2026-11-26|run_from=|runs/monday": "a run of the day before, as tests/train/test_run_from.py has it",
}
"""Commands that are not run here, beside those of ``documented.ELSEWHERE``, and why."""
TINY = "recd etl data=tiny"
RM1 = "recd etl data=rm1 data.synthetic.num_samples=50000 data.synthetic.num_users=1500"
OF_OWN_FILES = ("docs/direct.md",)
"""Pages whose commands name files of one's own; README.md trains such files, and is run."""

BEFORE = {
    "README.md": [TINY],
    "docs/continuous.md": ["recd etl data=mine 'data.path=logs/2026-11-24/*.parquet' data.partition=day append=true"],
    "docs/checkpoints.md": [TINY, "recd train data=tiny --nproc 2"],
    "docs/configuration.md": [TINY],
    "docs/doctor.md": [TINY],
    "docs/export.md": [TINY, "recd train data=tiny --nproc 2"],
    "docs/ids.md": [TINY],
    "docs/operations.md": [TINY],
    "docs/order.md": [TINY],
    "docs/planning.md": [TINY, RM1],
    "docs/predict.md": [TINY, "recd train data=tiny model=two_tower"],
    "docs/reader_tier.md": [TINY],
    "docs/runbook.md": [TINY],
    "docs/serving.md": [TINY, "recd train data=tiny --nproc 2"],
    "docs/suggest.md": [RM1],
    "docs/training.md": [TINY],
    "docs/data.md": ["recd etl data=mine 'data.path=logs/2026-11-24/*.parquet' data.partition=day append=true"],
}
"""What a page takes for granted."""
SERVERS: list[subprocess.Popen[str]] = []
"""Servers of the reader that a page has started."""
SPEED, MEASURED = 10, 1.5
"""Factors within which a speed and any other number of a transcript are met."""

CLICKS = """
select {session} as {names[0]}, s // 10 * 10 as {names[3]},
  timestamp '{day} 08:00:00' + s * interval 10 second as {names[1]}, (s * 7919 % 10 < 3)::int as {names[2]},
  [{session} * 31 % 500, {session} % 500] as history_item, [{session} % 10] as history_category,
  {session} % 30 as region, {session} % 6 as device, ({session} % 40)::float as age_days,
  s * 7919 % 500 as candidate_item
from range(2000) rows(s)
"""


def write_logs(folder: Path) -> None:
    """The logs that pages speak of: clicks.parquet, and a folder for each of two days."""
    days = {"2026-11-24": "s // 8", "2026-11-25": "1000 + s // 8"}
    for day, session in days.items():
        (folder / "logs" / day).mkdir(parents=True)
        sql = CLICKS.format(session=f"({session})", day=day, names=("session_id", "timestamp", "label", "request_id"))
        duckdb.sql(f"copy ({sql}) to '{folder}/logs/{day}/part.parquet'")
    sql = CLICKS.format(session="(s // 8)", day="2026-11-25", names=("visit", "time", "clicked", "search"))
    duckdb.sql(f"copy ({sql}) to '{folder}/clicks.parquet'")


def serve(words: list[str], folder: Path) -> str:
    """Starts a server of the reader, which serves until the test ends; what it printed."""
    command = [sys.executable, "-m", "recd_dist.cli", *words[1:]]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    SERVERS.append(server)
    said = server.stdout.readline()
    assert "ready at" in said
    return said


def run(line: str, folder: Path) -> str:
    """Runs a command as it stands on a page; what it printed, on one screen."""
    words = documented.shell_words(line)
    if words[:2] == ["recd", "reader"]:
        return serve(words, folder)
    if "data=mine" in words and "--config-dir" not in words:
        words += ["--config-dir", "my_configs"]
    program = {"recd": ["-m", "recd_dist.cli"], "torchx": [str(Path(sys.executable).with_name("torchx"))]}[words[0]]
    ended = subprocess.run(
        [sys.executable, *program, *words[1:]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert ended.returncode == 0, f"{shlex.join(words)}\n{ended.stdout}"
    return ended.stdout


def page_commands(page: str) -> list[str]:
    lines = [line for _, text in documented.blocks(documented.ROOT / page) for line in documented.commands(text)]
    ours = [line for line in lines if documented.is_ours(line)]
    return [line for line in ours if not any(re.search(pattern, line) for pattern in LEFT_OUT)]


def transcripts(page: str) -> dict[str, list[str]]:
    """For each command behind a ``$`` the lines that follow it."""
    found: dict[str, list[str]] = {}
    for _, text in documented.blocks(documented.ROOT / page):
        for part in re.sub(r" *\\\n\s*", " ", text).split("$ ")[1:]:
            line, *printed = part.splitlines()
            found[line] = [line for line in printed if line.strip() not in ("", "...")]
    return found


def words_and_numbers(line: str) -> tuple[list[str], list[tuple[float, str]]]:
    """A line's words, and its numbers each with what stands behind it."""
    line = re.split(r"  reader wait|\.\.\.", line)[0]
    numbers = re.findall(r"(?<![\w-])(\d[\d,]*\.?\d*)(?![\w]*-)(\S*(?: \S+)?)", line)
    return re.findall(r"[a-z_]{3,}", line.lower()), [(float(n.replace(",", "")), unit) for n, unit in numbers]


def assert_met(line: str, printed: list[str]) -> None:
    """Fails unless a line with the same words and about the same numbers was printed."""
    words, numbers = words_and_numbers(line)
    alike = [words_and_numbers(other) for other in printed]
    same = [found for other, found in alike if other[: len(words)] == words]
    assert same, f"nothing printed is like: {line}\n" + "\n".join(printed)
    for (wanted, unit), (found, _) in zip(numbers, same[-1], strict=False):
        factor = SPEED if "samples/s" in unit else MEASURED
        assert wanted / factor <= max(found, 1e-9) <= wanted * factor, f"{line}\n{wanted} {unit}, and now {found}"


@pytest.fixture(autouse=True)
def _end_servers() -> Iterator[None]:
    yield
    while SERVERS:
        with SERVERS.pop() as server:
            server.terminate()


@pytest.mark.parametrize("page", BEFORE)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path) -> None:
    documented.own_configs(tmp_path)
    write_logs(tmp_path)
    (tmp_path / "launch").symlink_to(documented.ROOT / "launch")
    said = {}
    for line in [*BEFORE[page], *page_commands(page)]:
        said[line] = run(line, tmp_path).splitlines()

    if page == "README.md":
        for line, printed in transcripts(page).items():
            for wanted in printed:
                assert_met(wanted, said[line])


def test_every_page_with_commands_is_run_or_has_none_that_can_be() -> None:
    pages = [str(page.relative_to(documented.ROOT)) for page in documented.PAGES]
    assert [page for page in pages if page_commands(page) and page not in {*BEFORE, *OF_OWN_FILES}] == []
