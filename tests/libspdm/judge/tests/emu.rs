//! spdm_requester_emu's default run against `tdispd --spdm-socket`, in every version, with the identity that tdispd makes and
//! with spdm-emu's sample keys.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use judge::emu::{Daemon, Run, Socket};
use judge::{Tally, cases, with_psk};
use spdm::wire::Version;

/// Where a device's keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// tdispd makes them.
    Made,
    /// libspdm's samples: the directory of an algorithm.
    Sample(&'static str),
}

fn sample(directory: &str, file: &str) -> String {
    format!("{}/{directory}/{file}", libspdm_sys::KEYS)
}

/// The device's file.
fn configuration(keys: Keys, directory: &Path) -> String {
    std::fs::write(directory.join("psk"), b"TestPskData\0").unwrap();
    let psk =
        format!("[[spdm.psk]]\nhint = \"TestPskHint\\u0000\"\nfile = \"{}/psk\"\n", directory.display());
    let slots = match keys {
        Keys::Made => String::new(),
        Keys::Sample(algorithm) => [(0, "certchain"), (1, "certchain1")]
            .map(|(number, chain)| {
                format!(
                    "[[spdm.slot]]\nnumber = {number}\nchain = \"{}\"\nprivate_key = \"{}\"\n",
                    sample(algorithm, &format!("bundle_responder.{chain}.der")),
                    sample(algorithm, "end_responder.key"),
                )
            })
            .concat(),
    };
    slots + &psk
}

fn roots(daemon: &Daemon, keys: Keys) -> Vec<Vec<u8>> {
    match keys {
        Keys::Made => vec![daemon.root(0)],
        Keys::Sample(algorithm) => ["ca.cert.der", "ca1.cert.der"]
            .map(|file| std::fs::read(sample(algorithm, file)).unwrap())
            .to_vec(),
    }
}

/// What no run may leave out.
fn expected(version: Version, keys: Keys) -> Vec<&'static str> {
    let mut steps = vec!["certificates", "challenge", "measurements"];
    if version >= Version::V1_1 {
        steps.extend(["session", "PSK session", "PCI and CXL"]);
        steps.extend(["heartbeat", "key update", "measurements in a session"]);
    }
    if version >= Version::V1_2 {
        steps.push("CSR");
    }
    if version >= Version::V1_3 {
        steps.extend(["measurement extension log", "key pair info"]);
    }
    if keys != Keys::Made {
        steps.push("other slot");
        if version >= Version::V1_1 {
            steps.push("session of another slot");
        }
        if version >= Version::V1_2 {
            steps.extend(["SET_CERTIFICATE", "SET_CERTIFICATE in a session"]);
        }
    }
    steps
}

fn whole_run(version: u8, keys: Keys) {
    let mut daemon = Daemon::start(|directory| configuration(keys, directory));
    let roots = roots(&daemon, keys);
    let socket = Socket::connect(daemon.address());
    let found = with_psk(|| Run::whole(socket, version, roots, keys != Keys::Made));
    let wanted = if version == 0 { Version::V1_3 } else { Version(version) };
    assert_eq!(found.version, wanted);
    for step in expected(wanted, keys) {
        assert!(found.steps.contains(step), "{step} is missing in {:?}", found.steps);
    }
    assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
}

#[test]
fn emu() {
    let mut tally = Tally::new("responder", "emu");
    for version in [0, 0x10, 0x11, 0x12, 0x13] {
        for keys in [Keys::Made, Keys::Sample("ecp384"), Keys::Sample("ecp256")] {
            // The tally's row: the version, and the algorithms that a run comes to.
            let wanted = if version == 0 { Version::V1_3 } else { Version(version) };
            let bits = if keys == Keys::Sample("ecp256") { 1 << 4 } else { 1 << 7 };
            let mut rows = cases().into_iter();
            let row = rows.find(|case| case.version == wanted && case.asym.base_bit() == bits).unwrap();
            tally.check(&row, &format!("{version:#x} {keys:?}"), || whole_run(version, keys));
        }
    }
    tally.finish();
}
