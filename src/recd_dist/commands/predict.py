"""``recd predict``: keys and scores of every sample of a split, of files or of a query."""

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
    from recd_dist.job.score_places import read_success, scores_directory
    from recd_dist.train.prediction import check_prediction, predict_run, report

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
    summary="keys and scores of every sample of a split, of files or of a query, as Parquet",
    details="Every sample once, in its order, in a directory that appears when it is whole: pandas, DuckDB, Polars\n"
    "and Spark read it. score_LABEL is the probability of label 1; columns=[NAME] puts columns of the table or input\n"
    "beside it. data.path or data.sql score rows that are in no table; top=K keeps the best K of each request,\n"
    "embeddings=items index=hnsw the vectors of two towers with an index of neighbours. A prediction that was stopped\n"
    "goes on by the same command.",
    examples=(
        "recd predict runs/tiny-dlrm",
        "recd predict runs/tiny-dlrm out=s3://bucket/scores/today overwrite=true --nproc 2",
        "recd predict runs/mine-dlrm split=train 'data.partitions=[2026-11-26]' 'columns=[candidate_item]'",
        "recd predict runs/mine-dlrm data.path=today.parquet 'columns=[url]' out=scores/today",
        "recd predict runs/mine-dlrm data.sql=\"select * from 'today.parquet' where country = 3\" top=10",
        "duckdb -c \"select * from 'runs/tiny-dlrm/scores/test/*.parquet' limit 5\"",
    ),
    run=run,
    config="predict",
    of_run=True,
    arguments=(JSON, Argument("--nproc", "ranks on this machine (default 1)", {"type": int, "default": 1})),
)
