//! Migrations that must not arrive.

use std::fs;

use pagetrail_guest::protocol::Command;

use super::failure::{Failure, Result, hold};
use super::journey::{Carrier, Journey, Terms, await_source, migrate};
use super::stage::{Plan, Side, Stage, required};
use super::vm::{Rate, Vm};
use crate::qemu::{Machine, QemuError};

/// Where a bit is flipped in the stream of a `dma` device: so many bytes after something that only occurs there.
const FLIPS: [(&str, usize); 3] = [
    // The version, which follows the first bytes; the device's identity; a register.
    ("PGTRSTRM", 9),
    ("PGTRSTRM", 40),
    ("desc_base", 11),
];

pub(super) fn other_parameters(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(1);
    let different = required(
        stage.setup().different.as_ref(),
        "server whose devices have other parameters",
    )?;
    let mut source = stage.place(Side::Source, &plan)?;
    let mut other = stage.place_with("other", different, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    vm.start_load(Rate::FlatOut)?;

    let journey = Journey::begin(stage, &mut vm, &other, &plan, Terms::new("other parameters"))?;
    let log = journey.expect_failed(stage, &mut vm)?;
    expect_names_device(&log, &other.devices()[0].path.display().to_string())?;
    vm.expect_runs_on()?;

    migrate(stage, &mut vm, &dest, &plan, Terms::new("after all"))?;
    vm.check()?;
    source.expect_alive()?;
    other.expect_alive()?;
    vm.quit()
}

/// An error must say which device it is about: by its name in QEMU, or by its socket.
fn expect_names_device(log: &str, socket: &str) -> Result {
    hold(log.contains("dma0") || log.contains(socket), || {
        format!("the error does not name the device:\n{log}")
    })
}

pub(super) fn flipped_bits(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(1);
    let source = stage.place(Side::Source, &plan)?;
    let mut dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    vm.start_load(Rate::Pages(20_000))?;
    vm.await_progress()?;

    let terms = Terms {
        carrier: Carrier::File,
        ..Terms::new("a stream to spoil")
    };
    let mut journey = Journey::begin(stage, &mut vm, &dest, &plan, terms)?;
    await_source(stage, &mut vm)?;
    let path = stage.path("stream");
    let whole = fs::read(&path)?;
    for (mark, offset) in FLIPS {
        let flip = format!("{mark} + {offset}");
        stage.recorder().phase(format!("flip a bit at {flip}"));
        let mark = find_last(&whole, mark.as_bytes())
            .ok_or_else(|| Failure::Broken(format!("there is no {mark} in what QEMU wrote")))?;
        let mut spoilt = whole.clone();
        spoilt[mark + offset] ^= 0x10;
        fs::write(&path, &spoilt)?;
        let log = load_and_fail(&mut journey, &flip)?;
        expect_names_device(&log, &dest.devices()[0].path.display().to_string())?;
        dest.expect_alive()?;
        journey.replace_dest(stage.await_migration(&dest, &plan)?)?;
    }
    // As it was written it loads.
    fs::write(&path, &whole)?;
    journey.arrive(stage, &mut vm)?;
    vm.await_progress()?;
    vm.check()?;
    vm.quit()
}

/// Loads a stream that must be refused; returns what QEMU wrote.
fn load_and_fail(journey: &mut Journey, flip: &str) -> Result<String> {
    match journey.load() {
        Err(Failure::Qemu(
            QemuError::MonitorClosed | QemuError::Ended { .. } | QemuError::Refused { .. },
        )) => {}
        Ok(()) => {
            return Err(Failure::Broken(format!(
                "a stream with a flipped bit at {flip} was loaded"
            )));
        }
        Err(error) => return Err(error),
    }
    let dest: &mut Machine = journey.dest();
    dest.await_end()?;
    Ok(dest.log())
}

fn find_last(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .rposition(|window| window == needle)
}

pub(super) fn viommu(stage: &mut Stage<'_>) -> Result {
    let plan = Plan {
        extra: vec!["-device".to_owned(), "intel-iommu".to_owned()],
        kernel_parameters: vec!["iommu=pt".to_owned()],
        ..Plan::devices(1)
    };
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    vm.start_load(Rate::FlatOut)?;
    vm.await_progress()?;
    match begin(stage, &mut vm, &dest, &plan) {
        Ok(journey) => journey.arrive(stage, &mut vm)?,
        Err(Failure::Qemu(QemuError::Refused { message, .. })) => {
            hold(message.to_lowercase().contains("iommu"), || {
                format!("the refusal has no reason: {message}")
            })?;
        }
        Err(error) => return Err(error),
    }
    vm.await_progress()?;
    vm.check()?;
    vm.run(Command::Report)?;
    vm.quit()
}

fn begin(stage: &mut Stage<'_>, vm: &mut Vm, dest: &super::place::Place, plan: &Plan) -> Result<Journey> {
    Journey::begin(stage, vm, dest, plan, Terms::new("with an IOMMU"))
}
