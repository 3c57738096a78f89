//! The dependency arrows of ARCHITECTURE.md, held against what cargo really links. A new arrow is a decision:
//! change the picture first, then this table.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The workspace of its own that judges `spdm` by libspdm's C code: nothing here depends on it, it depends on `spdm` only.
const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/libspdm");

/// Crate → workspace crates it may depend on, in any kind of dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("spdm", &[]),
    ("tdisp", &[]),
    ("mmio", &[]),
    ("disk", &[]),
    ("tdispd-proto", &[]),
    ("tdispd", &["disk", "mmio", "spdm", "tdisp", "tdispd-proto"]),
    ("tdispctl", &["spdm", "tdisp", "tdispd-proto"]),
    ("qemu-config", &[]),
    ("vfio-export", &["tdispctl"]),
    ("tests", &["disk", "mmio", "qemu-config", "spdm", "tdisp", "tdispctl", "tdispd", "tdispd-proto"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn arrows_point_as_designed() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    assert_eq!(members, allowed.keys().copied().collect(), "every crate has a row, every row a crate");

    let mut wrong = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if members.contains(to) && !allowed[from].contains(&to) {
                wrong.push(format!("{from} → {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows against the design: {wrong:?}");
}

#[test]
fn the_cores_forbid_unsafe() {
    for core in ["spdm", "tdisp", "mmio", "backend/proto"] {
        let lib = format!("{}/../{core}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&lib).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{lib} does not forbid unsafe code");
    }
}

#[test]
fn every_crate_uses_the_lint_table() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = std::fs::read_to_string(manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest} has lints of its own");
    }
}

#[test]
fn the_judge_stands_apart() {
    let read =
        |path: String| -> toml::Table { toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() };
    let root = read(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml").to_owned());
    let judge = read(format!("{JUDGE}/Cargo.toml"));
    assert_eq!(
        root["workspace"]["exclude"].as_array().unwrap(),
        &["tests/fuzz".into(), "tests/libspdm".into()]
    );
    for same in ["lints", "package"] {
        assert_eq!(
            root["workspace"][same], judge["workspace"][same],
            "one table of {same} for both workspaces"
        );
    }
    for member in judge["workspace"]["members"].as_array().unwrap() {
        let manifest = read(format!("{JUDGE}/{}/Cargo.toml", member.as_str().unwrap()));
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{member} has lints of its own");
    }
    let outside: Vec<&str> = judge["workspace"]["dependencies"]
        .as_table()
        .unwrap()
        .iter()
        .filter(|(_, what)| {
            what.get("path").and_then(toml::Value::as_str).is_some_and(|path| path.starts_with(".."))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(outside, ["spdm"]);
}
