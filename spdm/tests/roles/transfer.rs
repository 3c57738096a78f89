//! Whole conversations in small transfers.

use std::time::Duration;

use spdm::requester::{
    Command, Driver, MeasurementQuery, Reply, RequesterConfig, Response, Transport, UpdateKeys,
};
use spdm::responder::ResponderConfig;
use spdm::wire::{MeasurementOperation, SummaryType, Version};

use super::pair::*;

/// Bytes by which a record is longer than its message.
const RECORD: usize = 24;

/// A way that lets nothing through that is longer than the receiver said.
struct Narrow<'d> {
    device: &'d mut Device,
    to_responder: usize,
    to_requester: usize,
    /// Messages each way.
    count: usize,
}

impl Transport for &mut Narrow<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let overhead = if secured { RECORD } else { 0 };
        assert!(message.len() <= self.to_responder + overhead, "{} bytes sent", message.len());
        let response = (&mut *self.device).exchange(secured, message)?;
        assert!(response.bytes.len() <= self.to_requester + overhead, "{} bytes back", response.bytes.len());
        self.count += 1;
        Ok(response)
    }

    fn wait(&mut self, delay: Duration) {
        (&mut *self.device).wait(delay);
    }
}

fn measure(operation: MeasurementOperation, signed: bool) -> Command {
    Command::Measurements(MeasurementQuery { operation, raw: true, signed_by: signed.then_some(0) })
}

/// Everything, through transfers of these sizes; how many it took.
fn converse(version: Version, to_responder: u32, to_requester: u32) -> usize {
    let mut settings = ResponderConfig {
        data_transfer_size: to_responder,
        max_message_size: 0x4000,
        ..responder_config(version)
    };
    settings.capabilities.chunks = true;
    let config = RequesterConfig {
        data_transfer_size: to_requester,
        max_message_size: 0x4000,
        ..requester_config(version)
    };
    let Pair { mut requester, mut device } = Pair::with(settings, slots(), config);
    let size = |size: u32| usize::try_from(size).unwrap();
    let (to_responder, to_requester) = (size(to_responder), size(to_requester));
    let mut way = Narrow { device: &mut device, to_responder, to_requester, count: 0 };
    let mut run = |command: Command| Driver::new(&mut requester, &mut way).run(command).unwrap();
    run(Command::Connect);
    run(Command::Digests);
    run(Command::Certificate { slot: 0 });
    run(Command::Challenge { slot: 0, summary: SummaryType::All });
    run(measure(MeasurementOperation::All, false));
    run(measure(MeasurementOperation::All, true));
    for _ in 0..2 {
        run(Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: false });
        let payload: Vec<u8> = (0..6000_usize).map(|at| at.to_le_bytes()[0]).collect();
        let vendor = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.clone() };
        let Reply::Vendor(echo) = run(vendor) else { panic!() };
        assert_eq!(echo[4..], payload);
        run(measure(MeasurementOperation::All, true));
        run(Command::Certificate { slot: 0 });
        run(Command::Heartbeat);
        run(Command::UpdateKeys(UpdateKeys::Both));
        run(measure(MeasurementOperation::Count, true));
        run(Command::EndSession { clear_negotiated_state: false });
    }
    way.count
}

#[test]
fn everything_fits_through_the_smallest_transfers() {
    let sizes = [42, 43, 50, 64, 1000, 4608];
    for version in [Version::V1_2, Version::V1_3, Version::V1_4] {
        let counts = sizes.map(|size| converse(version, size, size));
        assert!(counts.is_sorted_by(|before, after| before > after), "{counts:?}");
        for (to_responder, to_requester) in [(42, 4608), (4608, 42), (300, 77)] {
            converse(version, to_responder, to_requester);
        }
    }
}

#[test]
fn one_side_without_chunks_moves_what_fits() {
    for chunks in [true, false] {
        let mut settings = responder_config(Version::V1_3);
        settings.capabilities.chunks = !chunks;
        let config = RequesterConfig { chunks, data_transfer_size: 600, ..requester_config(Version::V1_3) };
        let mut pair = Pair::with(settings, slots(), config);
        pair.run(Command::Connect).unwrap();
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        let id = pair.start();
        pair.exercise(id);
    }
}
