"""``recd plan``: measures if asked, plans, shows, saves, compares and simulates; starts no job."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from recd_dist.errors import ConfigError
from recd_dist.job.job import Job
from recd_dist.plan import machines
from recd_dist.plan.plan_text import GroupSummary, render_differences, render_plan, render_simulation
from recd_dist.plan.probe import measure_machine
from recd_dist.plan.saved_plan import compare_plans, format_plan, load_plan, parse_plan
from recd_dist.plan.table_plan import TablePlan
from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
from recd_dist.train.planning import plan_job, simulate

logger = logging.getLogger(__name__)

COSTS = "costs.json"
"""Where ``--probe`` writes when ``plan.costs`` names no file."""

LARGEST = 1024
"""Ranks up to which ``--simulate`` goes, or to the plan's own where they are more."""


def run(
    job: Job, console: Console, *, probe: bool, save: str | None, diff: str | None, simulated: bool
) -> dict[str, Any]:
    """Prints a plan.

    Args:
        job: resolved config.
        console: where to.
        probe: measure this machine first.
        save: file for the plan.
        diff: saved plan to compare with.
        simulated: show how a step grows with the ranks.

    Returns:
        All that was shown, JSON-ready.

    Raises:
        ConfigError: what the user can mend.
    """
    log_to_screen()
    quiet_libraries()
    before = load_plan(Path(diff), option="--diff ") if diff else None
    if probe:
        job = _probed(job)
    found = plan_job(job, job.config.plan.world_size or 2)
    console.print(render_plan(found, str(job.table), _group_rows(job)))
    result: dict[str, Any] = {
        "tables": [asdict(row) for row in found.tables],
        "groups": [asdict(group) for group in job.groups],
        "step": asdict(found.estimate),
        "machine": asdict(found.machine),
    }
    if before:
        differing = compare_plans(before, parse_plan(found.to_json(), Path("this plan")))
        console.print(render_differences(differing, str(diff)))
        result["differences"] = differing
    if save:
        _write(Path(save), found)
    if simulated:
        others = simulate(job, _world_sizes(found.world.size), found.step)
        estimates = sorted([*others, found.estimate], key=lambda each: each.world_size)
        console.print(render_simulation(estimates, found))
        result["simulation"] = [asdict(each) for each in estimates]
    return result


def _group_rows(job: Job) -> list[GroupSummary]:
    """How each group of the job's table is trained, for people."""
    rows = []
    for choice in job.groups:
        features = tuple(f.name for f in job.schema.sparse if f.group == choice.group)
        reason = choice.reason if job.dedup else "dedup=off"
        rows.append(GroupSummary(choice.group, features, choice.expanded or not job.dedup, reason))
    return rows


def _probed(job: Job) -> Job:
    """Measures this machine, and has the plan use what was found."""
    path = Path(job.config.plan.costs or COSTS)
    device = job.config.device if job.config.device != "auto" else None
    machines.save_costs(path, measure_machine(device))
    logger.info("measured figures are in %s; plan.costs=%s uses them", path, path)
    return replace(job, config=replace(job.config, plan=replace(job.config.plan, costs=str(path))))


def _write(path: Path, found: TablePlan) -> None:
    try:
        path.write_text(format_plan(found.to_json()))
    except OSError as error:
        raise ConfigError(f"--save {path}: cannot be written ({error.strerror})") from error
    logger.info("the plan is in %s; plan.file=%s trains by it", path, path)


def _world_sizes(world_size: int) -> list[int]:
    """1, 2, 4, ... without the plan's own, which is known."""
    return [2**n for n in range(21) if 2**n <= max(LARGEST, world_size) and 2**n != world_size]
