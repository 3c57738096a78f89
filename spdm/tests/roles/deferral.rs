//! Responders that take their time, and how a requester waits for them.

use spdm::requester::{Command, MeasurementQuery, UpdateKeys};
use spdm::responder::{Delay, ResponderConfig, Wait};
use spdm::wire::{Code, MeasurementOperation, SummaryType, Version};

use super::pair::*;

fn measure(operation: MeasurementOperation, signed: bool) -> Command {
    Command::Measurements(MeasurementQuery { operation, raw: false, signed_by: signed.then_some(0) })
}

/// Everything, at a responder with these delays; how long it took.
fn converse(version: Version, delays: Vec<Delay>, chunks: bool) -> std::time::Duration {
    let mut settings = ResponderConfig { delays, ..responder_config(version) };
    let mut config = requester_config(version);
    if chunks {
        settings.capabilities.chunks = true;
        (settings.data_transfer_size, settings.max_message_size) = (64, 0x4000);
        config.data_transfer_size = 64;
    }
    let mut pair = Pair::with(settings, slots(), config);
    let commands = [
        Command::Connect,
        Command::Digests,
        Command::Certificate { slot: 0 },
        Command::Challenge { slot: 0, summary: SummaryType::All },
        measure(MeasurementOperation::Count, false),
        measure(MeasurementOperation::All, true),
        Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: false },
        measure(MeasurementOperation::Count, false),
        measure(MeasurementOperation::All, true),
        Command::UpdateKeys(UpdateKeys::Requests),
        Command::Heartbeat,
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: vec![1; 100] },
        Command::EndSession { clear_negotiated_state: false },
    ];
    for command in commands {
        pair.run(command.clone()).unwrap_or_else(|error| panic!("{version} {command:?}: {error}"));
    }
    pair.device.now
}

#[test]
fn every_request_may_wait() {
    let codes = [
        Code::GET_DIGESTS,
        Code::GET_CERTIFICATE,
        Code::CHALLENGE,
        Code::GET_MEASUREMENTS,
        Code::KEY_EXCHANGE,
        Code::FINISH,
        Code::KEY_UPDATE,
        Code::HEARTBEAT,
        Code::VENDOR_DEFINED_REQUEST,
        Code::END_SESSION,
    ];
    let negotiation = [Code::GET_CAPABILITIES, Code::NEGOTIATE_ALGORITHMS];
    let not_ready = |request| Delay { request, wait: Wait::NotReady, exponent: 14 };
    let busy = |request| Delay { request, wait: Wait::Busy, exponent: 18 };
    for version in VERSIONS {
        for chunks in [false, true] {
            if chunks && version < Version::V1_2 {
                continue;
            }
            let mut waited = Vec::new();
            for delays in [
                vec![],
                codes.map(not_ready).to_vec(),
                codes.iter().chain(&negotiation).map(|&code| busy(code)).collect(),
            ] {
                waited.push(converse(version, delays, chunks));
            }
            assert!(waited.is_sorted_by(|before, after| before < after), "{version}: {waited:?}");
        }
    }
}

#[test]
fn busy_and_then_not_ready() {
    let both = |wait| Delay { request: Code::KEY_EXCHANGE, wait, exponent: 16 };
    converse(Version::V1_3, vec![both(Wait::Busy), both(Wait::NotReady)], false);
}
