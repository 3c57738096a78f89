//! What a device is by its configuration: identities from openssl's files, several slots, pre-shared keys, measured
//! files, and what a requester writes into slots, over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use spdm::crypto::{AsymAlgorithm, HashAlgorithm};
use spdm::identity::Material;
use spdm::psk::PreSharedKey;
use spdm::requester::{CsrQuery, KeyPairReport, MeasurementQuery, RequesterConfig, SlotContent};
use spdm::slot::Slots;
use spdm::wire::{
    CertificateModel, KeyPairAlgorithms, KeyPairOperation, KeyPairParameters, KeyUsage, MeasurementOperation,
    SummaryType, Version,
};
use tdispd::config::Config;
use tdispd::device::Device;
use tests::spdm_socket::{Client, serve_kept};

/// A requester that takes every version and algorithm.
fn curious() -> RequesterConfig {
    RequesterConfig {
        versions: Version::IMPLEMENTED.to_vec(),
        hashes: HashAlgorithm::ALL.to_vec(),
        signatures: vec![
            AsymAlgorithm::RsaPss3072,
            AsymAlgorithm::RsaSsa3072,
            AsymAlgorithm::Ed25519,
            AsymAlgorithm::EcdsaP384,
            AsymAlgorithm::EcdsaP256,
        ],
        ..RequesterConfig::default()
    }
}

/// The device of `directory`/device.toml.
fn device(directory: &Path, toml: &str, state_dir: Option<&Path>) -> (SocketAddr, UnixStream) {
    let path = directory.join("device.toml");
    std::fs::write(&path, toml).unwrap();
    serve_kept(Config::load(&path).unwrap(), state_dir)
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A root and a leaf of openssl's making: `NAME.chain.pem` and `NAME.key.pem`.
fn issue(directory: &Path, name: &str, key: &str) {
    std::fs::write(
        directory.join("leaf.cnf"),
        "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
         subjectAltName = otherName:2.23.147;UTF8:Vendor=1234:Device=0001:CC=000000:REV=00:SSVID=0000:SSID=0000\n",
    )
    .unwrap();
    openssl(directory, &format!("genpkey {key} -out root.key"));
    openssl(directory, "req -x509 -new -key root.key -subj /CN=root -days 3650 -out root.pem");
    openssl(directory, &format!("genpkey {key} -out {name}.key.pem"));
    openssl(directory, &format!("req -new -key {name}.key.pem -subj /CN=leaf -out leaf.csr"));
    openssl(
        directory,
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3650 -extfile leaf.cnf -out leaf.pem",
    );
    let mut chain = String::new();
    for part in ["root.pem", "leaf.pem"] {
        chain.push_str(&std::fs::read_to_string(directory.join(part)).unwrap());
    }
    std::fs::write(directory.join(format!("{name}.chain.pem")), chain).unwrap();
}

/// Certificate, challenge and a session with one slot.
fn authenticate(address: SocketAddr, config: RequesterConfig, slot: u8) -> AsymAlgorithm {
    let mut client = Client::new(address, config);
    let algorithm = client.driver().connect().unwrap().algorithms.signature.unwrap();
    client.driver().digests().unwrap();
    client.driver().certificate(slot).unwrap();
    client.driver().challenge(slot, SummaryType::All).unwrap();
    client.driver().start_session(slot, SummaryType::Tcb, false).unwrap();
    client.end();
    algorithm
}

#[test]
fn identities_come_from_files_that_openssl_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let kinds = [
        (
            "rsa",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:3072",
            Some("rsapss-3072"),
            AsymAlgorithm::RsaPss3072,
        ),
        ("ssa", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072", None, AsymAlgorithm::RsaSsa3072),
        ("ed", "-algorithm ED25519", None, AsymAlgorithm::Ed25519),
        ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", None, AsymAlgorithm::EcdsaP256),
    ];
    for (name, key, used, expected) in kinds {
        issue(path, name, key);
        let mut toml =
            format!("[[spdm.slot]]\nchain = \"{name}.chain.pem\"\nprivate_key = \"{name}.key.pem\"\n");
        if let Some(used) = used {
            writeln!(toml, "key = \"{used}\"").unwrap();
        }
        let (address, _stop) = device(path, &toml, None);
        for version in [Version::V1_2, Version::V1_3] {
            let config = RequesterConfig { versions: vec![version], ..curious() };
            assert_eq!(authenticate(address, config, 0), expected, "{name} {version}");
        }
    }
}

#[test]
fn every_slot_has_its_own_algorithm() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[[spdm.slot]]\nkey = \"ecdsa-p384\"\n[[spdm.slot]]\nnumber = 1\nkey = \"ecdsa-p256\"\n\
                [[spdm.slot]]\nnumber = 5\nkey = \"ed25519\"\n";
    let (address, _stop) = device(directory.path(), toml, None);
    for (slot, algorithm) in
        [(0, AsymAlgorithm::EcdsaP384), (1, AsymAlgorithm::EcdsaP256), (5, AsymAlgorithm::Ed25519)]
    {
        let config = RequesterConfig { signatures: vec![algorithm], ..curious() };
        assert_eq!(authenticate(address, config, slot), algorithm);
    }
}

