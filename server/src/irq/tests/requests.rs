//! Which requests are accepted, and that none does harm.

use proptest::prelude::*;

use super::*;

#[test]
fn info_is_the_kernels_with_msi_maskable_and_resizable() {
    let interrupts = interrupts();
    let info = |index| interrupts.info(index).map(|info| (info.flags, info.count));
    assert_eq!(info(INTX), Some((0b111, 1)));
    assert_eq!(info(MSI), Some((0b011, 4)));
    assert_eq!(info(MSIX), Some((0b011, 8)));
    assert_eq!(info(ERR), Some((0b001, 1)));
    assert_eq!(info(REQ), Some((0b001, 1)));
    assert_eq!(info(5), None);
}

#[test]
fn one_of_intx_msi_and_msix_is_enabled_at_a_time() {
    let vectors = eventfds::<1>();
    for first in [INTX, MSI, MSIX] {
        for second in [INTX, MSI, MSIX] {
            let interrupts = interrupts();
            interrupts.connect(first, 0, &vectors).unwrap();
            assert_eq!(interrupts.connect(second, 0, &vectors).is_ok(), first == second);
            interrupts.disable(first).unwrap();
            interrupts.connect(second, 0, &vectors).unwrap();
        }
    }
}

#[test]
fn an_index_that_is_not_enabled_can_only_be_enabled() {
    let interrupts = interrupts();
    for index in [INTX, MSI, MSIX] {
        assert_eq!(refused(interrupts.disable(index)), Errno::INVAL);
        for action in [IrqAction::Mask, IrqAction::Unmask, IrqAction::Trigger] {
            assert_eq!(refused(interrupts.act(index, 0, 1, action)), Errno::INVAL);
        }
    }
    assert_eq!(
        refused(interrupts.unmask_by(INTX, &eventfds::<1>())),
        Errno::INVAL
    );
    for index in [ERR, REQ] {
        assert_eq!(refused(interrupts.disable(index)), Errno::INVAL);
        assert_eq!(
            refused(interrupts.act(index, 0, 1, IrqAction::Trigger)),
            Errno::INVAL
        );
    }
}

#[test]
fn a_range_beyond_the_index_is_refused() {
    let interrupts = interrupts();
    let vectors = eventfds::<1>();
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    for (start, count) in [
        (8, 1),
        (7, 2),
        (0, 9),
        (u32::MAX, 1),
        (1, u32::MAX),
        (u32::MAX, u32::MAX),
        (8, 0),
    ] {
        assert_eq!(
            refused(interrupts.act(MSIX, start, count, IrqAction::Trigger)),
            Errno::INVAL
        );
    }
    assert_eq!(refused(interrupts.connect(5, 0, &vectors)), Errno::INVAL);
    assert_eq!(refused(interrupts.connect(u32::MAX, 0, &vectors)), Errno::INVAL);
}

#[test]
fn an_index_that_the_device_does_not_have_cannot_be_enabled() {
    let none = Interrupts::new(IrqCounts::default());
    for index in [INTX, MSI, MSIX] {
        assert_eq!(none.info(index).unwrap().count, 0);
        assert_eq!(refused(none.connect(index, 0, &eventfds::<1>())), Errno::INVAL);
    }
}

#[test]
fn nothing_but_disabling_has_an_empty_range() {
    let interrupts = interrupts();
    interrupts.connect(MSIX, 0, &eventfds::<1>()).unwrap();
    assert_eq!(refused(interrupts.act(MSIX, 0, 0, IrqAction::Mask)), Errno::INVAL);
    assert_eq!(refused(interrupts.connect(MSIX, 0, &[])), Errno::INVAL);
    interrupts.disable(MSIX).unwrap();
}

#[test]
fn data_has_one_item_for_each_interrupt() {
    let interrupts = interrupts();
    let vectors = eventfds::<2>();
    let request = |data| SetIrqs {
        index: MSIX,
        start: 0,
        count: 3,
        action: IrqAction::Trigger,
        data,
    };
    assert_eq!(refused(interrupts.set(request(shared(&vectors)))), Errno::INVAL);
    interrupts.connect(MSIX, 0, &vectors).unwrap();
    assert_eq!(
        refused(interrupts.set(request(IrqData::Bool(vec![1; 4])))),
        Errno::INVAL
    );
    assert_eq!(taken(&vectors), [0, 0]);
}

#[test]
fn a_wrong_file_among_the_eventfds_changes_nothing() {
    let interrupts = interrupts();
    let [old, new] = eventfds();
    interrupts.connect(MSIX, 0, std::slice::from_ref(&old)).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let data = IrqData::Eventfds(vec![new.try_clone().unwrap(), pipe.into()]);
    let request = SetIrqs {
        index: MSIX,
        start: 0,
        count: 2,
        action: IrqAction::Trigger,
        data,
    };
    let error = interrupts.set(request).unwrap_err();
    assert!(matches!(error, IrqError::NotEventfd { position: 1 }));
    assert_eq!(error.errno(), Errno::INVAL);
    interrupts.irq().raise(0);
    assert_eq!((take(&old), take(&new)), (1, 0));
}

