//! Migrations of VMs with real guests that arrive.

mod qemu;

use qemu::play;

#[test]
fn a_vm_with_an_idle_device_migrates() {
    play("idle");
}

#[test]
fn a_vm_whose_device_writes_flat_out_loses_no_page() {
    play("flat-out");
}

#[test]
fn four_devices_that_share_an_address_space_lose_no_page() {
    play("four-devices");
}

#[test]
fn devices_of_two_server_processes_lose_no_page() {
    play("two-processes");
}

#[test]
fn a_migration_over_several_connections_loses_no_page() {
    play("multifd");
}

#[test]
fn a_vm_goes_to_a_file_and_comes_back() {
    play("file");
}

#[test]
fn ten_migrations_in_a_row_lose_no_page() {
    play("ten-hops");
}