#[test]
fn measurements_are_those_of_the_file_and_of_files() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("firmware.bin"), vec![0x5A; 300_000]).unwrap();
    openssl(directory.path(), "dgst -sha384 -binary -out expected firmware.bin");
    let toml = "[spdm]\nmeasurement_hashes = [\"sha384\"]\n\
                [[spdm.measurement]]\nindex = 1\nkind = \"mutable-firmware\"\nfile = \"firmware.bin\"\n\
                [[spdm.measurement]]\nindex = 9\nkind = \"security-version\"\nhex = \"0700000000000000\"\n\
                [[spdm.measurement]]\nindex = 253\nkind = \"manifest\"\nvalue = \"the manifest\"\ntcb = false\n";
    let (address, _stop) = device(directory.path(), toml, None);
    let mut client = Client::new(address, curious());
    client.driver().connect().unwrap();
    client.driver().certificate(0).unwrap();
    let query = MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by: Some(0) };
    let report = client.driver().measurements(query).unwrap().measurements;
    let expected = std::fs::read(directory.path().join("expected")).unwrap();
    assert_eq!((report[0].kind, report[0].raw, &report[0].value), (1, false, &expected));
    assert_eq!((report[1].kind, report[1].raw, report[1].value[0]), (7, true, 7));
    assert_eq!((report[2].index, report[2].kind, report[2].value.len()), (253, 4, 48));
    let query = MeasurementQuery { operation: MeasurementOperation::One(253), raw: true, signed_by: None };
    let report = client.driver().measurements(query).unwrap().measurements;
    assert_eq!((report[0].raw, report[0].value.as_slice()), (true, &b"the manifest"[..]));
    assert_eq!(client.driver().measurement_log().unwrap().entries.len(), 3);
}

#[test]
fn a_session_from_a_pre_shared_key() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("psk"), "a secret").unwrap();
    let toml =
        "[spdm.capabilities]\npsk = \"with-context\"\n[[spdm.psk]]\nhint = \"the hint\"\nfile = \"psk\"\n";
    let (address, _stop) = device(directory.path(), toml, None);
    for (secret, works) in [("a secret", true), ("another", false)] {
        let psks = vec![PreSharedKey::new(b"the hint".to_vec(), secret.into())];
        let mut client = Client::new(address, RequesterConfig { psks, ..curious() });
        client.driver().connect().unwrap();
        let started = client.driver().start_psk_session(b"the hint", SummaryType::None, false);
        assert_eq!(started.is_ok(), works, "{secret}");
        if works {
            client.driver().heartbeat().unwrap();
            client.end();
        }
    }
}

