//! For each check of the conformance test a server that breaks exactly its promise: the rules of a proxy.

mod access;
mod connection;
mod dma;
mod feature;
mod interrupts;
mod logging;
mod region;
mod states;
mod stream;
mod written;

use vfio_user_check::client::Message;

use super::proxy::Rule;

/// A server that a check must not pass.
pub(crate) struct Control {
    /// The check.
    pub(crate) check: String,
    /// What the server behind lacks and the check needs; with it the check passes.
    pub(crate) present: Option<Box<dyn Fn() -> Vec<Rule>>>,
    /// What is wrong.
    pub(crate) fault: Box<dyn Fn() -> Vec<Rule>>,
}

/// A control that is one rule.
pub(crate) fn control(check: &str, fault: impl Fn() -> Rule + 'static) -> Control {
    Control {
        check: check.to_owned(),
        present: None,
        fault: Box::new(move || vec![fault()]),
    }
}

/// A control that is several rules.
pub(crate) fn control_of(check: &str, fault: impl Fn() -> Vec<Rule> + 'static) -> Control {
    Control {
        check: check.to_owned(),
        present: None,
        fault: Box::new(fault),
    }
}

impl Control {
    /// The same, on a server that has something besides.
    pub(crate) fn on(self, present: impl Fn() -> Vec<Rule> + 'static) -> Self {
        Self {
            present: Some(Box::new(present)),
            ..self
        }
    }
}

/// Every control.
pub(crate) fn all() -> Vec<Control> {
    [
        connection::controls(),
        region::controls(),
        access::controls(),
        interrupts::controls(),
        dma::controls(),
        feature::controls(),
        states::controls(),
        stream::controls(),
        logging::controls(),
        written::controls(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a check has written the message itself, and not the client for it.
pub(crate) fn asked(message: &Message) -> bool {
    message.header.id == 0xc0de
}

/// A 32-bit field of a payload; 0 where there is none.
pub(crate) fn u32_at(message: &Message, offset: usize) -> u32 {
    let bytes = message.payload.get(offset..offset + 4);
    bytes.map_or(0, |bytes| {
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    })
}

/// A 64-bit field of a payload; 0 where there is none.
pub(crate) fn u64_at(message: &Message, offset: usize) -> u64 {
    u64::from(u32_at(message, offset)) | u64::from(u32_at(message, offset + 4)) << 32
}

/// Overwrites a part of a payload; a reply that is too short stays.
pub(crate) fn put(message: &mut Message, offset: usize, bytes: &[u8]) {
    if let Some(target) = message.payload.get_mut(offset..offset + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// The request's payload, as a reply that says it was carried out.
pub(crate) fn echo(request: &Message) -> Vec<u8> {
    request.payload.clone()
}

/// A reply without a payload.
pub(crate) fn nothing(_: &Message) -> Vec<u8> {
    Vec::new()
}
