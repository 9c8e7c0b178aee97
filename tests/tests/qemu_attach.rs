//! Devices in real guests, without a migration.

mod qemu;

use qemu::play;

#[test]
fn a_guest_in_qemu_as_it_comes_drives_a_device() {
    play("attach-stock");
}

#[test]
fn a_guest_in_qemu_with_the_series_drives_devices() {
    play("attach");
}
