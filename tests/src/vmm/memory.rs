//! Guest memory: regions of IOVA space over memfds, and the log of what the CPU wrote.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use vm_memory::bitmap::{AtomicBitmap, BS};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::memory_file::{Backing, data_extents, memory_file};
use crate::client::{Client, Result};
use crate::wire::{DmaMap, consts};

/// Bytes of a page: what is copied, hashed and counted.
pub const PAGE_SIZE: u64 = 4096;

/// Why guest memory could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Memory could not be had.
    #[error("guest memory: {0}")]
    Io(#[from] io::Error),
    /// A region could not be mapped.
    #[error("guest memory cannot be mapped: {0}")]
    Map(String),
    /// There is no memory at an address.
    #[error("no guest memory at {iova:#x} + {length:#x}")]
    Unmapped {
        /// First IOVA.
        iova: u64,
        /// Bytes.
        length: u64,
    },
}

/// A stretch of guest memory that is mapped as one.
pub struct Region {
    iova: u64,
    file: Arc<File>,
    file_offset: u64,
    map: MmapRegion<AtomicBitmap>,
}

impl Region {
    /// Maps `size` bytes of `file` from `file_offset` on, to be found at `iova`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Map`] when the system cannot map it.
    pub fn new(iova: u64, size: u64, file: Arc<File>, file_offset: u64) -> Result<Self, MemoryError> {
        let backing = FileOffset::from_arc(Arc::clone(&file), file_offset);
        let map = MmapRegion::from_file(backing, size as usize)
            .map_err(|error| MemoryError::Map(error.to_string()))?;
        Ok(Self {
            iova,
            file,
            file_offset,
            map,
        })
    }

    /// First IOVA.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.map.size() as u64
    }

    /// First IOVA past the region.
    pub fn end(&self) -> u64 {
        self.iova + self.size()
    }

    /// The file behind the region.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the whole range lies in the region.
    pub fn contains(&self, iova: u64, length: u64) -> bool {
        iova >= self.iova && iova.checked_add(length).is_some_and(|end| end <= self.end())
    }

    /// The `DMA_MAP` of the region, for reading and writing.
    pub fn dma_map(&self) -> DmaMap {
        DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            flags: consts::DMA_MAP_READ | consts::DMA_MAP_WRITE,
            offset: self.file_offset,
            address: self.iova,
            size: self.size(),
        }
    }

    /// Gives the region to a device.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn map_into(&self, client: &mut Client) -> Result<()> {
        use std::os::fd::AsFd;
        client.dma_map(self.dma_map(), Some(self.file.as_fd()))
    }

    /// The parts of the region, by IOVA, that are not holes of the file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn data_extents(&self) -> io::Result<Vec<Range<u64>>> {
        let range = self.file_offset..self.file_offset + self.size();
        let to_iova = |extent: Range<u64>| {
            extent.start - self.file_offset + self.iova..extent.end - self.file_offset + self.iova
        };
        Ok(data_extents(&self.file, range)?
            .into_iter()
            .map(to_iova)
            .collect())
    }

    fn slice(&self, iova: u64, length: usize) -> VolatileSlice<'_, BS<'_, AtomicBitmap>> {
        let inside = (iova - self.iova) as usize;
        self.map
            .get_slice(inside, length)
            .expect("the range lies in the region")
    }

    /// Copies from guest memory; the range must lie in the region.
    pub fn read(&self, iova: u64, target: &mut [u8]) {
        self.slice(iova, target.len()).copy_to(target);
    }

    /// Copies to guest memory as the CPU would, logged; the range must lie in the region.
    pub fn write(&self, iova: u64, data: &[u8]) {
        self.slice(iova, data.len()).copy_from(data);
    }

    /// Takes the pages, by IOVA, that the CPU wrote since this was last asked.
    pub fn take_cpu_dirty(&self) -> Vec<u64> {
        let words = self.map.bitmap().get_and_reset();
        let page = |index: usize| self.iova + index as u64 * PAGE_SIZE;
        words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0)
            .flat_map(|(index, word)| {
                (0..64)
                    .filter(move |bit| word & (1 << bit) != 0)
                    .map(move |bit| page(index * 64 + bit))
            })
            .collect()
    }
}

/// The memory of one VM. Regions come and go while devices use it.
#[derive(Default)]
pub struct GuestMemory {
    regions: RwLock<Vec<Arc<Region>>>,
}

/// Where a PC with `size` bytes of RAM has it, as (IOVA, bytes): below the VGA hole, above 1 MiB up to 3 GiB, and the rest
/// above 4 GiB.
pub fn pc_layout(size: u64) -> Vec<(u64, u64)> {
    const VGA: u64 = 0xa_0000;
    const HIGH_MEMORY: u64 = 1 << 20;
    const LOW_END: u64 = 3 << 30;
    if size <= 2 * HIGH_MEMORY {
        return vec![(0, size)];
    }
    let low = size.min(LOW_END);
    let mut layout = vec![(0, VGA), (HIGH_MEMORY, low - HIGH_MEMORY)];
    if size > low {
        layout.push((4 << 30, size - low));
    }
    layout
}

impl GuestMemory {
    /// Memory of `size` bytes in one memfd, laid out like a PC's.
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn pc(size: u64, backing: Backing) -> Result<Arc<Self>, MemoryError> {
        let file = Arc::new(memory_file(size, backing)?);
        let mut offset = 0;
        let memory = Self::default();
        for (iova, length) in pc_layout(size) {
            // Below 1 MiB the file has the hole as well; above 4 GiB the file goes on where low memory ends.
            let file_offset = if iova < (4 << 30) { iova } else { offset };
            memory.add(Region::new(iova, length, Arc::clone(&file), file_offset)?);
            offset = file_offset + length;
        }
        Ok(Arc::new(memory))
    }

