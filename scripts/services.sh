#!/usr/bin/env bash
# What the tests of services need beside .venv/: PostgreSQL, from Debian. Quick if it is there.
set -euo pipefail

if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "services: PostgreSQL is missing, and installing it needs root on Debian or Ubuntu;" >&2
    echo "services: \`sudo apt-get install postgresql\`, or initdb on the PATH. The tests that need it will fail." >&2
    exit
fi
echo "services: installing postgresql from the system's packages"
# The tests make a database of their own; a machine-wide one shall not start because of them.
mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/hypersigma.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends postgresql >/dev/null
