#!/usr/bin/env bash
# TorchX: an argument or a variable of a job that holds dollars, such as SQL with DuckDB's dollar-quoted text.
# Versions: torchx-nightly 2026.10.26, duckdb 2.0.0.
#
# One would guess that a job gets the arguments that its component was given: TorchX documents macros such as ${app_id},
# and what is no macro stays. Seen: every `$$` becomes `$`, in arguments and in the environment, also where no macro
# stands; a single `$` and unknown names in braces stay. So select $$it's$$ reaches the job as select $it's$, which
# DuckDB does not parse. Whoever passes text through doubles every dollar in the component.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torchx-nightly==2026.10.26 duckdb==2.0.0
cat >"$folder/dollars.py" <<'PY'
import tempfile
import warnings

warnings.filterwarnings("ignore")
import duckdb
from torchx.runner import get_runner
from torchx.specs import AppDef, Role

QUERY = "select $$it's$$ as text"
role = Role(name="etl", image=tempfile.gettempdir(), entrypoint="etl", args=[QUERY, "cost: $5", "${data.name}"], env={"SQL": QUERY})
with get_runner() as runner:
    request = runner.dryrun(AppDef(name="app", roles=[role]), "local_cwd", {}).request
replica = request.role_params["etl"][0]
print("given:   ", QUERY)
print("argument:", replica.args[1])
print("variable:", replica.env["SQL"])
print("kept:    ", *replica.args[2:])
for query in (QUERY, replica.args[1]):
    try:
        print("DuckDB:  ", duckdb.sql(query).fetchall())
    except duckdb.Error as error:
        print("DuckDB:  ", type(error).__name__)
PY
"$folder/env/bin/python" "$folder/dollars.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
given:    select $$it's$$ as text
argument: select $it's$ as text
variable: select $it's$ as text
kept:     cost: $5 ${data.name}
DuckDB:   [("it's",)]
DuckDB:   ParserException
EXPECTED
