//! The pin.

use super::*;

fn enabled() -> (Interrupts, OwnedFd) {
    let interrupts = interrupts();
    let [eventfd] = eventfds();
    interrupts
        .connect(INTX, 0, std::slice::from_ref(&eventfd))
        .unwrap();
    (interrupts, eventfd)
}

#[test]
fn an_assertion_is_signalled_once_until_unmasked() {
    let (interrupts, eventfd) = enabled();
    interrupts.irq().raise(3);
    interrupts.irq().raise(5);
    interrupts.irq().clear(5);
    interrupts.irq().raise(5);
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn unmasking_signals_again_while_a_cause_is_pending() {
    let (interrupts, eventfd) = enabled();
    interrupts.irq().raise(3);
    assert_eq!(take(&eventfd), 1);
    interrupts.act(INTX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!(take(&eventfd), 1);
    interrupts.irq().clear(3);
    interrupts.act(INTX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!(take(&eventfd), 0);
    interrupts.irq().raise(3);
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn a_masked_pin_is_silent_and_speaks_when_unmasked() {
    let (interrupts, eventfd) = enabled();
    interrupts.act(INTX, 0, 1, IrqAction::Mask).unwrap();
    interrupts.irq().raise(0);
    assert_eq!(take(&eventfd), 0);
    interrupts.act(INTX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn a_cause_raised_before_the_pin_was_enabled_is_signalled_when_it_is() {
    let interrupts = interrupts();
    let [eventfd] = eventfds();
    interrupts.irq().raise(63);
    interrupts
        .connect(INTX, 0, std::slice::from_ref(&eventfd))
        .unwrap();
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn a_new_eventfd_does_not_unmask_the_pin() {
    let (interrupts, eventfd) = enabled();
    interrupts.irq().raise(0);
    let [newer] = eventfds();
    interrupts.disconnect(INTX, 0, 1).unwrap();
    interrupts.connect(INTX, 0, std::slice::from_ref(&newer)).unwrap();
    assert_eq!((take(&eventfd), take(&newer)), (1, 0));
    interrupts.act(INTX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!((take(&eventfd), take(&newer)), (0, 1));
}

#[test]
fn a_disabled_pin_is_silent_and_enabled_again_unmasked() {
    let (interrupts, eventfd) = enabled();
    interrupts.irq().raise(0);
    interrupts.disable(INTX).unwrap();
    interrupts.irq().raise(1);
    assert_eq!(take(&eventfd), 1);
    interrupts
        .connect(INTX, 0, std::slice::from_ref(&eventfd))
        .unwrap();
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn leaving_resuming_signals_though_the_pin_masked_itself() {
    let (interrupts, eventfd) = enabled();
    interrupts.irq().set_pending(0b100);
    assert_eq!(take(&eventfd), 0);
    interrupts.resignal();
    assert_eq!(take(&eventfd), 1);
    interrupts.resignal();
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn leaving_resuming_does_not_signal_what_the_client_masked() {
    let (interrupts, eventfd) = enabled();
    interrupts.act(INTX, 0, 1, IrqAction::Mask).unwrap();
    interrupts.irq().set_pending(1);
    interrupts.resignal();
    assert_eq!(take(&eventfd), 0);
    interrupts.act(INTX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!(take(&eventfd), 1);
}

#[test]
fn an_eventfd_unmasks_each_time_that_it_is_signalled() {
    let (interrupts, eventfd) = enabled();
    let unmask = eventfds::<1>();
    interrupts.unmask_by(INTX, &unmask).unwrap();
    interrupts.irq().raise(0);
    assert_eq!(wait(&eventfd, LONG), 1);
    for _ in 0..3 {
        rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
        assert_eq!(wait(&eventfd, LONG), 1, "still pending");
    }
    interrupts.irq().clear(0);
    rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
    assert_eq!(wait(&eventfd, Duration::from_millis(50)), 0, "nothing pending");
    interrupts.irq().raise(0);
    assert_eq!(wait(&eventfd, LONG), 1);
}

#[test]
fn an_unmasking_eventfd_taken_away_unmasks_no_more() {
    let (interrupts, eventfd) = enabled();
    let unmask = eventfds::<1>();
    interrupts.unmask_by(INTX, &unmask).unwrap();
    interrupts.unmask_by(INTX, &[]).unwrap();
    interrupts.irq().raise(0);
    assert_eq!(take(&eventfd), 1);
    rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
    assert_eq!(wait(&eventfd, Duration::from_millis(50)), 0);
    assert_eq!(take(&unmask[0]), 1, "nobody read it");
}

#[test]
fn an_unmasking_eventfd_ends_with_the_pin_and_with_the_connection() {
    let (interrupts, eventfd) = enabled();
    let unmask = eventfds::<1>();
    interrupts.unmask_by(INTX, &unmask).unwrap();
    interrupts.disable(INTX).unwrap();
    interrupts
        .connect(INTX, 0, std::slice::from_ref(&eventfd))
        .unwrap();
    rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
    assert_eq!(wait(&unmask[0], LONG), 1, "nobody read it");
    interrupts.unmask_by(INTX, &unmask).unwrap();
    let irq = interrupts.irq();
    drop(interrupts);
    rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
    assert_eq!(wait(&unmask[0], LONG), 1, "nobody read it");
    irq.raise(0);
}

#[test]
fn a_blocking_unmasking_eventfd_that_others_read_does_not_hold_the_server() {
    use rustix::event::{EventfdFlags, eventfd};

    let (interrupts, _eventfd) = enabled();
    let unmask = [eventfd(0, EventfdFlags::CLOEXEC).unwrap()];
    for _ in 0..50 {
        interrupts.unmask_by(INTX, &unmask).unwrap();
        rustix::io::write(&unmask[0], &1u64.to_ne_bytes()).unwrap();
        // Takes it back, now before the server's thread has read it and now after; the next round ends that thread.
        let mut count = [0; 8];
        let mut buffers = [std::io::IoSliceMut::new(&mut count)];
        let _ = rustix::io::preadv2(
            &unmask[0],
            &mut buffers,
            u64::MAX,
            rustix::io::ReadWriteFlags::NOWAIT,
        );
    }
    interrupts.disable(INTX).unwrap();
}

#[test]
fn loopback_signals_and_does_not_mask() {
    let (interrupts, eventfd) = enabled();
    interrupts.act(INTX, 0, 1, IrqAction::Trigger).unwrap();
    interrupts.act(INTX, 0, 1, IrqAction::Trigger).unwrap();
    assert_eq!(take(&eventfd), 2);
    interrupts.irq().raise(0);
    assert_eq!(take(&eventfd), 1);
}
