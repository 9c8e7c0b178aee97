//! Raw bindings of libvfio-user, built from source with the series in `patches/`.
//!
//! The crate holds what bindgen makes of `libvfio-user.h` and `vfio-user.h`, under the names they have in C, and links the
//! library statically. What a function does is written in those headers; what the series adds to them (the message and version
//! callbacks, attaching to a connected socket, deadlines) and why is in the book's page on libvfio-user.
//!
//! There is nothing safe here, and no code of this project's own: the safe wrapper is the `vfu` module of the `pagetrail` crate,
//! the only user of this one. The library's DMA, interrupt, migration and quiesce functions are bound like the others, and
//! are not used.
//!
//! The sources are prepared by `scripts/setup`; `build.rs` neither downloads nor patches.

// The whole crate is foreign declarations, and named by C.
#![allow(unsafe_code, missing_docs, unreachable_pub)]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