    /// Memory in the given regions (IOVA, bytes), each with a memfd of its own.
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn with_regions(layout: &[(u64, u64)], backing: Backing) -> Result<Arc<Self>, MemoryError> {
        let memory = Self::default();
        for (iova, length) in layout {
            let file = Arc::new(memory_file(*length, backing)?);
            memory.add(Region::new(*iova, *length, file, 0)?);
        }
        Ok(Arc::new(memory))
    }

    /// Memory laid out like `self`, with nothing in it: what the destination of a migration starts with.
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn same_layout(&self) -> Result<Arc<Self>, MemoryError> {
        let layout: Vec<(u64, u64)> = self
            .regions()
            .iter()
            .map(|region| (region.iova(), region.size()))
            .collect();
        Self::with_regions(&layout, Backing::Sealed)
    }

    /// The regions there are now, by IOVA.
    pub fn regions(&self) -> Vec<Arc<Region>> {
        self.regions.read().clone()
    }

    /// Adds a region.
    pub fn add(&self, region: Region) -> Arc<Region> {
        let region = Arc::new(region);
        let mut regions = self.regions.write();
        regions.push(Arc::clone(&region));
        regions.sort_by_key(|region| region.iova);
        region
    }

    /// Removes the region that starts at `iova`.
    pub fn remove(&self, iova: u64) -> Option<Arc<Region>> {
        let mut regions = self.regions.write();
        let index = regions.iter().position(|region| region.iova == iova)?;
        Some(regions.remove(index))
    }

    /// Bytes of all regions.
    pub fn size(&self) -> u64 {
        self.regions().iter().map(|region| region.size()).sum()
    }

    /// The region that holds the whole range.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`] when none does.
    pub fn find(&self, iova: u64, length: u64) -> Result<Arc<Region>, MemoryError> {
        let regions = self.regions.read();
        let found = regions.iter().find(|region| region.contains(iova, length));
        found.cloned().ok_or(MemoryError::Unmapped { iova, length })
    }

    /// Reads guest memory.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`].
    pub fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), MemoryError> {
        self.find(iova, target.len() as u64)?.read(iova, target);
        Ok(())
    }

    /// Writes guest memory as the CPU would.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`].
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.find(iova, data.len() as u64)?.write(iova, data);
        Ok(())
    }

    /// Copies guest memory in one piece, as a driver's own memcpy would.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`].
    pub fn copy_within(&self, from: u64, to: u64, length: u64) -> Result<(), MemoryError> {
        let (source, dest) = (self.find(from, length)?, self.find(to, length)?);
        source
            .slice(from, length as usize)
            .copy_to_volatile_slice(dest.slice(to, length as usize));
        Ok(())
    }

    /// Reads an aligned 32-bit word with acquire ordering: what a device stored before it is seen.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`].
    pub fn load_acquire(&self, iova: u64) -> Result<u32, MemoryError> {
        let region = self.find(iova, 4)?;
        let slice = region.map.as_volatile_slice();
        let value = slice.load((iova - region.iova) as usize, Ordering::Acquire);
        value.map_err(|error| MemoryError::Map(error.to_string()))
    }

    /// Fills all memory with a pattern that differs from page to page and with `seed`.
    pub fn fill(&self, seed: u64) {
        let mut page = vec![0; PAGE_SIZE as usize];
        for region in self.regions() {
            for iova in (region.iova()..region.end()).step_by(PAGE_SIZE as usize) {
                fill_page(&mut page, seed ^ iova);
                region.write(iova, &page);
            }
        }
    }
}

fn fill_page(page: &mut [u8], seed: u64) {
    let (words, _) = page.as_chunks_mut::<8>();
    let mut value = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in words {
        value = value
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        *word = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::{Backing, GuestMemory, PAGE_SIZE, pc_layout};

    #[test]
    fn a_pc_has_the_holes_of_a_pc() {
        assert_eq!(pc_layout(64 << 20), [(0, 0xa_0000), (1 << 20, 63 << 20)]);
        let layout = pc_layout(5 << 30);
        assert_eq!(layout[2], (4 << 30, 2 << 30));
        assert_eq!(layout[1].0 + layout[1].1, 3 << 30);
    }

    #[test]
    fn what_the_cpu_wrote_is_logged_once() {
        let memory = GuestMemory::pc(16 << 20, Backing::Sealed).expect("memory");
        memory
            .write((1 << 20) + 5 * PAGE_SIZE + 7, &[1; 4096])
            .expect("a write");
        let region = memory.find(1 << 20, 1).expect("a region");
        let first = (1 << 20) + 5 * PAGE_SIZE;
        assert_eq!(region.take_cpu_dirty(), [first, first + PAGE_SIZE]);
        assert!(region.take_cpu_dirty().is_empty());
    }

    #[test]
    fn a_hole_is_not_memory() {
        let memory = GuestMemory::pc(16 << 20, Backing::Sealed).expect("memory");
        assert!(memory.read(0xa_0000, &mut [0]).is_err());
        assert!(memory.read(0x9_ffff, &mut [0; 2]).is_err());
        assert!(memory.read(0x9_ffff, &mut [0]).is_ok());
    }

    #[test]
    fn reading_the_extents_allocates_nothing() {
        let memory = GuestMemory::pc(16 << 20, Backing::Sealed).expect("memory");
        memory.write(2 << 20, &[9]).expect("a write");
        let region = memory.find(1 << 20, 1).expect("a region");
        let extents = region.data_extents().expect("extents");
        assert_eq!(extents.len(), 1);
        assert_eq!(extents[0], 2 << 20..(2 << 20) + 4096);
    }
}
