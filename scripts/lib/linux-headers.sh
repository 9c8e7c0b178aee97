# shellcheck shell=bash
# The headers of Linux that QEMU ships, newer than those of the distribution: what the ioctls of tracker/ are compared with.
#
# Needs common.sh and qemu-source.sh.

# The headers' directory; tracker/src/iommu/sys/tests.rs has the same rule.
linux_headers_dir() {
    printf '%s/linux-headers-qemu-%s\n' "$(cache_dir)" "$qemu_version"
}

# Made elsewhere and renamed into place, so that one that exists is complete. Call under the cache's lock.
prepare_linux_headers() {
    local headers tarball work
    headers=$(linux_headers_dir)
    [ ! -d "$headers" ] || return 0
    tarball=$(qemu_tarball)
    work=$(mktemp -d "$(cache_dir)/unpack.XXXXXX")
    say "unpacking Linux headers from ${tarball##*/}"
    tar -xJf "$tarball" -C "$work" --strip-components=2 --wildcards '*/linux-headers/linux/iommufd.h' \
        '*/linux-headers/linux/vfio.h'
    mv -T "$work" "$headers"
}
