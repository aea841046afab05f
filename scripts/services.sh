#!/usr/bin/env bash
# What the tests of services need beside .venv/: PostgreSQL and SLURM, from Debian. Quick if they are there.
set -euo pipefail

there() { PATH="$PATH:/usr/sbin" command -v "$@" >/dev/null; }

missing=()
if ! there initdb && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
fi
if ! there slurmctld || ! there slurmd || ! there srun || ! there munged; then
    missing+=(slurmctld slurmd slurm-client munge)
fi
if [ "${#missing[@]}" = 0 ]; then
    exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "services: ${missing[*]} missing, and installing needs root on Debian or Ubuntu:" >&2
    echo "services: \`sudo apt-get install ${missing[*]}\`, or their programs on the PATH. The tests that need them will fail." >&2
    exit
fi
echo "services: installing ${missing[*]} from the system's packages"
# The tests start programs of their own; machine-wide ones shall not start because of them: no database,
# and no daemon of what is installed here (101: forbidden by policy, see invoke-rc.d).
mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/hypersigma.conf
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
