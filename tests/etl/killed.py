"""Runs the ETL in forked children, kills them with SIGKILL at random moments, and lets the last one end.

python -m tests.etl.killed RAW OUT KILLS SEED      prints how far each child came
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source


def source(raw: Path) -> Source:
    keys = {"session": "session_id", "request": "request_id", "timestamp": "timestamp"}
    samples = "select * from read_parquet('{path}/part-*.parquet')"
    options = {"name": "killed", "path": str(raw), "samples": samples, "keys": keys, "labels": ["label"], "split": 0.1}
    groups = {"history": ["clicks"], "profile": ["region", "age"]}
    return Source.from_dict(options | {"groups": groups, "features": {"clicks": {"table": "item"}}})


def run(raw: Path, out: Path, append: bool) -> None:
    etl(source(raw), out, append=append, shard_bytes=300_000, row_group_samples=512, progress=False)


def child(raw: Path, out: Path, append: bool) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run(raw, out, append)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error}\n")
            os._exit(1)
    return pid


def main(raw: Path, out: Path, kills: int, seed: int, append: bool) -> None:
    chance = random.Random(seed)
    started = time.monotonic()
    os.waitpid(child(raw, out.with_name("undisturbed"), False), 0)
    whole_s = time.monotonic() - started
    states = []
    for _ in range(kills):
        pid = child(raw, out, append)
        time.sleep(chance.uniform(0.05, 0.6) * whole_s)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        work = out.parent / f".{out.name}.partial"
        states.append(
            {
                "ended": not os.WIFSIGNALED(status),
                "table": (out / "train" / "manifest.json").is_file(),
                "read": (work / "shards.json").is_file(),
                "shards": len(list(work.glob("parts/*.json"))),
            }
        )
        if states[-1]["ended"]:  # it was faster than the kill: begin anew
            shutil.rmtree(out)
    status = os.waitpid(child(raw, out, append), 0)[1]
    sys.stdout.write(json.dumps({"states": states, "exit": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["append"])
