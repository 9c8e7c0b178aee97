//! Scenarios without a migration.

use pagetrail_guest::protocol::Command;

use super::failure::{Failure, Result};
use super::stage::{Plan, Side, Stage, required};
use super::vm::{Rate, Vm};
use crate::qemu::Start;

/// A guest drives a device through everything that it can do.
fn drive(vm: &mut Vm) -> Result {
    vm.start_load(Rate::FlatOut)?;
    vm.await_progress()?;
    vm.check()?;
    vm.run(Command::Hold)?;
    vm.run(Command::Release)?;
    vm.run(Command::Reset)?;
    vm.start_load(Rate::Pages(10_000))?;
    vm.await_progress()?;
    vm.check().map(drop)
}

pub(super) fn stock(stage: &mut Stage<'_>) -> Result {
    let binary = required(stage.setup().stock_qemu.as_ref(), "QEMU as it comes")?.clone();
    let plan = Plan::devices(1);
    let mut place = stage.place(Side::Source, &plan)?;
    let mut options = stage.options(&place, &plan, Start::Boot);
    options.binary = binary;
    let mut vm = Vm::booted(stage.start(&options)?, plan.devices)?;
    drive(&mut vm)?;
    place.expect_alive()?;
    vm.quit()
}

pub(super) fn ours(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(2);
    let mut place = stage.place(Side::Source, &plan)?;
    let mut vm = stage.boot(&place, &plan)?;
    stage.recorder().phase("drive");
    drive(&mut vm)?;
    place.expect_alive()?;
    vm.quit()
}

pub(super) fn unmigratable(stage: &mut Stage<'_>) -> Result {
    let launcher = required(stage.setup().unmigratable.as_ref(), "server without migration")?;
    let plan = Plan::devices(1);
    let place = stage.place_with("source", launcher, &plan)?;
    let mut vm = stage.boot(&place, &plan)?;
    let refused = vm
        .machine()
        .qmp()
        .execute("migrate", &serde_json::json!({"uri": "exec:cat > /dev/null"}));
    match refused {
        Err(crate::qemu::QemuError::Refused { message, .. }) if message.contains("migration") => {}
        other => {
            return Err(Failure::Broken(format!(
                "a device that does not migrate must block the migration, with the reason: {other:?}"
            )));
        }
    }
    drive(&mut vm)
}
