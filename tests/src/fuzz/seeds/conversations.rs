//! Seeds of SPDM: conversations and what they carry, from our encoders and from the recordings of libspdm.

use spdm::wire::{
    BankDetails, BankElement, CertificateChain, Code, GetCsr, KeyPairAlgorithms, KeyUsage, SlotAddress,
    SlotElement, SlotManagement, SlotManagementResp, SlotOperation, SlotReport, SubCode, SubCodes, Version,
};

use crate::fuzz::peer::material;
use crate::fuzz::requester::a_session;
use crate::fuzz::script::put_sized;

const RECORDINGS: [(u8, &str); 4] = [
    (0, include_str!("../../../../spdm/tests/golden/requester-1.2.txt")),
    (1, include_str!("../../../../spdm/tests/golden/requester-1.3.txt")),
    (0, include_str!("../../../../spdm/tests/golden/responder-1.2.txt")),
    (1, include_str!("../../../../spdm/tests/golden/responder-1.3.txt")),
];

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// The messages of a recording in one direction and in the clear.
fn recorded(text: &str, direction: &str) -> Vec<Vec<u8>> {
    let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words.filter(|words| words[0] == direction && words[1] == "clear").map(|words| unhex(words[2])).collect()
}

pub(super) fn session_file() -> Vec<Vec<u8>> {
    [Version::V1_2, Version::V1_3].map(|version| serde_json::to_vec(&a_session(version)).unwrap()).to_vec()
}

pub(super) fn certificate_chain() -> Vec<Vec<u8>> {
    let certificates = material().certificates();
    let mut chain = Vec::new();
    CertificateChain::encode(&[0x11; 32], certificates, &mut chain).unwrap();
    let mut out = vec![chain, certificates.concat(), certificates[0].clone()];
    for (_, text) in &RECORDINGS[2..] {
        let der = |line: &str| line.strip_prefix("certificate ").map(unhex);
        out.push(text.lines().filter_map(der).flatten().collect());
    }
    out
}

/// Each message as an event.
fn events(first: u8, event: u8, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![first];
    for message in messages {
        out.push(event);
        put_sized(&mut out, message);
    }
    out
}

pub(super) fn responder_clear() -> Vec<Vec<u8>> {
    let mut out: Vec<_> =
        RECORDINGS.iter().map(|(version, text)| events(*version, 3, &recorded(text, "request"))).collect();
    // KEY_EXCHANGE in an order of its own, then FINISH in the clear.
    let mut clear = recorded(RECORDINGS[2].1, "request");
    clear.push(vec![0x12, Code::FINISH.0, 0, 0, 0, 0, 0, 0]);
    clear.push([&[0x12, 0xFE, 0, 0, 3, 0, 2, 1, 0, 6, 0][..], b"silent"].concat());
    out.push(events(2, 3, &clear));
    // A requester that has a key, twice by name and once without.
    for (version, text) in &RECORDINGS[2..] {
        let mut messages = recorded(text, "request");
        messages.truncate(3);
        messages[1][9] |= 4;
        let spdm = messages[1][0];
        for hint in [&b"hint"[..], b"", b"hint"] {
            let head = [spdm, Code::PSK_EXCHANGE.0, 0xFF, 0, 0x34, 0x12, hint.len() as u8, 0, 32, 0, 0, 0];
            messages.push([&head[..], hint, &[7; 32]].concat());
        }
        out.push(events(*version, 3, &messages));
    }
    // Nobody records 1.4; its requests look like those of 1.3, and some that do not.
    let mut latest = recorded(RECORDINGS[3].1, "request");
    latest.iter_mut().filter(|message| message[0] == 0x13).for_each(|message| message[0] = 0x14);
    latest.push(
        [&[0x14, Code::GET_CERTIFICATE.0, 0x80, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0xFF, 0, 1, 0]].concat(),
    );
    latest.push([&[0x14, 0xFE, 0x80, 0, 3, 0, 2, 1, 0, 0, 0, 4, 0, 0, 0][..], b"ping"].concat());
    latest.extend(slot_management());
    out.push(events(0x10, 3, &latest));
    out
}

