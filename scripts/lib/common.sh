# shellcheck shell=bash
# What every script needs: messages, the cache's place, and root.

# The checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# run_logged LOG COMMAND...: shows the log's end when the command fails.
run_logged() {
    local log=$1
    shift
    "$@" >>"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        die "failed: $1 (all of its output is in $log)"
    }
}

# Where things that outlive a checkout are kept; vfio-user-sys/build.rs has the same rule.
cache_dir() {
    printf '%s\n' "${PAGETRAIL_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/pagetrail}"
}

# Runs a command as root, if that can be done without asking.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}
