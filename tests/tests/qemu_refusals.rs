//! Migrations of VMs that are refused.

mod qemu;

use qemu::play;

#[test]
fn a_device_that_does_not_migrate_blocks_the_migration_of_its_vm() {
    play("unmigratable");
}

#[test]
fn a_destination_with_other_parameters_refuses_the_vm() {
    play("other-parameters");
}

#[test]
fn a_flipped_bit_in_a_device_s_stream_is_refused_by_the_device_s_name() {
    play("flipped-bits");
}

#[test]
fn a_guest_with_an_iommu_migrates_or_is_refused_with_the_reason() {
    play("iommu");
}
