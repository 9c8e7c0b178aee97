//! A dirty bitmap as a server reported it.

/// The pages that a device wrote, as one report names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyReport {
    /// The IOVA of the first bit.
    pub iova: u64,
    /// Bytes that one bit stands for.
    pub page_size: u64,
    /// The bits, lowest first.
    pub words: Vec<u64>,
}

impl DirtyReport {
    /// Words of the bitmap of `length` bytes in pages of `page_size`.
    pub fn words_for(length: u64, page_size: u64) -> usize {
        length.div_ceil(page_size).div_ceil(64) as usize
    }

    /// A report read off the wire, whose length is a multiple of 8 (the rest is dropped).
    pub fn from_wire(iova: u64, page_size: u64, bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Self {
            iova,
            page_size,
            words,
        }
    }

    /// The pages that are dirty, by IOVA.
    pub fn dirty_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().enumerate().flat_map(move |(index, word)| {
            let base = self.iova + index as u64 * 64 * self.page_size;
            bits(*word).map(move |bit| base + bit * self.page_size)
        })
    }

    /// How many pages are dirty.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether a bit is set at or past `length` bytes.
    pub fn has_bits_past(&self, length: u64) -> bool {
        self.dirty_pages()
            .last()
            .is_some_and(|page| page - self.iova >= length)
    }

    /// Whether the page that holds `iova` is dirty.
    pub fn contains(&self, iova: u64) -> bool {
        let Some(page) = iova.checked_sub(self.iova).map(|offset| offset / self.page_size) else {
            return false;
        };
        self.words
            .get((page / 64) as usize)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }
}

/// The numbers of the bits that are set, lowest first.
fn bits(word: u64) -> impl Iterator<Item = u64> {
    let mut left = word;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let bit = left.trailing_zeros();
        left &= left - 1;
        Some(u64::from(bit))
    })
}

#[cfg(test)]
mod tests {
    use super::DirtyReport;

    #[test]
    fn every_bit_names_its_page() {
        let report = DirtyReport {
            iova: 0x10_0000,
            page_size: 4096,
            words: vec![0b101, 1 << 63],
        };
        let pages: Vec<u64> = report.dirty_pages().collect();
        assert_eq!(pages, [0x10_0000, 0x10_2000, 0x10_0000 + 127 * 4096]);
        assert_eq!(report.count(), 3);
        assert!(report.contains(0x10_2fff));
        assert!(!report.contains(0x10_1000));
        assert!(!report.contains(0xf_ffff));
    }

    #[test]
    fn bits_past_the_range_are_seen() {
        let report = DirtyReport {
            iova: 0,
            page_size: 4096,
            words: vec![1 << 3],
        };
        assert!(report.has_bits_past(3 * 4096));
        assert!(!report.has_bits_past(4 * 4096));
    }
}
