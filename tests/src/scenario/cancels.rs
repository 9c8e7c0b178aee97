//! Migrations that are called off.

use super::failure::Result;
use super::journey::{Journey, Terms, cancel, migrate};
use super::phases::Phase;
use super::scene::Scene;
use super::stage::{Plan, Stage};
use super::vm::Rate;

pub(super) fn everywhere(stage: &mut Stage<'_>) -> Result {
    let Scene {
        plan,
        dest,
        mut vm,
        source,
    } = Scene::set(stage, Plan::devices(2), Rate::FlatOut)?;
    for phase in Phase::ALL {
        let waiting = stage.await_migration(&dest, &plan)?;
        let journey: Journey = phase.reach(stage, &mut vm, waiting, "cancel")?;
        let info = cancel(stage, &mut vm)?;
        if info.status.as_deref() == Some("completed") {
            // Too late to call it off: then the VM has to be at the other end, whole, and comes back.
            journey.arrive(stage, &mut vm)?;
            migrate(stage, &mut vm, &source, &plan, Terms::new("back"))?;
        }
        vm.expect_runs_on()?;
    }
    let scene = Scene {
        plan,
        dest,
        vm,
        source,
    };
    scene.migrate_after_all(stage)
}
