//! The same requests, in every state and mutated in every byte, to libspdm's responder and to ours. What libspdm answers we
//! answer, what it refuses we refuse, but for what [`known`] says. Different refusals are only printed (`--nocapture`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod client;

use client::{Client, HASH, STAGES, Stage};
use judge::{Case, Tally};
use spdm::crypto::{Aead, AsymAlgorithm, DheGroup};
use spdm::wire::Version;

/// Where one of the two answers and the other refuses, and both are right.
fn known(name: &str, label: &str) -> bool {
    match (name, label) {
        // Measurements 3 and 17 are among libspdm's samples and not among ours.
        ("GET_MEASUREMENTS" | "GET_MEASUREMENTS signed", "[3]=03" | "[3]=11") => true,
        // The supported algorithms, asked for without chunks: DSP0274 1.3 "GET_CAPABILITIES" does not allow that, libspdm 3.6
        // does not know the bit.
        ("GET_CAPABILITIES", param1) => param1.starts_with("[2]="),
        // A context of no bytes: DSP0274 1.3 "PSK_EXCHANGE" wants a nonce of 32 in it.
        ("e6", "+60") => true,
        // All events for the requester, of a responder that has none: libspdm refuses that in KEY_EXCHANGE only.
        ("PSK_EXCHANGE", policy) => policy.starts_with("[3]="),
        _ => false,
    }
}

fn accepted(outcome: &str) -> bool {
    !outcome.contains("ERROR") && outcome != "silence" && outcome != "unreadable"
}

/// Sends a message, made from the state of the conversation, to both.
fn compare(case: &Case, stage: Stage, name: &str, label: &str, message: &dyn Fn(&Client) -> Vec<u8>) {
    let one = |ours| {
        let mut client = Client::new(case, ours);
        client.advance(stage);
        let bytes = message(&client);
        client.try_message(stage, &bytes)
    };
    let (theirs, ours) = (one(false), one(true));
    if theirs == ours {
        return;
    }
    println!("{} clear={} {stage:?} {name} {label}: libspdm {theirs}, ours {ours}", case.version, case.clear);
    assert!(
        !accepted(&theirs) && !accepted(&ours) || known(name, label),
        "{} clear={} {stage:?} {name} {label}: libspdm {theirs}, ours {ours}",
        case.version,
        case.clear
    );
}

/// Versions and handshakes that make a difference to what may come when.
fn cases() -> [Case; 3] {
    let case = |version, clear| Case {
        version,
        asym: AsymAlgorithm::EcdsaP256,
        hash: HASH,
        group: DheGroup::P256,
        aead: Aead::Aes128Gcm,
        measurement_hash: Some(HASH),
        encrypt: true,
        clear,
        secured: 0,
    };
    [case(Version::V1_2, false), case(Version::V1_3, false), case(Version::V1_2, true)]
}

fn names(case: &Case) -> Vec<&'static str> {
    Client::new(case, true).messages().iter().map(|(name, _)| *name).collect()
}

/// Every request, and every request code with nothing but zeros after it, in every state.
#[test]
fn order() {
    let mut tally = Tally::new("alike", "order");
    for case in cases() {
        for stage in STAGES {
            for (at, name) in names(&case).iter().enumerate() {
                tally.check(&case, &format!("{stage:?} {name}"), || {
                    compare(&case, stage, name, "", &|client| client.messages()[at].1.clone());
                });
            }
            for code in 0..=255_u8 {
                tally.check(&case, &format!("{stage:?} {code:02x}"), || {
                    compare(&case, stage, &format!("{code:02x}"), "+60", &|_| {
                        let mut bytes = vec![case.version.0, code, 0, 0];
                        bytes.resize(64, 0);
                        bytes
                    });
                });
            }
        }
    }
    tally.finish();
}

/// Where each request is meant to come.
fn stages(name: &str, clear: bool) -> &'static [Stage] {
    match name {
        "GET_VERSION" => &[Stage::Start, Stage::Negotiated],
        "GET_CAPABILITIES" => &[Stage::Version],
        "NEGOTIATE_ALGORITHMS" => &[Stage::Capabilities],
        "CHALLENGE" | "KEY_EXCHANGE" | "PSK_EXCHANGE" => &[Stage::Negotiated],
        "FINISH" if clear => &[Stage::ClearInHandshake],
        "FINISH" | "PSK_FINISH" => &[Stage::Handshake],
        "KEY_UPDATE verify" => &[Stage::Updating],
        "HEARTBEAT" | "KEY_UPDATE key" | "KEY_UPDATE all" | "END_SESSION" => &[Stage::Application],
        _ => &[Stage::Negotiated, Stage::Application],
    }
}

/// What to turn into what, by xor: every bit, and the values that fields like; one bit of bulk data.
fn changes(name: &str, position: usize, base: u8) -> Vec<u8> {
    // libspdm 3.6 reads beyond opaque data whose element says a wrong length.
    let lies: &[usize] = match name {
        "KEY_EXCHANGE" => &[104, 106, 111, 112, 113],
        "PSK_EXCHANGE" => &[10, 56, 61, 62, 63],
        _ => &[],
    };
    if position == 1 || lies.contains(&position) {
        return Vec::new();
    }
    if matches!(
        (name, position),
        ("CHALLENGE" | "FINISH" | "PSK_FINISH", 4..)
            | ("PSK_EXCHANGE", 24..56)
            | ("KEY_EXCHANGE", 8..104)
            | ("GET_MEASUREMENTS signed", 4..36)
    ) {
        return vec![1];
    }
    let mut values: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
    let values_of_fields = [0, 1, 2, 3, 4, 8, 0xF, 0x10, 0x11, 0x12, 0x13, 0x14, 0x7F, 0x80, 0xFE, 0xFF];
    values.extend(values_of_fields.map(|value| value ^ base));
    values.extend([base.wrapping_add(1) ^ base, base.wrapping_sub(1) ^ base]);
    values.sort_unstable();
    values.dedup();
    values.retain(|&change| change != 0);
    values
}

/// Every byte changed, every length.
#[test]
fn mutations() {
    let mut tally = Tally::new("alike", "mutations");
    for case in cases() {
        for (at, name) in names(&case).into_iter().enumerate() {
            let original = Client::new(&case, true).messages()[at].1.clone();
            for &stage in stages(name, case.clear) {
                let mut check = |label: String, change: &dyn Fn(&mut Vec<u8>)| {
                    tally.check(&case, &format!("{stage:?} {name} {label}"), || {
                        compare(&case, stage, name, &label, &|client| {
                            let mut bytes = client.messages()[at].1.clone();
                            change(&mut bytes);
                            bytes
                        });
                    });
                };
                for (position, &base) in original.iter().enumerate() {
                    for flip in changes(name, position, base) {
                        check(format!("[{position}]={:02x}", base ^ flip), &|bytes| bytes[position] ^= flip);
                    }
                }
                let length = original.len();
                for shorter in (2..length).filter(|shorter| length - shorter <= 40 || *shorter <= 8) {
                    check(format!("cut{shorter}"), &|bytes| bytes.truncate(shorter));
                }
                for longer in [1, 2, 3, 4, 5, 8, 16, 64] {
                    check(format!("+{longer}"), &|bytes| bytes.resize(bytes.len() + longer, 0));
                }
            }
        }
    }
    tally.finish();
}
