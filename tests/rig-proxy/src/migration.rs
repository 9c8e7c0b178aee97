//! A virtual function that migrates to another one, through two servers, while it writes.
//!
//! The device's job writes a word of its own into every page in turn, before, during and after the migration. Afterwards the
//! destination's memory has each word, or a page was lost, or a part of the device's state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::vf::{self, Fault, Writes};
use pagetrail_rig_devices::{Outcome, PAGE, equal};
use vfio_user_check::client::Error;
use vfio_user_check::vmm::GuestMemory;
use vfio_user_check::wire::MigState;

use crate::guest::{Guest, MEMORY};
use crate::registers::BAR;
use crate::removal;
use crate::served::Served;
use crate::subject::{Subject, Tracker};

/// A promise of a pair of devices, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Subject, &Subject) -> Result<()>,
}

/// All checks of devices that `tracker` tracks.
pub(crate) fn all(tracker: Tracker) -> Vec<Check> {
    let check = |name, run| Check { name, run };
    let mut checks = vec![
        check(
            "it migrates in mid-job, and loses neither a page nor its state",
            |from, to| migrates(from, to, &[]),
        ),
        check("a migration that is given up leaves it at work", given_up),
        check(
            "a stream that is damaged or another device's is refused, and a reset helps",
            bad_streams,
        ),
        check(
            "what is unmapped while it stands still is as dirty as it was written",
            quiet_unmap,
        ),
        check(
            "one that its driver in the guest resets runs, and what is unmapped is due",
            reset_by_guest,
        ),
        check(
            "a driver that fails is told of, and nothing is called clean",
            driver_fails,
        ),
        check(
            "a device that is taken out in mid-migration ends it, and migrates when it is back",
            removal::taken_out_while_it_migrates,
        ),
    ];
    if tracker == Tracker::Device {
        checks.extend([
            check(
                "a tracker that fails loses the log, until it begins anew",
                tracker_fails,
            ),
            check("control: a page that the tracker drops is missed", drops_pages),
        ]);
    }
    checks
}

pub(crate) const EIO: u32 = 5;
const PATIENCE: Duration = Duration::from_mins(1);
/// What a message carries of the stream.
const CHUNK: u32 = 64 << 10;
/// Writes of the job, two to each page, one every so many microseconds.
const WRITES: u64 = 2 * (MEMORY / PAGE);
const INTERVAL: Duration = Duration::from_micros(400);
/// Bytes from one write to the next: a page, and a word, so that the second round finds words of its own.
const STRIDE: u64 = PAGE;
const SECOND_ROUND: u64 = 8;

/// Both ends, served.
struct Ends {
    served: [Served; 2],
}

impl Ends {
    fn new(from: &Subject, to: &Subject) -> Result<Self> {
        Ok(Self {
            served: [Served::vfio(from, &[])?, Served::vfio(to, &[])?],
        })
    }

    fn guests(&self, from: &Subject, to: &Subject) -> Result<[Guest; 2]> {
        Ok([
            Guest::new(from, &self.served[0].sockets)?,
            Guest::new(to, &self.served[1].sockets)?,
        ])
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        self.served[0].explain(self.served[1].explain(result))
    }
}

/// Begins one round of the job: a word of each page, at `offset` in it.
fn start_round(guest: &mut Guest, offset: u64) -> Result<()> {
    let job = Writes {
        start: offset,
        stride: STRIDE,
        len: 8,
        count: WRITES / 2,
        value: value_of(0, offset),
        interval: Some(INTERVAL),
    };
    vf::begin(&mut guest.messages(), &job)
}

/// What the write of a round to `page` leaves.
fn value_of(page: u64, offset: u64) -> u64 {
    0x5eed_0000_0000 + (offset << 32) + page
}

