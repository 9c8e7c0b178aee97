//! Things that happen to a guest around a migration.

use std::time::Duration;

use pagetrail_guest::protocol::Command;
use serde_json::json;

use super::failure::{Failure, Result, hold};
use super::journey::{CRAWL, Journey, Terms, hurry, migrate, reach};
use super::stage::{Plan, Side, Stage};
use super::vm::{Rate, Vm};
use crate::qemu::{QemuError, Start};

/// How long the guest may take to let go of a device.
const UNPLUG_LIMIT: Duration = Duration::from_mins(1);

/// Bytes per second at which pre-copy lasts longer than what is done during it.
fn slowly(name: &str) -> Terms {
    Terms {
        bandwidth: CRAWL,
        downtime_limit: Duration::from_millis(10),
        ..Terms::new(name)
    }
}

fn await_active(stage: &Stage<'_>, vm: &mut Vm) -> Result {
    reach(stage, vm, "memory is copied", |info| {
        info.status.as_deref() == Some("active")
    })
}

fn expect_active(vm: &mut Vm) -> Result {
    let info = vm.machine().qmp().migrate_info()?;
    hold(info.status.as_deref() == Some("active"), || {
        format!("pre-copy was over too early: {info:?}")
    })
}

/// Does something to a busy VM while it migrates, in pre-copy, and lets it arrive.
fn during_pre_copy(
    stage: &mut Stage<'_>,
    plan: &Plan,
    name: &str,
    event: impl FnOnce(&mut Vm) -> Result,
) -> Result {
    let source = stage.place(Side::Source, plan)?;
    let dest = stage.place(Side::Dest, plan)?;
    let mut vm = stage.boot(&source, plan)?;
    vm.start_load(Rate::FlatOut)?;
    vm.await_progress()?;

    let journey = Journey::begin(stage, &mut vm, &dest, plan, slowly(name))?;
    await_active(stage, &mut vm)?;
    stage.recorder().phase(name);
    event(&mut vm)?;
    vm.await_progress()?;
    expect_active(&mut vm)?;
    hurry(&mut vm)?;
    journey.arrive(stage, &mut vm)?;
    vm.await_progress()?;
    vm.check()?;
    vm.quit()
}

pub(super) fn device_reset(stage: &mut Stage<'_>) -> Result {
    during_pre_copy(stage, &Plan::devices(2), "reset the devices", |vm| {
        vm.run(Command::Reset)?;
        vm.start_generators(Rate::FlatOut)
    })
}

pub(super) fn reboot(stage: &mut Stage<'_>) -> Result {
    during_pre_copy(stage, &Plan::devices(4), "reboot the guest", |vm| {
        vm.reboot()?;
        vm.start_load(Rate::FlatOut)
    })
}

pub(super) fn pending_interrupts(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(2);
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    let before = vm.run(Command::Hold)?;
    migrate(stage, &mut vm, &dest, &plan, Terms::new("a pending interrupt"))?;

    // A cause that nobody acknowledged comes again: what was on its way at the switch-over would be lost otherwise.
    for _ in 0..50 {
        let after = vm.run(Command::Report)?;
        let mut pairs = before.devices.iter().zip(&after.devices);
        if pairs.all(|(before, after)| after.interrupts[0] == before.interrupts[0] + 1) {
            vm.run(Command::Release)?;
            vm.start_load(Rate::FlatOut)?;
            vm.await_progress()?;
            vm.check()?;
            return vm.quit();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::Broken(
        "a cause that was pending at the switch-over was not signalled again".to_owned(),
    ))
}

pub(super) fn hot_plug(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(1);
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let device = &source.devices()[0];

    let mut options = stage.options(&source, &plan, Start::Boot);
    options.devices.clear();
    let machine = stage.start(&options)?;
    let mut vm = Vm::booted(machine, 0)?;
    stage.recorder().phase("plug the device");
    vm.machine().qmp().execute("device_add", &device.arguments())?;
    vm.await_devices(1)?;
    vm.start_load(Rate::FlatOut)?;
    vm.await_progress()?;

    let journey = Journey::begin(stage, &mut vm, &dest, &plan, slowly("plugged before"))?;
    await_active(stage, &mut vm)?;
    expect_refused(&mut vm, "device_del", &json!({"id": device.id()}))?;
    let another = json!({"driver": "pci-testdev", "id": "another", "bus": "port1"});
    expect_refused(&mut vm, "device_add", &another)?;
    hurry(&mut vm)?;
    journey.arrive(stage, &mut vm)?;
    vm.await_progress()?;
    vm.check()?;

    stage.recorder().phase("unplug the device");
    let id = device.id();
    vm.machine().qmp().execute("device_del", &json!({"id": id}))?;
    vm.machine()
        .qmp()
        .await_event("the device is unplugged", UNPLUG_LIMIT, |event| {
            event.name == "DEVICE_DELETED" && event.data["device"] == id.as_str()
        })?;
    vm.await_devices(0)?;
    vm.quit()
}

fn expect_refused(vm: &mut Vm, command: &str, arguments: &serde_json::Value) -> Result {
    match vm.machine().qmp().execute(command, arguments) {
        Err(QemuError::Refused { .. }) => expect_active(vm),
        other => Err(Failure::Broken(format!(
            "{command} must be refused while the VM migrates: {other:?}"
        ))),
    }
}
