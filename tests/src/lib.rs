//! A vfio-user *client*: everything a virtual machine monitor does with an out-of-process PCI device, without a
//! virtual machine.
//!
//! * [`wire`]: the protocol's messages as plain structs, and its constants.
//! * [`client`]: one connection to one server, with a deadline on every call.
//! * [`vmm`]: guest memory, BARs, interrupts: several devices of one embedded VM.
//! * [`driver`]: a driver for the reference device `dma`, and the replay that knows what its generator wrote.
//! * [`oracle`]: decides whether every write of a device was reported and every page arrived.
//! * [`migrate`]: a live migration between two servers, watched by the oracle.
//! * [`conform`]: a conformance test of any server, message by message.
//! * [`heat`]: which parts of a guest's memory change when.
//! * [`mod@bench`]: measurements that only a client can make.
//! * [`record`]: writes down what a scenario with a VM does.
//! * [`qemu`]: virtual machines in QEMU processes, with real guests.
//! * [`scenario`]: what is done to such a VM, and what must hold afterwards.
//! * [`report`]: what a run found, as text, JSON, SVG and JUnit.
//! * [`spawn`]: starts a device server for a test and stops it again.
//!
//! The crate talks to any server of the protocol and shares no code with one, so that a mistake made on one side is not
//! made on the other as well.

pub mod bench;
pub mod cli;
pub mod client;
pub mod conform;
pub mod driver;
pub mod heat;
pub mod migrate;
pub mod oracle;
pub mod qemu;
pub mod record;
pub mod report;
pub mod scenario;
pub mod spawn;
pub mod vmm;
pub mod wire;
