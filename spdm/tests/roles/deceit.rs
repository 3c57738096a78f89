//! What a device says of its slots, keys and log is not believed where it contradicts itself.

use spdm::requester::{
    Command, CsrQuery, Driver, DriverError, RequesterError, Response, SlotContent, Transport, Violation,
};
use spdm::responder::{
    EndpointInfoSupport, MeasurementLogItem, MeasurementValue, MultipleKeys, Provisioning,
};
use spdm::slot::Slots;
use spdm::wire::{CertificateModel, Code, DeviceClass, Version};

use super::pair::*;

/// Changes one kind of response on its way.
struct Deceit<'a> {
    device: &'a mut Device,
    code: Code,
    change: fn(&mut Vec<u8>),
}

impl Transport for Deceit<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let mut response = self.device.exchange(secured, message)?;
        if response.bytes.get(1) == Some(&self.code.0) {
            (self.change)(&mut response.bytes);
        }
        Ok(response)
    }

    fn wait(&mut self, delay: std::time::Duration) {
        self.device.wait(delay);
    }
}

fn pair(slots: Slots) -> Pair {
    let mut config = responder_config(Version::V1_3);
    config.capabilities.measurement_log = true;
    config.capabilities.endpoint_info = EndpointInfoSupport::Signed;
    config.capabilities.provisioning = Provisioning {
        set_certificate: true,
        csr: true,
        trusted_environment: true,
        key_pair_info: true,
        set_key_pair_info: true,
        multiple_keys: MultipleKeys::Always,
        ..Provisioning::default()
    };
    let value = MeasurementValue::RawOnly(vec![3; 100]);
    config.measurement_log = vec![MeasurementLogItem { index: 1, kind: 1, value }];
    config.device_classes = vec![DeviceClass { registry: 3, vendor_id: vec![1, 0], subordinates: vec![] }];
    let mut pair = Pair::with(config, slots, requester_config(Version::V1_3));
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

#[test]
fn contradictions_are_found() {
    type Case = (Command, Code, fn(&mut Vec<u8>), Option<Violation>);
    let signed = Command::EndpointInfo { signed_by: Some(0) };
    let chain = || SlotContent::Chain {
        certificates: slots().get(0).unwrap().certificates.clone(),
        model: CertificateModel::Device,
    };
    let key_pair = Command::KeyPair { key_pair: 1 };
    let algorithm = Some(Violation::Selection("key pair's algorithm"));
    let about = Some(Violation::Echo("the key pair"));
    let cases: Vec<Case> = vec![
        (
            Command::Digests,
            Code::DIGESTS,
            |b| *b.iter_mut().nth_back(2).unwrap() = 3,
            Some(Violation::Selection("model of slot 0")),
        ),
        (Command::Digests, Code::DIGESTS, |b| *b.iter_mut().nth_back(2).unwrap() = 5, None),
        (Command::Digests, Code::DIGESTS, |b| b.truncate(b.len() - 1), None),
        (
            Command::SetCertificate { slot: 0, key_pair: 1, content: chain() },
            Code::SET_CERTIFICATE_RSP,
            |b| b[2] = 1,
            Some(Violation::Slot),
        ),
        (
            Command::Csr(CsrQuery {
                key_pair: 1,
                model: Some(CertificateModel::Device),
                ..CsrQuery::default()
            }),
            Code::CSR,
            |b| b[5] = 0x7F,
            None,
        ),
        (key_pair.clone(), Code::KEY_PAIR_INFO, |b| b[5] = 2, about.clone()),
        (key_pair.clone(), Code::KEY_PAIR_INFO, |b| b[4] = 0, about),
        (key_pair.clone(), Code::KEY_PAIR_INFO, |b| b[16] |= 1, algorithm.clone()),
        (key_pair.clone(), Code::KEY_PAIR_INFO, |b| b[12] = 0, algorithm),
        (
            key_pair.clone(),
            Code::KEY_PAIR_INFO,
            |b| b[11] = 0x80,
            Some(Violation::Selection("key pair's usage")),
        ),
        (key_pair, Code::KEY_PAIR_INFO, |b| b[20] += 1, None),
        (
            Command::MeasurementLog,
            Code::MEASUREMENT_EXTENSION_LOG,
            |b| b[11] = 0x7F,
            Some(Violation::Portion),
        ),
        // Nothing but a promise of more.
        (
            Command::MeasurementLog,
            Code::MEASUREMENT_EXTENSION_LOG,
            |b| {
                b.truncate(12);
                b[4] = 0;
                b[8] = 9;
            },
            Some(Violation::Portion),
        ),
        (Command::MeasurementLog, Code::MEASUREMENT_EXTENSION_LOG, |b| b[12] = 2, None),
        (Command::MeasurementLog, Code::MEASUREMENT_EXTENSION_LOG, |b| b[16] += 1, None),
        (Command::EndpointInfo { signed_by: None }, Code::ENDPOINT_INFO, |b| b[12] = 2, None),
        (Command::EndpointInfo { signed_by: None }, Code::ENDPOINT_INFO, |b| b[8] -= 1, None),
        (signed.clone(), Code::ENDPOINT_INFO, |b| b[3] = 1, Some(Violation::Slot)),
        (signed.clone(), Code::ENDPOINT_INFO, |b| b[8] ^= 1, Some(Violation::Signature)),
        (signed.clone(), Code::ENDPOINT_INFO, |b| b[48] ^= 1, Some(Violation::Signature)),
        (signed, Code::ENDPOINT_INFO, |b| *b.last_mut().unwrap() ^= 1, Some(Violation::Signature)),
    ];
    let mut pair = pair(slots());
    for (at, (command, code, change, expected)) in cases.into_iter().enumerate() {
        let transport = Deceit { device: &mut pair.device, code, change };
        let result = Driver::new(&mut pair.requester, transport).run(command.clone());
        let what = format!("case {at}, {command:?}");
        match (result, expected) {
            (Err(DriverError::Requester(RequesterError::Violation { violation, .. })), Some(expected)) => {
                assert_eq!(violation, expected, "{what}");
            }
            (Err(DriverError::Requester(RequesterError::Malformed { .. })), None) => {}
            (result, expected) => panic!("{what}: {result:?} instead of {expected:?}"),
        }
        // The connection stands.
        pair.run(Command::Digests).unwrap();
    }
}
