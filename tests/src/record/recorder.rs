//! The recorder of one scenario.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::info::MigrateInfo;
use super::migration::Watch;
use crate::heat::{HeatError, HeatMap, Sampler};
use crate::report::vm::{Migration, Outcome, Phase, ScenarioReport};

/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Is told of each phase when it begins.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Writes down what a scenario does. Its clock begins with it.
pub struct Recorder {
    began: Instant,
    listener: Option<Listener>,
    looks: Looks,
    notes: Mutex<Notes>,
}

/// Whether memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    Always,
    Never,
}

#[derive(Debug, Default)]
struct Notes {
    phases: Vec<Phase>,
    phase: Option<Phase>,
    migrations: Vec<Migration>,
    migration: Option<Watch>,
    heat: Option<Heat>,
}

#[derive(Debug)]
struct Heat {
    sampler: Sampler,
    /// When it began, in seconds of the scenario.
    began: f64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder for a scenario that begins now.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            listener: None,
            looks: Looks::Always,
            notes: Mutex::default(),
        }
    }

    /// A recorder that also tells `listener` of each phase when it begins.
    pub fn telling(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            listener: Some(Box::new(listener)),
            ..Self::new()
        }
    }

    /// The recorder, but without looking at memory: that takes time from the guest.
    #[must_use]
    pub fn blind(mut self) -> Self {
        self.looks = Looks::Never;
        self
    }

    /// A phase begins, and the one before ends.
    pub fn phase(&self, name: impl Into<String>) {
        let (now, name) = (self.now(), name.into());
        if let Some(listener) = &self.listener {
            listener(&name);
        }
        self.notes.lock().phase(Some(name), now);
    }

    /// A migration is asked for. It is from now on what answers are of.
    pub fn migration_begins(&self, name: impl Into<String>, downtime_limit: Option<Duration>) {
        let now = self.now();
        let mut notes = self.notes.lock();
        notes.end_migration(now);
        notes.migration = Some(Watch::new(name.into(), now, downtime_limit));
    }

    /// `query-migrate` was answered by the source. Without a migration under way that is not written down.
    pub fn migrate_info(&self, info: &MigrateInfo) {
        let now = self.now();
        if let Some(watch) = &mut self.notes.lock().migration {
            watch.answered(now, info);
        }
    }

    /// The guest stood still for so long in the migration that is under way: from the source's `STOP` to the destination's
    /// `RESUME`, by the time stamps of QMP's events.
    pub fn stood_still(&self, time: Duration) {
        if let Some(watch) = &mut self.notes.lock().migration {
            watch.stood_still(time);
        }
    }

    /// The migration is over, one way or another: how, the last answer said.
    pub fn migration_ends(&self) {
        let now = self.now();
        self.notes.lock().end_migration(now);
    }

    /// From now on looks at the guest's memory, all of it in `file`, unless the recorder is [`blind`](Self::blind).
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn watch_memory(&self, file: File) -> io::Result<()> {
        if self.looks == Looks::Never {
            return Ok(());
        }
        let sampler = Sampler::start(file, LOOK_INTERVAL)?;
        let began = sampler
            .began()
            .saturating_duration_since(self.began)
            .as_secs_f64();
        self.notes.lock().heat = Some(Heat { sampler, began });
        Ok(())
    }

    /// The VM has moved: its memory is in `file` now. Without memory that is looked at this does nothing.
    ///
    /// # Errors
    ///
    /// Looking has ended before its time.
    pub fn follow_memory(&self, file: File) -> Result<(), HeatError> {
        match &self.notes.lock().heat {
            Some(heat) => heat.sampler.follow(file),
            None => Ok(()),
        }
    }

    /// The report of the scenario, which ends now.
    pub fn finish(self, name: &str, description: &str, outcome: Outcome, log: String) -> ScenarioReport {
        let seconds = self.now();
        let mut notes = self.notes.into_inner();
        notes.phase(None, seconds);
        notes.end_migration(seconds);
        ScenarioReport {
            name: name.to_owned(),
            description: description.to_owned(),
            outcome,
            seconds,
            phases: notes.phases,
            migrations: notes.migrations,
            heat_map: notes.heat.and_then(Heat::map),
            log,
        }
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

impl Heat {
    fn map(self) -> Option<HeatMap> {
        match self.sampler.stop() {
            Ok(map) => Some(map.later(self.began)),
            Err(error) => {
                // A picture less; what the scenario found out stands.
                tracing::warn!(%error, "no heat map");
                None
            }
        }
    }
}

impl Notes {
    fn phase(&mut self, name: Option<String>, now: f64) {
        if let Some(mut ended) = self.phase.take() {
            ended.ended = now;
            self.phases.push(ended);
        }
        self.phase = name.map(|name| Phase {
            name,
            began: now,
            ended: now,
        });
    }

    fn end_migration(&mut self, now: f64) {
        if let Some(watch) = self.migration.take() {
            self.migrations.push(watch.finish(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::Recorder;
    use crate::record::MigrateInfo;
    use crate::report::vm::{Ending, Outcome};
    use crate::vmm::{Backing, memory_file};

    fn info(status: &str) -> MigrateInfo {
        MigrateInfo {
            status: Some(status.to_owned()),
            ..MigrateInfo::default()
        }
    }

    #[test]
    fn a_report_has_what_was_told_in_order() {
        let file = memory_file(1 << 20, Backing::Sealed).expect("a memfd");
        let recorder = Recorder::new();
        recorder.phase("booting");
        recorder
            .watch_memory(file.try_clone().expect("a descriptor"))
            .expect("it is looked at");
        recorder.phase("migrating");
        recorder.migration_begins("there", None);
        recorder.migrate_info(&info("completed"));
        recorder.migration_begins("back", None);
        recorder.migrate_info(&info("cancelled"));
        recorder.migration_ends();
        recorder.migrate_info(&info("failed"));
        file.write_all_at(&[1], 0).expect("a write");
        let report = recorder.finish("name", "description", Outcome::Passed, "log".to_owned());
        let phases: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(phases, ["booting", "migrating"]);
        assert!(report.phases[0].ended <= report.phases[1].began);
        let endings: Vec<_> = report
            .migrations
            .iter()
            .map(|migration| (migration.name.as_str(), &migration.ending))
            .collect();
        assert_eq!(
            endings,
            [("there", &Ending::Completed), ("back", &Ending::Cancelled)]
        );
        assert_eq!(report.heat_map.map(|map| map.changes()), Some(1));
    }

    #[test]
    fn a_blind_recorder_does_not_look_at_memory() {
        let file = memory_file(1 << 20, Backing::Sealed).expect("a memfd");
        let recorder = Recorder::new().blind();
        recorder
            .watch_memory(file.try_clone().expect("a descriptor"))
            .expect("it is not looked at");
        recorder.follow_memory(file).expect("it is not looked at");
        let report = recorder.finish("name", "", Outcome::Passed, String::new());
        assert!(report.heat_map.is_none());
    }

    #[test]
    fn a_listener_hears_of_each_phase_when_it_begins() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let recorder = Recorder::telling(move |name| sender.send(name.to_owned()).expect("it listens"));
        recorder.phase("booting");
        assert_eq!(receiver.try_recv().as_deref(), Ok("booting"));
        recorder.phase("migrating");
        assert_eq!(receiver.try_recv().as_deref(), Ok("migrating"));
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn a_migration_that_is_under_way_at_the_end_has_no_end() {
        let recorder = Recorder::new();
        recorder.migration_begins("there", None);
        recorder.migrate_info(&info("active"));
        let report = recorder.finish("name", "", Outcome::Failed("gone".to_owned()), String::new());
        assert_eq!(report.migrations[0].ending, Ending::Unknown);
        assert!(report.heat_map.is_none());
    }
}
