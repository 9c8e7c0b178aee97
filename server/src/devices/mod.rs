//! The devices.

pub mod dma;
