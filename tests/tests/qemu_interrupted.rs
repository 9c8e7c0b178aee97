//! Migrations of VMs that are called off or lose a process on the way.

mod qemu;

use qemu::play;

#[test]
fn a_migration_can_be_called_off_in_every_phase() {
    play("cancel");
}

#[test]
fn a_killed_source_leaves_no_half_guest_behind() {
    play("kill-source-qemu");
}

#[test]
fn a_killed_destination_leaves_the_vm_at_work_at_the_source() {
    play("kill-dest-qemu");
}

#[test]
fn a_killed_server_of_the_source_costs_the_device_alone() {
    play("kill-source-server");
}

#[test]
fn a_killed_server_of_the_destination_leaves_the_vm_at_work_at_the_source() {
    play("kill-dest-server");
}

#[test]
fn a_server_of_the_source_that_is_late_leaves_the_vm_at_work_at_the_source() {
    play("stall-source-server");
}

#[test]
fn a_server_of_the_destination_that_is_late_leaves_the_vm_at_work_at_the_source() {
    play("stall-dest-server");
}
