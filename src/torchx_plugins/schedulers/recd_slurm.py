"""TorchX's Slurm scheduler, mended: TorchX finds this file by its place and takes it for ``slurm``.

1. Slurm before 23.02 (Debian 12 has 22.05): its JSON names no resources of a job that waits, gives numbers where TorchX
   looks for tables, and ``squeue --json`` passes over ``-j``, so that ``torchx run``, ``status`` and ``list`` fail or
   show the jobs of others (slurm_scheduler.py:747, 770, 911; torchx-nightly 2026.10.26). From 23.02 on TorchX's own
   reader is used.
2. A job that is preempted and ends within its grace time has failed, to Slurm, and is not run again. Here the script of
   the job asks Slurm why it was stopped, and has it run again. SIGTERM would end that script first.
3. TorchX's script writes all of itself, with every value of the job, into the job's output (``set -evx``, line 344).
4. While Slurm's controller does not answer, TorchX says that a job does not exist (line 601). Whoever believes that
   submits it a second time. Here it is an error.

tests/launch/test_recd_slurm.py shows what TorchX does without this file, and fails when TorchX has mended it.
"""

import json
import logging
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torchx.plugins import register
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse
from torchx.schedulers.slurm_scheduler import (
    SlurmBatchRequest,
    SlurmOpts,
    SlurmScheduler,
    appstate_from_slurm_state,
    get_appstate_from_job,
    version,
)
from torchx.specs import AppDef, AppDryRunInfo, AppState, ReplicaStatus, Role, RoleStatus

logger = logging.getLogger(__name__)

READ_BY_TORCHX = (23, 2)
"""The first version of Slurm whose JSON TorchX reads."""

_ECHO = "set -evx\n"
_RETRY = '    if [ "$TORCHX_MAX_RETRIES" -gt "${SLURM_RESTART_COUNT:-0}" ]; then\n'
_RETRY_OR_PREEMPTED = """\
    job="$(scontrol show job --oneliner "$SLURM_JOB_ID" | head -n 1)"
    if [[ "$job" == *" PreemptTime=2"* || "$TORCHX_MAX_RETRIES" -gt "${SLURM_RESTART_COUNT:-0}" ]] \\
        && [[ "$job" == *" JobState=RUNNING "* ]]; then  # not where it was cancelled, or Slurm requeues it itself
"""


@dataclass(repr=False)  # the dry run shows the script
class RequeuedBatchRequest(SlurmBatchRequest):
    """The request whose job runs again after a preemption, and does not write down the values that it was given."""

    def materialize(self) -> str:
        """The script for sbatch."""
        script = super().materialize()
        for theirs, ours in (
            (
                _ECHO,
                "set -e\ntrap : TERM  # of the ranks and of srun, which end by it: this script sees to what follows\n",
            ),
            (_RETRY, _RETRY_OR_PREEMPTED),
        ):
            if theirs not in script:
                logger.warning("this TorchX writes another script for Slurm: preempted jobs may not run again")
            script = script.replace(theirs, ours, 1)
        return script


class RequeuedSlurmScheduler(SlurmScheduler):
    """Slurm as TorchX knows it, with the four things above mended."""

    def _submit_dryrun(self, app: AppDef, cfg: SlurmOpts) -> AppDryRunInfo[SlurmBatchRequest, SlurmOpts]:
        info = super()._submit_dryrun(app, cfg)
        request = info.request
        info.request = RequeuedBatchRequest(**{each.name: getattr(request, each.name) for each in fields(request)})
        return info

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """What Slurm knows of a job; None where it does not know it (any more).

        Raises:
            CalledProcessError: Slurm's controller does not answer.
        """
        found = super().describe(app_id)
        if found is None or found.state == AppState.UNKNOWN:
            subprocess.run(["scontrol", "ping"], check=True, capture_output=True, text=True)
        return found

    def _describe_squeue(self, app_id: str) -> DescribeAppResponse | None:
        if version() >= READ_BY_TORCHX:
            return super()._describe_squeue(app_id)
        found = [job for job in _jobs("squeue") if _app_of(job) == app_id]
        roles: dict[str, Role] = {}
        statuses: dict[str, RoleStatus] = {}
        for job in found:
            name, _, replica = job["name"].rpartition("-")
            if not name or not replica.isdigit():
                continue
            role = roles.setdefault(name, Role(name, job["current_working_directory"], num_replicas=0))
            role.num_replicas += 1
            status = statuses.setdefault(name, RoleStatus(name, []))
            status.replicas.append(
                ReplicaStatus(
                    id=int(replica), role=name, state=get_appstate_from_job(job), hostname=job.get("nodes") or ""
                )
            )
        if not roles:
            return None
        return DescribeAppResponse(
            app_id=app_id,
            state=get_appstate_from_job(found[0]),
            num_restarts=found[0].get("restart_cnt", -1),
            roles=list(roles.values()),
            roles_statuses=list(statuses.values()),
        )

    def _list_squeue(self) -> list[ListAppResponse]:
        if version() >= READ_BY_TORCHX:
            return super()._list_squeue()
        return [
            ListAppResponse(app_id=_app_of(job), state=get_appstate_from_job(job), name=job["name"])
            for job in _jobs("squeue")
            if _app_of(job) == str(job["job_id"])
        ]

    def _list_sacct(self) -> list[ListAppResponse]:
        if version() >= READ_BY_TORCHX:
            return super()._list_sacct()
        found = {}  # a job that ran again is listed once for each time, the last time last
        for job in _jobs("sacct", "-S1970-01-01-00:00:01"):
            if job["het"]["job_id"] in (0, job["job_id"]):
                state = appstate_from_slurm_state(job["state"]["current"])
                found[job["job_id"]] = ListAppResponse(app_id=str(job["job_id"]), state=state, name=job["name"])
        # Accounting hears of a new job some seconds later.
        return list((found | {int(each.app_id): each for each in self._list_squeue()}).values())


def _jobs(*command: str) -> list[Mapping[str, Any]]:
    listing = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    return list(json.loads(listing.stdout)["jobs"])


def _app_of(job: Mapping[str, Any]) -> str:
    """The number of the job that sbatch named: that of its first host."""
    return str(job["het_job_id"] or job["job_id"])


@register.scheduler(name="slurm")
def slurm(session_name: str, **options: Any) -> RequeuedSlurmScheduler:
    """Makes the scheduler ``slurm`` for TorchX."""
    return RequeuedSlurmScheduler(session_name, docker_client=options.get("docker_client"))
