//! Any sequence of steps, against sets of pages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::RangeSet;
use crate::iommu::Quiesced;
use crate::iommu::model::LARGE;

/// Pages of the address space.
const END: u64 = 48;

#[derive(Clone, Debug)]
enum Step {
    Map(IovaRange, Access),
    Unmap(prop::sample::Index),
    Write(u64),
    Read(IovaRange),
    Peek(IovaRange),
    Start(Vec<IovaRange>),
    Stop,
    Quiesce,
    Resume,
    Reattach,
}

fn any_range() -> impl Strategy<Value = IovaRange> {
    (0..END, 1..20_u64).prop_map(|(first, count)| pages(first, count.min(END - first)))
}

fn any_step() -> impl Strategy<Value = Step> {
    let access = prop_oneof![3 => Just(Access::Write), 1 => Just(Access::Read)];
    let ranges = proptest::collection::vec(any_range(), 1..4);
    prop_oneof![
        3 => (any_range(), access).prop_map(|(range, access)| Step::Map(range, access)),
        2 => any::<prop::sample::Index>().prop_map(Step::Unmap),
        8 => (0..END).prop_map(Step::Write),
        4 => any_range().prop_map(Step::Read),
        1 => any_range().prop_map(Step::Peek),
        2 => ranges.prop_map(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Quiesce),
        1 => Just(Step::Resume),
        1 => Just(Step::Reattach),
    ]
}

/// The address space, and what should be due in it.
struct Subject {
    control: DirtyControl,
    leaves: Leaves,
    bench: Bench,
    mapped: Vec<(IovaRange, Access)>,
    started: RangeSet,
    due: BTreeSet<u64>,
    quiesced: Option<Quiesced>,
}

impl Subject {
    fn new(control: DirtyControl, leaves: Leaves) -> Self {
        Self {
            control,
            leaves,
            bench: Bench::new(control, leaves),
            mapped: Vec::new(),
            started: RangeSet::default(),
            due: BTreeSet::new(),
            quiesced: None,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Map(range, access) => self.map(*range, *access),
            Step::Unmap(index) => self.unmap(*index),
            Step::Write(page) => self.write(*page)?,
            Step::Read(range) => self.read(*range)?,
            Step::Peek(range) => self.peek(*range)?,
            Step::Start(ranges) => self.start(ranges),
            Step::Stop => self.stop(),
            Step::Quiesce => self.quiesced = Some(self.bench.quiesce()),
            Step::Resume => self.quiesced = None,
            Step::Reattach => self.reattach(),
        }
        Ok(())
    }

    fn map(&mut self, range: IovaRange, access: Access) {
        if self.mapped.iter().any(|(mapped, _)| mapped.overlaps(&range)) {
            return;
        }
        map(&self.bench.ioas, range, access);
        self.mapped.push((range, access));
        if self.control == DirtyControl::PerPte && access == Access::Write {
            self.make_due(range);
        }
    }

    fn unmap(&mut self, index: prop::sample::Index) {
        if self.mapped.is_empty() {
            return;
        }
        let (range, access) = self.mapped.swap_remove(index.index(self.mapped.len()));
        self.bench.ioas.unmap(range).unwrap();
        if self.quiesced.is_none() && access == Access::Write {
            self.make_due(range);
        }
    }

    fn write(&mut self, page: u64) -> Result<(), TestCaseError> {
        let range = pages(page, 1);
        let mapping = self
            .mapped
            .iter()
            .find(|(mapped, _)| mapped.contains(&range))
            .copied();
        let can_write = matches!(mapping, Some((_, Access::Write)));
        if self.quiesced.is_none() {
            prop_assert_eq!(self.bench.device.write(page, 1), can_write);
            if let Some((mapping, Access::Write)) = mapping {
                let large = pages(page & !(LARGE - 1), LARGE);
                let is_large = self.leaves == Leaves::Large && mapping.contains(&large);
                self.make_due(if is_large { large } else { range });
            }
        }
        Ok(())
    }

    fn read(&mut self, range: IovaRange) -> Result<(), TestCaseError> {
        let report = read(range, |report| self.bench.tracker().read_and_clear(report));
        if !self.started.contains(&range) {
            prop_assert!(matches!(report, Err(TrackerError::NotStarted(_))));
            return Ok(());
        }
        prop_assert_eq!(report.unwrap(), self.due_in(range));
        self.due.retain(|page| !range.contains(&pages(*page, 1)));
        Ok(())
    }

    fn peek(&mut self, range: IovaRange) -> Result<(), TestCaseError> {
        if self.started.contains(&range) {
            let report = read(range, |report| self.bench.tracker().peek(report));
            prop_assert_eq!(report.unwrap(), self.due_in(range));
        }
        Ok(())
    }

    fn start(&mut self, ranges: &[IovaRange]) {
        let Ok(wanted) = RangeSet::disjoint(ranges) else {
            return;
        };
        self.bench.start(ranges);
        self.started = wanted;
        let started = &self.started;
        self.due.retain(|page| started.contains(&pages(*page, 1)));
    }

    fn stop(&mut self) {
        self.bench.tracker().stop().unwrap();
        self.started = RangeSet::default();
        self.due.clear();
    }

    /// The page table goes with the device, and another one comes.
    fn reattach(&mut self) {
        self.quiesced = None;
        self.bench.attached = None;
        let attached = self.bench.ioas.attach(self.bench.device.clone(), 1).unwrap();
        self.bench.attached = Some(attached);
    }

    fn make_due(&mut self, range: IovaRange) {
        let started = &self.started;
        self.due
            .extend(page_numbers(range).filter(|page| started.contains(&pages(*page, 1))));
    }

    fn due_in(&self, range: IovaRange) -> Vec<u64> {
        page_numbers(range)
            .filter(|page| self.due.contains(page))
            .collect()
    }
}

fn page_numbers(range: IovaRange) -> impl Iterator<Item = u64> {
    range.start().get() / PAGE..=range.last().get() / PAGE
}

fn check(control: DirtyControl, leaves: Leaves, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut subject = Subject::new(control, leaves);
    subject.start(&[pages(0, END)]);
    for step in steps {
        subject.step(step)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn reports_are_exactly_what_is_due(steps in proptest::collection::vec(any_step(), 1..60)) {
        check(DirtyControl::Global, Leaves::Small, &steps)?;
        check(DirtyControl::Global, Leaves::Large, &steps)?;
        check(DirtyControl::PerPte, Leaves::Small, &steps)?;
    }
}

/// Without this the property might hold of anything.
#[test]
fn the_property_catches_a_dropped_bit() {
    let mut subject = Subject::new(DirtyControl::Global, Leaves::Small);
    subject.bench.machine.set_fault(Fault::DropPage(7));
    subject.start(&[pages(0, END)]);
    subject.map(pages(0, 10), Access::Write);
    subject.write(7).unwrap();
    assert!(subject.read(pages(0, END)).is_err());
}
