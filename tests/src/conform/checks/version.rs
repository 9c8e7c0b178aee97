//! The handshake.

use serde_json::{Value, json};
use zerocopy::IntoBytes;

use crate::client::Message;
use crate::conform::ask::{Answer, parsed};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::{Probe, exchange};
use crate::wire::{Command, DeviceInfo, Header, VersionHeader, consts};

const RULES: Source = Source::Spec("VFIO_USER_VERSION");
const DATA: Source = Source::Spec("VFIO_USER_VERSION, Request");
const INITIATION: Source = Source::Spec("Connection Initiation");
const SECURITY: Source = Source::Spec("Security Considerations");

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "version/a-proposal-is-answered-in-kind",
            RULES,
            "The reply has the major version that was proposed, and a minor version that is not greater.",
            |probe| accepted(probe, 0, 1, Some(r#"{"capabilities":{}}"#)).map(drop),
        ),
        Check::new(
            "version/an-older-minor-version-is-kept-to",
            RULES,
            "A client that proposes version 0.0 is answered with 0.0: every minor version below the newest is supported.",
            |probe| accepted(probe, 0, 0, None).map(drop),
        ),
        Check::new(
            "version/a-newer-minor-version-is-met-halfway",
            RULES,
            "A client that proposes version 0.65535 gets a version of the same major that is not newer.",
            |probe| accepted(probe, 0, u16::MAX, None).map(drop),
        ),
        Check::new(
            "version/an-unknown-major-version-is-not-accepted",
            RULES,
            "A major version that does not exist is not agreed to.",
            unknown_major,
        ),
        Check::new(
            "version/data-are-optional",
            DATA,
            "A proposal without version data is accepted.",
            |probe| accepted(probe, 0, 1, None).map(drop),
        ),
        Check::new(
            "version/capabilities-are-optional",
            DATA,
            "Version data without `capabilities` are accepted.",
            |probe| accepted(probe, 0, 1, Some("{}")).map(drop),
        ),
        Check::new(
            "version/the-reply-is-a-document",
            DATA,
            "The reply's version data are a JSON object that ends with a NUL; `capabilities` is an object whose members \
             have the types of the specification.",
            document,
        ),
        Check::new(
            "version/unknown-capabilities-are-ignored",
            RULES,
            "A capability that the server does not know is no obstacle, and is not in the reply.",
            unknown_capability,
        ),
        Check::new(
            "version/capabilities-are-among-those-proposed",
            RULES,
            "The capabilities of the reply are a subset of those proposed.",
            subset,
        ),
        Check::new(
            "version/a-separate-channel-is-offered-to-who-asked",
            Source::Spec("VFIO_USER_VERSION, Reply"),
            "Twin-socket mode is in the reply only if it was proposed, and then with a file descriptor.",
            twin_socket,
        ),
        Check::new(
            "version/malformed-data-are-not-accepted",
            DATA,
            "Version data that are not JSON are not accepted.",
            malformed,
        ),
        Check::new(
            "version/wrong-types-are-survived",
            SECURITY,
            "Documents of the wrong shape, with numbers out of range, nested deeply or without their NUL get an answer or \
             the end of the connection, and the next client is served.",
            wrong_types,
        ),
        Check::new(
            "version/a-short-proposal-is-not-accepted",
            DATA,
            "A proposal that is shorter than its two version numbers is not accepted.",
            short,
        ),
        Check::new(
            "version/nothing-is-answered-before-it",
            INITIATION,
            "VERSION is the initial message: another command before it is not carried out.",
            before,
        ),
    ]
}

/// A proposal's payload; the document gets its NUL.
fn proposal(major: u16, minor: u16, document: Option<&str>) -> Vec<u8> {
    let mut payload = VersionHeader { major, minor }.as_bytes().to_vec();
    if let Some(document) = document {
        payload.extend_from_slice(document.as_bytes());
        payload.push(0);
    }
    payload
}

/// Proposes, and checks the versions of the reply.
fn accepted(probe: &Probe<'_>, major: u16, minor: u16, document: Option<&str>) -> Checked<Message> {
    let what = format!("version {major}.{minor} with {}", document.unwrap_or("no data"));
    let (_, answer) = probe.propose(&proposal(major, minor, document))?;
    let reply = answer.done(&what)?;
    let version: VersionHeader = parsed(&reply)?;
    expect::number("the major version", version.major, major)?;
    expect::that(version.minor <= minor, || {
        format!(
            "the minor version is {}, more than the {minor} proposed",
            version.minor
        )
    })?;
    Ok(reply)
}

fn unknown_major(probe: &Probe<'_>) -> Checked {
    for major in [1, 2, u16::MAX] {
        let (_, answer) = probe.propose(&proposal(major, 0, None))?;
        answer.refused_or_closed(&format!("version {major}.0"))?;
    }
    Ok(())
}

/// The members of the reply's `capabilities`; none where there is no document.
fn capabilities(reply: &Message) -> Checked<serde_json::Map<String, Value>> {
    let data = &reply.payload[size_of::<VersionHeader>()..];
    if data.is_empty() {
        return Ok(serde_json::Map::new());
    }
    let Some((0, text)) = data.split_last() else {
        return fail("the version data do not end with a NUL");
    };
    let document: Value = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(error) => return fail(format!("the version data are not JSON: {error}")),
    };
    match (document.is_object(), document.get("capabilities")) {
        (false, _) => fail("the version data are no JSON object"),
        (true, None) => Ok(serde_json::Map::new()),
        (true, Some(Value::Object(members))) => Ok(members.clone()),
        (true, Some(other)) => fail(format!("`capabilities` is no object but {other}")),
    }
}

