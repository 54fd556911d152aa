#!/usr/bin/env bash
# Asks a vulnerability service about every pinned version of both release lines. `make audit` calls it.
# Variables: AUDIT_SERVICE (pypi, the default, or osv), OSV_URL (another address of OSV's service), PYTHON.
#
# Not a part of `make test`: it needs the network, and its answer changes from day to day without a change here.
# --strict: pip-audit otherwise ends well when the service knows none of the packages and nothing was looked at.
set -euo pipefail
cd "$(dirname "$0")/.."

PIP_AUDIT=pip-audit==2.10.1
VENV=.venv-audit # of its own: what pip-audit needs is no part of the product
service=(--vulnerability-service "${AUDIT_SERVICE:-pypi}" ${OSV_URL:+--osv-url "$OSV_URL"})

[ -x $VENV/bin/pip-audit ] || { "${PYTHON:-python3}" -m venv --clear $VENV && $VENV/bin/python -m pip install -q "$PIP_AUDIT"; }

status=0
for pins in constraints*.txt; do
    echo "audit: $pins"
    # fbgemm-gpu-cpu and fbgemm-gpu are one program in two builds, all other pins can stand together.
    said=$($VENV/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off "${service[@]}" -r "$pins" 2>&1) ||
        status=1
    if grep -q "could not be audited\|ConnectionError\|Timeout" <<<"$said"; then
        grep "could not be audited\|ConnectionError\|Timeout" <<<"$said" | tail -n 1 | cut -c 1-200 >&2
        echo "audit: the service ${AUDIT_SERVICE:-pypi} did not answer for all packages, so nothing is said; another one: make audit AUDIT_SERVICE=osv" >&2
        exit 2
    fi
    grep -v "^WARNING" <<<"$said" || true
done
exit $status
