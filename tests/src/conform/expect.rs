//! What checks assert, in few words.

use std::fmt::Debug;

use super::ask::Answer;
use super::check::{Checked, fail};

/// `got` must be `expected`.
pub(super) fn equal<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Checked {
    if got == expected {
        return Ok(());
    }
    fail(format!("{what} is {got:?}, expected {expected:?}"))
}

/// A number that must be another one, told in hexadecimal.
pub(super) fn number(what: &str, got: impl Into<u64>, expected: impl Into<u64>) -> Checked {
    let (got, expected) = (got.into(), expected.into());
    if got == expected {
        return Ok(());
    }
    fail(format!("{what} is {got:#x}, expected {expected:#x}"))
}

/// Something must hold, or else `what` is wrong.
pub(super) fn that(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { fail(what()) }
}

/// An answer that is not a refusal must leave room for nothing beyond the `argsz` bytes that the client has.
pub(super) fn within(argsz: u32, answer: &Answer) -> Checked {
    let Answer::Done(reply) = answer else {
        return Ok(());
    };
    let length = reply.payload.len();
    that(length <= argsz as usize, || {
        format!("the reply has {length} bytes, with room for {argsz}")
    })
}
