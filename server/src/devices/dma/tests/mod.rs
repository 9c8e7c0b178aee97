//! The device as its driver sees it: registers and memory in, registers and memory out.

mod generator;
mod migration;
mod restore;
mod rig;
mod ring;
mod run_state;
mod tracking;
