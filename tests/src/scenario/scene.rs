//! [`Scene`]: what most scenarios begin and end with.

use super::failure::Result;
use super::journey::{Terms, migrate};
use super::place::Place;
use super::stage::{Plan, Side, Stage};
use super::vm::{Rate, Vm};

/// A VM with its load at one place, and another place for it.
pub(super) struct Scene {
    pub(super) plan: Plan,
    pub(super) dest: Place,
    pub(super) vm: Vm,
    /// Where the VM was booted; its servers run on.
    pub(super) source: Place,
}

impl Scene {
    pub(super) fn set(stage: &mut Stage<'_>, plan: Plan, rate: Rate) -> Result<Self> {
        let source = stage.place(Side::Source, &plan)?;
        let dest = stage.place(Side::Dest, &plan)?;
        let mut vm = stage.boot(&source, &plan)?;
        vm.start_load(rate)?;
        vm.await_progress()?;
        Ok(Self {
            plan,
            dest,
            vm,
            source,
        })
    }

    /// The VM still migrates to the other place, and is [well there](Self::end).
    pub(super) fn migrate_after_all(mut self, stage: &mut Stage<'_>) -> Result {
        migrate(
            stage,
            &mut self.vm,
            &self.dest,
            &self.plan,
            Terms::new("after all"),
        )?;
        self.end()
    }

    /// The guest's work goes on, and all of it is right.
    pub(super) fn end(mut self) -> Result {
        self.vm.await_progress()?;
        self.vm.check()?;
        self.source.expect_alive()?;
        self.dest.expect_alive()?;
        self.vm.quit()
    }
}
