//! What a host may send to a guest's agent, or an agent to its host: frames, sealed messages, evidence, policies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here is the target")]

use spdm::crypto::{AsymAlgorithm, DefaultProvider, HashAlgorithm};
use spdm::requester::Evidence;
use spdm::wire::Version;
use tdispctl::guest::policy::Policy;
use tdispctl::guest::port::{receive, send};
use tdispctl::guest::sealed::{self, Ask, Judged, Key};

/// The key that the corpus was made with.
const KEY: [u8; 32] = [0x33; 32];
/// The nonce of its requests.
const NONCE: [u8; 32] = [0x44; 32];

/// One of each kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let key = Key::new(&KEY).unwrap();
    let frame = [&b"TGP1"[..], &[1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0], b"body"].concat();
    let judged = Judged::new(b"certificates", b"evidence", b"report");
    let (_, tag) = sealed::request(&key, &Ask::Report, &NONCE);
    let evidence = Evidence {
        version: Version::V1_2,
        hash: HashAlgorithm::Sha384,
        signature: AsymAlgorithm::EcdsaP384,
        vca: vec![0x10, 0x84, 0, 0],
        request: [&[0x12, 0xE0, 1, 0xFF][..], &NONCE, &[0]].concat(),
        response: [&[0x12, 0x60, 0, 0, 0, 0, 0, 0][..], &NONCE, &[0, 0], &[5; 96]].concat(),
    };
    let mut encoded = Vec::new();
    evidence.encode(&mut encoded).unwrap();
    let policy = "root = ['sha256:00']\n[report]\nallowed = ['ats']\n[[measurement]]\nindex = 1\nvalue = ['00']\n\
        [[private]]\nbar = 2\nsize = 4096\n";
    let seeds = [
        (0, [&frame[..], &frame].concat()),
        (1, sealed::request(&key, &Ask::State, &NONCE).0),
        (1, sealed::request(&key, &Ask::Start(judged), &NONCE).0),
        (2, sealed::answer(&key, &tag, Ok(b"report"))),
        (2, sealed::answer(&key, &tag, Err("no"))),
        (3, encoded),
        (4, policy.as_bytes().to_vec()),
    ];
    seeds.into_iter().map(|(kind, bytes)| [&[kind][..], &bytes].concat()).collect()
}

/// The first byte says which kind the rest is.
pub fn guest_message(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let key = Key::new(&KEY).unwrap();
    match kind % 5 {
        0 => {
            let mut rest = data;
            while let Ok(Some(request)) = receive(&mut rest) {
                send(&mut Vec::new(), &request, Ok(&request.body)).unwrap();
            }
        }
        1 => {
            if let Ok((ask, nonce, tag)) = sealed::open_request(&key, data) {
                assert_eq!(sealed::request(&key, &ask, &nonce), (data.to_vec(), tag));
            }
        }
        2 => {
            let (_, tag) = sealed::request(&key, &Ask::Report, &NONCE);
            if let Ok(answer) = sealed::open_answer(&key, &tag, data) {
                let told = answer.as_ref().map(Vec::as_slice).map_err(String::as_str);
                // What is not UTF-8 in a reason is replaced.
                assert!(answer.is_err() || sealed::answer(&key, &tag, told) == data);
            }
        }
        3 => {
            let Ok(evidence) = Evidence::decode(data) else { return };
            let mut bytes = Vec::new();
            evidence.encode(&mut bytes).unwrap();
            assert_eq!(bytes, data);
            // A key that signed nothing.
            assert!(evidence.verify(&DefaultProvider::new(), &[4; 97], &NONCE).is_err());
        }
        _ => {
            let _ = std::str::from_utf8(data).map(Policy::parse);
        }
    }
}
