//! Processes that are killed in the middle of a migration.

use super::failure::{Failure, Result, hold};
use super::journey::{Journey, Terms, go_on, migrate, until};
use super::phases::{Fate, Phase, fate};
use super::scene::Scene;
use super::stage::{Plan, Stage};
use super::vm::{Rate, Vm};

/// A VM with one device that writes flat out.
fn busy(stage: &mut Stage<'_>) -> Result<Scene> {
    Scene::set(stage, Plan::devices(1), Rate::FlatOut)
}

/// The migration is over and the VM runs on at the source; or it completed before anybody was killed.
fn await_failure(journey: Journey, stage: &Stage<'_>, vm: &mut Vm) -> Result<Survival> {
    let info = until(stage, vm, "the migration fails", |_| false)?;
    stage.recorder().migration_ends();
    match info.status.as_deref() {
        Some("failed") => Ok(Survival::AtSource),
        Some("completed") => Ok(Survival::Gone(Box::new(journey))),
        other => Err(Failure::Broken(format!("the migration is {other:?}"))),
    }
}

enum Survival {
    AtSource,
    /// The source has sent everything.
    Gone(Box<Journey>),
}

pub(super) fn dest_qemu(stage: &mut Stage<'_>) -> Result {
    let Scene {
        plan,
        source,
        dest,
        mut vm,
    } = busy(stage)?;
    for phase in Phase::ALL {
        let waiting = stage.await_migration(&dest, &plan)?;
        let mut journey = phase.reach(stage, &mut vm, waiting, "kill the destination's QEMU")?;
        journey.dest().kill()?;
        go_on(&mut vm)?;
        match await_failure(journey, stage, &mut vm)? {
            Survival::AtSource => vm.expect_runs_on()?,
            // Who kills the only VM that has everything has killed it. Go on with another.
            Survival::Gone(_) => {
                vm.quit()?;
                vm = stage.boot(&source, &plan)?;
                vm.start_load(Rate::FlatOut)?;
            }
        }
    }
    let scene = Scene {
        plan,
        dest,
        vm,
        source,
    };
    scene.migrate_after_all(stage)
}

pub(super) fn dest_server(stage: &mut Stage<'_>) -> Result {
    let Scene {
        plan,
        mut source,
        mut dest,
        mut vm,
    } = busy(stage)?;
    for phase in Phase::ALL {
        let waiting = stage.await_migration(&dest, &plan)?;
        let journey = phase.reach(stage, &mut vm, waiting, "kill the destination's server")?;
        dest.kill()?;
        go_on(&mut vm)?;
        match await_failure(journey, stage, &mut vm)? {
            Survival::AtSource => vm.expect_runs_on()?,
            Survival::Gone(journey) => {
                expect_refused_or_whole(*journey, &mut vm)?;
                vm.quit()?;
                vm = stage.boot(&source, &plan)?;
                vm.start_load(Rate::FlatOut)?;
            }
        }
        dest.restart()?;
    }
    migrate(stage, &mut vm, &dest, &plan, Terms::new("after all"))?;
    vm.check()?;
    source.expect_alive()?;
    vm.quit()
}

/// The source has sent everything, and the destination's server is dead: the destination has refused the VM, or has all of its
/// memory. Its device is dead then, which its guest sees.
fn expect_refused_or_whole(mut journey: Journey, vm: &mut Vm) -> Result {
    match fate(journey.dest())? {
        Fate::Ended => Ok(()),
        Fate::Loaded => journey.compare(vm),
        Fate::Waiting => Err(Failure::Broken(
            "the destination has not got what was sent to it".to_owned(),
        )),
    }
}

pub(super) fn source_qemu(stage: &mut Stage<'_>) -> Result {
    for phase in Phase::ALL {
        let Scene {
            plan,
            source: _source,
            dest,
            mut vm,
        } = busy(stage)?;
        let waiting = stage.await_migration(&dest, &plan)?;
        let mut journey = phase.reach(stage, &mut vm, waiting, "kill the source's QEMU")?;
        vm.machine().kill()?;
        stage.recorder().migration_ends();
        match fate(journey.dest())? {
            Fate::Ended | Fate::Waiting => {}
            Fate::Loaded => {
                journey.compare(&mut vm)?;
                vm.move_to(journey.into_dest())?;
                vm.await_progress()?;
                vm.check()?;
            }
        }
    }
    Ok(())
}

pub(super) fn source_server(stage: &mut Stage<'_>) -> Result {
    for phase in Phase::ALL {
        let Scene {
            plan,
            mut source,
            mut dest,
            mut vm,
        } = busy(stage)?;
        let waiting = stage.await_migration(&dest, &plan)?;
        let journey = phase.reach(stage, &mut vm, waiting, "kill the source's server")?;
        source.kill()?;
        go_on(&mut vm)?;
        match await_failure(journey, stage, &mut vm)? {
            Survival::AtSource => expect_guest_survives(&mut vm)?,
            // Everything had been read from the device: the VM is whole at the other end.
            Survival::Gone(journey) => {
                journey.arrive(stage, &mut vm)?;
                vm.await_progress()?;
                vm.check()?;
            }
        }
        dest.expect_alive()?;
    }
    Ok(())
}

/// The guest runs on at the source, and sees that its device is gone.
fn expect_guest_survives(vm: &mut Vm) -> Result {
    vm.machine()
        .await_run_state("running", std::time::Duration::from_secs(30))?;
    let report = vm.look()?;
    let errors: Vec<&String> = report.devices.iter().flat_map(|device| &device.errors).collect();
    hold(!errors.is_empty(), || {
        "the device's server is dead, and the guest's device reports no error".to_owned()
    })
}
