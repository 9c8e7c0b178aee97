//! DEVICE_FEATURE as such; what the features do is in other topics.

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::wire::{Command, DeviceFeature, MigDeviceState, MigState, Migration, consts};

const REQUEST: Source = Source::Spec("VFIO_USER_DEVICE_FEATURE, Request");
const REPLY: Source = Source::Spec("VFIO_USER_DEVICE_FEATURE, Reply");
const FEATURES: Source = Source::Spec("Device Features");
const MIGRATION: Source = Source::Spec("VFIO_DEVICE_FEATURE_MIGRATION");
const KERNEL: Source = Source::Kernel("vfio_ioctl_device_feature()");
const SIZES: Source = Source::Spec("Message sizes");

const GET: u32 = consts::FEATURE_GET;
const SET: u32 = consts::FEATURE_SET;
const PROBE: u32 = consts::FEATURE_PROBE;

/// The features of the specification, and what they can be used for.
const KNOWN: [(u32, u32); 5] = [
    (consts::FEATURE_MIGRATION, GET),
    (consts::FEATURE_MIG_DEVICE_STATE, GET | SET),
    (consts::FEATURE_DMA_LOGGING_START, SET),
    (consts::FEATURE_DMA_LOGGING_STOP, SET),
    (consts::FEATURE_DMA_LOGGING_REPORT, GET),
];

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "feature/a-probe-answers-with-its-request",
            REPLY,
            "The reply to a probe that succeeds is the request's payload.",
            probe_echo,
        ),
        Check::new(
            "feature/a-probe-is-for-every-method-named",
            REQUEST,
            "A probe succeeds only if all the methods that it names are supported.",
            probe_methods,
        ),
        Check::new(
            "feature/unknown-features-are-refused",
            KERNEL,
            "A feature that does not exist cannot be probed, got or set.",
            unknown,
        ),
        Check::new(
            "feature/get-and-set-exclude-each-other",
            REQUEST,
            "GET and SET at once, other than in a probe, are refused.",
            |probe| refused_methods(probe, GET | SET),
        ),
        Check::new(
            "feature/a-method-is-needed",
            KERNEL,
            "A request that neither gets nor sets nor probes is refused.",
            |probe| refused_methods(probe, 0),
        ),
        Check::new(
            "feature/unknown-flags-are-refused",
            KERNEL,
            "Flags that do not exist are refused.",
            |probe| {
                for flag in [1 << 19, 1 << 24, 1 << 31] {
                    refused_methods(probe, flag | PROBE | GET)?;
                }
                Ok(())
            },
        ),
        Check::new(
            "feature/what-cannot-be-set-is-not-set",
            FEATURES,
            "A feature is refused that is used in a way in which it does not exist.",
            wrong_method,
        ),
        Check::new(
            "feature/migration-has-stop-copy",
            MIGRATION,
            "A device that migrates supports VFIO_MIGRATION_STOP_COPY at least, and announces nothing that does not exist.",
            migration_flags,
        ),
        Check::new(
            "feature/migration-comes-with-its-state",
            MIGRATION,
            "A device that migrates has a migration state that can be got and set.",
            migration_state,
        ),
        Check::new(
            "feature/logging-comes-whole",
            FEATURES,
            "A device that can start to log its DMA can stop and report it too.",
            logging,
        ),
        Check::new(
            "feature/get-adds-its-data",
            REPLY,
            "The reply to GET has the request's feature, the data, and argsz of both.",
            get_adds,
        ),
        Check::new(
            "feature/set-answers-with-its-request",
            REPLY,
            "The reply to SET is the request's payload.",
            set_echo,
        ),
        Check::new(
            "feature/less-room-is-kept-to",
            SIZES,
            "A reply is never longer than argsz of its request.",
            little_room,
        ),
        Check::new(
            "feature/data-are-all-there",
            REQUEST,
            "SET of a migration state without the whole of it is refused.",
            short_data,
        ),
    ]
}

fn request(flags: u32, argsz: usize) -> DeviceFeature {
    DeviceFeature {
        argsz: argsz as u32,
        flags,
    }
}

fn ask(client: &mut Client, flags: u32, argsz: usize, data: &[u8]) -> Checked<Answer> {
    let payload = [request(flags, argsz).as_bytes(), data].concat();
    client.ask(Command::DeviceFeature, &payload)
}

fn is_supported(client: &mut Client, feature: u32, methods: u32) -> Checked<bool> {
    match ask(client, feature | methods | PROBE, 8, &[])? {
        Answer::Done(_) => Ok(true),
        other => other.refused("a probe").map(|_| false),
    }
}

fn probe_echo(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for (feature, methods) in KNOWN {
        for methods in [0, methods] {
            let flags = feature | methods | PROBE;
            let Answer::Done(reply) = ask(&mut client, flags, 8, &[])? else {
                continue;
            };
            seen = true;
            let expected = request(flags, 8);
            let what = format!("the payload of the reply to a probe of feature {feature}");
            expect::equal(&what, &reply.payload.as_slice(), &expected.as_bytes())?;
        }
    }
    if seen {
        Ok(())
    } else {
        skip("the device has none of the features")
    }
}

