//! Checks of migration from one virtual function to another.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pagetrail_rig_devices::vf::{Fault, MEMORY_LEN, Writes};
use pagetrail_rig_devices::{Memory as _, PAGE};
use pagetrail_tracker::{DirtyTracker, PageSize};

use super::logged::Logged;
use super::states::State;
use super::{Vf, check};
use crate::checks::Check;
use crate::space::range;

pub(super) fn checks(vfs: &[Arc<Vf>]) -> Vec<Check> {
    vec![
        check(
            vfs,
            "a stopped virtual function goes on as another one",
            stop_copy,
        ),
        check(
            vfs,
            "no virtual function writes while it is in P2P, and all go on afterwards",
            p2p,
        ),
        check(vfs, "what changes during pre-copy is in the data", pre_copy),
        check(vfs, "pre-copy ends, and begins again", pre_copy_cancelled),
        check(vfs, "pre-copy from P2P ends in a whole state", pre_copy_from_p2p),
        check(
            vfs,
            "memory and state arrive whole while the virtual function writes",
            live,
        ),
        check(
            vfs,
            "data that was spoilt or cut is refused, and changes nothing",
            spoilt,
        ),
        check(
            vfs,
            "a save that fails is an error, and the virtual function goes on",
            save_fails,
        ),
        check(
            vfs,
            "a load that fails is an error, and a reset helps",
            load_fails,
        ),
        check(
            vfs,
            "a suspend that fails is an error, and the virtual function goes on",
            suspend_fails,
        ),
        check(vfs, "a reset ends a migration", reset_during_migration),
    ]
}

/// Fills the memory in a virtual function with numbers that depend on `seed`.
fn fill(vf: &Vf, seed: u64) {
    for offset in (0..MEMORY_LEN).step_by(64) {
        vf.set_memory(offset, number(seed, offset));
    }
}

fn ensure_filled(vf: &Vf, seed: u64) -> Result<()> {
    for offset in (0..MEMORY_LEN).step_by(64) {
        let found = vf.memory(offset);
        ensure!(
            found == number(seed, offset),
            "the virtual function has {found:#x} at {offset:#x}"
        );
    }
    Ok(())
}

