# shellcheck shell=bash
# What every script needs: messages, the cache's place, and root.

# The checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
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
