# shellcheck shell=bash
# Debian packages: installs those that are missing.

# need_packages PACKAGE...: has them installed when it returns.
need_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install what these Debian packages hold: $*"
    say "installing $*"
    # Package lists may be absent (fresh container) or stale: refresh them when the first try fails.
    install_packages "$@" || {
        as_root apt-get -q update >&2 && install_packages "$@"
    } || die "could not install them; as root: apt-get update && apt-get install $*"
}

install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qy -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
}
