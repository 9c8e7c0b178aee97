//! What the command line accepts, and what its help teaches.

use clap::CommandFactory;
use clap::error::ErrorKind;
use pagetrail::program::LogFormat;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("pagetrail").chain(words.iter().copied()))
}

fn dma(words: &[&str]) -> DmaArgs {
    let Command::Dma(args) = parse(words).expect("accepted").command else {
        panic!("not dma: {words:?}")
    };
    args
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_device_program_takes_the_options_of_the_conventions() {
    let path = dma(&["dma", "--socket-path=/tmp/s"]);
    assert_eq!(
        path.device.endpoint.socket_path.as_deref(),
        Some(std::path::Path::new("/tmp/s"))
    );
    assert_eq!(dma(&["dma", "--fd=7"]).device.endpoint.fd, Some(7));
    let error = parse(&["dma", "--fd=7", "--socket-path=/tmp/s"]).expect_err("incompatible");
    assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
}

#[test]
fn a_passthrough_device_is_named_in_one_way() {
    parse(&["vfio", "--pci=0000:01:00.0"]).expect("by its address");
    parse(&["vfio", "--device=/dev/vfio/devices/vfio0", "--no-bar-mmap"]).expect("by its file");
    let none = parse(&["vfio", "--socket-path=/tmp/s"]).expect_err("which?");
    assert_eq!(none.kind(), ErrorKind::MissingRequiredArgument);
    let both = parse(&["vfio", "--pci=0000:01:00.0", "--device=/dev/x"]).expect_err("which?");
    assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
}

#[test]
fn workers_are_1_to_64() {
    assert_eq!(dma(&["dma"]).workers, 1);
    assert_eq!(dma(&["dma", "--workers=64"]).workers, 64);
    for wrong in ["0", "65", "-1", "many"] {
        parse(&["dma", "--workers", wrong]).expect_err(wrong);
    }
}

#[test]
fn log_options_go_before_or_after_the_command() {
    for words in [
        &["--log=debug", "--log-format=json", "dma"][..],
        &["dma", "--log=debug", "--log-format=json"],
    ] {
        let cli = parse(words).expect("accepted");
        assert_eq!(
            (cli.log.filter.as_str(), cli.log.format),
            ("debug", LogFormat::Json)
        );
    }
}

#[test]
fn every_command_has_an_example_and_every_option_a_help_text() {
    let mut root = Cli::command();
    root.build();
    for command in std::iter::once(&root).chain(root.get_subcommands()) {
        let help = command.clone().render_long_help().to_string();
        assert!(
            help.contains("Example"),
            "{} shows how it is used:\n{help}",
            command.get_name()
        );
        for arg in command.get_arguments() {
            assert!(
                arg.get_help().is_some(),
                "{} {} says what it does",
                command.get_name(),
                arg.get_id()
            );
        }
    }
}

#[test]
fn the_help_shows_how_to_attach_the_device() {
    for mut command in [
        Cli::command(),
        Cli::command().find_subcommand("dma").expect("dma").clone(),
    ] {
        let help = command.render_long_help().to_string();
        assert!(
            help.contains("share=on") && help.contains("vfio-user-pci"),
            "{help}"
        );
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn faults_add_up() {
    let faults = dma(&["dma", "--fault=late-report", "--fault=suppress-page=0x1000"])
        .device
        .faults;
    assert_eq!(faults.len(), 2);
    parse(&["dma", "--fault=none"]).expect_err("not a fault");
}

#[cfg(not(feature = "fault-injection"))]
#[test]
fn a_release_build_has_no_faults() {
    parse(&["dma", "--fault=late-report"]).expect_err("no such option");
}
