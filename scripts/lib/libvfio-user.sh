# shellcheck shell=bash
# The sources of libvfio-user: taken from the QEMU tarball, checked, patched, and kept in the cache.
#
# Needs common.sh and qemu-source.sh.

manifest=$root/vfio-user-sys/libvfio-user.sha256

# The patched sources' directory. Its name changes with every input; vfio-user-sys/build.rs has the same rule.
libvfio_user_dir() {
    local key
    key=$(LC_ALL=C && cat "$manifest" "$root"/vfio-user-sys/patches/*.patch | sha256sum | cut -c1-16)
    printf '%s/libvfio-user-%s\n' "$(cache_dir)" "$key"
}

# The sources as QEMU ships them.
libvfio_user_pristine_dir() {
    printf '%s/libvfio-user-pristine-%s\n' "$(cache_dir)" "$(sha256sum "$manifest" | cut -c1-16)"
}

# Both directories are made elsewhere and renamed into place, so that one that exists is complete. Call under the cache's lock.
prepare_libvfio_user() {
    local pristine patched
    pristine=$(libvfio_user_pristine_dir)
    patched=$(libvfio_user_dir)
    # What an interrupted run left.
    rm -rf "$(cache_dir)"/{unpack,patch}.*
    [ -d "$pristine" ] || unpack_libvfio_user "$pristine"
    [ -d "$patched" ] || patch_libvfio_user "$pristine" "$patched"
    say "libvfio-user is in $patched"
}

unpack_libvfio_user() {
    local tarball work
    tarball=$(qemu_tarball)
    work=$(mktemp -d "$(cache_dir)/unpack.XXXXXX")
    say "unpacking libvfio-user from ${tarball##*/}"
    tar -xJf "$tarball" -C "$work" --strip-components=3 --wildcards '*/subprojects/libvfio-user/*'
    # Every file that is compiled is in the manifest: both forms of the tarball must hold the same ones.
    (cd "$work" && sha256sum --check --quiet --strict "$manifest") ||
        die "libvfio-user in $tarball is not what it should be"
    mv -T "$work" "$1"
}

patch_libvfio_user() {
    local work patch
    work=$(mktemp -d "$(cache_dir)/patch.XXXXXX")
    cp -r "$1/." "$work"
    for patch in "$root"/vfio-user-sys/patches/*.patch; do
        say "applying ${patch##*/}"
        patch --quiet -p1 --no-backup-if-mismatch -d "$work" <"$patch"
    done
    mv -T "$work" "$2"
}
