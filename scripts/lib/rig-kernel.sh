# shellcheck shell=bash
# The kernel of test rigs: built from Debian's sources as they come, with its own iommufd selftest.
#
# Needs common.sh and packages.sh.

rig_kernel_config=$root/scripts/rig/kernel.config
rig_selftest_compat=$root/scripts/rig/selftest-compat.h
# What the rigs are known to work with, and the first that has iommufd's dirty tracking.
rig_kernel_wanted=linux-source-6.12
rig_kernel_oldest=linux-source-6.7

# Where the kernel is kept; complete when it exists. It is named for all that we add to it: which point release Debian's newest is does
# not matter, and is not looked up again.
rig_kernel_dir() {
    local key
    key=$({
        cat "$rig_kernel_config" "$rig_selftest_compat"
        declare -f build_rig_kernel configure_rig_kernel build_rig_selftest
    } | sha256sum | cut -c1-16)
    printf '%s/rig-kernel-%s\n' "$(cache_dir)" "$key"
}

# Packages for what is missing, found by use rather than by package name, so that other ways to install them count.
rig_kernel_missing_packages() {
    local tool header
    command -v cc >/dev/null || echo build-essential
    for tool in make bc flex bison; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    command -v xz >/dev/null || echo xz-utils
    # For objtool, which is built for the machine that builds.
    for header in libelf.h:libelf-dev sys/capability.h:libcap-dev; do
        "${CC:-cc}" -E -include "${header%%:*}" -x c /dev/null >/dev/null 2>&1 || echo "${header##*:}"
    done
}

# The package that holds the sources: the one that the rigs are known to work with, or else the newest that is new enough.
rig_kernel_package() {
    local package
    package=$(newest_rig_kernel_package)
    if [ -z "$package" ]; then
        as_root apt-get -q update >&2
        package=$(newest_rig_kernel_package)
    fi
    [ -n "$package" ] || die "apt has no $rig_kernel_wanted, and nothing newer than $rig_kernel_oldest"
    printf '%s\n' "$package"
}

newest_rig_kernel_package() {
    local known newest
    known=$(apt-cache pkgnames linux-source- | grep -xE 'linux-source-[0-9]+\.[0-9]+(\.0)?' | sort -V)
    if grep -qx "$rig_kernel_wanted" <<<"$known"; then
        printf '%s\n' "$rig_kernel_wanted"
        return
    fi
    newest=$(tail -n 1 <<<"$known")
    [ "$(printf '%s\n' "$rig_kernel_oldest" "$newest" | sort -V | head -n 1)" = "$rig_kernel_oldest" ] || return 0
    printf '%s\n' "$newest"
}

# build_rig_kernel OUT: makes OUT/bzImage, OUT/config, OUT/include (the kernel's headers for user space) and OUT/selftest/*.
build_rig_kernel() {
    local out=$1 work tree log package
    command -v apt-get >/dev/null || die "the rigs' kernel comes from Debian, by apt-get"
    package=$(rig_kernel_package)
    # What an interrupted run left.
    rm -rf "$(cache_dir)"/rig-build.*
    work=$(mktemp -d "$(cache_dir)/rig-build.XXXXXX")
    tree=$work/tree log=$work/log
    mkdir -p "$work/deb" "$tree" "$work/out"
    # The sandboxed downloader of apt has to be able to write there.
    chmod 755 "$work" "$work/deb"

    say "fetching $package (about 140 MB)"
    (cd "$work/deb" && run_logged "$log" apt-get -q download "$package")
    say "unpacking $package"
    dpkg-deb --fsys-tarfile "$work"/deb/*.deb | tar -xO --wildcards '*/linux-source-*.tar.xz' |
        tar -xJ -C "$tree" --strip-components=1
    rm -r "$work/deb"

    configure_rig_kernel "$tree" "$log"
    say "building $package (once; 15 to 30 minutes on two cores)"
    run_kernel_make "$tree" "$log" bzImage
    build_rig_selftest "$tree" "$log" "$work/out"
    cp "$tree/arch/x86/boot/bzImage" "$work/out/bzImage"
    cp "$tree/.config" "$work/out/config"
    mv -T "$work/out" "$out"
    rm -rf "$work"
}

# configure_rig_kernel TREE LOG: allnoconfig, and our lines on top; each has to come out as it was written.
configure_rig_kernel() {
    local line option lost=()
    run_logged "$2" make -C "$1" KCONFIG_ALLCONFIG="$rig_kernel_config" allnoconfig
    while read -r line; do
        option=${line%%=*}
        case $line in
        *=n) ! grep -q "^$option=" "$1/.config" || lost+=("$line") ;;
        *) grep -qxF "$line" "$1/.config" || lost+=("$line") ;;
        esac
    done < <(grep '^CONFIG_' "$rig_kernel_config")
    [ ${#lost[@]} = 0 ] || die "this kernel does not take: ${lost[*]}"
}

# build_rig_selftest TREE LOG OUT: the headers, and the selftest as programs that need no library.
build_rig_selftest() {
    local flags=
    say "building the kernel's iommufd selftest"
    run_logged "$2" make -C "$1" headers
    grep -q IOMMU_HW_INFO_TYPE_DEFAULT "$1/usr/include/linux/iommufd.h" || flags="-include $rig_selftest_compat"
    run_logged "$2" make -C "$1/tools/testing/selftests/iommu" \
        KHDR_INCLUDES="-isystem $1/usr/include" USERCFLAGS="$flags" USERLDFLAGS=-static
    mkdir -p "$3/selftest"
    cp "$1"/tools/testing/selftests/iommu/{iommufd,iommufd_fail_nth} "$3/selftest"
    find "$1/usr/include" -name '*.h' -printf '%P\n' | tar -c -C "$1/usr/include" -T - |
        tar -x --one-top-level="$3/include"
}

# run_kernel_make TREE LOG TARGET: says every five hundred files how far it is.
run_kernel_make() {
    make -C "$1" -j"$(nproc)" "$3" 2>&1 | tee -a "$2" | awk '
        /^  (CC|AS) / && ++count % 500 == 0 { printf "  %d files compiled\n", count; fflush() }' >&2 || {
        grep -B 2 -A 20 -m 3 -E 'error:|Error ' "$2" | tail -n 60 >&2
        die "the kernel does not build (all of the output is in $2)"
    }
}