#[test]
fn a_requester_has_to_say_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    issue(path, "requester", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    let material = Material::load(&read("requester.chain.pem"), &read("requester.key.pem"), None).unwrap();
    std::fs::rename(path.join("root.pem"), path.join("known.pem")).unwrap();
    issue(path, "stranger", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    for (roots, known) in [("known.pem", true), ("root.pem", false)] {
        for session in ["encapsulated", "digests"] {
            let toml = format!("[spdm.mutual]\nsession = \"{session}\"\nroots = [\"{roots}\"]\n");
            let (address, _stop) = device(path, &toml, None);
            let mut client = Client::with_identity(address, curious(), Slots::single(material.slot()));
            client.driver().connect().unwrap();
            client.driver().certificate(0).unwrap();
            let started = client.driver().start_session(0, SummaryType::None, false);
            assert_eq!(started.is_ok(), known, "{session} {roots} {started:?}");
        }
    }
}

#[test]
fn files_that_say_nothing_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.toml");
    std::fs::write(directory.path().join("nothing"), "").unwrap();
    for (toml, field) in [
        // Above all, no roots must not come to mean any root.
        ("[spdm.mutual]\nroots = [\"nothing\"]\n", "spdm.mutual.roots[0]"),
        ("[[spdm.slot]]\nchain = \"nothing\"\nprivate_key = \"nothing\"\n", "spdm.slot[0]"),
        ("[[spdm.psk]]\nhint = \"h\"\nfile = \"nothing\"\n", "spdm.psk[0].file"),
        (
            "[[spdm.measurement]]\nindex = 1\nkind = \"manifest\"\nfile = \"nowhere\"\n",
            "spdm.measurement[0].file",
        ),
    ] {
        std::fs::write(&path, toml).unwrap();
        let config = Config::load(&path).unwrap().for_sockets(1).unwrap();
        let error = Device::standalone(&config, None).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(field), "{toml}: {error}");
    }
}

#[test]
fn a_slow_device_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[[spdm.delay]]\nrequest = \"CHALLENGE\"\nexponent = 12\nwait = \"not-ready\"\n\
                [[spdm.delay]]\nrequest = \"GET_DIGESTS\"\nexponent = 12\nwait = \"busy\"\n";
    let (address, _stop) = device(directory.path(), toml, None);
    authenticate(address, curious(), 0);
}

/// Has openssl turn a request into a certificate.
fn certify(directory: &Path, csr: &[u8]) {
    std::fs::write(directory.join("device.csr.der"), csr).unwrap();
    openssl(
        directory,
        "x509 -req -inform DER -in device.csr.der -CA root.pem -CAkey root.key -CAcreateserial -days 3650 \
         -extfile leaf.cnf -out device.pem",
    );
    openssl(directory, "x509 -in device.pem -outform DER -out device.der");
    openssl(directory, "x509 -in root.pem -outform DER -out root.der");
}

/// The chain of that certificate.
fn issued(directory: &Path) -> Vec<Vec<u8>> {
    ["root.der", "device.der"].map(|name| std::fs::read(directory.join(name)).unwrap()).to_vec()
}

#[test]
fn what_a_requester_writes_into_a_slot_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (path, state) = (directory.path(), directory.path().join("state"));
    issue(path, "unused", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    let toml = "[[spdm.slot]]\n[[spdm.slot]]\nnumber = 3\nempty = true\n";
    let issued = {
        let (address, _stop) = device(path, toml, Some(&state));
        let mut client = Client::in_session(address);
        certify(path, &client.driver().csr(CsrQuery::default()).unwrap());
        let certificates = issued(path);
        let content =
            SlotContent::Chain { certificates: certificates.clone(), model: CertificateModel::Device };
        client.driver().set_certificate(0, 0, content).unwrap();
        client.end();
        certificates
    };
    let (address, _stop) = device(path, toml, Some(&state));
    let mut client = Client::new(address, RequesterConfig::default());
    client.driver().connect().unwrap();
    let digests = client.driver().digests().unwrap();
    assert!(digests.digests.iter().all(|(slot, _)| *slot == 0), "slot 3 is still empty: {digests:?}");
    let found = client.driver().certificate(0).unwrap();
    assert_eq!(found.chain.certificates, issued);
    client.driver().challenge(0, SummaryType::None).unwrap();
}

