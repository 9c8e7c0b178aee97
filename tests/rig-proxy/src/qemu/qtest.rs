//! [`Qtest`]: what the processor of a QEMU without one does, by its test protocol (`docs/devel/testing/qtest.rst` of QEMU): ports and memory
//! are accessed on demand.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use pagetrail_rig_devices::Registers;

/// How long QEMU may take for an access.
const PATIENCE: Duration = Duration::from_mins(1);

/// PCI's configuration mechanism: the port of the address, and that of the data.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;

/// A connection to QEMU's test protocol.
pub(super) struct Qtest {
    stream: BufReader<UnixStream>,
}

impl Qtest {
    pub(super) fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("QEMU does not listen for accesses")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Reads a register of the configuration space of the device in `slot` of the root bus.
    pub(super) fn config_read(&mut self, slot: u8, offset: u8) -> Result<u32> {
        self.select(slot, offset)?;
        self.value(format_args!("inl {CONFIG_DATA:#x}"))
    }

    pub(super) fn config_write(&mut self, slot: u8, offset: u8, value: u32) -> Result<()> {
        self.select(slot, offset)?;
        self.command(format_args!("outl {CONFIG_DATA:#x} {value:#x}"))
            .map(drop)
    }

    fn select(&mut self, slot: u8, offset: u8) -> Result<()> {
        let address = CONFIG_ENABLE | u32::from(slot) << 11 | u32::from(offset);
        self.command(format_args!("outl {CONFIG_ADDRESS:#x} {address:#x}"))
            .map(drop)
    }

    /// Has a command carried out. Returns what is behind the `OK`.
    fn command(&mut self, command: fmt::Arguments<'_>) -> Result<String> {
        let line = format!("{command}\n");
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.stream
            .read_line(&mut answer)
            .with_context(|| format!("no answer to {command}"))?;
        let value = answer
            .trim()
            .strip_prefix("OK")
            .map(|value| value.trim().to_owned());
        value.with_context(|| format!("QEMU answers {command} with {answer:?}"))
    }

    fn value(&mut self, command: fmt::Arguments<'_>) -> Result<u32> {
        let answer = self.command(command)?;
        let digits = answer.strip_prefix("0x").context("no number")?;
        // Numbers have 16 digits, whatever was read.
        let value = u64::from_str_radix(digits, 16).with_context(|| format!("no number: {answer}"))?;
        u32::try_from(value).with_context(|| format!("more than 32 bits: {answer}"))
    }
}

/// Registers from an address on.
pub(super) struct At<'a>(pub(super) &'a mut Qtest, pub(super) u64);

impl Registers for At<'_> {
    fn read32(&mut self, offset: u64) -> Result<u32> {
        let Self(qtest, base) = self;
        qtest.value(format_args!("readl {:#x}", *base + offset))
    }

    fn write32(&mut self, offset: u64, value: u32) -> Result<()> {
        let Self(qtest, base) = self;
        qtest
            .command(format_args!("writel {:#x} {value:#x}", *base + offset))
            .map(drop)
    }
}
