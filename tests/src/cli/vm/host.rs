//! What a run was made with, for its report.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use rustix::system::uname;

/// QEMU's own name and version: the first line that it says.
///
/// # Errors
///
/// It does not run.
pub(super) fn qemu_version(binary: &Path) -> anyhow::Result<String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    ensure!(
        output.status.success(),
        "{} --version: {}",
        binary.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The system and the processors.
pub(super) fn host() -> String {
    let system = uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} {} {}, {processors} × {}",
        text(system.sysname()),
        text(system.release()),
        text(system.machine()),
        processor().unwrap_or_else(|| "unknown processor".to_owned())
    )
}

/// What the kernel calls the first processor.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Now, in UTC.
pub(super) fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{date, host, qemu_version};

    #[test]
    fn the_machine_is_named() {
        assert!(host().starts_with("Linux "), "{}", host());
        assert!(date().ends_with('Z'), "{}", date());
    }

    #[test]
    fn what_does_not_run_is_no_qemu() {
        assert!(qemu_version(Path::new("/nonexistent/qemu")).is_err());
        assert!(qemu_version(Path::new("/bin/false")).is_err());
    }
}
