//! `tdispd certs` as its user meets it, and openssl's opinion of what it writes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

use std::path::Path;
use std::process::{Command, Output};

fn certs(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdispd"));
    command.env_remove("RUST_LOG").arg("certs").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_shown_is_what_is_kept_and_exported() {
    let directory = tempfile::tempdir().unwrap();
    let (state, exported) = (directory.path().join("state"), directory.path().join("exported"));
    let config = directory.path().join("device.toml");
    std::fs::write(
        &config,
        "[pci]\nserial = 0x1122334455667788\n[[spdm.slot]]\n[[spdm.slot]]\nnumber = 2\nkey = \"ed25519\"\nmodel = \"alias\"\n",
    )
    .unwrap();
    let device = ["--config", path(&config), "--state-dir", path(&state)];
    let shown = text(&certs(&[&["show"], &device[..]].concat()));
    for part in
        ["slot 0: ecdsa-p384, device", "slot 2: ed25519, alias", "1122334455667788", "CN=tdispd root CA"]
    {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert_eq!(text(&certs(&[&["show"], &device[..]].concat())), shown, "nothing is made twice");
    let json: serde_json::Value =
        serde_json::from_str(&text(&certs(&[&["show", "--json"], &device[..]].concat()))).unwrap();
    assert_eq!(json[1]["algorithm"], "ed25519");
    assert!(shown.contains(json[0]["digests"][1]["chain"].as_str().unwrap()));

    let listed = text(&certs(&[&["export"], &device[..], &[path(&exported)]].concat()));
    assert_eq!(listed.lines().count(), 6);
    for slot in [0, 2] {
        let file = |kind: &str| exported.join(format!("slot{slot}.{kind}"));
        let pem = std::fs::read_to_string(file("chain.pem")).unwrap();
        assert!(!pem.contains("PRIVATE"), "private keys stay where they are");
        // The root, the chain and its leaf as openssl sees them; EKU and name are SPDM's own.
        let verified = Command::new("openssl")
            .args(["verify", "-CAfile", path(&file("root.pem")), "-untrusted", path(&file("chain.pem"))])
            .arg(leaf(&pem, directory.path()))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
        let key = state.join(format!("slot{slot}.key.pem"));
        for form in ["chain.pem", "chain.der"] {
            let said = text(&certs(&["check", path(&file(form)), path(&key)]));
            assert!(said.ends_with("The chain is in order, and the key is its leaf's.\n"), "{said}");
        }
    }
}

/// The last certificate of `pem` in a file of its own.
fn leaf(pem: &str, directory: &Path) -> std::path::PathBuf {
    let begin = pem.rfind("-----BEGIN").unwrap();
    let file = directory.join("leaf.pem");
    std::fs::write(&file, &pem[begin..]).unwrap();
    file
}

#[test]
fn what_no_device_could_use_ends_with_1_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    for state in [&one, &other] {
        text(&certs(&["show", "--state-dir", path(state)]));
    }
    let chain = one.join("slot0.chain.pem");
    let refused = |arguments: &[&str], part: &str| {
        let output = certs(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{part} is not in {said}");
    };
    refused(&["check", path(&chain), path(&other.join("slot0.key.pem"))], "does not belong to the leaf");
    refused(&["check", "/nowhere"], "/nowhere: No such file");
    let pem = std::fs::read_to_string(&chain).unwrap();
    let broken = directory.path().join("broken.pem");
    std::fs::write(&broken, &pem[..pem.rfind("-----BEGIN").unwrap()]).unwrap();
    refused(&["check", path(&broken)], "broken.pem: the certificate chain is not usable");
}
