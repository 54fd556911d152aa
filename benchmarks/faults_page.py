"""The result page of `benchmarks/faults.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from measure import machine, table

CUT_S = 20.0
"""A cut link is mended after so long, as somebody puts the cable back."""


@dataclass
class Result:
    """What a run came to.

    Attributes:
        number, kind, hosts, ranks: which run it was.
        step: the step after which the fault came.
        noticed_s: seconds until a line named it; None where nobody is left to say so.
        step_s: seconds until the first step after it was done.
        import_s: the part of them before the new ranks had imported what they need.
        said: the line.
        num_again: how often the command was given again.
        exact: whether every sample of every epoch was trained exactly once.
        difference: relative difference between the evaluated loss and that of the undisturbed run; 0 to the last bit.
        error: why it did not finish.
    """

    number: int
    kind: str
    hosts: int
    ranks: int
    step: int = 0
    noticed_s: float | None = None
    step_s: float | None = None
    import_s: float | None = None
    said: str = ""
    num_again: int = 0
    exact: bool = False
    difference: float | None = None
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it counts."""
        return self.exact and self.difference == 0.0 and not self.error


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


HEAD = """\
| run | fault | hosts × ranks | after step | noticed | next step | of it imports | each sample once | loss | error |
|---|---|---|---|---|---|---|---|---|---|"""


def row(result: Result) -> str:
    shape = f"{result.hosts} × {result.ranks}"
    cells = [str(result.number), result.kind, shape, str(result.step), _seconds(result.noticed_s)]
    cells += [_seconds(result.step_s), _seconds(result.import_s)]
    same = "" if result.difference is None else f"{result.difference:.0e}" if result.difference else "0"
    cells += ["yes" if result.exact else "no", same, result.error or ""]
    return f"| {' | '.join(cells)} |"


GOALS = {"noticed_s": 15.0, "step_s": 5.0}
"""Seconds: until a fault is noticed, and from kill -9 to the next trained step beyond imports."""

TEXT = """\
# Faults in a row

    python benchmarks/faults.py --runs 50 --seed 7 --out faults.jsonl

{machine}. Runs of a small synthetic table (21,314 samples, two epochs,
checkpoints every 50 steps, no reader workers but where one is killed). Hosts are network namespaces. Where a launcher
was killed, the same command was given again at once, as a scheduler does it; a cut link was mended after {cut:.0f} s.

**{good} of {num} runs came to their end with every sample of every epoch trained exactly once and with the evaluated
loss of the undisturbed run, to the last bit.**

Seconds from the fault, medians and ranges: until a line named it, until the first step after it was done, and that
without what a launcher that was started again needs to import and to check the job.

{kinds}
{verdict}
## Every run
The loss is the relative difference to that of the undisturbed run.

{rows}
"""


def _spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})" if values else ""


def _kind_row(kind: str, results: Sequence[Result]) -> list[str]:
    steps = [r for r in results if r.step_s is not None]
    beyond = [(r.step_s or 0.0) - (r.import_s or 0.0) for r in steps]
    noticed = [r.noticed_s for r in results if r.noticed_s is not None]
    good = f"{sum(r.is_good for r in results)} of {len(results)}"
    return [kind, good, _spread(noticed), _spread([r.step_s or 0.0 for r in steps]), _spread(beyond)]


def page(results: Sequence[Result]) -> str:
    """The result page."""
    shapes = sorted({(r.kind, r.hosts, r.hosts * r.ranks) for r in results})
    kinds = [
        _kind_row(f"{kind}, {ranks} ranks on {hosts} host{'s'[: hosts > 1]}", of_kind)
        for kind, hosts, ranks in shapes
        if (of_kind := [r for r in results if (r.kind, r.hosts, r.hosts * r.ranks) == (kind, hosts, ranks)])
    ]
    return TEXT.format(
        num=len(results),
        good=sum(r.is_good for r in results),
        machine=machine(),
        cut=CUT_S,
        kinds=table(["fault", "good", "noticed", "next step", "beyond imports"], kinds, markdown=True),
        verdict=_verdict(results),
        rows="\n".join([HEAD, *map(row, results)]),
    )


def _verdict(results: Sequence[Result]) -> str:
    """Whether the goals are met."""
    hung = [
        r.noticed_s for r in results if r.kind in ("stop rank", "hang rank", "cut link") and r.noticed_s is not None
    ]
    killed = [r.step_s for r in results if r.kind.startswith("kill rank") and r.step_s is not None]
    lines = []
    for what, values, goal in (
        ("A stopped or hung rank or a cut link was noticed", hung, GOALS["noticed_s"]),
        ("From kill -9 of a rank to the next trained step it took", killed, GOALS["step_s"]),
    ):
        if values:
            met = sum(value <= goal for value in values)
            lines.append(f"{what} {_spread(values)} s; {met} of {len(values)} within the goal of {goal:.0f} s.\n")
    return "\n".join(lines)
