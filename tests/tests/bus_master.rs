//! The bus master enable bit: the device's DMA and the command register agree, whatever is written, and whether or not the write
//! was refused.

mod common;

use common::{Host, dma, eventually, generator};
use vfio_user_check::driver::regs;
use vfio_user_check::vmm::Vm;
use vfio_user_check::wire::consts;

const COMMAND: u64 = 4;
const MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;

/// Whether the device can write memory now.
fn writes_memory(vm: &mut Vm) -> bool {
    // An error of the last time would be told again.
    vm.devices()[0].client().device_reset().expect("a reset");
    let mut dma = dma(vm);
    // A device without bus mastering reports its error at once or a little later.
    let _ = dma.start_generator(&generator(4));
    let mut writes = false;
    eventually("a page written, or an error", || {
        writes = dma.positions().expect("registers").iter().sum::<u64>() > 0;
        writes || dma.read(regs::ERROR).expect("a register") == regs::ERROR_BUS_MASTER
    });
    writes
}

/// The bit as a driver reads it.
fn register_says(vm: &mut Vm) -> bool {
    let command = vm.devices()[0].config().read(COMMAND).expect("config space");
    u16::from_le_bytes(command) & MASTER != 0
}

fn set(vm: &mut Vm, command: u16) {
    let bytes = command.to_le_bytes();
    vm.devices()[0]
        .config()
        .write(COMMAND, &bytes)
        .expect("config space");
}

/// Writes to config space that reach the command register in every way there is: whole, in part, from before it, beyond its end, with
/// bits that there are not.
fn writes(master: u16) -> Vec<(u64, Vec<u8>)> {
    let word = |bits: u16| (MEMORY | master | bits).to_le_bytes().to_vec();
    let after = |before: usize| [vec![0; before], word(0)].concat();
    vec![
        (COMMAND, word(0)),
        (COMMAND, word(0)[..1].to_vec()),
        (COMMAND, [word(0), vec![0; 2]].concat()),
        (COMMAND, [word(0), vec![0xff; 8]].concat()),
        (COMMAND, [word(0), vec![0; 250]].concat()),
        (COMMAND, [word(0), vec![0; 251]].concat()),
        (COMMAND, word(0xf000)),
        (COMMAND, word(1 << 6)),
        (COMMAND + 1, vec![master as u8]),
        (COMMAND - 1, after(1)),
        (COMMAND - 2, after(2)),
        (0, after(4)),
        (0, [after(4), vec![0; 250]].concat()),
    ]
}

#[test]
fn the_device_masters_the_bus_exactly_when_its_command_register_says_so() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    for (before, after) in [(0, MASTER), (MASTER, 0)] {
        for (offset, data) in writes(after) {
            set(&mut vm, MEMORY | before);
            assert_eq!(writes_memory(&mut vm), before != 0, "the control of what follows");
            let written = vm.devices()[0]
                .client()
                .region_write(consts::REGION_CONFIG, offset, &data);
            let what = format!("{data:02x?} at {offset}, answered {written:?}");
            let says = register_says(&mut vm);
            assert_eq!(writes_memory(&mut vm), says, "{what}");
            assert_eq!(register_says(&mut vm), says, "a reset keeps config space: {what}");
        }
    }
}