/// One of each sub-code, about the only slot there is; erasing it comes last.
fn slot_management() -> Vec<Vec<u8>> {
    let address = SlotAddress::default();
    let version = Version::V1_4;
    let query = GetCsr {
        version,
        key_pair: 0,
        model: None,
        tracking_tag: 0,
        overwrite: false,
        requester_info: &[],
        opaque: &[],
    };
    let mut chain = Vec::new();
    CertificateChain::encode(&[0x11; 32], material().certificates(), &mut chain).unwrap();
    let algorithm = KeyPairAlgorithms::of(material().slot().algorithm());
    let (key_pair, model) = (0, None);
    [
        SlotOperation::SupportedSubCodes,
        SlotOperation::BankInfo,
        SlotOperation::BankDetails { bank: 0 },
        SlotOperation::CertificateChain(address),
        SlotOperation::Csr { address, query },
        SlotOperation::ConfigureBank { bank: 0, algorithm },
        SlotOperation::SetCertificate { address, key_pair, model, chain: &chain },
        SlotOperation::Erase(address),
    ]
    .map(|operation| {
        let mut out = Vec::new();
        SlotManagement { version, operation }.encode(&mut out).unwrap();
        out
    })
    .to_vec()
}

/// What answers those of them that read.
fn slot_reports() -> Vec<Vec<u8>> {
    let mut chain = Vec::new();
    CertificateChain::encode(&[0x11; 32], material().certificates(), &mut chain).unwrap();
    let slot = SlotElement {
        slot: 0,
        provisioned: true,
        write_protected: false,
        key_pair: 0,
        model: None,
        usage: KeyUsage::ALL,
        size: 4096,
        digest: &[0x11; 32],
    };
    let details = BankDetails {
        bank: 0,
        configurable: false,
        selected: true,
        capabilities: KeyPairAlgorithms::default(),
        current: KeyPairAlgorithms::of(material().slot().algorithm()),
        available: KeyPairAlgorithms::default(),
        slots: vec![slot],
    };
    [
        SlotReport::SupportedSubCodes(SubCodes::of(SubCode::LISTED.iter().copied())),
        SlotReport::BankInfo(vec![BankElement { bank: 0, slots: 1, modifiable: 1 }]),
        SlotReport::BankDetails(details),
        SlotReport::CertificateChain(&chain),
        SlotReport::Csr(b"request"),
    ]
    .map(|content| {
        let mut out = Vec::new();
        SlotManagementResp { version: Version::V1_4, content }.encode(&mut out).unwrap();
        out
    })
    .to_vec()
}

/// To one type of the DMTF group, CertificateChanged.
const SUBSCRIPTION: [u8; 14] = [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0];

/// An event of that type in the responder's conversation, and what ends that.
fn served(version: u8) -> [Vec<u8>; 2] {
    let head = [version, Code::ENCAPSULATED_REQUEST.0, 1, 0, version, Code::SEND_EVENT.0, 0, 0, 1, 0, 0, 0];
    let event = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 1];
    let ack = vec![version, Code::ENCAPSULATED_RESPONSE_ACK.0, 0, 0, 1, 0, 0, 0];
    [[&head[..], &event].concat(), ack]
}

