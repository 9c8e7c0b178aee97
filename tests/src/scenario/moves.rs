//! Migrations that arrive.

use std::time::Duration;

use super::failure::Result;
use super::journey::{Carrier, Journey, NARROW, Terms, hurry, migrate, passes, reach};
use super::place::Processes;
use super::scene::Scene;
use super::stage::{Plan, Side, Stage};
use super::vm::Rate;

/// How often the VM of [`ten_hops`] moves.
const HOPS: usize = 10;

pub(super) fn idle(stage: &mut Stage<'_>) -> Result {
    let plan = Plan::devices(1);
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    migrate(stage, &mut vm, &dest, &plan, Terms::new("idle"))?;
    vm.check()?;
    vm.start_load(Rate::FlatOut)?;
    let scene = Scene {
        plan,
        dest,
        vm,
        source,
    };
    scene.end()
}

/// Migrates with less bandwidth than the generators write, until a third pass has begun, and then with all there is.
fn migrate_in_passes(stage: &mut Stage<'_>, scene: &mut Scene, terms: Terms) -> Result {
    stage.recorder().phase(format!("migrate: {}", terms.name));
    let terms = Terms {
        bandwidth: NARROW,
        downtime_limit: Duration::from_millis(100),
        ..terms
    };
    let journey = Journey::begin(stage, &mut scene.vm, &scene.dest, &scene.plan, terms)?;
    reach(stage, &mut scene.vm, "a third pass", |info| passes(info) >= 3)?;
    hurry(&mut scene.vm)?;
    journey.arrive(stage, &mut scene.vm)
}

pub(super) fn flat_out(stage: &mut Stage<'_>) -> Result {
    let mut scene = Scene::set(stage, Plan::devices(1), Rate::FlatOut)?;
    migrate_in_passes(stage, &mut scene, Terms::new("flat out"))?;
    scene.end()
}

pub(super) fn four_devices(stage: &mut Stage<'_>) -> Result {
    let mut scene = Scene::set(stage, Plan::devices(4), Rate::FlatOut)?;
    migrate_in_passes(stage, &mut scene, Terms::new("four devices"))?;
    scene.end()
}

pub(super) fn two_processes(stage: &mut Stage<'_>) -> Result {
    let plan = Plan {
        processes: Processes::Each,
        ..Plan::devices(2)
    };
    let mut scene = Scene::set(stage, plan, Rate::FlatOut)?;
    migrate_in_passes(stage, &mut scene, Terms::new("two processes"))?;
    scene.end()
}

pub(super) fn multifd(stage: &mut Stage<'_>) -> Result {
    let mut scene = Scene::set(stage, Plan::devices(2), Rate::FlatOut)?;
    let terms = Terms {
        carrier: Carrier::Multifd,
        ..Terms::new("multifd")
    };
    migrate_in_passes(stage, &mut scene, terms)?;
    scene.end()
}

pub(super) fn file_and_back(stage: &mut Stage<'_>) -> Result {
    let mut scene = Scene::set(stage, Plan::devices(1), Rate::Pages(20_000))?;
    let terms = |name: &str| Terms {
        carrier: Carrier::File,
        ..Terms::new(name)
    };
    let Scene {
        plan,
        dest,
        vm,
        source,
    } = &mut scene;
    migrate(stage, vm, dest, plan, terms("by a file"))?;
    vm.await_progress()?;
    migrate(stage, vm, source, plan, terms("by a file, back"))?;
    scene.end()
}

pub(super) fn ten_hops(stage: &mut Stage<'_>) -> Result {
    let mut scene = Scene::set(stage, Plan::devices(2), Rate::Pages(20_000))?;
    for hop in 1..=HOPS {
        let Scene {
            plan,
            dest,
            vm,
            source,
        } = &mut scene;
        let place = if hop % 2 == 1 { dest } else { source };
        migrate(stage, vm, place, plan, Terms::new(format!("hop {hop}")))?;
        vm.await_progress()?;
    }
    scene.end()
}
