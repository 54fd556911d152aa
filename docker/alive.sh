#!/bin/sh
# Whether the job in this container goes on: exit code 0 where something was written in the last RECD_ALIVE_S seconds
# (900), else 1. Looks at RECD_RUN_DIR where the container or its first process has it, otherwise at /recd/runs and
# /recd/tables. Training writes its curves every 10 seconds, an ETL its parts; the longest silence is an evaluation of a
# large split.
run=${RECD_RUN_DIR:-$(tr "\0" "\n" 2>/dev/null </proc/1/environ | sed -n "s/^RECD_RUN_DIR=//p")}
seconds=${RECD_ALIVE_S:-900}
if [ -n "$run" ]; then set -- "$run"; else set -- /recd/runs /recd/tables; fi
newest=$(find "$@" -type f -newermt "@$(($(date +%s) - seconds))" -print -quit 2>/dev/null)
if [ -n "$newest" ]; then
    echo "written in the last $seconds s: $newest"
else
    echo "nothing below $* was written in the last $seconds s"
    exit 1
fi
