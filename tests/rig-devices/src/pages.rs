//! Sets of pages.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

/// At most `count` numbers of pages below `end`, in order: they look like chance and are the same every time.
pub fn some_pages(count: usize, end: u64) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let numbers = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    });
    let pages: BTreeSet<u64> = numbers.take(count).collect();
    pages.into_iter().collect()
}

/// Fails unless both are the same pages in the same order.
///
/// # Errors
///
/// Says of `what` which pages are missing, and which are too many.
pub fn equal(what: &str, found: &[u64], expected: &[u64]) -> Result<()> {
    let only_in =
        |a: &[u64], b: &[u64]| -> Vec<u64> { a.iter().filter(|page| !b.contains(page)).copied().collect() };
    let some = |pages: &[u64]| {
        format!(
            "{} ({:?}…)",
            pages.len(),
            pages.iter().take(8).collect::<Vec<_>>()
        )
    };
    ensure!(
        found == expected,
        "{what}: {} pages are missing, and {} too many",
        some(&only_in(expected, found)),
        some(&only_in(found, expected))
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{equal, some_pages};

    #[test]
    fn pages_of_chance_are_the_same_every_time_and_in_order() {
        let pages = some_pages(500, 8192);
        assert_eq!(pages, some_pages(500, 8192));
        assert!(pages.len() > 400 && pages.is_sorted() && pages.iter().all(|page| *page < 8192));
    }

    #[test]
    fn a_page_too_few_or_too_many_is_named() {
        assert!(equal("a set", &[1, 2], &[1, 2]).is_ok());
        let error = equal("a set", &[1, 7], &[1, 2]).expect_err("other pages");
        assert_eq!(
            error.to_string(),
            "a set: 1 ([2]…) pages are missing, and 1 ([7]…) too many"
        );
    }
}
