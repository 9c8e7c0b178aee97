//! The generator writes what the register map says, as often as it says.

use std::time::{Duration, Instant};

use super::rig::{DATA, GENERATOR, MEMORY, Rig, reg};

const GEN_RUNNING: u32 = 1 << 1;
const GEN_ERROR: u32 = 1 << 3;

/// What the window holds after `positions`, replayed from the formulas of the register map alone.
pub(super) fn replay(pages: u64, seed: u64, positions: &[u64]) -> Vec<u8> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    fn mix(x: u64) -> u64 {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    let lanes = positions.len() as u64;
    let mut window = vec![0; pages as usize * 4096];
    for (lane, position) in (0..lanes).zip(positions) {
        let own = (0..pages).filter(|page| page % lanes == lane).count() as u64;
        let lane_seed = mix(seed.wrapping_add(STEP.wrapping_mul(lane + 1)));
        for p in 0..*position {
            let base = mix(lane_seed.wrapping_add(STEP.wrapping_mul(p + 1)));
            let page = (lane + lanes * (base % own)) as usize;
            for word in 0..512_u64 {
                let value = if word == 0 {
                    p
                } else {
                    base.wrapping_add(STEP.wrapping_mul(word))
                };
                let at = page * 4096 + word as usize * 8;
                window[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    window
}

#[test]
fn the_pages_match_an_independent_replay() {
    for (lanes, pages) in [(1, 1), (1, 50), (3, 50), (4, 3), (64, 70)] {
        let rig = Rig::new(lanes);
        rig.start_generator(pages, 0xfeed, 0, 0);
        rig.wait_until("some writes", |rig| {
            rig.positions(lanes.into())[0] > 300 / u64::from(lanes)
        });
        rig.clear_control(GENERATOR);
        let positions = rig.positions(lanes.into());
        assert_eq!(
            positions,
            rig.positions(lanes.into()),
            "a disabled generator stands still"
        );
        let window = rig.bytes(DATA, pages * 4096);
        assert!(
            window == replay(pages, 0xfeed, &positions),
            "{lanes} lanes, {pages} pages"
        );

        // The replay notices a single write.
        let mut one_less = positions;
        one_less[0] -= 1;
        assert!(window != replay(pages, 0xfeed, &one_less));
    }
}

#[test]
fn every_lane_stops_exactly_at_its_limit_and_the_cause_is_raised_once() {
    let rig = Rig::new(3);
    rig.write32(reg::INT_ENABLE, 0xf);
    rig.start_generator(20, 7, 0, 25);
    rig.wait_until("the end", |rig| rig.irq.pending() == 1 << 1);
    assert_eq!(rig.status() & GEN_RUNNING, 0);
    assert_eq!(rig.positions(3), [25; 3]);
    assert!(rig.bytes(DATA, 20 * 4096) == replay(20, 7, &[25; 3]));

    rig.write32(reg::INT_CAUSE, 1 << 1);
    let rig = rig.migrate(3);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.irq.pending(), 0, "once, and not again after a migration");
    assert_eq!(rig.positions(3), [25; 3]);
}

#[test]
fn lanes_without_pages_do_not_keep_the_generator_from_finishing() {
    let rig = Rig::new(8);
    rig.start_generator(3, 1, 0, 5);
    rig.wait_until("the end", |rig| rig.read32(reg::INT_CAUSE) == 1 << 1);
    assert_eq!(rig.positions(8), [5, 5, 5, 0, 0, 0, 0, 0]);
}

/// Page writes per second, counted over half a second.
fn measured_rate(rig: &Rig, rate: u64) -> f64 {
    let start = Instant::now();
    rig.start_generator(64, 1, rate, 0);
    std::thread::sleep(Duration::from_millis(500));
    rig.clear_control(GENERATOR);
    let writes: u64 = rig.positions(4).iter().sum();
    #[allow(clippy::cast_precision_loss, reason = "a few thousand writes")]
    let writes = writes as f64;
    writes / start.elapsed().as_secs_f64()
}

#[test]
fn the_rate_is_never_exceeded_and_is_reached_on_an_idle_machine() {
    let rig = Rig::new(4);
    let reached = (0..20).any(|_| {
        let rate = measured_rate(&rig, 2000);
        assert!(rate < 2200.0, "{rate} a second");
        rate > 1800.0
    });
    assert!(reached, "not once in twenty times");
}

#[test]
fn a_bad_window_is_refused_when_it_is_enabled() {
    for (base, pages) in [
        (DATA + 8, 1),
        (DATA, 0),
        (DATA, u64::MAX),
        (DATA, 1 << 52),
        (u64::MAX - 4095, 2),
    ] {
        let rig = Rig::new(2);
        rig.write64(reg::GEN_BASE, base);
        rig.write64(reg::GEN_PAGES, pages);
        rig.set_control(GENERATOR);
        assert_eq!(rig.status(), GEN_ERROR);
        assert_eq!((rig.read32(reg::ERROR), rig.read32(reg::INT_CAUSE)), (5, 1 << 3));
    }
}

#[test]
fn a_window_outside_of_memory_stops_the_generator_and_nothing_else() {
    let rig = Rig::new(4);
    rig.write64(reg::GEN_BASE, MEMORY);
    rig.write64(reg::GEN_PAGES, 100);
    rig.set_control(GENERATOR);
    rig.wait_until("the error", |rig| rig.status() == GEN_ERROR);
    rig.wait_until("its cause", |rig| rig.read32(reg::INT_CAUSE) == 1 << 3);
    assert_eq!(rig.read32(reg::ERROR), 2);

    rig.clear_control(GENERATOR);
    assert_eq!(rig.status(), 0);
    rig.start_generator(10, 1, 0, 3);
    rig.wait_until("the end", |rig| rig.read32(reg::INT_CAUSE) & (1 << 1) != 0);
}
