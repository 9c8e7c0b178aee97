//! The thread that looks.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::{HeatLog, HeatMap};
use super::scan::PageScan;

/// A look is followed by a pause of at least so many times its length: the guest is to run as if nobody looked.
const PAUSE_PER_LOOK: u32 = 4;

/// Why memory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum HeatError {
    /// The file behind the memory cannot be read.
    #[error("the guest's memory cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The thread that reads it has ended.
    #[error("the thread that reads the guest's memory has ended before its time")]
    Ended,
}

/// Looks at a guest's memory in the background. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Sampler {
    orders: Option<Sender<File>>,
    thread: Option<JoinHandle<io::Result<HeatMap>>>,
    began: Instant,
}

impl Sampler {
    /// Takes in all of `file`, and from then on looks every `interval`, or less often where one look takes long. Returns when
    /// the file has been read once: every later change is seen.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or no thread can be had.
    pub fn start(file: File, interval: Duration) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let scan = PageScan::new(&file, size)?;
        let (orders, inbox) = channel();
        let began = Instant::now();
        let look = Look {
            log: HeatLog::new(size),
            scan,
            interval,
            inbox,
            began,
        };
        let thread = std::thread::Builder::new()
            .name("heat".to_owned())
            .spawn(move || look.run(file))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            began,
        })
    }

    /// When the map begins.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// From now on looks at another file of the same layout: where the VM went in a migration. What differs between the two
    /// counts as changed.
    ///
    /// # Errors
    ///
    /// [`HeatError::Ended`]: [`Self::stop`] has the reason.
    pub fn follow(&self, file: File) -> Result<(), HeatError> {
        let orders = self.orders.as_ref().ok_or(HeatError::Ended)?;
        orders.send(file).map_err(|_| HeatError::Ended)
    }

    /// Looks once more and ends.
    ///
    /// # Errors
    ///
    /// What went wrong since the start.
    pub fn stop(mut self) -> Result<HeatMap, HeatError> {
        self.end().ok_or(HeatError::Ended)?
    }

    fn end(&mut self) -> Option<Result<HeatMap, HeatError>> {
        drop(self.orders.take());
        let ended = self.thread.take()?.join();
        Some(ended.map_or(Err(HeatError::Ended), |map| map.map_err(HeatError::from)))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Nobody asks for the map any more.
        let _ = self.end();
    }
}

struct Look {
    log: HeatLog,
    scan: PageScan,
    interval: Duration,
    inbox: Receiver<File>,
    began: Instant,
}

impl Look {
    fn run(mut self, mut file: File) -> io::Result<HeatMap> {
        let mut pause = self.interval;
        loop {
            let ending = match self.inbox.recv_timeout(pause) {
                Ok(next) => {
                    file = next;
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            let look = Instant::now();
            self.scan.changes(&file, |offset| self.log.changed(offset))?;
            self.log.looked(self.began.elapsed());
            if ending {
                return Ok(self.log.finish());
            }
            pause = self.interval.max(look.elapsed() * PAUSE_PER_LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, Instant};

    use super::{HeatError, Sampler};
    use crate::vmm::{Backing, PAGE_SIZE, memory_file};

    const SIZE: u64 = 1 << 20;

    fn file() -> File {
        memory_file(SIZE, Backing::Unsealed).expect("a memfd")
    }

    fn sampler(file: &File, interval: Duration) -> Sampler {
        Sampler::start(file.try_clone().expect("a descriptor"), interval).expect("it starts")
    }

    /// An interval that never ends by itself: only the last look, made by `stop`, sees anything.
    const NEVER: Duration = Duration::from_hours(24);

    #[test]
    fn what_changed_is_seen_at_the_latest_when_it_stops() {
        let file = file();
        let heat = sampler(&file, NEVER);
        file.write_all_at(&[1], 5 * PAGE_SIZE).expect("a write");
        let map = heat.stop().expect("a map");
        let row = (5 * PAGE_SIZE / map.row_bytes) as usize;
        assert_eq!((map.memory_bytes, map.changes()), (SIZE, 1));
        assert_eq!(map.columns.last().expect("a column").pages[row], 1);
    }

    /// Changes seen of a page that gets a new value `writes` times.
    fn changes_of_a_busy_page(writes: u8) -> u64 {
        let file = file();
        let heat = sampler(&file, Duration::from_millis(1));
        for value in 1..=writes {
            file.write_all_at(&[value], 0).expect("a write");
            std::thread::sleep(Duration::from_millis(5));
        }
        heat.stop().expect("a map").changes()
    }

    #[test]
    fn it_looks_while_nobody_asks() {
        assert_eq!(changes_of_a_busy_page(1).min(1), 1);
        // Its last look sees one; the thread may have to wait for its turn to see more.
        assert!(
            [10, 50, u8::MAX, u8::MAX, u8::MAX]
                .into_iter()
                .any(|writes| changes_of_a_busy_page(writes) > 1)
        );
    }

    #[test]
    fn memory_that_rests_has_no_heat() {
        let file = file();
        file.write_all_at(&[9; 5000], 0).expect("a write");
        let map = sampler(&file, Duration::from_millis(1)).stop().expect("a map");
        assert_eq!(map.changes(), 0);
    }

    #[test]
    fn it_goes_on_in_the_memory_that_it_follows() {
        let (source, dest) = (file(), file());
        source.write_all_at(&[1; 100], 0).expect("a write");
        dest.write_all_at(&[1; 100], 0).expect("a write");
        dest.write_all_at(&[2; 100], 7 * PAGE_SIZE).expect("a write");
        let heat = sampler(&source, NEVER);
        heat.follow(dest).expect("it listens");
        let map = heat.stop().expect("a map");
        assert_eq!(map.changes(), 1, "only the page that differs has changed");
    }

    #[test]
    fn stopping_does_not_wait_for_the_next_look() {
        let began = Instant::now();
        drop(sampler(&file(), NEVER));
        assert!(began.elapsed() < NEVER);
    }

    #[test]
    fn memory_that_is_taken_away_is_an_error() {
        let file = file();
        file.write_all_at(&[1], 0).expect("a write");
        let heat = sampler(&file, NEVER);
        let short = self::file();
        short.write_all_at(&[1], 0).expect("a write");
        short.set_len(1).expect("it shrinks");
        heat.follow(short).expect("it listens");
        assert!(matches!(heat.stop(), Err(HeatError::Read(_))));
    }
}
