//! The dependency arrows of ARCHITECTURE.md, held against what cargo really links. A new arrow is a decision:
//! change the picture first, then this table.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate → workspace crates it may depend on, in any kind of dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("spdm", &[]),
    ("tdisp", &[]),
    ("mmio", &[]),
    ("tdispd-proto", &[]),
    ("tdispd", &["mmio", "spdm", "tdisp", "tdispd-proto"]),
    ("tdispctl", &["spdm", "tdisp", "tdispd-proto"]),
    ("qemu-config", &[]),
    ("tests", &["mmio", "qemu-config", "spdm", "tdisp", "tdispctl", "tdispd", "tdispd-proto"]),
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
