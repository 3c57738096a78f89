//! Formats that stand for themselves: whatever parses has one meaning, and is written again as it was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]

use spdm::crypto::{PrivateKey, encode_public_key, parse_public_key};
use spdm::doe::{DiscoveryRequest, HEADER_SIZE, Object, object_size};
use spdm::identity::{MAX_CERTIFICATES, Policy, verify_certificates};
use spdm::wire::CertificateChain;
use tdisp::wire::InterfaceReport;
use tdispd::config::Config;
use tdispd::device::Device;
use tdispd::doe::{Mailbox, Malformed};
use tdispd_proto::frame::{Frame, HEADER_SIZE as FRAME_HEADER, MAX_PAYLOAD};

/// A report that decodes is encoded to the same bytes, reserved ones apart, or too long to be read.
pub fn interface_report(bytes: &[u8]) {
    let Ok(report) = InterfaceReport::decode(bytes) else { return };
    let Ok(again) = report.encode() else {
        assert!(bytes.len() > usize::from(u16::MAX), "a readable report cannot be written");
        return;
    };
    assert_eq!((&again[..2], &again[4..]), (&bytes[..2], &bytes[4..]));
    assert_eq!(InterfaceReport::decode(&again).unwrap(), report);
    assert!(InterfaceReport::decode(&bytes[..bytes.len() - 1]).is_err(), "a shorter report means something");
}

/// Frames of a stream: each is encoded to the bytes it was parsed from, and none is there before its last byte.
pub fn spdm_frame(mut bytes: &[u8]) {
    while let Ok(Some((frame, taken))) = Frame::parse(bytes) {
        assert_eq!(taken, FRAME_HEADER + frame.payload.len());
        assert!(frame.payload.len() <= MAX_PAYLOAD);
        assert_eq!(Frame::parse(&bytes[..taken - 1]), Ok(None));
        let mut again = Vec::new();
        frame.encode(&mut again).unwrap();
        assert_eq!(again, bytes[..taken]);
        bytes = &bytes[taken..];
    }
    if Frame::parse(bytes).is_err() {
        assert!(Frame::parse(&bytes[..FRAME_HEADER]).is_err(), "refused from the header alone");
    }
}

/// An object is one exactly if its header says its length; the mailbox hands over that object, unchanged, or none.
pub fn doe_object(bytes: &[u8]) {
    let declared = bytes.first_chunk::<HEADER_SIZE>().and_then(|header| object_size(*header));
    let parsed = Object::parse(bytes);
    assert_eq!(parsed.is_ok(), declared == Some(bytes.len()));
    if let Ok(object) = parsed {
        let mut again = Vec::new();
        object.encode(&mut again).unwrap();
        assert_eq!(Object::parse(&again).unwrap(), object);
        if let Ok(request) = DiscoveryRequest::parse(object.payload) {
            assert_eq!(request.encode()[..2], object.payload[..2]);
        }
    }
    for malformed in [Malformed::Silent, Malformed::Error] {
        let mut mailbox = Mailbox::new(malformed);
        let (dwords, _) = bytes.as_chunks::<4>();
        for dword in dwords {
            mailbox.write(0x0C, 0, dword);
        }
        mailbox.write(0x04, 3, &[0x80]);
        let whole = bytes.len().is_multiple_of(4) && parsed.is_ok();
        match mailbox.take_request() {
            Some(object) => {
                assert_eq!(object, dwords.as_flattened());
                assert!(object_size(*object.first_chunk().unwrap()) == Some(object.len()));
                mailbox.respond(object.clone(), Some(&object));
                for dword in dwords {
                    assert_eq!(mailbox.read(0x10).to_le_bytes(), *dword);
                    mailbox.write(0x10, 0, &[0; 4]);
                }
                assert_eq!(mailbox.read(0x08), 0, "read to its end");
            }
            None => assert!(!whole, "an object was lost"),
        }
    }
}

/// A chain that verifies is the bytes given, from its own root, and verifies from that root again; nothing may be missing
/// from its end or altered in its root.
pub fn certificate_chain(bytes: &[u8]) {
    for hash_size in [32, 48] {
        if let Ok(chain) = CertificateChain::parse(bytes, hash_size) {
            assert_eq!(4 + chain.root_hash.len() + chain.certificates.len(), bytes.len());
            certificates(chain.certificates);
        }
    }
    certificates(bytes);
    keys(bytes);
}

/// A key that is read is written in one form, which is read as the same key.
fn keys(der: &[u8]) {
    if let Ok((algorithm, public_key)) = parse_public_key(der) {
        let info = encode_public_key(algorithm, public_key);
        assert!(
            parse_public_key(&info).is_ok_and(|(again, key)| again.serves(algorithm) && key == public_key)
        );
    }
    if let Ok(key) = PrivateKey::from_der(der, Some(&[4; 65])) {
        let again = PrivateKey::from_der(key.pkcs8(), None).unwrap();
        assert!(again.algorithm().serves(key.algorithm()));
        assert_eq!(again.pkcs8(), key.pkcs8());
    }
}

fn certificates(der: &[u8]) {
    let Ok(verified) = verify_certificates(der, &Policy::default()) else { return };
    assert!((1..=MAX_CERTIFICATES).contains(&verified.certificates.len()));
    assert_eq!(verified.certificates.concat(), der);
    assert_eq!(verified.root, verified.certificates[0]);
    let info = encode_public_key(verified.algorithm, &verified.public_key);
    let (algorithm, public_key) = parse_public_key(&info).unwrap();
    assert!(algorithm.serves(verified.algorithm));
    assert_eq!(public_key, verified.public_key);
    let rooted = Policy { root: Some(&verified.root), ..Policy::default() };
    assert_eq!(verify_certificates(der, &rooted).as_ref(), Ok(&verified));
    assert!(verify_certificates(&der[..der.len() - 1], &Policy::default()).is_err());
    if verified.certificates.len() > 1 {
        let mut altered = der.to_vec();
        // In the root's signature.
        altered[verified.root.len() - 1] ^= 1;
        assert!(
            verify_certificates(&altered, &Policy::default()).is_err(),
            "the root's signature is unchecked"
        );
        assert!(verify_certificates(&altered, &rooted).is_err(), "another root than the trusted one");
    }
}

/// A configuration that loads and passes its checks is printed as one that loads to the same, and makes a device.
pub fn config_toml(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(config) = toml::from_str::<Config>(text) else { return };
    if config.check().is_err() {
        return;
    }
    let printed = config.to_toml().unwrap();
    assert_eq!(toml::from_str::<Config>(&printed).unwrap(), config, "{printed}");
    let sockets = config.functions.len().max(1);
    let config = config.for_sockets(sockets).unwrap();
    let device = Device::new(&config, None);
    assert_eq!(device.map(|device| device.functions()).map_err(|error| error.to_string()), Ok(sockets));
}
