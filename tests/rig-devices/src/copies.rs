//! [`Copies`]: pages as they were when they were last reported.

use std::ops::Range;

use anyhow::Result;

use crate::memory::Memory;
use crate::pages::PAGE;

/// A copy of memory from address 0 on, all zeros at first, of which each page is renewed when it is reported.
///
/// Once nobody writes any more and all that is due has been reported, a page that is not as it was copied was lost.
pub struct Copies(Vec<u8>);

impl Copies {
    /// Of so many pages.
    pub fn new(pages: u64) -> Self {
        Self(vec![0; (pages * PAGE) as usize])
    }

    /// Copies the pages that were reported.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn update(&mut self, memory: &dyn Memory, reported: &[u64]) -> Result<()> {
        for page in reported {
            let start = (page * PAGE) as usize;
            memory.read(page * PAGE, &mut self.0[start..start + PAGE as usize])?;
        }
        Ok(())
    }

    /// The pages among `pages` that are not as they were copied.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn lost(&self, memory: &dyn Memory, pages: Range<u64>) -> Result<Vec<u64>> {
        let mut found = vec![0; PAGE as usize];
        let mut lost = Vec::new();
        for page in pages {
            memory.read(page * PAGE, &mut found)?;
            if self.page(page) != found {
                lost.push(page);
            }
        }
        Ok(lost)
    }

    fn page(&self, number: u64) -> &[u8] {
        let start = (number * PAGE) as usize;
        &self.0[start..start + PAGE as usize]
    }
}
