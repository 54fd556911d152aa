"""``recd plan``: where tables would lie and what a step of them costs; starts no job.

The libraries that a plan needs load torch, so they are imported where they are used: ``recd --help`` stays quick.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import TrainConfig
from recd_dist.screen.command_line import command_line, override
from recd_dist.screen.console import console

if TYPE_CHECKING:
    from recd_dist.plan.plan_text import GroupSummary
    from recd_dist.plan.table_plan import TablePlan

logger = logging.getLogger(__name__)

COSTS = "costs.json"
"""Where ``--probe`` writes when ``plan.costs`` names no file."""

LARGEST = 1024
"""Ranks up to which ``--simulate`` goes, or to the plan's own where they are more."""


def run(options: argparse.Namespace) -> int:
    """Measures if asked, plans, then shows, saves, compares and simulates as asked."""
    job = resolve(_config(options))
    from recd_dist.plan.plan_text import render_plan
    from recd_dist.plan.saved_plan import load_plan
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.train.planning import plan_job

    log_to_screen()
    quiet_libraries()
    before = load_plan(Path(options.diff), option="--diff ") if options.diff else None
    if options.probe:
        job = _probe(job)
    plan = plan_job(job, job.config.plan.world_size or 2)
    console(sys.stdout).print(render_plan(plan, str(job.table.path), _group_summaries(job)), crop=False)
    result: dict[str, Any] = {
        "tables": [asdict(table) for table in plan.tables],
        "groups": [asdict(group) for group in job.groups],
        "step": asdict(plan.estimate),
        "machine": asdict(plan.machine),
    }
    if before:
        result["differences"] = _compare(plan, before, options.diff)
    if options.save:
        _save(plan, Path(options.save))
    if options.simulate:
        result["simulation"] = _simulate(job, plan)
    write_json(options.json, result)
    return 0


def _config(options: argparse.Namespace) -> TrainConfig:
    """The config, for as many ranks as ``--nproc`` says."""
    config: TrainConfig = COMMAND.load_config(options)
    if options.nproc is None:
        return config
    if options.nproc < 1:
        raise ConfigError(f"--nproc {options.nproc}: must be at least 1")
    if config.plan.world_size not in (None, options.nproc):
        raise ConfigError(f"--nproc {options.nproc}: plan.world_size={config.plan.world_size}; give one of the two")
    return replace(config, plan=replace(config.plan, world_size=options.nproc))


def _probe(job: Job) -> Job:
    """Measures this machine, and returns the job with the measured figures as its costs."""
    from recd_dist.plan import machines
    from recd_dist.plan.probe import measure_machine

    path = Path(job.config.plan.costs or COSTS)
    device = job.config.device if job.config.device != "auto" else None
    machines.save_costs(path, measure_machine(device))
    logger.info("measured figures are in %s; %s uses them", path, command_line(override("plan.costs", str(path))))
    return replace(job, config=replace(job.config, plan=replace(job.config.plan, costs=str(path))))


def _group_summaries(job: Job) -> "list[GroupSummary]":
    """How each group of the job's table is trained, for people."""
    from recd_dist.plan.plan_text import GroupSummary

    groups = []
    for choice in job.groups:
        features = tuple(f.name for f in job.schema.sparse if f.group == choice.group)
        reason = choice.reason if job.dedup else "dedup=off"
        groups.append(GroupSummary(choice.group, features, choice.expanded or not job.dedup, reason))
    return groups


def _compare(plan: "TablePlan", before: Any, path: str) -> list[tuple[str, str, str]]:
    """Shows what differs from a saved plan."""
    from recd_dist.plan.plan_text import render_differences
    from recd_dist.plan.saved_plan import compare_plans, parse_plan

    differences = compare_plans(before, parse_plan(plan.to_json(), Path("this plan")))
    console(sys.stdout).print(render_differences(differences, path), crop=False)
    return differences


def _save(plan: "TablePlan", path: Path) -> None:
    """Writes a plan as a file that ``plan.file`` reads."""
    from recd_dist.plan.saved_plan import format_plan

    try:
        path.write_text(format_plan(plan.to_json()))
    except OSError as error:
        raise ConfigError(f"--save {path}: cannot be written ({error.strerror})") from error
    logger.info("the plan is in %s; %s trains by it", path, command_line(override("plan.file", str(path))))


def _simulate(job: Job, plan: "TablePlan") -> list[dict[str, Any]]:
    """Shows how a step grows with the ranks."""
    from recd_dist.plan.plan_text import render_simulation
    from recd_dist.train.planning import simulate

    others = simulate(job, _world_sizes(plan.world.size), plan.step)
    estimates = sorted([*others, plan.estimate], key=lambda estimate: estimate.world_size)
    console(sys.stdout).print(render_simulation(estimates, plan), crop=False)
    return [asdict(estimate) for estimate in estimates]


def _world_sizes(world_size: int) -> Iterable[int]:
    """1, 2, 4, ... without the plan's own size, which is known."""
    return [2**n for n in range(21) if 2**n <= max(LARGEST, world_size) and 2**n != world_size]


COMMAND = Command(
    name="plan",
    summary="tables x ranks x bytes x milliseconds, without starting a job",
    details="The same table and options as for `recd train`; --nproc or plan.world_size says for how many ranks "
    "(default 2),\nplan.topology on which machines (h100x8: hosts of 8 H100). More: docs/planning.md.",
    examples=(
        "recd plan data=ebnerd --nproc 2",
        "recd plan data=rm1 plan=row_wise plan.world_size=8",
        "recd plan data=rm1 plan.world_size=1024 plan.topology=h100x8 --simulate",
        "recd plan data=tiny --probe",
        "recd plan data=tiny --save plan.json; recd train data=tiny plan.file=plan.json --nproc 2",
    ),
    run=run,
    config="train",
    arguments=(
        JSON,
        Argument("--nproc", "ranks to plan for, as plan.world_size", {"type": int}),
        Argument("--save", "write the plan; plan.file=FILE trains by it", {"metavar": "FILE"}),
        Argument("--diff", "show what differs from a saved plan", {"metavar": "FILE"}),
        Argument("--simulate", "show how a step grows, from 1 to 1024 ranks", {"action": "store_true"}),
        Argument("--probe", "measure this machine first, for plan.costs", {"action": "store_true"}),
    ),
)
