//! Servers that do not answer for longer than QEMU waits.

use std::time::Duration;

use super::failure::Result;
use super::journey::{expect, go_on, until};
use super::phases::Phase;
use super::scene::Scene;
use super::stage::{Plan, Side, Stage};
use super::vm::Rate;

/// How long a server stands still: longer than the 5 s that QEMU waits for an answer, and too short for two such waits. A device that
/// cannot even be reset is given up for good.
const STALL: Duration = Duration::from_millis(7_500);

fn stall(stage: &mut Stage<'_>, side: Side) -> Result {
    let plan = Plan::devices(1);
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    // Rings are left alone: a guest whose register access gets no answer sees a dead device.
    vm.start_generators(Rate::Pages(20_000))?;
    let waiting = stage.await_migration(&dest, &plan)?;
    let journey = Phase::FirstPass.reach(stage, &mut vm, waiting, "stall")?;
    let stalled = match side {
        Side::Source => &source,
        Side::Dest => &dest,
    };
    stalled.pause()?;
    go_on(&mut vm)?;
    std::thread::sleep(STALL);
    stalled.go_on()?;
    let info = until(stage, &mut vm, "the migration fails", |_| false)?;
    stage.recorder().migration_ends();
    expect(&info, "failed")?;
    drop(journey);
    vm.expect_runs_on()?;

    let scene = Scene {
        plan,
        dest,
        vm,
        source,
    };
    scene.migrate_after_all(stage)
}

pub(super) fn source_server(stage: &mut Stage<'_>) -> Result {
    stall(stage, Side::Source)
}

pub(super) fn dest_server(stage: &mut Stage<'_>) -> Result {
    stall(stage, Side::Dest)
}