fn await_end(guest: &mut Guest) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while vf::is_busy(&mut guest.messages())? {
        ensure!(Instant::now() < deadline, "the job does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = vf::finish(&mut guest.messages())?;
    ensure!(outcome == Outcome::Written, "the IOMMU stopped the job");
    Ok(())
}

fn await_progress(guest: &mut Guest, left: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while vf::left(&mut guest.messages())? > left {
        ensure!(Instant::now() < deadline, "the job does not go on");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Checks a round of the job in memory.
fn check_round(memory: &GuestMemory, offset: u64) -> Result<()> {
    for page in 0..MEMORY / PAGE {
        let mut word = [0; 8];
        memory.read(page * PAGE + offset, &mut word)?;
        let (found, expected) = (u64::from_le_bytes(word), value_of(page, offset));
        ensure!(
            found == expected,
            "page {page} has {found:#x} instead of {expected:#x}: it was lost"
        );
    }
    Ok(())
}

/// Sends what is reported from one memory to the other. Returns how many pages that was.
fn copy_dirty(source: &mut Guest, destination: &GuestMemory) -> Result<usize> {
    let dirty = source.report_all()?;
    copy(source.memory(), destination, dirty.iter().copied())?;
    Ok(dirty.len())
}

fn copy(from: &GuestMemory, to: &GuestMemory, pages: impl Iterator<Item = u64>) -> Result<()> {
    let mut content = vec![0; PAGE as usize];
    for page in pages {
        from.read(page * PAGE, &mut content)?;
        to.write(page * PAGE, &content)?;
    }
    Ok(())
}

/// Reads what there is of the stream at present, or all of it once the device has stopped.
fn read_stream(guest: &mut Guest, stream: &mut Vec<u8>) -> Result<()> {
    loop {
        let piece = guest.device().client().mig_data_read(CHUNK)?;
        if piece.is_empty() {
            return Ok(());
        }
        stream.extend(piece);
    }
}

fn write_stream(guest: &mut Guest, stream: &[u8]) -> Result<(), Error> {
    let client = guest.device().client();
    client.set_mig_state(MigState::Resuming)?;
    stream
        .chunks(CHUNK as usize)
        .try_for_each(|piece| client.mig_data_write(piece))
}

/// The state of a device that has stopped.
fn saved(guest: &mut Guest) -> Result<Vec<u8>> {
    guest.device().client().set_mig_state(MigState::StopCopy)?;
    let mut stream = Vec::new();
    read_stream(guest, &mut stream)?;
    Ok(stream)
}

/// Migrates, with faults of the source.
fn migrates(from: &Subject, to: &Subject, faults: &[Fault]) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, mut destination] = ends.guests(from, to)?;
        let pattern: Vec<u8> = (0..4096_u32)
            .flat_map(|word| (word * 7 + 1).to_le_bytes())
            .collect();
        source.device().client().region_write(BAR, vf::MEMORY, &pattern)?;
        vf::set_faults(&mut source.messages(), faults)?;
        start_round(&mut source, 0)?;
        source.start_log()?;
        let memory = Arc::clone(destination.memory());
        copy(source.memory(), &memory, 0..MEMORY / PAGE)?;
        let mut stream = Vec::new();
        source.device().client().set_mig_state(MigState::PreCopy)?;
        let (mut passes, mut sent) = (0, 0);
        let deadline = Instant::now() + PATIENCE;
        // The first round ends in pre-copy, the second in the destination.
        while vf::is_busy(&mut source.messages())? {
            ensure!(Instant::now() < deadline, "the job does not end");
            sent += copy_dirty(&mut source, &memory)?;
            read_stream(&mut source, &mut stream)?;
            passes += 1;
        }
        start_round(&mut source, SECOND_ROUND)?;
        await_progress(&mut source, WRITES / 4)?;
        let client = source.device().client();
        client.set_mig_state(MigState::PreCopyP2p)?;
        client.set_mig_state(MigState::StopCopy)?;
        let left = vf::left(&mut source.messages())?;
        ensure!(
            left > 0 && left < WRITES / 2,
            "{left} writes are left: it is not in mid-job"
        );
        sent += copy_dirty(&mut source, &memory)?;
        read_stream(&mut source, &mut stream)?;
        equal("after the stop", &source.report_all()?, &[])?;
        println!(
            "# {passes} passes, {sent} pages, {} bytes of state, {left} writes left",
            stream.len()
        );

        write_stream(&mut destination, &stream)?;
        let client = destination.device().client();
        client.set_mig_state(MigState::RunningP2p)?;
        client.set_mig_state(MigState::Running)?;
        await_end(&mut destination)?;
        check_round(&memory, 0)?;
        check_round(&memory, SECOND_ROUND)?;
        let mut found = vec![0; pattern.len()];
        destination
            .device()
            .client()
            .region_read(BAR, vf::MEMORY, &mut found)?;
        ensure!(found == pattern, "the device's memory is not what it was");
        Ok(())
    };
    ends.explain(check())
}

fn given_up(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, _] = ends.guests(from, to)?;
        start_round(&mut source, 0)?;
        source.start_log()?;
        for state in [MigState::PreCopy, MigState::StopCopy, MigState::Stop] {
            source.device().client().set_mig_state(state)?;
            source.device().client().set_mig_state(MigState::Running)?;
        }
        await_end(&mut source)?;
        check_round(&Arc::clone(source.memory()), 0)
    };
    ends.explain(check())
}

