//! Configurations that are taken, and what is said about the others.

use super::*;

fn error(text: &str) -> String {
    format!("{:#}", parse(text).expect_err("refused"))
}

const WEB: &str = "\
[[vm]]
name = 'web'
[[vm.device]]
kind = 'dma'
socket-path = '/run/web.sock'
";

#[test]
fn the_shipped_example_is_valid() {
    let file = parse(include_str!("../../../dist/pagetrail.toml")).expect("valid");
    assert_eq!(file.vm.len(), 2);
    let web = file.vm[0].get_ref();
    let names: Vec<String> = web
        .device
        .iter()
        .enumerate()
        .map(|(index, device)| device.get_ref().name(index))
        .collect();
    assert_eq!(names, ["dma0", "generator"]);
}

#[test]
fn a_file_becomes_the_hosts_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pagetrail.toml");
    std::fs::write(&path, WEB).expect("written");
    let vms = load(&path).expect("valid");
    assert_eq!(
        (vms.len(), vms[0].name.as_str(), vms[0].devices.len()),
        (1, "web", 1)
    );
    assert!(
        matches!(&vms[0].devices[0].endpoint, Endpoint::Path(path) if path == Path::new("/run/web.sock"))
    );
}

#[test]
fn errors_name_the_file() {
    let missing = load(Path::new("no-such-file.toml")).err().expect("refused");
    assert!(
        format!("{missing:#}").starts_with("cannot read no-such-file.toml: "),
        "{missing:#}"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("empty.toml");
    std::fs::write(&path, "").expect("written");
    let empty = format!("{:#}", load(&path).err().expect("refused"));
    assert!(
        empty.ends_with("empty.toml: line 1: there is no [[vm]]"),
        "{empty}"
    );
}

#[test]
fn unknown_keys_and_kinds_are_named_with_their_line() {
    for (line, key) in [("worker = 2", "worker"), ("kind2 = 'x'", "kind2")] {
        let said = error(&format!("{WEB}{line}"));
        assert!(said.contains("line 6") && said.contains(key), "{said}");
    }
    let said = error(&WEB.replace("'dma'", "'gpu'"));
    assert!(
        said.contains("line 4") && said.contains("gpu") && said.contains("dma"),
        "{said}"
    );
    let said = error("[[vms]]\nname = 'web'");
    assert!(said.contains("line 1") && said.contains("vms"), "{said}");
}

#[test]
fn missing_and_malformed_values_are_named() {
    let said = error("[[vm]]\n[[vm.device]]\nkind = 'dma'\nsocket-path = '/s'");
    assert!(said.contains("missing field `name`"), "{said}");
    let said = error(&format!("{WEB}workers = 'two'"));
    assert!(said.contains("line 6"), "{said}");
    let said = error("[[vm]\n");
    assert!(said.contains("line 1"), "{said}");
}

#[test]
fn what_must_be_unique_is_refused_the_second_time() {
    let device = |text: &str| format!("{WEB}[[vm.device]]\nkind = 'dma'\n{text}\n");
    let cases = [
        (
            device("socket-path = '/run/web.sock'"),
            r#"line 8: socket-path "/run/web.sock" is on line 5 already"#,
        ),
        (
            device("socket-path = '/run//./web.sock'"),
            r#"line 8: socket-path "/run/web.sock" is on line 5 already"#,
        ),
        (
            device("socket-path = '/s'\nname = 'dma0'"),
            r#"line 9: device "dma0" of VM "web" is on line 3 already"#,
        ),
        (format!("{WEB}{WEB}"), r#"line 7: VM "web" is on line 2 already"#),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn a_device_has_one_socket() {
    let none = WEB.replace("socket-path = '/run/web.sock'\n", "");
    assert!(
        error(&none).starts_with("line 3: the device has no socket"),
        "{}",
        error(&none)
    );
    let two = format!("{WEB}socket-activation = 'web'");
    assert!(
        error(&two).starts_with("line 6: the device has two sockets"),
        "{}",
        error(&two)
    );
    let empty = WEB.replace("/run/web.sock", "");
    assert_eq!(error(&empty), "line 5: socket-path is empty");
}

#[test]
fn a_vm_has_a_name_and_a_device_and_workers_have_a_range() {
    assert_eq!(
        error("[[vm]]\nname = 'web'"),
        r#"line 1: VM "web" has no [[vm.device]]"#
    );
    assert_eq!(error(&WEB.replace("'web'", "''")), r#"line 2: "" is not a name"#);
    assert_eq!(
        error(&format!("{WEB}workers = 65")),
        "line 6: 65 workers: there can be 1 to 64"
    );
}

const VF: &str = "\
[[vm]]
name = 'web'
[[vm.device]]
kind = 'vfio'
pci = '0000:01:00.0'
socket-path = '/run/vf.sock'
";

#[test]
fn a_passthrough_device_is_named_in_one_way_and_once() {
    parse(VF).expect("by its address");
    parse(&VF.replace("pci = '0000:01:00.0'", "device = '/dev/vfio/devices/vfio0'")).expect("by its file");
    let neither = error(&VF.replace("pci = '0000:01:00.0'\n", ""));
    assert!(
        neither.starts_with("line 3: a vfio device has either"),
        "{neither}"
    );
    let both = error(&format!("{VF}device = '/dev/x'"));
    assert!(both.starts_with("line 3: a vfio device has either"), "{both}");
    let twice = format!("{VF}{}", VF.replace("web", "db").replace("vf.sock", "other.sock"));
    assert_eq!(
        error(&twice),
        r#"line 11: pci "0000:01:00.0" is on line 5 already"#
    );
}

#[test]
fn keys_of_another_kind_are_refused() {
    assert_eq!(
        error(&format!("{VF}workers = 2")),
        "line 7: a vfio device has no workers"
    );
    assert_eq!(
        error(&format!("{WEB}assume-all-dirty = true")),
        "line 6: a dma device has no assume-all-dirty"
    );
    assert_eq!(
        error(&format!("{WEB}tracker = \"iommu\"")),
        "line 6: a dma device has no tracker"
    );
}
