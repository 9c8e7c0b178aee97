# shellcheck shell=bash
# Builds the programs that check rigs. Needs common.sh.

# build_rig_check SOURCE TARGET: prints the path of rig-check, built without libraries from the checkout SOURCE into the folder TARGET.
#
# A target is named so that these flags are for it alone, and not for what runs while it is built.
build_rig_check() {
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p')
    say "building rig-check"
    (cd "$1" && RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --release --package pagetrail-rig-check \
        --target "$triple" --target-dir "$2")
    printf '%s\n' "$2/$triple/release/rig-check"
}

# build_bare_program NAME KERNEL OUT: of tests/rig/NAME.c, with the headers of the kernel that it is to run on.
build_bare_program() {
    "${CC:-cc}" -std=gnu11 -Wall -Wextra -Werror -O2 -static -isystem "${2%/*}/include" -o "$3" "$root/tests/rig/$1.c"
}
