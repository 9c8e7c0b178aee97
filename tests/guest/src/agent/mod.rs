//! The program of a test VM: its first and only process.
//!
//! `boot` makes a system out of a bare kernel, `pci` finds devices, `device` drives one, `worker` keeps its rings busy,
//! and `commands` does what a test asks for over the second serial port. The kernel's own messages go to the first.

mod boot;
mod commands;
mod device;
mod interrupts;
mod mapped;
mod pci;
mod registers;
mod serial;
mod worker;

use anyhow::Context;

/// Runs the agent. As a kernel's first process it never returns.
pub fn main() {
    if let Err(error) = run() {
        eprintln!("pagetrail-guest: {error:#}");
    }
    // The kernel panics when its first process ends; the test sees no answer then, and this message in the console's log.
    boot::stay();
}

fn run() -> anyhow::Result<()> {
    boot::mount().context("mounting")?;
    boot::load_modules().context("loading kernel modules")?;
    let window = boot::window().context("reading the kernel's command line")?;
    let mut port = serial::Port::open("/dev/ttyS1").context("opening the second serial port")?;
    let mut agent = commands::Agent::new(window)?;
    eprintln!("pagetrail-guest: ready");
    loop {
        let request = port.receive()?;
        let id = request.id;
        let answer = agent.run(&request.command);
        port.send(&crate::protocol::Reply { id, answer })?;
    }
}
