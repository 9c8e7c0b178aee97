//! The oracle must see every kind of loss, and must not see one where there is none.

use std::sync::Arc;

use super::{Copied, Depth, Loss, Oracle};
use crate::vmm::{Backing, GuestMemory, PAGE_SIZE, PageSet};

const A: u64 = 0x20_0000;
const B: u64 = 0x30_0000;

struct Rig {
    source: Arc<GuestMemory>,
    dest: Arc<GuestMemory>,
    oracle: Oracle,
}

impl Rig {
    /// A guest whose memory was copied once in whole.
    fn after_the_first_pass(depth: Depth) -> Self {
        let source = GuestMemory::pc(8 << 20, Backing::Sealed).expect("memory");
        source.write(A, &[1; 4096]).expect("a write");
        source.write(B, &[2; 4096]).expect("a write");
        let dest = source.same_layout().expect("memory");
        let oracle = Oracle::new(&source, depth);
        let mut rig = Self { source, dest, oracle };
        rig.copy(&PageSet::all(&rig.source));
        rig
    }

    fn device_writes(&self, iova: u64, value: u8) {
        self.source.write(iova, &[value; 4096]).expect("a write");
    }

    fn copy(&mut self, pages: &PageSet) {
        let mut content = [0; PAGE_SIZE as usize];
        for iova in pages.iter() {
            self.source.read(iova, &mut content).expect("a read");
            self.oracle.copied(iova, &content);
            self.dest.write(iova, &content).expect("a write");
        }
    }

    /// One pass whose report names `pages`.
    fn pass(&mut self, number: u32, pages: &[u64]) {
        let mut reported = PageSet::of(&self.source);
        for page in pages {
            reported.insert_range(*page, PAGE_SIZE);
        }
        self.oracle.reported(&reported);
        self.copy(&reported);
        self.oracle
            .inspect(&self.source, number, &reported)
            .expect("an inspection");
    }

    fn losses(self, pass: u32) -> Vec<(u64, u32, Loss)> {
        let verdict = self
            .oracle
            .verdict(&self.source, &self.dest, pass)
            .expect("a verdict");
        verdict
            .lost
            .into_iter()
            .map(|page| (page.iova, page.pass, page.loss))
            .collect()
    }
}

#[test]
fn every_write_reported_is_a_pass() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    rig.device_writes(A, 3);
    rig.pass(1, &[A]);
    rig.device_writes(B, 4);
    rig.pass(2, &[B]);
    assert_eq!(rig.losses(3), []);
}

#[test]
fn a_write_reported_late_is_a_pass() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    rig.device_writes(A, 3);
    rig.pass(1, &[]);
    rig.pass(2, &[A]);
    assert_eq!(rig.oracle.cleared, 1);
    assert_eq!(rig.losses(3), []);
}

#[test]
fn a_write_that_is_never_reported_is_a_loss() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    rig.device_writes(A, 3);
    rig.pass(1, &[]);
    rig.pass(2, &[B]);
    assert_eq!(rig.losses(3), [(A, 1, Loss::Differs { byte: 0 })]);
}

#[test]
fn an_unreported_write_that_was_undone_is_a_loss_all_the_same() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    rig.device_writes(A, 3);
    rig.pass(1, &[]);
    rig.device_writes(A, 1);
    rig.pass(2, &[]);
    assert_eq!(rig.losses(3), [(A, 1, Loss::NeverReported)]);
}

#[test]
fn a_write_after_the_last_look_is_a_loss() {
    for depth in [Depth::Full, Depth::End] {
        let mut rig = Rig::after_the_first_pass(depth);
        rig.pass(1, &[]);
        rig.source.write(B + 4095, &[9]).expect("a write");
        assert_eq!(rig.losses(2), [(B, 2, Loss::Differs { byte: 4095 })]);
    }
}

#[test]
fn a_page_corrupted_on_its_way_is_a_loss() {
    let rig = Rig::after_the_first_pass(Depth::End);
    rig.dest.write(A + 100, &[77]).expect("a write");
    assert_eq!(rig.losses(1), [(A, 1, Loss::Differs { byte: 100 })]);
}

#[test]
fn a_write_into_a_hole_of_the_destination_is_a_loss() {
    let rig = Rig::after_the_first_pass(Depth::End);
    rig.dest.write(0x50_0000, &[1]).expect("a write");
    assert_eq!(rig.losses(1), [(0x50_0000, 1, Loss::Differs { byte: 0 })]);
}

#[test]
fn a_copy_of_the_same_content_is_redundant() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    assert_eq!(rig.oracle.copied(A, &[1; 4096]), Copied::Redundant);
    assert_eq!(rig.oracle.copied(A, &[5; 4096]), Copied::Needed);
}

#[test]
fn memory_that_leaves_is_judged_when_it_leaves() {
    let mut rig = Rig::after_the_first_pass(Depth::Full);
    rig.device_writes(A, 3);
    rig.pass(1, &[]);
    let source = rig.source.find(A, 1).expect("a region");
    let dest = rig.dest.find(A, 1).expect("a region");
    rig.oracle.region_removed(&source, &dest, 2).expect("a judgement");
    rig.source.remove(source.iova());
    rig.dest.remove(dest.iova());
    assert_eq!(rig.losses(3), [(A, 1, Loss::Differs { byte: 0 })]);
}
