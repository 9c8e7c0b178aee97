# shellcheck shell=bash
# The rigs' tests, each a VM whose Linux tracks dirty pages: one function for each name, rig_test_NAME.
#
# Needs common.sh. Everything that a VM says, and fails with, is passed on.

rig_tests=(selftest intel amd mlx5 proxy conform)

# run_rig_tests NAME...: runs all of them, also when one fails. All that there are, without names.
run_rig_tests() {
    local name started failed=()
    [ $# -gt 0 ] || set -- "${rig_tests[@]}"
    for name in "$@"; do
        declare -F "rig_test_$name" >/dev/null || die "no such rig: $name (there are: ${rig_tests[*]})"
    done
    for name in "$@"; do
        say "rig $name"
        started=$SECONDS
        "rig_test_$name" || failed+=("$name")
        say "rig $name took $((SECONDS - started)) s"
    done
    [ ${#failed[@]} = 0 ] || die "rigs failed: ${failed[*]}"
}

# The kernel's own test of iommufd's side, on its mock of a page table.
rig_test_selftest() {
    "$root/scripts/run-in-rig" --selftest
}

rig_test_intel() {
    rig_test_iommu intel
}

rig_test_amd() {
    rig_test_iommu amd
}

# Devices that track what they write themselves, and migrate.
rig_test_mlx5() {
    "$root/scripts/run-in-rig" --iommu=intel --mlx5=3 --seconds=600 --check
}

# The rig itself first: it is what the trackers are measured by.
rig_test_iommu() {
    "$root/scripts/run-in-rig" "--iommu=$1" --smoke && "$root/scripts/run-in-rig" "--iommu=$1" --seconds=900 --check
}

# Devices passed through, on each machine of its kind.
rig_test_proxy() {
    local iommu result=0
    "$root/scripts/run-in-rig" --iommu=intel --mlx5=2 --seconds=900 --proxy || result=1
    for iommu in amd plain; do
        "$root/scripts/run-in-rig" "--iommu=$iommu" --seconds=600 --proxy || result=1
    done
    return "$result"
}

# The protocol that they are passed through by, with devices that have little and devices that have all of it.
rig_test_conform() {
    "$root/scripts/run-in-rig" --iommu=intel --mlx5=2 --memory=5G --seconds=900 --conform
}
