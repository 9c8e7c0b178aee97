//! The atomics and locks of the crate: the real ones, or loom's when it model-checks them (`--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex};

#[cfg(loom)]
pub(crate) use modelled::Mutex;

/// The writer's half of an asymmetric barrier: the compiler keeps the order, the reader's membarrier makes the CPU keep it.
///
/// A membarrier is a full fence at an unknown point of every other thread; the model has one at each such place.
#[inline]
pub(crate) fn light_fence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// The full fence between one level of bits and the next.
///
/// All accesses to the levels are sequentially consistent, which is a full fence already; only loom, which treats such
/// accesses as acquire and release, needs one spelled out.
#[inline]
pub(crate) fn level_fence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

#[cfg(loom)]
mod modelled {
    /// loom's mutex with parking_lot's interface.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a modelled thread panicked")
        }
    }
}