#[test]
fn what_an_index_cannot_do_is_enotty() {
    let interrupts = interrupts();
    let vectors = eventfds::<1>();
    let mask_by = |index| SetIrqs {
        index,
        start: 0,
        count: 1,
        action: IrqAction::Mask,
        data: shared(&vectors),
    };
    for index in [INTX, MSI, MSIX, ERR, REQ] {
        assert_eq!(refused(interrupts.set(mask_by(index))), Errno::NOTTY);
    }
    for index in [MSI, MSIX, ERR, REQ] {
        assert_eq!(refused(interrupts.unmask_by(index, &vectors)), Errno::NOTTY);
    }
    for index in [ERR, REQ] {
        assert_eq!(
            refused(interrupts.act(index, 0, 1, IrqAction::Mask)),
            Errno::NOTTY
        );
    }
}

#[test]
fn the_error_and_request_interrupts_stand_apart() {
    let interrupts = interrupts();
    let [intx, err, req] = eventfds();
    interrupts.connect(INTX, 0, std::slice::from_ref(&intx)).unwrap();
    interrupts.connect(ERR, 0, std::slice::from_ref(&err)).unwrap();
    interrupts.connect(REQ, 0, std::slice::from_ref(&req)).unwrap();
    interrupts.act(REQ, 0, 1, IrqAction::Trigger).unwrap();
    assert_eq!((take(&intx), take(&err), take(&req)), (0, 0, 1));
    interrupts.disable(REQ).unwrap();
    assert_eq!(
        refused(interrupts.act(REQ, 0, 1, IrqAction::Trigger)),
        Errno::INVAL
    );
    interrupts.irq().raise(0);
    interrupts.act(ERR, 0, 1, IrqAction::Trigger).unwrap();
    assert_eq!((take(&intx), take(&err), take(&req)), (1, 1, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        index: u32,
        start: u32,
        count: u32,
        action: IrqAction,
        data: Kind,
    },
    Raise(u32),
    Clear(u32),
    SetPending(u64),
    Resignal,
}

#[derive(Debug, Clone)]
enum Kind {
    None,
    Bool(Vec<u8>),
    /// As many eventfds.
    Eventfds(usize),
    /// A file among as many eventfds.
    Wrong(usize),
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..10, 1 => any::<u32>(), 1 => u32::MAX - 2..=u32::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        Just(IrqAction::Mask),
        Just(IrqAction::Unmask),
        Just(IrqAction::Trigger)
    ];
    let data = prop_oneof![
        Just(Kind::None),
        prop::collection::vec(any::<u8>(), 0..10).prop_map(Kind::Bool),
        (0usize..10).prop_map(Kind::Eventfds),
        (1usize..4).prop_map(Kind::Wrong),
    ];
    prop_oneof![
        12 => (0u32..7, number(), number(), action, data)
            .prop_map(|(index, start, count, action, data)| Step::Set { index, start, count, action, data }),
        3 => (0u32..64).prop_map(Step::Raise),
        2 => (0u32..64).prop_map(Step::Clear),
        1 => any::<u64>().prop_map(Step::SetPending),
        1 => Just(Step::Resignal),
    ]
}

fn data(kind: Kind) -> IrqData {
    let eventfds = |count| (0..count).map(|_| new_eventfd().unwrap());
    match kind {
        Kind::None => IrqData::None,
        Kind::Bool(flags) => IrqData::Bool(flags),
        Kind::Eventfds(count) => IrqData::Eventfds(eventfds(count).collect()),
        Kind::Wrong(count) => {
            let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            IrqData::Eventfds(eventfds(count - 1).chain([file]).collect())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any requests in any order are answered, and a cause that is pending after them reaches a client that connects.
    #[test]
    fn no_sequence_of_requests_harms_or_loses_a_cause(steps in prop::collection::vec(step(), 1..40)) {
        let interrupts = interrupts();
        let irq = interrupts.irq();
        for step in steps {
            match step {
                Step::Set { index, start, count, action, data: kind } => {
                    let _ = interrupts.set(SetIrqs { index, start, count, action, data: data(kind) });
                }
                Step::Raise(cause) => irq.raise(cause),
                Step::Clear(cause) => irq.clear(cause),
                Step::SetPending(causes) => irq.set_pending(causes),
                Step::Resignal => interrupts.resignal(),
            }
        }
        for index in [INTX, MSI, MSIX] {
            let _ = interrupts.disable(index);
        }
        let vectors = eventfds::<8>();
        interrupts.connect(MSIX, 0, &vectors).unwrap();
        for (number, vector) in vectors.iter().enumerate() {
            let mut causes = 1u64 << number;
            if number == 0 {
                causes |= !0xff;
            }
            prop_assert_eq!(take(vector) > 0, irq.pending() & causes != 0);
        }
    }
}
