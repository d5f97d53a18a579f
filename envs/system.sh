#!/bin/sh
# System parts that pip cannot bring: the text layout library of WeasyPrint, a font, Python's venv module.
# Installs them with apt where it may (root or password-less sudo), tells what is missing where it may not.
# Usage: envs/system.sh [package ...]     more packages can be asked for (tests of the monitor, Slurm, ...)
set -eu
missing=""
need() { # package, command that succeeds when it is there
    if ! sh -c "$2" >/dev/null 2>&1; then missing="$missing $1"; fi
}
need python3-venv "python3 -c 'import ensurepip, venv'"
need libpango-1.0-0 "ldconfig -p | grep -q libpango-1.0.so.0"
need libpangoft2-1.0-0 "ldconfig -p | grep -q libpangoft2-1.0.so.0"
need libharfbuzz-subset0 "ldconfig -p | grep -q libharfbuzz-subset.so.0"
need fonts-dejavu-core "ls /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
for package in "$@"; do need "$package" "dpkg -s $package"; done
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "calcamp needs these Debian packages (or their like):$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null; then run="sudo"; else
    echo "calcamp needs these packages; ask an administrator for:  apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing" >&2
$run apt-get update -qq
$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
