# shellcheck shell=bash
# VMs in which Linux tracks dirty pages: an initrd with one program, and QEMU's command line.
#
# Needs common.sh and packages.sh.

# Both are given to VFIO; the first is slow and both reads and writes, the second writes at once.
rig_edu=0000:00:04.0
rig_testdev=0000:00:05.0

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
    *) die "no such IOMMU: $1" ;;
    esac
}

# One that needs no libraries.
rig_busybox() {
    local path=/bin/busybox
    is_static "$path" || need_packages busybox-static
    is_static "$path" || die "$path needs libraries; install busybox-static"
    printf '%s\n' "$path"
}

is_static() {
    [ -x "$1" ] && ! readelf --program-headers "$1" 2>/dev/null | grep -q INTERP
}

# make_rig_initrd OUT PROGRAM ARGUMENT...: an initrd that runs the program, which must need no libraries.
make_rig_initrd() {
    local out=$1 program=$2 tree=$1.d name=${2##*/}
    shift 2
    set -- "/rig/programs/$name" "$@"
    is_static "$program" || die "$program is not a static program"
    mkdir -p "$tree"/{bin,dev,proc,rig/programs,sys,tmp}
    cp "$(rig_busybox)" "$tree/bin/busybox"
    install -m 755 "$root/scripts/rig/init" "$tree/init"
    install -m 755 "$program" "$tree/rig/programs/$name"
    printf '%s\n' "${*@Q}" >"$tree/rig/command"
    (cd "$tree" && find . | cpio --quiet --owner=0:0 -o -H newc) >"$out"
}

# run_rig FOLDER QEMU KERNEL SECONDS: boots FOLDER/initrd, with qemu_arguments and kernel_arguments. Output is the program's, and
# the status as well.
run_rig() {
    local folder=$1 qemu=$2 kernel=$3 seconds=$4 status
    timeout --kill-after=10 "$seconds" "$qemu" \
        -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nodefaults -display none -no-reboot \
        -kernel "$kernel" -initrd "$folder/initrd" \
        -append "console=ttyS0 quiet panic=-1 oops=panic panic_on_warn=1 ${kernel_arguments[*]}" \
        -serial "file:$folder/console" -chardev stdio,id=output,signal=off -serial chardev:output -serial "file:$folder/status" \
        "${qemu_arguments[@]}" </dev/null || true
    status=$(tr -d '\r\n' <"$folder/status")
    if [ -z "$status" ]; then
        tail -n 40 "$folder/console" >&2
        die "the VM has not finished (time limit: $seconds s); above is the end of what its kernel said"
    fi
    return "$status"
}