fn document(probe: &Probe<'_>) -> Checked {
    let everything = json!({"capabilities": {
        "max_msg_fds": 8, "max_data_xfer_size": 1_048_576, "max_dma_maps": 65535, "pgsizes": 4096,
        "write_multiple": true,
    }});
    let reply = accepted(probe, 0, 1, Some(&everything.to_string()))?;
    for (name, value) in capabilities(&reply)? {
        let right = match name.as_str() {
            "max_msg_fds" | "max_data_xfer_size" | "max_dma_maps" | "pgsizes" => value.is_u64(),
            "write_multiple" => value.is_boolean(),
            "twin_socket" => value.is_object(),
            _ => true,
        };
        expect::that(right, || format!("`{name}` has the wrong type: {value}"))?;
    }
    Ok(())
}

fn unknown_capability(probe: &Probe<'_>) -> Checked {
    let document = r#"{"capabilities":{"max_msg_fds":8,"x_of_another_age":{"deep":[1,2]}},"x_more":true}"#;
    let members = capabilities(&accepted(probe, 0, 1, Some(document))?)?;
    expect::that(!members.contains_key("x_of_another_age"), || {
        "a capability is announced that nobody knows".to_owned()
    })
}

fn subset(probe: &Probe<'_>) -> Checked {
    for proposed in [
        &[][..],
        &["max_msg_fds"],
        &["max_data_xfer_size"],
        &["max_msg_fds", "max_data_xfer_size"],
    ] {
        let members: serde_json::Map<String, Value> = proposed
            .iter()
            .map(|name| ((*name).to_owned(), json!(64)))
            .collect();
        let document = json!({"capabilities": members}).to_string();
        for name in capabilities(&accepted(probe, 0, 1, Some(&document))?)?.keys() {
            expect::that(proposed.contains(&name.as_str()), || {
                format!("`{name}` is announced to a client that proposed {proposed:?}")
            })?;
        }
    }
    Ok(())
}

fn twin_socket(probe: &Probe<'_>) -> Checked {
    for (document, proposed) in [
        (r#"{"capabilities":{"max_msg_fds":8}}"#, false),
        (
            r#"{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":false}}}"#,
            false,
        ),
        (
            r#"{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}}"#,
            true,
        ),
    ] {
        let reply = accepted(probe, 0, 1, Some(document))?;
        let members = capabilities(&reply)?;
        let twin = members.get("twin_socket");
        let enabled = twin
            .and_then(|twin| twin.get("supported"))
            .and_then(Value::as_bool)
            == Some(true);
        expect::that(proposed || !enabled, || {
            "it is enabled, and was not proposed".to_owned()
        })?;
        if enabled {
            let index = twin.and_then(|twin| twin.get("fd_index")).and_then(Value::as_u64);
            expect::that(index.is_some_and(|index| index < reply.fds.len() as u64), || {
                format!("fd_index is {index:?}, with {} file descriptors", reply.fds.len())
            })?;
        }
    }
    Ok(())
}

fn malformed(probe: &Probe<'_>) -> Checked {
    for document in ["{", "{\"capabilities\":{", "nonsense", "{\"capabilities\"}", "]"] {
        let (_, answer) = probe.propose(&proposal(0, 1, Some(document)))?;
        answer.refused_or_closed(&format!("version data `{document}`"))?;
    }
    Ok(())
}

fn wrong_types(probe: &Probe<'_>) -> Checked {
    let nested = format!("{}1{}", "[".repeat(4000), "]".repeat(4000));
    let long = format!(r#"{{"capabilities":{{"x":"{}"}}}}"#, "a".repeat(60_000));
    let documents = [
        "[]",
        "17",
        "null",
        "\"text\"",
        r#"{"capabilities":[]}"#,
        r#"{"capabilities":null}"#,
        r#"{"capabilities":{"max_msg_fds":"eight"}}"#,
        r#"{"capabilities":{"max_msg_fds":-1}}"#,
        r#"{"capabilities":{"max_msg_fds":99999999999999999999}}"#,
        r#"{"capabilities":{"max_msg_fds":0}}"#,
        r#"{"capabilities":{"max_data_xfer_size":0}}"#,
        r#"{"capabilities":{"max_data_xfer_size":{}}}"#,
        r#"{"capabilities":{"migration":7}}"#,
        r#"{"capabilities":{"twin_socket":[]}}"#,
        nested.as_str(),
        long.as_str(),
    ];
    for document in documents {
        probe.propose(&proposal(0, 1, Some(document)))?;
    }
    for tail in [b"{}".as_slice(), b"{}\0{}\0", b"\xff\xfe\0", b"\0", b"\0\0\0\0"] {
        let payload = [&proposal(0, 1, None), tail].concat();
        probe.propose(&payload)?;
    }
    probe.next_is_served()
}

fn short(probe: &Probe<'_>) -> Checked {
    for length in 0..size_of::<VersionHeader>() {
        let (_, answer) = probe.propose(&proposal(0, 1, None)[..length])?;
        answer.refused_or_closed(&format!("a proposal of {length} bytes"))?;
    }
    Ok(())
}

fn before(probe: &Probe<'_>) -> Checked {
    let request = DeviceInfo {
        argsz: size_of::<DeviceInfo>() as u32,
        ..DeviceInfo::default()
    };
    let header = Header::command(1, Command::DeviceGetInfo, size_of::<DeviceInfo>());
    let mut connection = probe.connection()?;
    match exchange(&mut connection, header, request.as_bytes(), probe.timeout())? {
        Answer::Refused(consts::EBUSY) => skip("the server had not done with the client before"),
        answer => answer.refused_or_closed("GET_INFO before VERSION"),
    }
}
