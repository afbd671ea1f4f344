#!/bin/sh
# Prints the path of a Python interpreter that has the drivers the tests use, after making its virtual environment once.
#
# Used by the tests and the Makefile. Exit 0: the path is on standard output. Exit 3: it could not be made; the line
# "NOT RUN: ..." on standard error says what to do. The environment lives below target/, named after the versions below.

set -eu

PSYCOPG=3.3.9
ASYNCPG=0.32.0

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
environment="$target/python-psycopg$PSYCOPG-asyncpg$ASYNCPG"

say() { printf '%s\n' "$*" >&2; }

not_run() {
    say "NOT RUN: $*"
    exit 3
}

answer() {
    case $environment in
        /*) printf '%s\n' "$environment/bin/python" ;;
        *) printf '%s\n' "$PWD/$environment/bin/python" ;;
    esac
    exit 0
}

# Written last, so that an interrupted installation is not taken for a whole one.
is_whole() { [ -e "$environment/complete" ]; }

install_command() {
    if command -v apt-get >/dev/null 2>&1; then
        echo "apt-get install -y --no-install-recommends python3 python3-venv"
    elif command -v dnf >/dev/null 2>&1; then
        echo "dnf install -y python3"
    elif command -v apk >/dev/null 2>&1; then
        echo "apk add python3"
    elif command -v pacman >/dev/null 2>&1; then
        echo "pacman -S --noconfirm python"
    elif command -v brew >/dev/null 2>&1; then
        echo "brew install python@3.13"
    fi
}

has_venv() { command -v python3 >/dev/null 2>&1 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Only root installs, and only with apt, where python3-venv is a package of its own; anybody else is told the command.
install_venv() {
    command=$(install_command)
    [ -n "$command" ] || not_run "python3 with its venv module is not installed and no known package manager was found"
    if [ "$(id -u)" -ne 0 ]; then
        not_run "python3 with its venv module is not installed; run: sudo $command"
    fi
    case $command in
        apt-get*)
            export DEBIAN_FRONTEND=noninteractive
            apt-get update >&2 || not_run "python3-venv could not be installed; run: apt-get update && $command"
            ;;
    esac
    # The words of the command are its arguments.
    # shellcheck disable=SC2086
    $command >&2 || not_run "python3-venv could not be installed; run: $command"
    has_venv || not_run "python3 was installed, but its venv module does not work"
}

is_whole && answer

mkdir -p "$target"
# Several test programs may come here at once: the first makes it, the others wait.
exec 9>"$target/python.lock"
if command -v flock >/dev/null 2>&1; then
    flock 9
fi
is_whole && answer
has_venv || install_venv
rm -rf "$environment"
python3 -m venv "$environment" >&2 || not_run "a virtual environment could not be made in $environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    "psycopg[binary]==$PSYCOPG" "asyncpg==$ASYNCPG" >&2 ||
    not_run "psycopg $PSYCOPG and asyncpg $ASYNCPG could not be installed from the package index; is it reachable?"
touch "$environment/complete"
answer
