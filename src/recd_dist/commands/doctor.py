"""``recd doctor``: can this machine, or the hosts of a job, run what it is asked for?"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError, UserError
from recd_dist.files.json_text import json_text
from recd_dist.ranks.health.finding import Finding, Level, fail, ok
from recd_dist.ranks.health.host_checks import Wanted, check_all
from recd_dist.ranks.health.ports import wait_for_peer
from recd_dist.screen.console import console

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_MEET = "recd_dist.ranks.meet"
_LEFT_S = 15.0
"""Seconds that ranks get to say why they did not meet, before they are ended."""


def run(options: argparse.Namespace) -> int:
    """Prints a line for each check.

    Returns:
        Exit code: 1 when a job would fail here.
    """
    _require_hosts(options)
    findings: list[Finding] = []
    with_data = bool(options.overrides or options.config_dir)
    config = COMMAND.load_config(options) if with_data else None
    for finding in _examine(options, config):
        _show(finding, options.nnodes > 1)
        findings.append(finding)
    counts = Counter(finding.level for finding in findings)
    said = [
        f"{counts[level]} {name}" for level, name in ((Level.FAIL, "failed"), (Level.WARN, "doubtful")) if counts[level]
    ]
    console(sys.stdout).print(f"{len(findings)} checks: {', '.join(said) or 'all is well'}", highlight=False)
    write_json(options.json, [finding.to_json() for finding in findings])
    return 1 if counts[Level.FAIL] else 0


def _require_hosts(options: argparse.Namespace) -> None:
    for name, least in (("nproc", 1), ("nnodes", 1), ("node", 0), ("timeout", 1)):
        if (value := getattr(options, name)) < least:
            raise ConfigError(f"--{name} {value}: must be at least {least}")
    if options.node >= options.nnodes:
        raise ConfigError(f"--node {options.node}: the hosts are numbered from 0 to {options.nnodes - 1} (--nnodes)")
    if options.nnodes > 1 and not options.rdzv_endpoint:
        raise ConfigError("--nnodes: several hosts meet at --rdzv-endpoint HOST:PORT, the first of them")


def _examine(options: argparse.Namespace, config: Any) -> Iterator[Finding]:
    """The checks of this host, one after the other; then those of all hosts together."""
    wanted = Wanted(
        num_ranks=options.nproc,
        num_hosts=options.nnodes,
        run_dir=Path(config.run_dir if config else "runs"),
        tables=_local(config.data.table if config else "tables"),
        checkpoints=_local(config.checkpoint.path) if config else None,
        num_workers=config.reader.num_workers if config else None,
        device=config.device if config else "auto",
        endpoint=options.rdzv_endpoint if options.node == 0 else "",
    )
    mine = []
    for finding in check_all(wanted):
        mine.append(finding)
        yield finding
    if config is not None:
        mine.append(_check_data(config))
        yield mine[-1]
    if any(found.check in ("libraries", "rendezvous") and found.level is Level.FAIL for found in mine):
        return  # what they said is why ranks could not meet
    yield from _meet(options, wanted.device, mine)


def _local(text: str | None) -> Path | None:
    """The directory that a text names; None where it is in a store, or there is none."""
    return None if text is None or "://" in text else Path(text).expanduser()


def _check_data(config: Any) -> Finding:
    """Whether the table opens, and a row group of it can be read."""
    from recd_dist.job.job import resolve
    from recd_dist.reader.open_files import open_files
    from recd_dist.reader.order import RowGroup

    try:
        started_s = time.perf_counter()
        job = resolve(config)
        rows = open_files(job.table, job.schema).read(RowGroup(0, 0, 0))
        took_s = time.perf_counter() - started_s
    except UserError as error:
        return Finding("data", Level.FAIL, str(error))
    return ok("data", f"{job.table.path}: {len(rows.sample_ids):,} samples of a row group in {1e3 * took_s:.0f} ms")


def _meet(options: argparse.Namespace, device: str, mine: Sequence[Finding]) -> Iterator[Finding]:
    """Lets the ranks of all hosts meet, over the path that a job takes; the first host says what all have found."""
    if options.node and (why := wait_for_peer(options.rdzv_endpoint, options.timeout)):
        remedy = "start `recd doctor` on the first host, too; otherwise look at firewall, name and port"
        yield fail("exchange", f"the first host does not answer: {why}", remedy)
        return
    with tempfile.TemporaryDirectory(prefix="recd-doctor-") as directory:
        out, found = Path(directory, "out.json"), Path(directory, "found.json")
        arguments = [f"out={out}", f"device={device}"]
        if options.node:
            found.write_text(json_text([finding.to_json() for finding in mine]))
            arguments.append(f"found={found}")
        line = [sys.executable, "-m", "recd_dist.ranks.launcher", "--checked", "--module", _MEET]
        line += ["--nproc-per-node", str(options.nproc), "--nnodes", str(options.nnodes), "--node", str(options.node)]
        line += ["--rdzv-id", "recd-doctor"]
        line += ["--rdzv-endpoint", options.rdzv_endpoint] if options.nnodes > 1 else []
        why = _end_in_time([*line, "--", *arguments], options.timeout + _LEFT_S)
        if why:
            remedy = "look at firewall, ports and interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)"
            yield fail("exchange", f"the ranks did not meet: {why}", remedy)
        elif options.node:
            yield ok("exchange", "the ranks of all hosts have met; the first host says how")
        else:
            yield from map(Finding.from_json, json.loads(out.read_text()))


def _end_in_time(line: Sequence[str], timeout_s: float) -> str:
    """Runs a program with all that it starts; why it failed, in one line, or empty."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RECD_DOCTOR": "off"}
    environment.pop("RECD_RUN_DIR", None)
    with subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        try:
            _, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"not all were there after {timeout_s:.0f} s"
    lines = [text for text in said.strip().splitlines() if text]
    return "" if process.returncode == 0 else (lines[-1] if lines else f"exit code {process.returncode}")


def _show(finding: Finding, with_host: bool) -> None:
    """Prints a line: level, check, what was found and the remedy."""
    host = f"{finding.host}  " if with_host else ""
    text = finding.value + (f"; {finding.remedy}" if finding.remedy else "")
    out = console(sys.stdout)
    out.print(f"{finding.level:<4}", style=_STYLES[finding.level], end="  ", highlight=False)
    out.print(f"{host}{finding.check:<15}  {text}", highlight=False, soft_wrap=True, markup=False)


COMMAND = Command(
    name="doctor",
    summary="whether this machine, or the hosts of a job, can run it",
    details="A line for each check: ok, warn or fail, what was found, and the remedy. With overrides of `recd train`\n"
    "data and directories of that job are looked at, too. Exit code 1 when a job would fail. Every job does the\n"
    "quick part of it on each host before its ranks start; RECD_DOCTOR=off leaves that out.",
    examples=(
        "recd doctor",
        "recd doctor data=tiny --nproc 2",
        "recd doctor --nnodes 2 --node 0 --rdzv-endpoint host0:29500    # on each host, with its number",
    ),
    run=run,
    config="train",
    arguments=(
        Argument("--nproc", "ranks on this host (default 1)", {"type": int, "default": 1}),
        Argument("--nnodes", "hosts (default 1); start it on each of them", {"type": int, "default": 1}),
        Argument("--node", "the number of this host, from 0", {"type": int, "default": 0}),
        Argument("--rdzv-endpoint", "where they meet, on the first", {"default": "", "metavar": "HOST:PORT"}),
        Argument("--timeout", "seconds to wait for the other ranks (default 60)", {"type": int, "default": 60}),
        JSON,
    ),
)
