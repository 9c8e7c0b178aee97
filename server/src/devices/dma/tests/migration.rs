//! A device that is moved at any moment goes on where it stopped: nothing is done twice, nothing is left out.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::generator::replay;
use super::restore::replaced;
use super::rig::{COMP_BASE, DATA, Driver, GENERATOR, Rig, copy, crc, fill, noise, notifying, reg};
use crate::devices::dma::layout::Descriptor;

/// The generator's window ends where the sources begin.
const WINDOW_PAGES: u64 = 64;
const SOURCE: u64 = DATA + WINDOW_PAGES * 4096;
const SOURCE_LEN: u64 = 0x8_0000;
/// Each job has a destination of its own from here on.
const DEST: u64 = SOURCE + SOURCE_LEN;
const MAX_LEN: u64 = 0x4_0000;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Copy,
    Fill,
    Crc,
}

#[derive(Debug, Clone)]
struct Job {
    kind: Kind,
    offset: u64,
    len: u64,
}

impl Job {
    fn descriptor(&self, number: usize) -> Descriptor {
        let (source, dest) = (SOURCE + self.offset, DEST + number as u64 * MAX_LEN);
        let descriptor = match self.kind {
            Kind::Copy => copy(source, dest, self.len),
            Kind::Fill => fill(self.offset, dest, self.len),
            Kind::Crc => crc(source, self.len),
        };
        notifying(Descriptor {
            cookie: (number as u64).into(),
            ..descriptor
        })
    }

    /// What the destination and `RESULT` must be.
    fn expected(&self, source: &[u8]) -> (Vec<u8>, u64) {
        let source = &source[self.offset as usize..(self.offset + self.len) as usize];
        match self.kind {
            Kind::Copy => (source.to_vec(), self.len),
            Kind::Fill => {
                let pattern = self.offset.to_le_bytes();
                (pattern.into_iter().cycle().take(source.len()).collect(), self.len)
            }
            Kind::Crc => (Vec::new(), crc32c::crc32c(source).into()),
        }
    }
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let kind = prop_oneof![Just(Kind::Copy), Just(Kind::Fill), Just(Kind::Crc)];
    let job = (kind, 0..SOURCE_LEN - MAX_LEN, 0..=MAX_LEN);
    prop::collection::vec(
        job.prop_map(|(kind, offset, len)| Job { kind, offset, len }),
        1..20,
    )
}

/// Migrations, each after so many completions and then so many microseconds.
fn moments() -> impl Strategy<Value = Vec<(u32, u64)>> {
    prop::collection::vec((0..6_u32, 0..400_u64), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_completion_arrives_exactly_once_and_says_the_truth(
        jobs in jobs(),
        moments in moments(),
        lanes in 1..5_u32,
        entries in prop_oneof![Just(2_u32), Just(4), Just(16)],
        seed: u64,
    ) {
        let source = noise(SOURCE_LEN as usize, seed);
        let mut rig = Rig::new(lanes);
        rig.memory.write(SOURCE, &source);
        let mut driver = Driver::enable(&rig, entries);
        rig.start_generator(WINDOW_PAGES, seed, 0, 0);

        let mut moments = moments.into_iter().peekable();
        let mut results = vec![None; jobs.len()];
        let mut pushed = 0;
        let mut since_last_move = 0;
        while results.iter().any(Option::is_none) {
            while pushed < jobs.len() && driver.outstanding() < entries {
                driver.push(&rig, &jobs[pushed].descriptor(pushed));
                pushed += 1;
            }
            rig.store_mapped(reg::RING_TAIL, driver.published);
            if let Some((_, delay)) = moments.next_if(|(completions, _)| since_last_move >= *completions) {
                std::thread::sleep(std::time::Duration::from_micros(delay));
                rig = rig.migrate(lanes);
                since_last_move = 0;
            }
            let done = driver.wait(&rig);
            since_last_move += 1;
            prop_assert_eq!(done.status, 0);
            prop_assert_eq!(u64::from(done.index), done.cookie);
            let result = &mut results[done.cookie as usize];
            prop_assert!(result.is_none(), "completed twice");
            *result = Some(done.result);
        }
        rig.clear_control(GENERATOR);
        prop_assert_eq!(rig.read32(reg::COMP_TAIL) as usize, jobs.len());
        prop_assert_eq!(driver.poll(&rig), None);
        for (number, job) in jobs.iter().enumerate() {
            let (bytes, result) = job.expected(&source);
            prop_assert_eq!(results[number], Some(result));
            let dest = rig.bytes(DEST + number as u64 * MAX_LEN, bytes.len() as u64);
            prop_assert!(dest == bytes, "job {} wrote something else", number);
        }
        let positions = rig.positions(lanes.into());
        let window = rig.bytes(DATA, WINDOW_PAGES * 4096);
        prop_assert!(window == replay(WINDOW_PAGES, seed, &positions));
    }
}

/// A device quiescent in the middle of a CRC, its driver, and what the CRC must be.
fn in_the_middle_of_a_crc() -> (Rig, Driver, u64) {
    let len = 0x60_0000;
    let source = noise(len, 5);
    let caught = std::iter::repeat_with(|| {
        let rig = Rig::new(1);
        rig.memory.write(DATA, &source);
        let mut driver = Driver::enable(&rig, 2);
        driver.push(&rig, &crc(DATA, len as u64));
        driver.ring(&rig);
        rig.wait_until("a start", |rig| rig.read32(reg::RING_HEAD) == 1);
        rig.quiesce();
        (rig, driver)
    })
    .take(100)
    .find(|(rig, _)| rig.read32(reg::COMP_TAIL) == 0);
    let (rig, driver) = caught.expect("one of a hundred is caught in the middle");
    (rig, driver, crc32c::crc32c(&source).into())
}

#[test]
fn work_goes_on_in_the_middle_of_a_descriptor() {
    let (rig, mut driver, expected) = in_the_middle_of_a_crc();
    let rig = rig.migrate(1);
    let done = driver.wait(&rig);
    assert_eq!((done.status, done.result), (0, expected));
}

#[test]
fn progress_comes_from_the_state_and_nowhere_else() {
    let (rig, mut driver, expected) = in_the_middle_of_a_crc();
    let state = rig.device.save().unwrap();
    let state = replaced(&state, "ring.in_flight.0.operation.Crc.done", 0x50_0000);
    let state = replaced(&state, "ring.in_flight.0.operation.Crc.crc", 1);
    rig.device.restore(&state).unwrap();
    rig.device.run();
    assert_ne!(
        driver.wait(&rig).result,
        expected,
        "a wrong state shows in the result"
    );
}

#[test]
fn pending_causes_and_wild_doorbells_migrate() {
    let rig = Rig::new(2);
    rig.write32(reg::INT_ENABLE, 0b101);
    let mut driver = Driver::enable(&rig, 4);
    driver.run(&rig, &notifying(crc(DATA, 1)));
    rig.wait_until("the cause", |rig| rig.irq.pending() == 1);
    rig.quiesce();
    rig.store_mapped(reg::RING_TAIL, 0xdead_beef);
    let rig = rig.migrate(2);
    assert_eq!(rig.irq.pending() & 1, 1, "for the server to signal");
    rig.wait_until("the doorbell's error", |rig| rig.read32(reg::ERROR) == 3);
    rig.wait_until("its cause", |rig| rig.irq.pending() == 0b101);
    assert_eq!(rig.read64(reg::COMP_BASE), COMP_BASE);
    assert_eq!(rig.read32(reg::RING_TAIL), 0xdead_beef);
}
