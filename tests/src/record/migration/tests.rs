//! Passes and samples of answers as QEMU gives them.

use proptest::prelude::*;

use super::{MAX_SAMPLES, Thinned, Watch};
use crate::migrate::PassKind;
use crate::record::info::{MigrateInfo, RamInfo, VfioInfo};
use crate::report::vm::{Ending, Migration, Pass, Sample};

const PAGE: u64 = 4096;

/// A guest of 1000 pages.
fn ram(sync: u64, sent: u64, left: u64) -> RamInfo {
    RamInfo {
        transferred: sent * 4100,
        remaining: left * PAGE,
        total: 1000 * PAGE,
        duplicate: sent / 10,
        normal: sent - sent / 10,
        dirty_sync_count: sync,
        page_size: PAGE,
        ..RamInfo::default()
    }
}

fn info(status: &str, ram: Option<RamInfo>) -> MigrateInfo {
    MigrateInfo {
        status: Some(status.to_owned()),
        ram,
        ..MigrateInfo::default()
    }
}

fn migration(answers: &[MigrateInfo]) -> Migration {
    let mut watch = Watch::new("there".to_owned(), 1.0, None);
    for (number, answer) in (2_u32..).zip(answers) {
        watch.answered(f64::from(number), answer);
    }
    watch.finish(99.0)
}

fn passes(migration: &Migration) -> Vec<(u64, PassKind, u64, u64)> {
    let pass = |pass: &Pass| (pass.number, pass.kind, pass.dirty_pages, pass.sent_pages);
    migration.passes.iter().map(pass).collect()
}

#[test]
fn each_reading_of_the_log_is_a_pass_and_the_last_is_the_stop() {
    let stop = RamInfo {
        precopy_bytes: 5 * 4100,
        downtime_bytes: 15 * 4100,
        ..ram(2, 1070, 0)
    };
    let migration = migration(&[
        info("setup", None),
        info("active", Some(ram(1, 0, 1000))),
        info("active", Some(ram(1, 600, 400))),
        info("active", Some(ram(2, 1000, 60))),
        info("active", Some(ram(2, 1050, 10))),
        info("completed", Some(stop)),
    ]);
    let expected = [
        (0, PassKind::Bulk, 1000, 1000),
        // 50 seen, and a quarter of the last 20.
        (1, PassKind::Live, 60, 55),
        (2, PassKind::Final, 15, 15),
    ];
    assert_eq!(passes(&migration), expected);
    assert_eq!(migration.ending, Ending::Completed);
    assert_eq!(migration.resent_bytes, 70 * PAGE);
    assert_eq!(migration.wire_bytes, 1070 * 4100);
    assert_eq!(migration.samples.len(), 5);
}

#[test]
fn passes_that_nobody_saw_are_told_with_the_next() {
    let migration = migration(&[
        info("active", Some(ram(1, 900, 100))),
        info("active", Some(ram(6, 1050, 3))),
        info("active", Some(ram(7, 1060, 3))),
    ]);
    let numbers: Vec<_> = migration
        .passes
        .iter()
        .map(|pass| pass.number..=pass.last_number)
        .collect();
    assert_eq!(numbers, [0..=0, 1..=5, 6..=6]);
    assert_eq!(
        migration.passes[1].sent_pages, 53,
        "50 beyond the first pass, and 3 that were left"
    );
}

#[test]
fn the_stop_is_one_pass_also_where_qemu_counts_it() {
    let migration = migration(&[
        info("active", Some(ram(1, 0, 1000))),
        info("device", Some(ram(1, 1000, 20))),
        info("completed", Some(ram(2, 1020, 0))),
    ]);
    assert_eq!(migration.passes.len(), 2);
    assert_eq!(migration.passes[1].kind, PassKind::Final);
    assert_eq!(
        migration.passes[1].sent_pages, 1020,
        "all since the last look while the guest ran"
    );
}

#[test]
fn nothing_is_sent_again_when_every_page_is_sent_once() {
    let migration = migration(&[
        info("active", Some(ram(1, 500, 500))),
        info("completed", Some(ram(2, 1000, 0))),
    ]);
    assert_eq!(migration.resent_bytes, 0);
}

#[test]
fn a_failed_migration_keeps_what_was_known_and_says_why() {
    let failed = MigrateInfo {
        error_desc: Some("no route".to_owned()),
        ..info("failed", None)
    };
    let active = MigrateInfo {
        vfio: Some(VfioInfo { transferred: 7 }),
        ..info("active", Some(ram(1, 300, 700)))
    };
    let migration = migration(&[active, failed]);
    assert_eq!(migration.ending, Ending::Failed("no route".to_owned()));
    assert_eq!((migration.wire_bytes, migration.device_bytes), (300 * 4100, 7));
    assert_eq!(
        migration.passes.last().map(|pass| pass.kind),
        Some(PassKind::Bulk)
    );
}

#[test]
fn a_migration_whose_end_nobody_saw_is_not_taken_for_complete() {
    let active = info("active", Some(ram(2, 300, 0)));
    assert_eq!(migration(&[active]).ending, Ending::Unknown);
    assert_eq!(migration(&[info("cancelled", None)]).ending, Ending::Cancelled);
    assert_eq!(migration(&[]).ending, Ending::Unknown);
}

/// Counters that only grow, as QEMU's do, with more or less of it between two looks.
fn answers() -> impl Strategy<Value = Vec<RamInfo>> {
    prop::collection::vec((0_u64..3, 0_u64..500, 0_u64..500), 1..50).prop_map(|steps| {
        let mut before = (1, 0);
        steps
            .into_iter()
            .map(|(syncs, sent, left)| {
                before = (before.0 + syncs, before.1 + sent);
                ram(before.0, before.1, left)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn no_page_is_lost_between_passes(answers in answers()) {
        let infos: Vec<_> = answers.iter().map(|ram| info("active", Some(*ram))).collect();
        let migration = migration(&infos);
        let last = answers.last().expect("at least one");
        let sum = |of: fn(&Pass) -> u64| migration.passes.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|pass| pass.sent_pages), last.sent_pages());
        prop_assert_eq!(sum(|pass| pass.zero_pages), last.duplicate);
        prop_assert_eq!(sum(|pass| pass.wire_bytes), last.transferred);
        prop_assert!(migration.passes.is_sorted_by(|a, b| a.last_number + 1 == b.number && a.ended <= b.began));
    }

    #[test]
    fn samples_stay_few_and_end_with_the_last(count in 1_u32..20_000) {
        let mut thinned = Thinned::default();
        for at in 0..count {
            thinned.push(Sample { at: f64::from(at), ..Sample::default() });
        }
        let samples = &thinned.samples;
        prop_assert!(samples.len() <= MAX_SAMPLES);
        prop_assert!(samples.len() >= (count as usize).min(MAX_SAMPLES / 2));
        prop_assert_eq!(samples.last().map(|sample| sample.at), Some(f64::from(count - 1)));
        prop_assert!(samples.is_sorted_by(|a, b| a.at < b.at));
    }
}
