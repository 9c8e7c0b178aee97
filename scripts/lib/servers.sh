# shellcheck shell=bash
# Device servers for scripts: started in the background, stopped at the end. Needs lib/common.sh.
# shellcheck disable=SC2154

server_pids=()

# Where cargo puts what it builds.
target_dir() {
    (cd "$root" && cargo metadata --format-version=1 --no-deps) | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# vm_config NAME SOCKET...: the configuration of a host with one VM, and a dma device at each socket.
vm_config() {
    local name=$1 socket
    shift
    printf '[[vm]]\nname = "%s"\n' "$name"
    for socket in "$@"; do
        printf '\n[[vm.device]]\nkind = "dma"\nsocket-path = "%s"\nworkers = 2\n' "$socket"
    done
}

# start_server PAGETRAIL FOLDER NAME DEVICES: one process, one VM, sockets FOLDER/NAME0.sock and so on.
start_server() {
    local pagetrail=$1 folder=$2 name=$3 devices=$4 i
    local sockets=()
    for ((i = 0; i < devices; i++)); do
        sockets+=("$folder/$name$i.sock")
    done
    vm_config "$name" "${sockets[@]}" >"$folder/$name.toml"
    "$pagetrail" --log=warn serve "$folder/$name.toml" &
    server_pids+=("$!")
    for ((i = 0; i < devices; i++)); do
        wait_for_socket "$folder/$name$i.sock" "$!"
    done
}

wait_for_socket() {
    local socket=$1 pid=$2 tries
    for ((tries = 0; tries < 100; tries++)); do
        [ -S "$socket" ] && return 0
        kill -0 "$pid" 2>/dev/null || die "the server ended before $socket was there"
        sleep 0.1
    done
    die "no $socket after 10 s"
}

stop_servers() {
    local pid
    for pid in ${server_pids[@]+"${server_pids[@]}"}; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in ${server_pids[@]+"${server_pids[@]}"}; do
        wait "$pid" 2>/dev/null || true
    done
    server_pids=()
}
