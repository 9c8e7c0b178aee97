//! A whole migration: passes until it converges, the switch-over, the checks at the destination.

use super::MigrateError;
use super::churn::Churn;
use super::engine::{Event, Migration, Observer, Options};
use super::stats::Outcome;
use super::workload::Workload;
use crate::vmm::Vm;

/// Migrates `source` to `dest`. With `churn` the VM is disturbed between the passes.
///
/// When it fails the source is told to run on, as a VMM would; the error is the first one.
///
/// # Errors
///
/// Whatever stops the migration. A lost page is no error: it is in the outcome.
pub fn run(
    source: &mut Vm,
    dest: &mut Vm,
    options: Options,
    workload: &mut Workload,
    churn: Option<&mut Churn>,
    observer: &mut dyn Observer,
) -> Result<Outcome, MigrateError> {
    let mut migration = Migration::start(source, dest, options, observer)?;
    let mut outcome = match passes(&mut migration, workload, churn) {
        Ok(outcome) => outcome,
        Err(error) => {
            if let Err(second) = migration.cancel() {
                tracing::warn!("the migration could not be cancelled either: {second}");
            }
            return Err(error);
        }
    };
    for lost in &mut outcome.verdict.lost {
        let writers = workload.writers(lost.iova);
        let suspects = if writers.is_empty() {
            (0..outcome.devices.len()).collect()
        } else {
            writers
        };
        lost.devices = suspects
            .into_iter()
            .map(|index| outcome.devices[index].clone())
            .collect();
    }
    observer.event(Event::Stage("checking the generators' work"));
    outcome.replays = workload.check(dest)?;
    Ok(outcome)
}

fn passes(
    migration: &mut Migration<'_>,
    workload: &mut Workload,
    mut churn: Option<&mut Churn>,
) -> Result<Outcome, MigrateError> {
    while !migration.converged() {
        migration.pass()?;
        if let Some(churn) = churn.as_deref_mut() {
            churn.disturb(migration, workload)?;
        }
    }
    workload.note_positions(migration.source())?;
    migration.switch_over()
}
