# shellcheck shell=bash
# The conformance test of vfio-user servers, and the server that it checks in rigs. Needs lib/common.sh and lib/servers.sh.
# shellcheck disable=SC2154

# build_rig_conform: builds both, and prints the folder that they are in.
build_rig_conform() {
    say "building pagetrail and vfio-user-check"
    (cd "$root" && cargo build --quiet --package pagetrail --package vfio-user-check)
    printf '%s/debug\n' "$(target_dir)"
}
