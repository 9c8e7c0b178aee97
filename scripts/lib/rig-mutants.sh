# shellcheck shell=bash
# Mutants: the rigs' QEMU and rig-check, each with one defect, built in the cache.
#
# Needs common.sh, qemu-source.sh, qemu-build.sh, packages.sh and rig-check.sh.

rig_mutations=$root/tests/rig/mutations

# mutation_field NAME FIELD: what the head of its patch says.
mutation_field() {
    sed -n "/^\$/q; s/^$2: //p" "$rig_mutations/$1.patch"
}

# qemu_mutant NAME: where the binary is, or will be.
qemu_mutant() {
    local base patches
    base=$(qemu_base_dir)
    mapfile -t patches < <(qemu_patches "$root/qemu-patches/rig")
    printf '%s/bin/%s/qemu-system-x86_64\n' "$base" \
        "$(cat "${patches[@]}" "$rig_mutations/$1.patch" | sha256sum | cut -c1-16)"
}

# build_qemu_mutants NAME...: builds those that are not there, one after the other in one tree.
build_qemu_mutants() {
    local name base patches missing=()
    for name in "$@"; do
        [ -x "$(qemu_mutant "$name")" ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    # It has what the mutants are built from built as well.
    "$root/scripts/build-qemu" --rig >/dev/null
    base=$(qemu_base_dir)
    mapfile -t patches < <(qemu_patches "$root/qemu-patches/rig")
    exec 9>"$base/lock"
    flock 9
    make_patched_tree "$base" "${patches[@]}"
    for name in "${missing[@]}"; do
        say "building QEMU with $name"
        mutate "$name" "$base/tree"
        run_ninja "$base/tree/build" "$base/build.log"
        keep_qemu_binary "$base/tree" "$(qemu_mutant "$name")"
        unmutate "$name" "$base/tree"
    done
    rm -rf "$base/tree"
    exec 9>&-
}

# begin_tracker_mutants: copies the checkout.
begin_tracker_mutants() {
    local source
    source=$(cache_dir)/mutants/source
    rm -rf "$source"
    mkdir -p "$source"
    git -C "$root" ls-files -z | tar -C "$root" -c --null -T - | tar -x -C "$source"
    # What cargo has built of an earlier copy may be newer than these, and something else.
    find "$source" -name '*.rs' -exec touch {} +
}

# tracker_mutant NAME OUT: builds rig-check.
tracker_mutant() {
    local folder
    folder=$(cache_dir)/mutants
    mutate "$1" "$folder/source"
    cp "$(build_rig_check "$folder/source" "$folder/target")" "$2"
    unmutate "$1" "$folder/source"
}

# mutate NAME TREE
mutate() {
    patch -p1 --forward --fuzz=0 --quiet --no-backup-if-mismatch -d "$2" -i "$rig_mutations/$1.patch" ||
        die "$1 does not fit any more"
}

# tracker_mutations_fit: whether all that break the tracker can be made. Says which cannot.
tracker_mutations_fit() {
    local patch result=0
    for patch in "$rig_mutations"/tracker-*.patch; do
        patch -p1 --forward --fuzz=0 --dry-run --quiet -d "$root" -i "$patch" >/dev/null || {
            say "${patch##*/} does not fit any more"
            result=1
        }
    done
    return "$result"
}

# unmutate NAME TREE
unmutate() {
    patch -p1 --reverse --fuzz=0 --quiet --no-backup-if-mismatch -d "$2" -i "$rig_mutations/$1.patch"
}
