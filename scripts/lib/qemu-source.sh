# shellcheck shell=bash
# The QEMU tarball: from a folder of sources, from QEMU, or from Debian.
#
# Needs common.sh.

qemu_version=11.1.1
qemu_upstream_tarball=qemu-$qemu_version.tar.xz
qemu_upstream_sha256=079ffbff8a7111bbc89022107cbabf3bbfd614d5fc9d7cc675991196aca12482
# Debian repacks the tarball without the firmware that it builds itself.
qemu_debian_tarball=qemu_$qemu_version+ds.orig.tar.xz
qemu_debian_sha256=0b1376e75dbe3e2fea4e408f8669f88a723f419f36a5b7d74cc6a4cfe07e4f5e

# Prints the path of a tarball, after fetching it if there is none.
qemu_tarball() {
    local own
    own=$(cache_dir)/sources
    if [ -n "${PAGETRAIL_SOURCES:-}" ] && qemu_tarball_in "$PAGETRAIL_SOURCES"; then
        return
    fi
    if qemu_tarball_in "$own"; then
        return
    fi
    mkdir -p "$own"
    fetch_from_qemu "$own" || fetch_from_debian "$own" ||
        die "no QEMU tarball: put $qemu_upstream_tarball or $qemu_debian_tarball into a folder and set PAGETRAIL_SOURCES to it"
    qemu_tarball_in "$own"
}

# qemu_tarball_in DIR: prints the path of the tarball in it, in either form, if it is in order.
qemu_tarball_in() {
    if has_sum "$1/$qemu_upstream_tarball" "$qemu_upstream_sha256"; then
        printf '%s\n' "$1/$qemu_upstream_tarball"
    elif has_sum "$1/$qemu_debian_tarball" "$qemu_debian_sha256"; then
        printf '%s\n' "$1/$qemu_debian_tarball"
    else
        return 1
    fi
}

# has_sum FILE SHA256
has_sum() {
    [ -f "$1" ] || return 1
    sha256sum --check --status <<<"$2  $1" || {
        say "$1 does not have the right SHA-256; not used"
        return 1
    }
}

# download URL FILE SHA256: FILE is there only when it is complete and right.
download() {
    local part=$2.part
    if curl --fail --location --silent --show-error --connect-timeout 20 --speed-limit 1000 --speed-time 60 \
        --retry 2 --output "$part" "$1" && has_sum "$part" "$3"; then
        mv "$part" "$2"
    else
        rm -f "$part"
        return 1
    fi
}

fetch_from_qemu() {
    local url=https://download.qemu.org/$qemu_upstream_tarball
    say "fetching $url (about 140 MB)"
    download "$url" "$1/$qemu_upstream_tarball" "$qemu_upstream_sha256"
}

# The pools of the Debian archives that apt is configured with: an orig tarball stays there as long as some suite has it.
fetch_from_debian() {
    local site
    command -v apt-get >/dev/null || return 1
    while read -r site; do
        say "fetching $qemu_debian_tarball from ${site%/} (about 40 MB)"
        download "${site%/}/pool/main/q/qemu/${qemu_debian_tarball/+/%2B}" "$1/$qemu_debian_tarball" \
            "$qemu_debian_sha256" && return
    done < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sort -u)
    return 1
}
