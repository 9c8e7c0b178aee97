# shellcheck shell=bash
# Builds QEMU in the cache: once as it comes, and from a copy of that with one of our series.
#
# QEMU's build files name the tree they are in. Every build therefore happens in one place, $base/tree, under a lock; what was built
# there without patches is kept beside it, and a build with patches starts from a copy that only lacks what the patches touch.
#
# Needs common.sh, qemu-source.sh and packages.sh.

# One target, what the tests use, and what vfio-user needs. Firmware is Debian's.
qemu_flags=(
    --target-list=x86_64-softmmu
    --without-default-features
    --enable-tcg
    --enable-pixman
    --enable-fdt=system
    --enable-multiprocess
    --disable-debug-info
    --disable-docs
    --disable-tools
    --disable-guest-agent
    --disable-install-blobs
    --firmwarepath=/usr/share/qemu:/usr/share/seabios
)

# QEMU's configure takes these from a Python environment; the repacked tarball does not bring them along.
qemu_python_packages=(meson==1.11.1 pycotap==1.3.1)

# qemu_patches FOLDER: the patches of a series in their order, one to a line; none is in order, too.
qemu_patches() {
    find "$1" -maxdepth 1 -name '[0-9]*.patch' ! -name '0000-*' 2>/dev/null | LC_ALL=C sort
}

# Packages for what is missing, found by use rather than by package name, so that other ways to install them count.
qemu_missing_packages() {
    local library
    command -v cc >/dev/null || echo build-essential
    command -v make >/dev/null || echo make
    command -v ninja >/dev/null || echo ninja-build
    command -v pkg-config >/dev/null || echo pkg-config
    command -v flex >/dev/null || echo flex
    command -v bison >/dev/null || echo bison
    command -v bzip2 >/dev/null || echo bzip2
    command -v patch >/dev/null || echo patch
    command -v xz >/dev/null || echo xz-utils
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    for library in glib-2.0:libglib2.0-dev pixman-1:libpixman-1-dev; do
        pkg-config --exists "${library%%:*}" 2>/dev/null || echo "${library##*:}"
    done
    # It has no pkg-config file.
    "${CC:-cc}" -E -include libfdt.h -x c /dev/null >/dev/null 2>&1 || echo libfdt-dev
    # What a guest boots from.
    [ -e /usr/share/seabios/bios-256k.bin ] || echo seabios
    [ -e /usr/share/qemu/linuxboot_dma.bin ] || [ -e /usr/share/qemu/optionrom/linuxboot_dma.bin ] || echo qemu-system-data
}

# Where everything about this version of QEMU, built in this way, is kept.
qemu_base_dir() {
    local key
    key=$({
        printf '%s\n' "$qemu_version" "${qemu_flags[@]}" "${qemu_python_packages[@]}"
        declare -f build_unpatched_qemu add_missing_firmware
    } | sha256sum | cut -c1-16)
    printf '%s/qemu-%s-%s\n' "$(cache_dir)" "$qemu_version" "$key"
}

# Makes $base/unpatched, which is complete when it exists.
build_unpatched_qemu() {
    local base=$1 tree=$1/tree log=$1/build.log tarball
    [ ! -d "$base/unpatched" ] || return 0
    tarball=$(qemu_tarball)
    rm -rf "$tree" "$base/python" "$log"
    mkdir -p "$tree"

    say "unpacking ${tarball##*/}"
    tar -xJf "$tarball" -C "$tree" --strip-components=1
    add_missing_firmware "$tree"

    say "configuring QEMU $qemu_version"
    run_logged "$log" python3 -m venv "$base/python"
    run_logged "$log" "$base/python/bin/pip" --disable-pip-version-check install "${qemu_python_packages[@]}"
    mkdir "$tree/build"
    (cd "$tree/build" && run_logged "$log" ../configure --python="$base/python/bin/python3" "${qemu_flags[@]}")

    say "building QEMU $qemu_version (once; 5 to 10 minutes on two cores)"
    run_ninja "$tree/build" "$log"
    mv -T "$tree" "$base/unpatched"
}

# build_patched_qemu BASE OUT PATCH...: makes OUT, a binary with the patches in.
build_patched_qemu() {
    local base=$1 out=$2
    shift 2
    make_patched_tree "$base" "$@"
    keep_qemu_binary "$base/tree" "$out"
    rm -rf "$base/tree"
}

# make_patched_tree BASE PATCH...: makes BASE/tree, built with the patches in.
make_patched_tree() {
    local base=$1 tree=$1/tree log=$1/build.log patch
    shift
    rm -rf "$tree" "$log"
    # With their times: ninja then builds what a patch has touched, and nothing else.
    cp -a --reflink=auto "$base/unpatched" "$tree"
    for patch in "$@"; do
        say "applying ${patch##*/}"
        run_logged "$log" patch -p1 --forward --fuzz=0 --no-backup-if-mismatch -d "$tree" -i "$patch"
    done
    say "building QEMU $qemu_version with the series"
    run_ninja "$tree/build" "$log"
}

# keep_qemu_binary TREE OUT
keep_qemu_binary() {
    mkdir -p "${2%/*}"
    cp "$1/build/qemu-system-x86_64" "$2.part"
    "$2.part" -device help | grep -q '"vfio-user-pci"' || die "this QEMU has no vfio-user-pci"
    mv "$2.part" "$2"
}

# Meson names firmware that only other targets use and that the repacked tarball lacks: empty files will do.
add_missing_firmware() {
    local name
    while read -r name; do
        [ -e "$1/pc-bios/$name.bz2" ] || bzip2 -c </dev/null >"$1/pc-bios/$name.bz2"
    done < <(sed -n "s/^ *'\(edk2-[^']*\.fd\)'.*/\1/p" "$1/pc-bios/meson.build")
    while read -r name; do
        [ -e "$1/pc-bios/dtb/$name" ] || : >"$1/pc-bios/dtb/$name"
    done < <(sed -n "s/^ *'\([^']*\.dtb\)'.*/\1/p" "$1/pc-bios/dtb/meson.build")
}

# run_ninja BUILD LOG: says every twentieth part how far it is.
run_ninja() {
    NINJA_STATUS='[%f/%t] ' ninja -C "$1" qemu-system-x86_64 2>&1 | tee -a "$2" | awk -F '[][/]' '
        /^\[[0-9]+\/[0-9]+\]/ {
            step = int(20 * $2 / $3)
            if (step > last) { last = step; printf "  %d of %d steps\n", $2, $3; fflush() }
        }' >&2 || {
        grep -A 30 -m 3 -E '^FAILED|error:' "$2" | tail -n 60 >&2
        die "QEMU does not build (all of the output is in $2)"
    }
}
