# shellcheck shell=bash
# Huge pages for the tests that need some.
#
# Needs common.sh.

# Of 2 MiB, as the tests want them.
huge_page_pool=/sys/kernel/mm/hugepages/hugepages-2048kB

# As many as a test needs at a time.
huge_pages_needed=4

enough_huge_pages() {
    [ "$(cat "$huge_page_pool/free_hugepages" 2>/dev/null || echo 0)" -ge "$huge_pages_needed" ]
}

# set_huge_pages COUNT
set_huge_pages() {
    printf '%s\n' "$1" | as_root tee "$huge_page_pool/nr_hugepages" >/dev/null 2>&1 || true
}

# Reserves what is missing, until the script ends. Says so if that cannot be done, and has those tests left out.
with_huge_pages() {
    local before
    enough_huge_pages && return
    before=$(cat "$huge_page_pool/nr_hugepages" 2>/dev/null || echo 0)
    set_huge_pages $((before + huge_pages_needed))
    # shellcheck disable=SC2064 # The number as it is now.
    trap "set_huge_pages $before" EXIT
    enough_huge_pages && return
    say "no huge pages can be reserved here: the tests that need them are left out"
    export PAGETRAIL_TEST_HUGE_PAGES=none
}