fn number(seed: u64, offset: u64) -> u64 {
    (seed << 32 | offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes one word of each of `count` pages, one after the other, and in each page at another place.
fn slowly(count: u64, interval: Duration) -> Writes {
    Writes {
        start: 0,
        stride: PAGE + 8,
        len: 8,
        count,
        value: 1 << 40,
        interval: Some(interval),
    }
}

fn stop_copy(vfs: &[Arc<Vf>]) -> Result<()> {
    let (source, destination) = (Logged::small(&vfs[0])?, Logged::small(&vfs[1])?);
    source.vf.ensure_migratable()?;
    fill(&source.vf, 1);
    let before = source.vf.writes();
    source.vf.begin(slowly(100, Duration::from_secs(1)))?;
    source.vf.set_state(State::StopCopy)?;
    let size = source.vf.vfio.get_mig_data_size()?;
    let data = source.vf.read_data()?;
    ensure!(size > MEMORY_LEN, "a state of {size} bytes");
    ensure!(data.len() as u64 >= size, "{} bytes of {size}", data.len());
    let left = source.vf.left();

    destination.vf.load(&data)?;
    destination.vf.set_state(State::RunningP2p)?;
    ensure_filled(&destination.vf, 1)?;
    ensure!(
        destination.vf.is_busy() && destination.vf.left() == left,
        "other writes are left"
    );
    ensure!(
        destination.vf.writes() + left == before + 100,
        "another number of writes"
    );
    destination.vf.set_state(State::Running)?;
    Ok(())
}

fn p2p(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::started(&vfs[0])?;
    let vf = &logged.vf;
    vf.begin(slowly(1000, Duration::from_micros(200)))?;
    vf.set_state(State::RunningP2p)?;
    let writes = vf.writes();
    logged.report_all()?;
    // An order that is given in P2P is carried out later.
    let other = Logged::small(&vfs[1])?;
    other.vf.set_state(State::RunningP2p)?;
    other.vf.begin(slowly(1, Duration::from_micros(1)))?;
    std::thread::sleep(Duration::from_millis(50));
    ensure!(
        vf.writes() == writes && other.vf.writes() == 0,
        "it writes in P2P"
    );
    ensure!(logged.report_all()?.is_empty(), "pages are reported in P2P");
    other.vf.set_state(State::Running)?;
    other.vf.finish()?;
    vf.set_state(State::Stop)?;
    vf.set_state(State::Running)?;
    vf.finish()?;
    ensure!(vf.writes() == 1000, "{} writes of 1000", vf.writes());
    Ok(())
}

/// Reads what there is until nothing has changed any more.
fn read_until_clean(vf: &Vf) -> Result<Vec<u8>> {
    let mut data = vf.read_data()?;
    for _ in 0..100 {
        let info = vf.vfio.mig_get_precopy_info()?;
        if info.initial_bytes == 0 && info.dirty_bytes == 0 {
            return Ok(data);
        }
        data.extend(vf.read_data()?);
    }
    bail!("there is always more")
}

fn pre_copy(vfs: &[Arc<Vf>]) -> Result<()> {
    let (source, destination) = (Logged::small(&vfs[0])?, Logged::small(&vfs[1])?);
    fill(&source.vf, 1);
    source.vf.set_state(State::PreCopy)?;
    let initial = source.vf.vfio.mig_get_precopy_info()?.initial_bytes;
    ensure!(initial > MEMORY_LEN, "{initial} initial bytes");
    let mut data = read_until_clean(&source.vf)?;
    source.vf.set_memory(0, 5);
    let dirty = source.vf.vfio.mig_get_precopy_info()?.dirty_bytes;
    ensure!(
        (1..MEMORY_LEN).contains(&dirty),
        "{dirty} bytes, of a small change"
    );
    data.extend(read_until_clean(&source.vf)?);
    fill(&source.vf, 2);
    source.vf.set_state(State::PreCopyP2p)?;
    source.vf.set_memory(64, number(3, 64));
    source.vf.set_memory(64, number(2, 64));
    source.vf.set_state(State::StopCopy)?;
    data.extend(source.vf.read_data()?);

    destination.vf.load(&data)?;
    destination.vf.set_state(State::Running)?;
    ensure_filled(&destination.vf, 2)
}

fn pre_copy_cancelled(vfs: &[Arc<Vf>]) -> Result<()> {
    let source = Logged::small(&vfs[0])?;
    fill(&source.vf, 1);
    for seed in 2..5 {
        source.vf.set_state(State::PreCopy)?;
        source.vf.read_data()?;
        fill(&source.vf, seed);
        source.vf.set_state(State::Running)?;
        ensure_filled(&source.vf, seed)?;
    }
    pre_copy(vfs)
}

/// The device takes no note of changes from there; the driver then reads all of the state once it has stopped.
fn pre_copy_from_p2p(vfs: &[Arc<Vf>]) -> Result<()> {
    let (source, destination) = (Logged::small(&vfs[0])?, Logged::small(&vfs[1])?);
    fill(&source.vf, 1);
    source.vf.set_state(State::RunningP2p)?;
    source.vf.set_state(State::PreCopyP2p)?;
    let mut data = source.vf.read_data()?;
    fill(&source.vf, 2);
    source.vf.set_state(State::StopCopy)?;
    data.extend(source.vf.read_data()?);
    destination.vf.load(&data)?;
    destination.vf.set_state(State::Running)?;
    ensure_filled(&destination.vf, 2)
}

/// Copies reported pages between the memories, as a VMM does.
fn copy_dirty(from: &Logged, to: &Logged) -> Result<usize> {
    let pages = from.report_all()?;
    for page in &pages {
        to.memory.write(page * PAGE, &from.memory.page(*page)?)?;
    }
    Ok(pages.len())
}

fn live(vfs: &[Arc<Vf>]) -> Result<()> {
    const WRITES: u64 = 8000;
    let (source, destination) = (Logged::started(&vfs[0])?, Logged::small(&vfs[1])?);
    source.vf.begin(slowly(WRITES, Duration::from_micros(500)))?;
    source.vf.set_state(State::PreCopy)?;
    let mut data = Vec::new();
    let mut copied = Vec::new();
    while source.vf.left() > WRITES * 3 / 4 {
        copied.push(copy_dirty(&source, &destination)?);
        data.extend(source.vf.read_data()?);
        source.vf.vfio.mig_get_precopy_info()?;
    }
    source.vf.set_state(State::StopCopy)?;
    let left = source.vf.left();
    ensure!(left > 0, "all is written before the virtual function stops");
    copied.push(copy_dirty(&source, &destination)?);
    data.extend(source.vf.read_data()?);
    source.tracker.stop()?;
    println!(
        "# {} pages in {} passes, {left} writes left",
        copied.iter().sum::<usize>(),
        copied.len()
    );

    destination.start(&[range(0, Logged::LEN)], PageSize::SIZE_4K)?;
    destination.vf.load(&data)?;
    destination.vf.set_state(State::Running)?;
    destination.vf.finish()?;
    let reported = destination.report_all()?.len() as u64;
    ensure!(reported == left, "{reported} pages reported, {left} written");
    for write in 0..WRITES {
        let at = write * (PAGE + 8);
        let bytes = destination.memory.bytes(at, 8)?;
        ensure!(
            bytes == ((1 << 40) + write).to_le_bytes(),
            "write {write} is missing at {at:#x}"
        );
    }
    Ok(())
}

fn spoilt(vfs: &[Arc<Vf>]) -> Result<()> {
    let (source, destination) = (Logged::small(&vfs[0])?, Logged::small(&vfs[1])?);
    fill(&source.vf, 1);
    source.vf.set_state(State::StopCopy)?;
    let data = source.vf.read_data()?;
    fill(&destination.vf, 9);
    for at in [
        data.len() - 1,
        data.len() / 2,
        data.len() - MEMORY_LEN as usize - 20,
    ] {
        let mut spoilt = data.clone();
        spoilt[at] ^= 1;
        ensure!(
            destination.vf.load(&spoilt).is_err(),
            "a bit of byte {at} may be another"
        );
        destination.vf.set_state(State::Running)?;
        ensure_filled(&destination.vf, 9)?;
    }
    // The kernel loads a record once all of it is there.
    destination.vf.load(&data[..data.len() - 1])?;
    destination.vf.set_state(State::Running)?;
    ensure_filled(&destination.vf, 9)
}

fn save_fails(vfs: &[Arc<Vf>]) -> Result<()> {
    let source = Logged::small(&vfs[0])?;
    fill(&source.vf, 1);
    source.vf.set_fault(Fault::Save);
    source.vf.set_state(State::StopCopy)?;
    ensure!(
        source.vf.read_data().is_err(),
        "a state that was not saved is read"
    );
    source.vf.clear_faults();
    source.vf.set_state(State::Running)?;
    ensure_filled(&source.vf, 1)?;
    source.vf.write_pages_from(0, 10)?;
    stop_copy(vfs)
}

fn load_fails(vfs: &[Arc<Vf>]) -> Result<()> {
    let (source, destination) = (Logged::small(&vfs[0])?, Logged::small(&vfs[1])?);
    source.vf.set_state(State::StopCopy)?;
    let data = source.vf.read_data()?;
    source.vf.set_state(State::Running)?;
    destination.vf.set_fault(Fault::Load);
    ensure!(
        destination.vf.load(&data).is_err(),
        "what was not loaded is taken for it"
    );
    destination.vf.reset();
    ensure!(destination.vf.is_in(State::Running)?, "a reset does not help");
    drop((source, destination));
    stop_copy(vfs)
}

fn suspend_fails(vfs: &[Arc<Vf>]) -> Result<()> {
    let source = Logged::small(&vfs[0])?;
    source.vf.set_fault(Fault::Suspend);
    ensure!(
        source.vf.set_state(State::StopCopy).is_err(),
        "what was not suspended is stopped"
    );
    ensure!(source.vf.is_in(State::Running)?, "it does not run any more");
    source.vf.clear_faults();
    source.vf.write_pages_from(0, 10)?;
    drop(source);
    stop_copy(vfs)
}

fn reset_during_migration(vfs: &[Arc<Vf>]) -> Result<()> {
    let source = Logged::started(&vfs[0])?;
    for state in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Resuming,
    ] {
        fill(&source.vf, 1);
        source.vf.set_state(state)?;
        source.vf.reset();
        ensure!(
            source.vf.is_in(State::Running)?,
            "it does not run after a reset in {state:?}"
        );
        ensure!(source.vf.memory(64) == 0, "a reset leaves memory as it was");
        source.vf.write_pages_from(0, 10)?;
    }
    drop(source);
    stop_copy(vfs)
}
