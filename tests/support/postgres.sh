#!/bin/sh
# Prints the directory of PostgreSQL's server programs, after installing the system's package where there is none.
#
# Used by the Makefile. Exit 0: the directory is on standard output. Exit 3: there is no PostgreSQL and it could not be
# installed; the line "NOT RUN: ..." on standard error says what to do. `--find` never installs anything.
# The newest version wins; PGLADDER_POSTGRES_BIN names a directory outright.

set -eu

say() { printf '%s\n' "$*" >&2; }

not_run() {
    say "NOT RUN: $*"
    exit 3
}

# A client-only installation has psql and pg_config but no server: all of these are needed.
complete() {
    for program in initdb postgres pg_ctl pg_basebackup psql; do
        [ -x "$1/$program" ] || return 1
    done
}

# One candidate a line; within a family of versioned directories the newest comes first.
candidates() {
    if initdb=$(command -v initdb); then
        dirname "$initdb"
    fi
    if command -v pg_config >/dev/null 2>&1; then
        pg_config --bindir
    fi
    for directory in \
        /usr/lib/postgresql/*/bin \
        /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin \
        /usr/local/opt/postgresql*/bin \
        /usr/libexec/postgresql*; do
        [ -d "$directory" ] && printf '%s\n' "$directory"
    done | sort -rV
}

find_postgres() {
    if [ -n "${PGLADDER_POSTGRES_BIN:-}" ]; then
        complete "$PGLADDER_POSTGRES_BIN" ||
            not_run "PGLADDER_POSTGRES_BIN=$PGLADDER_POSTGRES_BIN holds no PostgreSQL server (initdb, postgres, pg_ctl, pg_basebackup, psql)"
        printf '%s\n' "$PGLADDER_POSTGRES_BIN"
        return 0
    fi
    # The here-document keeps the loop in this shell, so that `return` ends the function.
    while IFS= read -r directory; do
        if complete "$directory"; then
            printf '%s\n' "$directory"
            return 0
        fi
    done <<CANDIDATES
$(candidates)
CANDIDATES
    return 1
}

# Debian starts a cluster on port 5432 as soon as the package is there, unless this is set before.
debian_keeps_no_cluster() {
    file=/etc/postgresql-common/createcluster.conf
    if [ -e "$file" ] && grep -q '^[[:space:]]*create_main_cluster' "$file"; then
        return 0
    fi
    as_root sh -c "mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >>$file"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# The command that installs the package on this system, as one line, empty when no known package manager is there.
install_command() {
    if command -v apt-get >/dev/null 2>&1; then
        echo "apt-get install -y --no-install-recommends postgresql postgresql-contrib"
    elif command -v dnf >/dev/null 2>&1; then
        echo "dnf install -y postgresql-server postgresql-contrib"
    elif command -v apk >/dev/null 2>&1; then
        echo "apk add postgresql postgresql-contrib"
    elif command -v pacman >/dev/null 2>&1; then
        echo "pacman -S --noconfirm postgresql"
    elif command -v brew >/dev/null 2>&1; then
        echo "brew install postgresql@17"
    fi
}

# Root installs at once; anybody else is asked, and only where somebody can answer.
may_install() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 || return 1
    [ -t 0 ] && [ -t 2 ] || return 1
    printf 'PostgreSQL is not installed. Run "sudo %s"? [y/N] ' "$1" >&2
    read -r answer
    case $answer in
        [yY] | [yY][eE][sS]) return 0 ;;
        *) return 1 ;;
    esac
}

install_postgres() {
    command=$(install_command)
    [ -n "$command" ] ||
        not_run "PostgreSQL 14 or newer is not installed and no known package manager was found; install its server package"
    # Homebrew refuses root and needs no sudo: its own user may install.
    case $command in
        brew*)
            $command >&2 || not_run "PostgreSQL could not be installed; run: $command"
            return 0
            ;;
    esac
    prefix=
    [ "$(id -u)" -eq 0 ] || prefix="sudo "
    manual="$prefix$command"
    case $command in
        apt-get*)
            manual="${prefix}mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' | ${prefix}tee -a /etc/postgresql-common/createcluster.conf && ${prefix}apt-get update && $manual"
            ;;
    esac
    may_install "$command" || not_run "PostgreSQL is not installed; run: $manual"
    case $command in
        apt-get*)
            export DEBIAN_FRONTEND=noninteractive
            debian_keeps_no_cluster || not_run "PostgreSQL could not be installed; run: $manual"
            as_root apt-get update >&2 || not_run "PostgreSQL could not be installed; run: $manual"
            ;;
    esac
    # The words of the command are its arguments.
    # shellcheck disable=SC2086
    as_root $command >&2 || not_run "PostgreSQL could not be installed; run: $manual"
}

case ${1:-} in
    '')
        find_postgres && exit 0
        install_postgres
        find_postgres || not_run "PostgreSQL was installed, but no directory with its server programs was found; set PGLADDER_POSTGRES_BIN"
        ;;
    --find)
        find_postgres || not_run "PostgreSQL is not installed; run: $(install_command)"
        ;;
    *)
        say "usage: $0 [--find]"
        exit 2
        ;;
esac
