//! Compares what is known of the kernel's headers with the headers, by a C compiler. For tests.

use std::path::PathBuf;
use std::process::Command;

/// C that is an error unless `c` has the value `rust`.
pub(crate) fn equal(c: &str, rust: u64) -> String {
    format!("_Static_assert({c} == {rust}ULL, \"{c}\");\n")
}

/// Where `scripts/setup` has put the headers: it has the same rule.
fn headers() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = set("PAGETRAIL_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("pagetrail")))
        .or_else(|| Some(set("HOME")?.join(".cache/pagetrail")))
        .expect("a home");
    let headers = cache.join("linux-headers-qemu-11.1.1");
    assert!(
        headers.join("linux").exists(),
        "no {}: run scripts/setup",
        headers.display()
    );
    headers
}

/// Whether a C compiler takes `c`, and what it says.
pub(crate) fn compile(c: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("expectations.c");
    std::fs::write(&source, c).unwrap();
    let output = Command::new("cc")
        .arg("-fsyntax-only")
        .arg("-isystem")
        .arg(headers())
        .arg(&source)
        .output()
        .expect("a C compiler");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
