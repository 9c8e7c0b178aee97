//! Things that happen to a guest around its migration.

mod qemu;

use qemu::play;

#[test]
fn a_device_reset_during_precopy_loses_no_page() {
    play("device-reset");
}

#[test]
fn a_reboot_during_precopy_loses_no_page() {
    play("reboot");
}

#[test]
fn a_device_is_plugged_before_and_unplugged_after_but_not_during_a_migration() {
    play("hot-plug");
}

#[test]
fn an_interrupt_that_is_pending_at_the_switch_over_comes_again() {
    play("pending-interrupts");
}
