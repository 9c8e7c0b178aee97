//! How many files this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many as the system grants. What a process begins with, 1024 as a rule, is for those that use `select`, while one device may
/// have 2048 interrupts with an eventfd each.
pub(super) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as low as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_can_be_open_as_the_system_grants() {
        let granted = getrlimit(Resource::Nofile);
        let mut lower = granted;
        // By little, since other tests run in this process.
        lower.current = granted.maximum.map(|most| most - 1);
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, granted.maximum);
    }
}
