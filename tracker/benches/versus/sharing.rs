//! Several threads, several devices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pagetrail_tracker::{Attachment, DeviceKind, Iova, PageSize};

use crate::measure::{Comparison, GIB, Ours, PAGE, Theirs, compare, per_operation, scattered_pages, time};
use crate::table::{Requirement, Row, versus};

const HOT_PAGES: u64 = 256;
const SPELL: Duration = Duration::from_millis(100);

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        versus(
            "2 threads mark the same hot pages, a third reads every ms",
            contended(Duration::from_millis(1)),
            Requirement::AtLeast(5.0),
        ),
        versus(
            "  the same, the third reads without pause",
            contended(Duration::ZERO),
            Requirement::None,
        ),
    ];
    rows.extend(devices());
    rows
}

/// Nanoseconds per mark of two threads while a third one reads.
fn contended(pause: Duration) -> Comparison {
    let (ours, theirs) = (Mutex::new(Ours::new(GIB)), Theirs::new(GIB));
    compare(
        15,
        || {
            let tracker = ours.lock().expect("no panic").tracker.clone();
            let mark = |address| tracker.mark_page(Iova::new(address));
            spell(mark, || ours.lock().expect("no panic").read(), pause)
        },
        || {
            let read = || drop(std::hint::black_box(theirs.bitmap.get_and_reset()));
            spell(|address| theirs.mark(address, 1), read, pause)
        },
    )
}

fn spell(mark: impl Fn(u64) + Sync, read: impl Fn() + Sync, pause: Duration) -> f64 {
    let (done, marks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    for page in 0..HOT_PAGES {
                        mark(std::hint::black_box(page * PAGE));
                    }
                    count += HOT_PAGES;
                }
                marks.fetch_add(count, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                read();
                thread::sleep(pause);
            }
        });
        thread::sleep(SPELL);
        done.store(true, Ordering::Relaxed);
    });
    per_operation(SPELL, marks.into_inner())
}

/// 64 devices that share an address space, against one.
fn devices() -> Vec<Row> {
    let (mut many, mut one) = (Ours::new(16 * GIB), Ours::new(16 * GIB));
    let attachments: Vec<Attachment> = (1..64)
        .map(|n| {
            let device = many
                .device
                .ioas()
                .attach(DeviceKind::Emulated, &format!("bench{n}"))
                .expect("attaches");
            device.start(&[], PageSize::SIZE_4K).expect("starts");
            device
        })
        .collect();
    let pages = scattered_pages(16 * GIB, 1000);
    let marking = compare(201, || hot(&many), || hot(&one));
    let read = |ours: &mut Ours| {
        ours.mark_each(&pages);
        time(1, || ours.read())
    };
    let reading = compare(201, || read(&mut many), || read(&mut one));
    drop(attachments);
    let row = |name: &str, result| Row {
        name: name.to_owned(),
        result,
        names: ("64 devices", "1 device"),
        requirement: Requirement::Same,
    };
    vec![
        row("64 devices attached: a hot mark (other: 1 device)", marking),
        row(
            "64 devices attached: read 1000 dirty pages (other: 1 device)",
            reading,
        ),
    ]
}

/// Nanoseconds per mark of a page that is dirty already. Not inlined, so that both sides run the same code.
#[inline(never)]
fn hot(ours: &Ours) -> f64 {
    time(1 << 15, || {
        for _ in 0..1 << 15 {
            ours.tracker.mark_page(Iova::new(std::hint::black_box(PAGE)));
        }
    })
}
