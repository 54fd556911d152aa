"""``recd predict``: keys and scores of every sample of a split."""

import argparse
import sys

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError
from recd_dist.screen.console import console

PREDICTION = "recd_dist.train.prediction"


def run(options: argparse.Namespace) -> int:
    """Scores in this process, or on the ranks of this machine."""
    config = COMMAND.load_config(options)
    if options.nproc < 1:
        raise ConfigError(f"--nproc {options.nproc}: must be at least 1")
    from recd_dist.train.prediction import check_prediction, predict_run, report, scores_directory
    from recd_dist.train.score_directory import read_success

    out = scores_directory(config)
    check_prediction(config, options.nproc)
    if options.nproc > 1:
        from recd_dist.ranks.launcher import main as launch

        overrides = COMMAND.rank_overrides(options)
        launcher = ["--checked", "--module", PREDICTION, "--nproc-per-node", str(options.nproc)]
        if code := launch([*launcher, "--", *overrides]):
            return code
    else:
        from recd_dist.ranks.process_group import process_group
        from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

        log_to_screen()
        quiet_libraries()
        with process_group(config.device) as ranks:
            result = predict_run(config, ranks, progress=sys.stderr.isatty())
        console(sys.stdout).print(report(result, out), highlight=False, soft_wrap=True)
    write_json(options.json, read_success(out))
    return 0


COMMAND = Command(
    name="predict",
    summary="keys and scores of every sample of a split, as Parquet",
    details="Every sample once, in the table's order, in a directory of a file a rank that appears when it is whole:\n"
    "pandas, DuckDB, Polars and Spark read it. score_LABEL is the probability of label 1; columns=[NAME] puts columns\n"
    "of the table beside it.",
    examples=(
        "recd predict runs/tiny-dlrm",
        "recd predict runs/tiny-dlrm out=s3://bucket/scores/today overwrite=true --nproc 2",
        "recd predict runs/mine-dlrm split=train 'data.partitions=[2026-11-26]' 'columns=[candidate_item]'",
        "duckdb -c \"select * from 'runs/tiny-dlrm/scores/test/*.parquet' limit 5\"",
    ),
    run=run,
    config="predict",
    of_run=True,
    arguments=(JSON, Argument("--nproc", "ranks on this machine (default 1)", {"type": int, "default": 1})),
)
