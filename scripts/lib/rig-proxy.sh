# shellcheck shell=bash
# rig-proxy and the server that it checks. Needs lib/common.sh, lib/packages.sh and lib/servers.sh.
# shellcheck disable=SC2154

# build_rig_proxy: builds both, and prints the folder that they are in.
build_rig_proxy() {
    say "building pagetrail and rig-proxy"
    (cd "$root" && cargo build --quiet --package pagetrail --package pagetrail-rig-proxy)
    printf '%s/debug\n' "$(target_dir)"
}

# rig_strace: the program by which rig-proxy sees what the server does.
rig_strace() {
    command -v strace >/dev/null || need_packages strace
    command -v strace
}
