# shellcheck shell=bash
# The kernel of test VMs: Debian's, for cloud machines, and the module that hands a device to our agent.
#
# Needs common.sh and packages.sh.

guest_driver=$root/tests/guest/driver

# Where the kernel is kept; complete when it exists. It is named for all that we add to it: what Debian's newest kernel is does not
# matter, and is not looked up again.
guest_kernel_dir() {
    local key
    key=$({
        cat "$guest_driver"/*
        declare -f build_guest_kernel
    } | sha256sum | cut -c1-16)
    printf '%s/guest-kernel-%s\n' "$(cache_dir)" "$key"
}

# build_guest_kernel OUT: makes OUT/vmlinuz and OUT/modules/*.ko.
build_guest_kernel() {
    local work package release module
    package=$(guest_kernel_package)
    release=${package#linux-image-}
    # Their dependencies bring the compiler that the kernel was built with.
    need_packages "linux-headers-$release"
    work=$(mktemp -d "$(cache_dir)/guest-kernel.XXXXXX")
    mkdir -p "$work/deb" "$work/driver" "$work/out/modules"
    # The sandboxed downloader of apt has to be able to write there.
    chmod 755 "$work" "$work/deb"

    say "fetching $package"
    (cd "$work/deb" && apt-get -q download "$package" >&2 && dpkg-deb -x ./*.deb .)
    cp "$work/deb/boot/vmlinuz-$release" "$work/out/vmlinuz"
    module=$(find "$work/deb" -name 'uio.ko*')
    case $module in
    *.xz) xz -dc "$module" >"$work/out/modules/uio.ko" ;;
    *) cp "$module" "$work/out/modules/uio.ko" ;;
    esac

    say "building the module for $release"
    cp "$guest_driver"/* "$work/driver"
    make -s -C "/usr/src/linux-headers-$release" M="$work/driver" modules >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "the guest's kernel module does not build"
    }
    strip --strip-debug -o "$work/out/modules/pagetrail_uio.ko" "$work/driver/pagetrail_uio.ko"
    mv -T "$work/out" "$1"
    rm -rf "$work"
}

# The versioned package that Debian's kernel for cloud machines is today.
guest_kernel_package() {
    local meta=linux-image-cloud-amd64 package
    command -v apt-get >/dev/null || die "the guest's kernel comes from Debian, by apt-get"
    package=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    if [ -z "$package" ]; then
        as_root apt-get -q update >&2
        package=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    fi
    [ -n "$package" ] || die "apt knows no $meta"
    printf '%s\n' "$package"
}
