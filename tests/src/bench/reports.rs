//! What it costs QEMU to read the DMA log of a large guest.
//!
//! The guest's memory is a sparse file in tmpfs that migrations leave out (`x-ignore-shared`), so that only the dirty logs are worked
//! on: QEMU reads all of them in each pass. Its trace says when it began and ended. Nothing writes: the figure is the cost of
//! asking, not of dirty pages.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::json;

use super::{Interval, Output};
use crate::qemu::Qmp;
use crate::report::{bytes, seconds};
use crate::spawn::{Server, ServerCommand};

/// How long QEMU may take to start, and a migration to end.
const LIMIT: Duration = Duration::from_mins(1);

/// Where the guest's memory is: servers take tmpfs.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Options of `bench reports`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// QEMU, with migration of vfio-user devices.
    #[arg(long, value_name = "PATH")]
    qemu: PathBuf,
    /// Command line of the server, with `{socket}`.
    #[arg(long, value_name = "COMMAND")]
    server: ServerCommand,
    /// Guest memory.
    #[arg(long, default_value = "64G", value_parser = crate::cli::parse_size, value_name = "SIZE")]
    memory: u64,
    /// Interleaved pairs of migrations, with the device and without.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pairs: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Figures {
    memory: u64,
    /// Seconds of one reading of the log, over all readings.
    with_device: Interval,
    without_device: Interval,
    readings: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 0..args.pairs {
        let mut both = [(Some(&args.server), &mut with), (None, &mut without)];
        if pair % 2 == 1 {
            both.reverse();
        }
        for (server, readings) in both {
            readings.extend(migrate(args, server)?);
        }
    }
    let figures = Figures {
        memory: args.memory,
        with_device: Interval::of(&with).context("no reading was seen")?,
        without_device: Interval::of(&without).context("no reading was seen")?,
        readings: with.len(),
    };
    args.output.write(&table(&figures)?, &figures)
}

fn table(figures: &Figures) -> anyhow::Result<String> {
    let mut out = format!(
        "one reading of the dirty log of {}, through QEMU's client; {} readings\n",
        bytes(figures.memory),
        figures.readings
    );
    for (name, interval) in [
        ("with the device", figures.with_device),
        ("without a device", figures.without_device),
    ] {
        writeln!(
            out,
            "  {name:<18} {:>10}  [{}, {}]",
            seconds(interval.median),
            seconds(interval.low),
            seconds(interval.high)
        )?;
    }
    Ok(out)
}

/// A QEMU that is killed in the end.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds of each reading of the log in one migration to nowhere.
fn migrate(args: &Args, server: Option<&ServerCommand>) -> anyhow::Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let memory = tempfile::NamedTempFile::new_in(MEMORY_FOLDER)?;
    let socket = folder.path().join("device");
    let _server = server
        .map(|server| {
            let command = server
                .at(std::slice::from_ref(&socket))
                .context("the server serves no device")?;
            anyhow::Ok(Server::start(
                command,
                &folder.path().join("server.log"),
                std::slice::from_ref(&socket),
            )?)
        })
        .transpose()?;
    let trace = folder.path().join("trace");
    let monitor = folder.path().join("qmp");
    let mut command = command(args, memory.path(), &monitor);
    if server.is_some() {
        let device = json!({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket}});
        command.args(["-device", &device.to_string()]);
    }
    let child = command
        .stdin(Stdio::null())
        .stderr(File::create(&trace)?)
        .spawn()
        .with_context(|| format!("cannot run {}", args.qemu.display()))?;
    let mut qemu = Qemu(child);
    let mut qmp = connect(&monitor, &mut qemu, &trace)?;
    to_nowhere(&mut qmp)?;
    drop(qemu);
    readings(&std::fs::read_to_string(&trace)?)
}

fn command(args: &Args, memory: &Path, monitor: &Path) -> Command {
    let size = args.memory >> 20;
    let mut command = Command::new(&args.qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-accel",
            "tcg",
        ])
        .args(["-machine", "q35,memory-backend=ram", "-m", &format!("{size}M")])
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=ram,size={size}M,share=on,mem-path={}",
            memory.display()
        ))
        .args([
            "-chardev",
            &format!("socket,id=qmp,path={},server=on,wait=off", monitor.display()),
        ])
        .args(["-mon", "chardev=qmp,mode=control"])
        .args(["-msg", "timestamp=on", "-trace", "migration_bitmap_sync_*"]);
    for folder in ["/usr/share/qemu", "/usr/share/seabios"] {
        if Path::new(folder).is_dir() {
            command.args(["-L", folder]);
        }
    }
    command
}

fn connect(monitor: &Path, qemu: &mut Qemu, trace: &Path) -> anyhow::Result<Qmp> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match Qmp::connect(monitor) {
            Ok(qmp) => return Ok(qmp),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
        if let Some(status) = qemu.0.try_wait()? {
            let log = std::fs::read_to_string(trace).unwrap_or_default();
            bail!("QEMU has ended ({status}): {log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn to_nowhere(qmp: &mut Qmp) -> anyhow::Result<()> {
    let ignore = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
    qmp.execute("migrate-set-capabilities", &ignore)?;
    qmp.execute("migrate", &json!({"uri": "exec:cat > /dev/null"}))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let info = qmp.migrate_info()?;
        match info.status.as_deref() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                bail!("the migration failed: {}", info.error_desc.unwrap_or_default())
            }
            _ => ensure!(Instant::now() < deadline, "the migration does not end: {info:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds from each begin of a reading to its end, in QEMU's trace.
fn readings(trace: &str) -> anyhow::Result<Vec<f64>> {
    let mut readings = Vec::new();
    let mut began = None;
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(time), Some(event)) = (words.next(), words.next()) else {
            continue;
        };
        match event {
            "migration_bitmap_sync_start" => began = Some(time_stamp(time)?),
            "migration_bitmap_sync_end" => {
                let began = began
                    .take()
                    .context("QEMU's trace has an end without a beginning")?;
                readings.push(time_stamp(time)?.duration_since(began)?.as_secs_f64());
            }
            _ => {}
        }
    }
    Ok(readings)
}

fn time_stamp(text: &str) -> anyhow::Result<SystemTime> {
    humantime::parse_rfc3339(text)
        .with_context(|| format!("`{text}` is no time: QEMU's trace has time stamps"))
}

#[cfg(test)]
mod tests {
    use super::readings;

    #[test]
    fn a_reading_lasts_from_its_begin_to_its_end() {
        let trace = "2026-11-24T23:57:56.693610Z migration_bitmap_sync_start \n\
                     2026-11-24T23:57:56.694146Z vfio_container_query_dirty_bitmap iova=0x0\n\
                     2026-11-24T23:57:56.705610Z migration_bitmap_sync_end dirty_pages 0\n\
                     qemu: something else\n\
                     2026-11-24T23:57:59.000000Z migration_bitmap_sync_start\n\
                     2026-11-24T23:58:00.500000Z migration_bitmap_sync_end dirty_pages 4\n";
        let found = readings(trace).expect("a trace");
        assert_eq!(found.len(), 2);
        assert!(
            (found[0] - 0.012).abs() < 1e-9 && (found[1] - 1.5).abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn a_trace_that_makes_no_sense_is_an_error() {
        assert!(readings("2026-11-24T23:57:56.693610Z migration_bitmap_sync_end dirty_pages 0").is_err());
        assert!(readings("noon migration_bitmap_sync_start").is_err());
    }
}
