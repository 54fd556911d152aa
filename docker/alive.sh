#!/bin/sh
# Whether the job in this container goes on: exit code 1 where nothing was written for RECD_ALIVE_S seconds (900).
# Looks at RECD_RUN_DIR where the container or its first process has it, otherwise at /recd/runs and /recd/tables while
# training or an ETL runs; other commands, which may write at their end alone, are alive as long as they run. Training
# writes its curves every 10 seconds, an ETL its parts; the longest silence is an evaluation of a large split.
first=$(tr "\0" "\n" 2>/dev/null </proc/1/environ | sed -n "s/^RECD_RUN_DIR=//p")
run=${RECD_RUN_DIR:-$first}
seconds=${RECD_ALIVE_S:-900}
commands() {
    for process in /proc/[0-9]*; do
        tr "\0" " " 2>/dev/null <"$process/cmdline" && echo
    done
}
if [ -n "$run" ]; then
    set -- "$run"
elif commands | grep -E "(recd|recd_dist\.cli) (train|etl) |recd_dist\.ranks\.launcher " | grep -qv -e " --module "; then
    set -- /recd/runs /recd/tables
else
    echo "neither training nor an ETL runs here"
    exit 0
fi
newest=$(find "$@" -type f -newermt "@$(($(date +%s) - seconds))" -print -quit 2>/dev/null)
if [ -n "$newest" ]; then
    echo "written in the last $seconds s: $newest"
else
    echo "nothing below $* was written in the last $seconds s"
    exit 1
fi
