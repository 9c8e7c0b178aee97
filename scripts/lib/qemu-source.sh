# shellcheck shell=bash
# The QEMU tarball: from a folder of sources, from QEMU, or from Debian.
#
# Needs common.sh.

qemu_version=11.1.1
# Debian repacks the tarball without firmware that it builds itself. Its sum is known; QEMU signs its tarball and publishes no
# sum, so what is taken out of that one has to be checked by the one who takes it.
qemu_debian_tarball=qemu_$qemu_version+ds.orig.tar.xz
qemu_debian_sha256=0b1376e75dbe3e2fea4e408f8669f88a723f419f36a5b7d74cc6a4cfe07e4f5e
qemu_upstream_tarball=qemu-$qemu_version.tar.xz
qemu_upstream_url=https://download.qemu.org/$qemu_upstream_tarball

# Prints the path of a tarball, after fetching it if there is none.
qemu_tarball() {
    local dir
    for dir in "${PAGETRAIL_SOURCES:-}" "$(cache_dir)/sources"; do
        [ -z "$dir" ] || qemu_tarball_in "$dir" && return
    done
    mkdir -p "$dir"
    fetch_from_qemu "$dir" || fetch_from_debian "$dir" ||
        die "no QEMU tarball: put $qemu_upstream_tarball or $qemu_debian_tarball into a folder and set PAGETRAIL_SOURCES to it"
    qemu_tarball_in "$dir" || die "the QEMU tarball that was fetched is not what it should be"
}

# qemu_tarball_in DIR: prints the path of the tarball in it that is in order.
qemu_tarball_in() {
    local debian=$1/$qemu_debian_tarball upstream=$1/$qemu_upstream_tarball
    if [ -f "$debian" ]; then
        if sha256sum --check --status <<<"$qemu_debian_sha256  $debian"; then
            printf '%s\n' "$debian"
            return
        fi
        say "$debian is damaged; not used"
    fi
    [ -f "$upstream" ] && printf '%s\n' "$upstream"
}

# download URL FILE: FILE is there only when it is complete.
download() {
    local part=$2.part
    if curl --fail --location --silent --show-error --connect-timeout 20 --retry 2 --output "$part" "$1"; then
        mv "$part" "$2"
    else
        rm -f "$part"
        return 1
    fi
}

fetch_from_qemu() {
    say "fetching $qemu_upstream_url (about 140 MB)"
    download "$qemu_upstream_url" "$1/$qemu_upstream_tarball"
}

# The pools of the Debian archives that apt is configured with: an orig tarball stays there as long as some suite has it.
fetch_from_debian() {
    local site
    command -v apt-get >/dev/null || return 1
    while read -r site; do
        say "fetching $qemu_debian_tarball from ${site%/} (about 90 MB)"
        download "${site%/}/pool/main/q/qemu/${qemu_debian_tarball/+/%2B}" "$1/$qemu_debian_tarball" && return
    done < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sort -u)
    return 1
}