fn probe_methods(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for (feature, methods) in KNOWN {
        if !is_supported(&mut client, feature, methods)? {
            continue;
        }
        seen = true;
        for asked in [GET, SET, GET | SET] {
            let supported = is_supported(&mut client, feature, asked)?;
            expect::that(supported == (asked & !methods == 0), || {
                format!("a probe of feature {feature} with methods {asked:#x} is answered with {supported}")
            })?;
        }
    }
    if seen {
        Ok(())
    } else {
        skip("the device has none of the features")
    }
}

fn unknown(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for feature in [0x100, 0x7fff, 0xffff] {
        for methods in [PROBE, PROBE | GET, GET, SET] {
            let what = format!("feature {feature:#x} with methods {methods:#x}");
            ask(&mut client, feature | methods, 64, &[])?.refused(&what)?;
        }
    }
    Ok(())
}

/// Flags besides the feature's number that must be refused for each feature.
fn refused_methods(probe: &Probe<'_>, methods: u32) -> Checked {
    let mut client = probe.ready()?;
    for (feature, _) in KNOWN {
        let what = format!("feature {feature} with methods {methods:#x}");
        ask(&mut client, feature | methods, 64, &[0; 24])?.refused(&what)?;
    }
    Ok(())
}

fn wrong_method(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for (feature, methods) in KNOWN {
        for method in [GET, SET] {
            if methods & method == 0 {
                let what = format!("feature {feature} with method {method:#x}");
                ask(&mut client, feature | method, 64, &[0; 24])?.refused(&what)?;
            }
        }
    }
    Ok(())
}

fn migration_flags(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let flags = needs::migration(&mut client)?;
    expect::that(flags & consts::MIGRATION_STOP_COPY != 0, || {
        format!("the flags are {flags:#x}, without STOP_COPY")
    })?;
    let known = consts::MIGRATION_STOP_COPY | consts::MIGRATION_P2P | consts::MIGRATION_PRE_COPY;
    expect::number("flags that do not exist", flags & !known, 0_u64)
}

fn migration_state(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    expect::that(
        is_supported(&mut client, consts::FEATURE_MIG_DEVICE_STATE, GET | SET)?,
        || "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE is not supported".to_owned(),
    )?;
    client.mig_state()?;
    Ok(())
}

fn logging(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::logging(&mut client)?;
    for (feature, method) in [
        (consts::FEATURE_DMA_LOGGING_STOP, SET),
        (consts::FEATURE_DMA_LOGGING_REPORT, GET),
    ] {
        expect::that(is_supported(&mut client, feature, method)?, || {
            format!("feature {feature} is not supported")
        })?;
    }
    Ok(())
}

fn get_adds(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    for (feature, data) in [
        (consts::FEATURE_MIGRATION, size_of::<Migration>()),
        (consts::FEATURE_MIG_DEVICE_STATE, size_of::<MigDeviceState>()),
    ] {
        let whole = size_of::<DeviceFeature>() + data;
        let reply =
            ask(&mut client, feature | GET, whole, &[])?.done(&format!("GET of feature {feature}"))?;
        expect::number("the payload's length", reply.payload.len() as u64, whole as u64)?;
        let head: DeviceFeature = parsed(&reply)?;
        expect::number("argsz", head.argsz, whole as u64)?;
        expect::number("the feature", head.flags & consts::FEATURE_MASK, feature)?;
    }
    Ok(())
}

fn set_echo(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    for state in [MigState::Stop, MigState::Running] {
        let data = MigDeviceState {
            device_state: state as u32,
            data_fd: u32::MAX,
        };
        let flags = consts::FEATURE_MIG_DEVICE_STATE | SET;
        let reply = ask(&mut client, flags, 16, data.as_bytes())?.done(&format!("SET of {state}"))?;
        let expected = [request(flags, 16).as_bytes(), data.as_bytes()].concat();
        expect::equal("the payload of the reply to SET", &reply.payload, &expected)?;
    }
    Ok(())
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    for argsz in [0, 7, 8, 9, 15] {
        for feature in [consts::FEATURE_MIGRATION, consts::FEATURE_MIG_DEVICE_STATE] {
            if let Answer::Done(reply) = ask(&mut client, feature | GET, argsz, &[])? {
                expect::that(reply.payload.len() <= argsz, || {
                    format!(
                        "feature {feature}: {} bytes, with room for {argsz}",
                        reply.payload.len()
                    )
                })?;
            }
        }
    }
    Ok(())
}

fn short_data(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    let state = MigDeviceState {
        device_state: MigState::Stop as u32,
        data_fd: u32::MAX,
    };
    for length in [0, 3] {
        let what = format!("a state of {length} bytes");
        let data = &state.as_bytes()[..length];
        ask(&mut client, consts::FEATURE_MIG_DEVICE_STATE | SET, 16, data)?.refused(&what)?;
    }
    expect::equal("the state afterwards", &client.mig_state()?, &MigState::Running)
}
