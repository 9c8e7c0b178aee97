//! From a bare kernel to a system that the agent can work in.

use std::ffi::CStr;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount as mount_fs};
use rustix::system::{RebootCommand, finit_module, reboot as reboot_machine};

use crate::protocol::WINDOW_PARAMETER;

/// Modules in the initrd, in the order in which they are loaded.
const MODULES: [&str; 2] = ["/modules/uio.ko", "/modules/pagetrail_uio.ko"];

/// Mounts what a program expects.
pub(super) fn mount() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        std::fs::create_dir_all(target)?;
        mount_fs(kind, target, kind, MountFlags::empty(), None::<&CStr>).context(target)?;
    }
    Ok(())
}

/// Loads the kernel modules.
pub(super) fn load_modules() -> Result<()> {
    for path in MODULES {
        let file = File::open(path).context(path)?;
        finit_module(&file, c"", 0).context(path)?;
    }
    Ok(())
}

/// The memory that the kernel leaves alone.
pub(super) fn window() -> Result<Range<u64>> {
    let line = std::fs::read_to_string("/proc/cmdline")?;
    parse_window(&line).with_context(|| format!("no {WINDOW_PARAMETER}BASE:SIZE in `{}`", line.trim()))
}

fn parse_window(line: &str) -> Option<Range<u64>> {
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(WINDOW_PARAMETER))?;
    let (base, size) = value.split_once(':')?;
    let base: u64 = base.parse().ok()?;
    Some(base..base.checked_add(size.parse().ok()?)?)
}

/// The kernel's name for this run of it.
pub(super) fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// Resets the machine.
pub(super) fn reboot() -> Result<()> {
    Ok(reboot_machine(RebootCommand::Restart)?)
}

/// Stays for ever, as a first process must.
pub(super) fn stay() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

#[cfg(test)]
mod tests {
    use super::parse_window;

    #[test]
    fn the_window_is_a_base_and_a_size() {
        let line = "console=ttyS0 pagetrail.window=134217728:4096 quiet\n";
        assert_eq!(parse_window(line), Some(134_217_728..134_221_824));
        for wrong in [
            "",
            "pagetrail.window=1",
            "pagetrail.window=a:b",
            "pagetrail.window=1:-1",
        ] {
            assert_eq!(parse_window(wrong), None, "{wrong}");
        }
    }
}
