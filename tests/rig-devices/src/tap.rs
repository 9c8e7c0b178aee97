//! [`Tap`]: checks that are run one after the other, and told of in TAP, version 13.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// Runs checks, prints a line for each, and counts them.
pub struct Tap {
    filter: String,
    number: usize,
    failed: usize,
}

impl Tap {
    /// Of the checks whose name contains `filter`.
    pub fn begin(filter: String) -> Self {
        println!("TAP version 13");
        Self {
            filter,
            number: 0,
            failed: 0,
        }
    }

    /// Runs one check. A panic in it is a failure.
    pub fn run(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        if !name.contains(&self.filter) {
            return;
        }
        self.number += 1;
        let started = Instant::now();
        match outcome(check) {
            Ok(()) => println!("ok {} - {name} # {:.1?}", self.number, started.elapsed()),
            Err(why) => {
                self.failed += 1;
                println!("not ok {} - {name}\n# {}", self.number, why.replace('\n', "\n# "));
            }
        }
    }

    /// Prints how many checks there were. It is a failure if one has failed, or none was run.
    #[must_use]
    pub fn end(self) -> ExitCode {
        let Self { number, failed, .. } = self;
        println!("1..{number}\n# {failed} of {number} checks failed");
        ExitCode::from(u8::from(failed > 0 || number == 0))
    }
}

/// Why a check fails, if it does.
fn outcome(check: impl FnOnce() -> Result<()>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(check)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => Err(match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic
                .downcast_ref()
                .map_or("panicked", |text: &&str| text)
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::outcome;

    #[test]
    fn errors_and_panics_are_failures() {
        assert_eq!(outcome(|| Ok(())), Ok(()));
        assert_eq!(outcome(|| bail!("lost")), Err("lost".to_owned()));
        assert_eq!(outcome(|| panic!("broken")), Err("broken".to_owned()));
        let number = 7;
        assert_eq!(outcome(|| panic!("broken {number}")), Err("broken 7".to_owned()));
    }
}
