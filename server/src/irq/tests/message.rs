//! MSI and MSI-X.

use super::*;

#[test]
fn a_cause_signals_its_vector_when_it_becomes_pending_and_not_again() {
    let interrupts = interrupts();
    let vectors = eventfds::<8>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    let irq = interrupts.irq();
    irq.raise(2);
    irq.raise(2);
    assert_eq!(irq.pending(), 0b100);
    assert_eq!(taken(&vectors), [0, 0, 1, 0, 0, 0, 0, 0]);
    irq.clear(2);
    irq.raise(2);
    assert_eq!(taken(&vectors), [0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_cause_without_a_vector_of_its_own_signals_vector_0() {
    let interrupts = interrupts();
    let vectors = eventfds::<2>();
    interrupts.connect(MSI, 0, &vectors).unwrap();
    interrupts.irq().raise(1);
    interrupts.irq().raise(2);
    interrupts.irq().raise(63);
    assert_eq!(taken(&vectors), [2, 1]);
}

#[test]
fn an_msix_vector_that_the_driver_has_not_unmasked_keeps_its_causes_to_itself() {
    let interrupts = interrupts();
    let vectors = eventfds::<2>();
    // As QEMU does it: enabled without eventfds, each connected when the driver unmasks it.
    interrupts.disconnect(MSIX, 0, 1).unwrap();
    interrupts.connect(MSIX, 0, &vectors[..1]).unwrap();
    interrupts.irq().raise(5);
    assert_eq!(taken(&vectors), [0, 0]);
    interrupts.connect(MSIX, 5, &vectors[1..]).unwrap();
    assert_eq!(taken(&vectors), [0, 1]);
}

#[test]
fn vectors_connected_in_several_requests_are_enabled_together() {
    let interrupts = interrupts();
    let vectors = eventfds::<4>();
    interrupts.connect(MSI, 0, &vectors[..2]).unwrap();
    interrupts.disconnect(MSI, 2, 1).unwrap();
    interrupts.connect(MSI, 3, &vectors[3..]).unwrap();
    interrupts.irq().raise(3);
    assert_eq!(taken(&vectors), [0, 0, 0, 1]);
}

#[test]
fn causes_raised_before_a_vector_was_connected_are_signalled_when_it_is() {
    let interrupts = interrupts();
    let vectors = eventfds::<3>();
    interrupts.irq().raise(1);
    interrupts.irq().raise(2);
    interrupts.irq().clear(2);
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    assert_eq!(taken(&vectors), [0, 1, 0]);
}

#[test]
fn another_eventfd_for_a_connected_vector_is_not_signalled_for_what_the_first_one_was() {
    let interrupts = interrupts();
    let [first, second] = eventfds();
    interrupts.connect(MSIX, 0, std::slice::from_ref(&first)).unwrap();
    interrupts.irq().raise(0);
    interrupts
        .connect(MSIX, 0, std::slice::from_ref(&second))
        .unwrap();
    assert_eq!((take(&first), take(&second)), (1, 0));
    interrupts.irq().clear(0);
    interrupts.irq().raise(0);
    assert_eq!((take(&first), take(&second)), (0, 1));
}

#[test]
fn an_eventfd_taken_away_is_not_signalled_and_the_cause_is_not_lost() {
    let interrupts = interrupts();
    let vectors = eventfds::<2>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.disconnect(MSIX, 1, 1).unwrap();
    interrupts.irq().raise(1);
    assert_eq!(taken(&vectors), [0, 0]);
    interrupts.connect(MSIX, 1, &vectors[1..]).unwrap();
    assert_eq!(taken(&vectors), [0, 1]);
}

#[test]
fn a_masked_vector_withholds_its_signal_until_unmasked() {
    let interrupts = interrupts();
    let vectors = eventfds::<3>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.act(MSIX, 0, 3, IrqAction::Mask).unwrap();
    interrupts.irq().raise(0);
    interrupts.irq().raise(1);
    interrupts.irq().clear(1);
    assert_eq!(taken(&vectors), [0, 0, 0]);
    interrupts.act(MSIX, 0, 3, IrqAction::Unmask).unwrap();
    assert_eq!(
        taken(&vectors),
        [1, 0, 0],
        "a cause that went away meanwhile is not signalled"
    );
    interrupts.irq().raise(1);
    assert_eq!(taken(&vectors), [0, 1, 0]);
}

#[test]
fn unmasking_does_not_repeat_a_signal_sent_before_masking() {
    let interrupts = interrupts();
    let vectors = eventfds::<1>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.irq().raise(0);
    interrupts.act(MSIX, 0, 1, IrqAction::Mask).unwrap();
    interrupts.act(MSIX, 0, 1, IrqAction::Unmask).unwrap();
    assert_eq!(taken(&vectors), [1]);
}

#[test]
fn masks_end_with_the_index() {
    let interrupts = interrupts();
    let vectors = eventfds::<1>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.act(MSIX, 0, 1, IrqAction::Mask).unwrap();
    interrupts.disable(MSIX).unwrap();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.irq().raise(0);
    assert_eq!(taken(&vectors), [1]);
}

#[test]
fn booleans_choose_the_vectors() {
    let interrupts = interrupts();
    let vectors = eventfds::<4>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    let data = IrqData::Bool(vec![1, 0, 255]);
    interrupts
        .set(SetIrqs {
            index: MSIX,
            start: 1,
            count: 3,
            action: IrqAction::Trigger,
            data,
        })
        .unwrap();
    assert_eq!(taken(&vectors), [0, 1, 0, 1]);
}

#[test]
fn leaving_resuming_signals_every_pending_vector() {
    let interrupts = interrupts();
    let vectors = eventfds::<8>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    interrupts.act(MSIX, 2, 1, IrqAction::Mask).unwrap();
    interrupts.irq().set_pending(1 << 1 | 1 << 2 | 1 << 7);
    assert_eq!(taken(&vectors), [0; 8]);
    interrupts.resignal();
    assert_eq!(taken(&vectors), [0, 1, 0, 0, 0, 0, 0, 1]);
    interrupts.act(MSIX, 2, 1, IrqAction::Unmask).unwrap();
    assert_eq!(take(&vectors[2]), 1);
}

/// Devices' threads raise while a client connects: each cause is signalled, whoever comes first.
#[test]
fn no_cause_is_lost_between_raising_and_connecting() {
    for _ in 0..500 {
        let interrupts = interrupts();
        let vectors = eventfds::<4>();
        std::thread::scope(|scope| {
            let irq = interrupts.irq();
            scope.spawn(move || (0..4).for_each(|cause| irq.raise(cause)));
            interrupts.connect(MSIX, 0, &vectors).unwrap();
        });
        assert!(vectors.iter().all(|vector| take(vector) > 0));
    }
}