fn bad_streams(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, mut destination] = ends.guests(from, to)?;
        let good = saved(&mut source)?;
        let spoilt = |at: usize| {
            let mut stream = good.clone();
            stream[at] ^= 1;
            stream
        };
        let cut = good[..good.len() - 8].to_vec();
        let other = [&b"another device's data"[..], &[0; 100]].concat();
        for bad in [
            spoilt(0),
            spoilt(40),
            spoilt(good.len() / 2),
            spoilt(good.len() - 1),
            cut,
            other,
        ] {
            let written = write_stream(&mut destination, &bad);
            let left = destination.device().client().set_mig_state(MigState::Running);
            ensure!(
                left.is_err(),
                "it runs with a bad stream; the write said {written:?}"
            );
            destination.device().client().device_reset()?;
            destination.write_pages(&[3])?;
        }
        write_stream(&mut destination, &good)?;
        destination.device().client().set_mig_state(MigState::Running)?;
        destination.write_pages(&[4])
    };
    ends.explain(check())
}

fn quiet_unmap(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, _] = ends.guests(from, to)?;
        source.start_log()?;
        source.write_pages(&[5, 6000])?;
        source.device().client().set_mig_state(MigState::Stop)?;
        source.device().client().dma_unmap(0, MEMORY)?;
        equal("what has gone", &source.report_all()?, &[5, 6000])
    };
    ends.explain(check())
}

fn reset_by_guest(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, _] = ends.guests(from, to)?;
        source.start_log()?;
        source.device().client().set_mig_state(MigState::Stop)?;
        source.device().config().reset_function()?;
        let state = source.device().client().mig_state()?;
        ensure!(state == MigState::Running, "{state:?} after a reset");
        source.write_pages(&[5])?;
        source.device().client().dma_unmap(0, MEMORY)?;
        let expected: Vec<u64> = match from.tracker {
            Tracker::Device => vec![5],
            // It could have been writing.
            Tracker::Iommu => (0..MEMORY / PAGE).collect(),
        };
        equal("what has gone", &source.report_all()?, &expected)?;
        source.device().client().set_mig_state(MigState::Stop)?;
        ensure!(
            source.device().client().mig_state()? == MigState::Stop,
            "it does not stop"
        );
        Ok(())
    };
    ends.explain(check())
}

fn driver_fails(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, mut destination] = ends.guests(from, to)?;
        source.start_log()?;
        source.write_pages(&[9])?;
        for (fault, state) in [
            (Fault::Suspend, MigState::Stop),
            (Fault::Save, MigState::StopCopy),
        ] {
            vf::set_faults(&mut source.messages(), &[fault])?;
            let refused = source.device().client().set_mig_state(state);
            let data = refused.is_ok().then(|| read_stream(&mut source, &mut Vec::new()));
            ensure!(
                !matches!(data, Some(Ok(()))),
                "{state:?} is reached in spite of the fault"
            );
            match source.device().client().mig_state()? {
                MigState::Error => {
                    let report = source.report_all();
                    ensure!(report.is_err(), "a device that failed has a log");
                }
                _ => ensure!(source.report_all()?.len() <= 1, "too many pages"),
            }
            source.device().client().device_reset()?;
            ensure!(
                source.device().client().mig_state()? == MigState::Running,
                "no reset"
            );
        }
        let good = saved(&mut source)?;
        vf::set_faults(&mut destination.messages(), &[Fault::Load])?;
        let written = write_stream(&mut destination, &good);
        let left = destination.device().client().set_mig_state(MigState::Running);
        ensure!(
            written.is_err() || left.is_err(),
            "a state that was not loaded is run with"
        );
        destination.device().client().device_reset()?;
        destination.write_pages(&[4])
    };
    ends.explain(check())
}

fn tracker_fails(from: &Subject, to: &Subject) -> Result<()> {
    let ends = Ends::new(from, to)?;
    let check = || {
        let [mut source, _] = ends.guests(from, to)?;
        for fault in [Fault::ErrorCompletion, Fault::ErrorState] {
            source.start_log()?;
            source.write_pages(&[1, 2])?;
            vf::set_faults(&mut source.messages(), &[fault])?;
            for _ in 0..2 {
                let report = source.device().client().logging_report(0, MEMORY, PAGE);
                let errno = report.err().context("a report of a tracker that failed")?.errno();
                ensure!(errno == Some(EIO), "{errno:?}");
            }
            vf::set_faults(&mut source.messages(), &[])?;
            // An error of the tracker's end is not one of the device's.
            let _ = source.device().client().logging_stop();
            source.start_log()?;
            source.write_pages(&[7])?;
            equal("a log begun anew", &source.report_all()?, &[7])?;
            source.device().client().logging_stop()?;
        }
        Ok(())
    };
    ends.explain(check())
}

fn drops_pages(from: &Subject, to: &Subject) -> Result<()> {
    let found = migrates(from, to, &[Fault::DropPage]).err();
    let found = format!("{:#}", found.context("a lost page is not missed")?);
    ensure!(found.contains("it was lost"), "{found}");
    Ok(())
}
