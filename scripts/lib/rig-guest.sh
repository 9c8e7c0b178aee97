# shellcheck shell=bash
# VMs in which Linux tracks dirty pages: an initrd with one program and its files, and QEMU's command line.
#
# Needs common.sh and packages.sh.

# All are given to VFIO. The first is slow and both reads and writes, the second writes at once, the third has data arrive some time
# after it was asked for.
rig_edu=0000:00:04.0
rig_testdev=0000:00:05.0
rig_nvme=0000:00:06.0

# rig_devices FOLDER: sets qemu_devices to them.
rig_devices() {
    # Every block differs from every other, and has no byte that is zero.
    seq -f %0511.0f 1 $((16 << 11)) >"$1/drive"
    qemu_devices=(
        -device "edu,addr=4.0,dma_mask=0xffffffffffffffff"
        -device "iommu-testdev,addr=5.0"
        # So slow that there is time to read dirty bits between request and data.
        -drive "file=$1/drive,if=none,id=drive,format=raw,throttling.iops-total=4000"
        -device "nvme,addr=6.0,drive=drive,serial=rig"
    )
}

# rig_iommu_arguments IOMMU: sets qemu_iommu and kernel_iommu.
rig_iommu_arguments() {
    case $1 in
    intel)
        qemu_iommu=(-device intel-iommu,scalable-mode=on,aw-bits=48,x-slads=on)
        kernel_iommu=(intel_iommu=on)
        ;;
    amd)
        qemu_iommu=(-device amd-iommu,dma-remap=on,x-hd=on)
        # Linux knows of no interrupt remapping for this machine's I/O APIC.
        kernel_iommu=(iommufd.allow_unsafe_interrupts=1)
        ;;
    plain)
        # Page tables without dirty bits, and interrupts that anybody's device could forge.
        qemu_iommu=(-device intel-iommu,scalable-mode=on,aw-bits=48)
        kernel_iommu=(intel_iommu=on intremap=off)
        ;;
    none)
        qemu_iommu=()
        kernel_iommu=()
        ;;
    *) die "no such IOMMU: $1" ;;
    esac
}

# The adapter's physical function: behind a port of its own, so that each virtual function is in an IOMMU group of its own.
rig_mlx5=0000:01:00.0
rig_mlx5_most=7

# rig_mlx5_arguments COUNT: sets qemu_mlx5 and kernel_mlx5, for so many virtual functions or, if there are none, for no adapter.
rig_mlx5_arguments() {
    qemu_mlx5=() kernel_mlx5=()
    case $1 in
    0) return ;;
    [1-"$rig_mlx5_most"]) ;;
    *) die "not a number of virtual functions from 0 to $rig_mlx5_most: $1" ;;
    esac
    qemu_mlx5=(
        -device "pcie-root-port,id=mlx5-port,addr=7.0"
        # Ends at a command that it does not know. rig-check knows how many pages it can log.
        -device "mlx5-rig,bus=mlx5-port,max-vfs=$rig_mlx5_most,log-pages=16384,strict=on"
    )
    kernel_mlx5=("rig.mlx5=$rig_mlx5,$1")
}

# rig_vfs COUNT: the addresses of so many virtual functions, one to a line.
rig_vfs() {
    seq -f "${rig_mlx5%.*}.%g" 1 "$1"
}

# One that needs no libraries.
rig_busybox() {
    local path=/bin/busybox
    is_static "$path" || need_packages busybox-static
    is_static "$path" || die "$path needs libraries; install busybox-static"
    printf '%s\n' "$path"
}

is_static() {
    [ -x "$1" ] && ! needs_libraries "$1"
}

needs_libraries() {
    readelf --program-headers "$1" 2>/dev/null | grep -q INTERP
}

# begin_rig_tree TREE: the folder that becomes an initrd, with nothing to run yet.
begin_rig_tree() {
    mkdir -p "$1"/{bin,dev,proc,rig/files,sys,tmp}
    cp "$(rig_busybox)" "$1/bin/busybox"
    install -m 755 "$root/scripts/rig/init" "$1/init"
}

# add_rig_file TREE SOURCE DESTINATION: with the libraries that it needs, where they are here.
add_rig_file() {
    local tree=$1 source=$2 destination=$3 libraries library
    [ -f "$source" ] || die "no such file: $source"
    case $destination in
    /*) ;;
    *) die "not a path from the root of the VM: $destination" ;;
    esac
    install -D -m "$(stat -c %a "$source")" "$source" "$tree$destination"
    needs_libraries "$source" || return 0
    # Its interpreter is among them.
    libraries=$(ldd "$source")
    ! grep 'not found' <<<"$libraries" >&2 || die "$source lacks libraries"
    while read -r library; do
        [ -e "$tree$library" ] || install -D -m 755 "$library" "$tree$library"
    done < <(grep -oE '/[^ ]+ \(' <<<"$libraries" | cut -d' ' -f1)
}

# end_rig_tree TREE OUT COMMAND...: the initrd, which runs the command.
end_rig_tree() {
    local tree=$1 out=$2
    shift 2
    printf '%s\n' "${*@Q}" >"$tree/rig/command"
    (cd "$tree" && find . | cpio --quiet --owner=0:0 -o -H newc) >"$out"
}

# run_rig FOLDER QEMU KERNEL SECONDS: boots FOLDER/initrd, with rig_memory, qemu_arguments and kernel_arguments. Output is the program's, and
# the status as well.
run_rig() {
    local folder=$1 qemu=$2 kernel=$3 seconds=$4 status
    # no_timer_check: on a busy host the timer is too late for the kernel, which panics.
    timeout --kill-after=10 "$seconds" "$qemu" \
        -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m "$rig_memory" -nodefaults -display none -no-reboot \
        -kernel "$kernel" -initrd "$folder/initrd" \
        -append "console=ttyS0 quiet panic=-1 oops=panic panic_on_warn=1 no_timer_check ${kernel_arguments[*]}" \
        -serial "file:$folder/console" -chardev stdio,id=output,signal=off -serial chardev:output -serial "file:$folder/status" \
        ${qemu_arguments[@]+"${qemu_arguments[@]}"} </dev/null || true
    status=$(tr -d '\r\n' <"$folder/status") || die "QEMU has not started"
    if [ -z "$status" ]; then
        tail -n 40 "$folder/console" >&2
        die "the VM has not finished (time limit: $seconds s); above is the end of what its kernel said"
    fi
    return "$status"
}
