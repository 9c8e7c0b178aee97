//! [`Dma`]: a device's way to guest memory.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::Bytes;

use super::space::Space;
use super::{Access, DmaError, Lease};

/// Bytes that one [`Dma::copy`] moves at most.
pub const COPY_MAX: usize = 64 * 1024;

/// A device's way to guest memory.
///
/// Addresses are IOVAs. An access is checked whole before its first byte, and may span adjacent mappings.
/// Unmap and suspend wait for accesses that are under way, so a device moves large data in pieces
/// ([`COPY_MAX`] is a good size).
///
/// Every method fails with [`DmaError::Stopped`] while DMA is suspended, and with [`DmaError::BusMasterOff`]
/// while bus mastering is off. With [`DmaError::MemoryFailed`] an access may have happened in part; what it
/// may have written is marked.
#[derive(Clone, Debug)]
pub struct Dma {
    space: Arc<Space>,
}

impl Dma {
    pub(super) fn new(space: Arc<Space>) -> Self {
        Self { space }
    }

    /// Reads; the range may span adjacent mappings; checked whole before the first byte.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    pub fn read(&self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.space.access(|table| {
            table.check(iova, data.len() as u64, Access::Read)?;
            let mut done = 0;
            while done < data.len() {
                let piece = table.piece(iova + done as u64, data.len() - done, Access::Read)?;
                self.space.before_load(&piece);
                piece.slice().copy_to(&mut data[done..]);
                piece.verify()?;
                done += piece.len;
            }
            Ok(())
        })
    }

    /// Writes and marks; checked whole before the first byte.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        self.space.access(|table| {
            table.check(iova, data.len() as u64, Access::Write)?;
            let mut done = 0;
            while done < data.len() {
                let piece = table.piece(iova + done as u64, data.len() - done, Access::Write)?;
                self.space.store(piece, |memory| memory.copy_from(&data[done..]));
                piece.verify()?;
                done += piece.len;
            }
            Ok(())
        })
    }

    /// Copies guest memory to guest memory from low to high addresses, and marks. At most [`COPY_MAX`] bytes
    /// (64 KiB) a call.
    ///
    /// A destination that begins within the source gets what a copy byte by byte gives: a repetition of the
    /// bytes before it.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    pub fn copy(&self, source: u64, dest: u64, len: usize) -> Result<(), DmaError> {
        debug_assert!(
            len <= COPY_MAX,
            "a copy of {len} bytes holds up unmap and suspend"
        );
        let step = step_of(source, dest, len);
        self.space.access(|table| {
            table.check(source, len as u64, Access::Read)?;
            table.check(dest, len as u64, Access::Write)?;
            let mut done = 0;
            while done < len {
                let from = table.piece(source + done as u64, step.min(len - done), Access::Read)?;
                let to = table.piece(dest + done as u64, from.len, Access::Write)?;
                let from = from.first(to.len);
                self.space.before_load(&from);
                self.space
                    .store(to, |memory| from.slice().copy_to_volatile_slice(memory));
                from.verify()?;
                to.verify()?;
                done += to.len;
            }
            Ok(())
        })
    }

    /// Stores an aligned 32-bit value, little-endian, with the ordering given, and marks. An address that is
    /// not aligned gets the four bytes in any order.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    ///
    /// # Panics
    ///
    /// When a store cannot have the ordering ([`AtomicU32::store`](std::sync::atomic::AtomicU32::store)).
    pub fn store_u32(&self, iova: u64, value: u32, order: Ordering) -> Result<(), DmaError> {
        if !iova.is_multiple_of(4) {
            fence(Ordering::SeqCst);
            return self.write(iova, &value.to_le_bytes());
        }
        self.space.access(|table| {
            // Mappings begin and end at pages: an aligned value lies in one of them.
            let piece = table.piece(iova, size_of::<u32>(), Access::Write)?;
            if order != Ordering::Relaxed {
                self.space.drain();
            }
            self.space.store(piece, |memory| {
                memory
                    .store(value.to_le(), 0, order)
                    .expect("an aligned value in bounds");
            });
            piece.verify()
        })
    }

    /// Loads an aligned 32-bit value, little-endian. From an address that is not aligned, the four bytes in
    /// any order.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    ///
    /// # Panics
    ///
    /// When a load cannot have the ordering ([`AtomicU32::load`](std::sync::atomic::AtomicU32::load)).
    pub fn load_u32(&self, iova: u64, order: Ordering) -> Result<u32, DmaError> {
        if !iova.is_multiple_of(4) {
            let mut bytes = [0; 4];
            self.read(iova, &mut bytes)?;
            fence(Ordering::SeqCst);
            return Ok(u32::from_le_bytes(bytes));
        }
        self.space.access(|table| {
            let piece = table.piece(iova, size_of::<u32>(), Access::Read)?;
            self.space.before_load(&piece);
            let value: u32 = piece.slice().load(0, order).expect("an aligned value in bounds");
            piece.verify()?;
            Ok(u32::from_le(value))
        })
    }

    /// Whether an access of the whole range would be allowed now.
    ///
    /// # Errors
    ///
    /// The [`DmaError`] that the access would give.
    pub fn check(&self, iova: u64, len: u64, access: Access) -> Result<(), DmaError> {
        self.space.access(|table| table.check(iova, len, access))
    }

    /// A writable slice of guest memory within one mapping; its pages are marked when it is dropped.
    ///
    /// # Errors
    ///
    /// [`DmaError`]; [`DmaError::NotMapped`] also when the range is empty, or goes on beyond the mapping that
    /// it begins in.
    pub fn lease(&self, iova: u64, len: usize) -> Result<Lease, DmaError> {
        if len == 0 {
            return Err(DmaError::NotMapped(iova));
        }
        self.space.access(|table| {
            let piece = table.piece(iova, len, Access::Write)?;
            if piece.len < len {
                return Err(DmaError::NotMapped(iova + piece.len as u64));
            }
            self.space.before_load(&piece);
            Ok(Lease::new(&self.space, piece))
        })
    }
}

/// Bytes that may be moved at once so that the result is that of a copy byte by byte, low addresses first.
fn step_of(source: u64, dest: u64, len: usize) -> usize {
    let distance = usize::try_from(dest.wrapping_sub(source)).unwrap_or(usize::MAX);
    if distance == 0 { len } else { len.min(distance) }
}
