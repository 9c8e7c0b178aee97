//! mlx5 virtual functions: their page trackers through [`DeviceTracker`](pagetrail_tracker::DeviceTracker), and their migration
//! through VFIO.
//!
//! The device is QEMU's `mlx5-rig`, of our series, and Linux's drivers are unmodified. What is validated is these drivers, VFIO
//! and the tracker; it says nothing of ConnectX hardware.

mod faults;
mod logged;
mod migration;
mod race;
mod states;
mod tracking;
mod vf;

use std::sync::Arc;

use anyhow::Result;

use crate::checks::Check;

pub(crate) use vf::Vf;

/// The checks of virtual functions, of which there are two or more, or none, with so many writes in each race.
pub(crate) fn checks(vfs: &[Arc<Vf>], race_writes: u64) -> Vec<Check> {
    if vfs.is_empty() {
        return Vec::new();
    }
    let mut checks = tracking::checks(vfs);
    checks.extend(race::checks(vfs, race_writes));
    checks.extend(faults::checks(vfs));
    checks.extend(migration::checks(vfs));
    checks
}

/// A check of virtual functions, which are as they were after a reset when it begins.
fn check(vfs: &[Arc<Vf>], name: &str, run: impl Fn(&[Arc<Vf>]) -> Result<()> + 'static) -> Check {
    let vfs = vfs.to_vec();
    Check {
        name: format!("mlx5: {name}"),
        run: Box::new(move || {
            for vf in &vfs {
                vf.reset();
            }
            run(&vfs)
        }),
    }
}
