//! What is left when a client goes.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::dma::is_let_go;
use crate::conform::check::{Check, Checked, Source, fail};
use crate::conform::probe::Probe;
use crate::vmm::{Backing, memory_file};
use crate::wire::{DmaMap, consts};

const CLIENT: Source = Source::Spec("Client Disconnection");

const SIZE: u64 = 1 << 16;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "disconnect/the-next-client-is-served",
            CLIENT,
            "Client after client is served, each with the device as the specification describes it.",
            |probe| (0..5).try_for_each(|_| probe.next_is_served()),
        ),
        Check::new(
            "disconnect/mappings-end",
            CLIENT,
            "The mappings of a client that has gone are gone: the next one maps the same addresses.",
            mappings_end,
        ),
        Check::new(
            "disconnect/memory-is-let-go",
            CLIENT,
            "The memory of a client that has gone is unmapped.",
            memory_is_let_go,
        ),
    ]
}

fn region() -> DmaMap {
    DmaMap {
        argsz: size_of::<DmaMap>() as u32,
        flags: consts::DMA_MAP_READ | consts::DMA_MAP_WRITE,
        offset: 0,
        address: 1 << 32,
        size: SIZE,
    }
}

fn mappings_end(probe: &Probe<'_>) -> Checked {
    let file = memory_file(SIZE, Backing::Sealed)?;
    for _ in 0..3 {
        let mut client = probe.client_of(0)?;
        client.dma_map(region(), Some(file.as_fd()))?;
    }
    Ok(())
}

fn memory_is_let_go(probe: &Probe<'_>) -> Checked {
    let file = memory_file(SIZE, Backing::Unsealed)?;
    let mut client = probe.client_of(0)?;
    client.dma_map(region(), Some(file.as_fd()))?;
    drop(client);
    probe.next_is_served()?;
    let give_up = Instant::now() + probe.timeout();
    while Instant::now() < give_up {
        if is_let_go(&file)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fail("the memory of a client that has gone is still mapped by the server")
}