fn session_messages(version: u8) -> Vec<Vec<u8>> {
    let start = [version, 0xE4, 0, 0].to_vec();
    vec![
        vec![version, Code::HEARTBEAT.0, 0, 0],
        [&[version, 0xFE, 0, 0, 3, 0, 2, 1, 0, 4, 0][..], b"\x01ping"].concat(),
        [&[version, 0xFE, 0, 0, 3, 0, 2, 1, 0, 6, 0][..], b"silent"].concat(),
        [&[version, Code::GET_MEASUREMENTS.0, 1, 0xFF][..], &[7; 33], &[0; 8]].concat(),
        vec![version, Code::GET_MEASUREMENTS.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![version, Code::GET_DIGESTS.0, 0, 0],
        vec![version, Code::GET_CERTIFICATE.0, 0, 0, 0, 0, 0, 2],
        start,
        vec![version, Code::GET_SUPPORTED_EVENT_TYPES.0, 0, 0],
        [&[version, Code::SUBSCRIBE_EVENT_TYPES.0, 1, 0, 14, 0, 0, 0][..], &SUBSCRIPTION].concat(),
        vec![version, Code::GET_ENCAPSULATED_REQUEST.0, 0, 0],
        vec![version, 0x84, 0, 0],
        vec![version, Code::END_SESSION.0, 0, 0],
    ]
}

pub(super) fn responder_in_session() -> Vec<Vec<u8>> {
    [(0, 0x12), (1, 0x13), (0x10, 0x14)]
        .into_iter()
        .flat_map(|(first, version)| {
            let mut messages = session_messages(version);
            if version == 0x14 {
                let end = messages.pop();
                messages.extend(slot_management());
                messages.extend(end);
            }
            // Updates of both kinds, with the switch and the proof; a repeated one; one without the switch.
            let updates =
                [first, 3, 0, 0, 4, 3, 2, 0, 3, 1, 0, 4, 3, 2, 0, 3, 1, 1, 3, 1, 1, 3, 2, 0, 4, 3, 2, 1];
            let mut forged = vec![first, 5, 4, 0, version, 0xE8, 0, 0, 0, 0x10, 0x27, 1, 40, 0];
            forged.extend_from_slice(&[9; 40]);
            let mut clear = events(first, 2, &[vec![0x10, 0x84, 0, 0], vec![version, 0x81, 0, 0]]);
            clear.extend_from_slice(&events(5, 5, &messages)[1..]);
            [events(first, 5, &messages), updates.to_vec(), forged, clear]
        })
        .collect()
}

pub(super) fn spdm_requester() -> Vec<Vec<u8>> {
    let mut out: Vec<_> =
        RECORDINGS.iter().map(|(_, text)| events(0, 0, &recorded(text, "response"))).collect();
    for (first, version) in [(1, 0x12), (2, 0x13)] {
        let answers = [
            vec![version, Code::HEARTBEAT_ACK.0, 0, 0],
            vec![version, Code::KEY_UPDATE_ACK.0, 2, 0],
            vec![version, Code::KEY_UPDATE_ACK.0, 3, 0],
            [&[version, 0x7E, 0, 0, 3, 0, 2, 1, 0, 4, 0][..], b"pong"].concat(),
            [&[version, Code::ERROR.0, 0x42, 0][..], &[1, 0x83, 2, 1]].concat(),
            vec![version, Code::ERROR.0, 3, 0],
            vec![version, Code::END_SESSION_ACK.0, 0, 0],
        ];
        let types =
            [&[version, Code::SUPPORTED_EVENT_TYPES.0, 1, 0, 14, 0, 0, 0][..], &SUBSCRIPTION].concat();
        let ack = vec![version, Code::SUBSCRIBE_EVENT_TYPES_ACK.0, 0, 0];
        let [event, done] = served(version);
        let mut seed = vec![first, 12];
        seed.extend_from_slice(&events(0, 0, &[types, ack, event, done])[1..]);
        out.push(seed);
        for skip in [4, 6, 7, 8, 10] {
            let mut seed = vec![first, skip];
            seed.extend_from_slice(&events(0, 0, &answers[usize::from(skip) % 5..])[1..]);
            out.push(seed);
        }
    }
    // The commands that ask for them are the last.
    let mut slots = vec![3, 15];
    slots.extend_from_slice(&events(0, 0, &slot_reports())[1..]);
    out.push(slots);
    out
}

pub(super) fn man_in_the_middle() -> Vec<Vec<u8>> {
    let mut out = vec![vec![0], vec![1], vec![2], vec![3]];
    // A bit of each message on the way there, then of each on the way back.
    for place in 0..14 {
        for back in [0, 1] {
            let mut seed = vec![place & 1];
            seed.resize(1 + usize::from(place) * 2 + back, 0);
            seed.extend_from_slice(&[3, 4 + place, 0, 1]);
            out.push(seed);
        }
    }
    // PSK_EXCHANGE and PSK_FINISH come behind everything else.
    for place in [15, 16] {
        for back in [0, 1] {
            let mut seed = vec![place & 1];
            seed.resize(1 + usize::from(place) * 2 + back, 0);
            seed.extend_from_slice(&[3, place, 0, 1]);
            out.push(seed);
        }
    }
    out.push(vec![0, 0, 6, 2, 0, 0, 0, 5, 9, 0]);
    out.push(vec![1, 0, 7, 4, 0, 0x13, 0x7F, 3, 0, 0, 0, 0]);
    out
}