/// The alias model: a vendor certifies the authority that is in the device, and what it has issued stays.
#[test]
fn an_authority_of_openssls_making_is_certified_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    issue(path, "unused", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    std::fs::write(
        path.join("ca.cnf"),
        "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n",
    )
    .unwrap();
    for name in ["authority", "alias"] {
        openssl(path, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out {name}.key.pem"));
        openssl(path, &format!("req -new -key {name}.key.pem -subj /CN={name} -out {name}.csr"));
    }
    openssl(
        path,
        "x509 -req -in authority.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3650 -extfile ca.cnf -out authority.pem",
    );
    openssl(
        path,
        "x509 -req -in alias.csr -CA authority.pem -CAkey authority.key.pem -CAcreateserial -days 3650 -extfile leaf.cnf \
         -out alias.pem",
    );
    openssl(path, "x509 -in alias.pem -outform DER -out alias.der");
    let parts = ["root.pem", "authority.pem", "alias.pem"];
    let chain: String = parts.iter().map(|part| std::fs::read_to_string(path.join(part)).unwrap()).collect();
    std::fs::write(path.join("alias.chain.pem"), chain).unwrap();
    let toml = |key: &str| {
        format!(
            "[[spdm.slot]]\nmodel = \"alias\"\nchain = \"alias.chain.pem\"\nprivate_key = \"alias.key.pem\"\n\
             authority_key = \"{key}\"\n"
        )
    };

    let (address, _stop) = device(path, &toml("authority.key.pem"), None);
    let mut client = Client::in_session(address);
    std::fs::copy(path.join("ca.cnf"), path.join("leaf.cnf")).unwrap();
    openssl(path, "req -x509 -new -key root.key -subj /CN=vendor -days 3650 -out root.pem");
    certify(path, &client.driver().csr(CsrQuery::default()).unwrap());
    let certificates = issued(path);
    let content = SlotContent::Chain { certificates: certificates.clone(), model: CertificateModel::Alias };
    client.driver().set_certificate(0, 0, content).unwrap();
    client.end();
    // The device has one connection at a time.
    drop(client);

    let mut client = Client::new(address, RequesterConfig::default());
    client.driver().connect().unwrap();
    client.driver().digests().unwrap();
    let found = client.driver().certificate(0).unwrap().chain.certificates;
    assert_eq!(found, [certificates, vec![std::fs::read(path.join("alias.der")).unwrap()]].concat());
    client.driver().challenge(0, SummaryType::None).unwrap();

    for (key, reason) in [
        ("root.key", None),
        ("alias.key.pem", Some("none of the certificates")),
        ("missing", Some("missing")),
    ] {
        std::fs::write(path.join("device.toml"), toml(key)).unwrap();
        let config = Config::load(&path.join("device.toml")).unwrap().for_sockets(1).unwrap();
        let made = Device::standalone(&config, None).map(drop).map_err(|error| error.to_string());
        match reason {
            None => assert_eq!(made, Ok(()), "any certificate above the leaf may be the authority"),
            Some(reason) => {
                let error = made.unwrap_err();
                assert!(error.contains("spdm.slot[0].authority_key") && error.contains(reason), "{error}");
            }
        }
    }
}

/// A key pair of the device, as KEY_PAIR_INFO shows it.
fn key_pair(client: &mut Client, id: u8) -> KeyPairReport {
    client.driver().key_pair(id).unwrap()
}

fn change(slots: u8, algorithm: Option<AsymAlgorithm>) -> KeyPairParameters {
    let algorithm = algorithm.map(KeyPairAlgorithms::of).unwrap_or_default();
    KeyPairParameters { usage: KeyUsage::default(), algorithm, slots }
}

#[test]
fn key_pairs_that_a_requester_changed_are_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (path, state) = (directory.path(), directory.path().join("state"));
    issue(path, "authority", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    let toml = "[spdm.capabilities.provisioning]\nset_certificate = true\ncsr = true\nkey_pair_info = true\n\
                set_key_pair_info = true\nmultiple_keys = \"negotiated\"\n\
                [[spdm.slot]]\n[[spdm.slot]]\nnumber = 3\nempty = true\n[[spdm.slot]]\nnumber = 4\nempty = true\n";
    let managing = || RequesterConfig {
        versions: vec![Version::V1_3],
        signatures: vec![AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384],
        multiple_keys: true,
        ..RequesterConfig::default()
    };
    let started = |address| {
        let mut client = Client::new(address, managing());
        client.driver().connect().unwrap();
        client.driver().digests().unwrap();
        client.driver().certificate(0).unwrap();
        client.start();
        client
    };
    // Slot 3 gives its key up, gets a new one of another kind, and slot 4 gets it, too.
    let first = {
        let (address, _stop) = device(path, toml, Some(&state));
        let mut client = started(address);
        assert_eq!((key_pair(&mut client, 2).slots, key_pair(&mut client, 3).slots), (1 << 3, 1 << 4));
        client.driver().set_key_pair(2, KeyPairOperation::Change(change(0, None))).unwrap();
        client.driver().set_key_pair(2, KeyPairOperation::Erase).unwrap();
        client.driver().set_key_pair(3, KeyPairOperation::Change(change(0, None))).unwrap();
        let generate = change(1 << 3 | 1 << 4, Some(AsymAlgorithm::EcdsaP384));
        client.driver().set_key_pair(2, KeyPairOperation::Generate(generate)).unwrap();
        client.driver().set_key_pair(3, KeyPairOperation::Erase).unwrap();
        let csr = client.driver().csr(CsrQuery {
            key_pair: 2,
            model: Some(CertificateModel::Generic),
            ..CsrQuery::default()
        });
        certify(path, &csr.unwrap());
        let content = SlotContent::Chain { certificates: issued(path), model: CertificateModel::Generic };
        client.driver().set_certificate(3, 2, content).unwrap();
        let kept = [2, 3].map(|id| key_pair(&mut client, id));
        client.end();
        kept
    };
    assert_eq!(first[0].slots, 1 << 3 | 1 << 4);
    assert_eq!((first[1].slots, first[1].algorithm), (0, KeyPairAlgorithms::default()));
    let mode = std::fs::metadata(state.join("key-pairs.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..2 {
        let (address, _stop) = device(path, toml, Some(&state));
        let mut client = Client::new(address, managing());
        client.driver().connect().unwrap();
        assert_eq!([2, 3].map(|id| key_pair(&mut client, id)), first);
        client.driver().digests().unwrap();
        client.driver().certificate(3).unwrap();
        client.driver().challenge(3, SummaryType::None).unwrap();
    }
    // Without the file slot 3 has its first key, which is not its chain's.
    std::fs::remove_file(state.join("key-pairs.toml")).unwrap();
    let config = Config::load(&path.join("device.toml")).unwrap().for_sockets(1).unwrap();
    let error = Device::standalone(&config, Some(&state)).map(drop).unwrap_err().to_string();
    assert!(error.contains("slot3.chain.pem"), "{error}");
    std::fs::write(state.join("key-pairs.toml"), "").unwrap();
    let error = Device::standalone(&config, Some(&state)).map(drop).unwrap_err().to_string();
    assert!(error.contains("key-pairs.toml: key pair 1 is missing"), "{error}");
}
