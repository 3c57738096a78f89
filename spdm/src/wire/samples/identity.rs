//! DIGESTS, CERTIFICATE and CHALLENGE_AUTH with their requests, and certificate chains.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("GET_DIGESTS", "12810000", again!(GetDigests::parse)),
        sample("DIGESTS 1.2", "12010005 aa*32 bb*32", again!(|reader| Digests::parse(reader, HASH, false))),
        sample("DIGESTS 1.3", "13010701 aa*32", again!(|reader| Digests::parse(reader, HASH, false))),
        sample(
            "DIGESTS 1.3 with keys",
            "13010f05 aa*32 bb*32 0103 0103 0300 0f00",
            again!(|reader| Digests::parse(reader, HASH, true)),
        ),
        sample("GET_CERTIFICATE", "12820300 0001 ffff", again!(GetCertificate::parse)),
        sample("GET_CERTIFICATE 1.3", "13820001 0000 0000", again!(GetCertificate::parse)),
        sample("CERTIFICATE", "12020300 0300 0102 aabbcc", again!(Certificate::parse)),
        sample("CHALLENGE 1.0", "108300ff 11*32", again!(Challenge::parse)),
        sample("CHALLENGE 1.2", "128300ff 11*32", again!(Challenge::parse)),
        sample("CHALLENGE 1.3", "13830201 11*32 22*8", again!(Challenge::parse)),
        sample(
            "CHALLENGE_AUTH 1.0",
            "10030001 aa*32 11*32 0300 eeeeee cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, 0, SIGNATURE)),
        ),
        sample(
            "CHALLENGE_AUTH 1.2",
            "12030001 aa*32 11*32 bb*32 0000 cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, HASH, SIGNATURE)),
        ),
        sample(
            "CHALLENGE_AUTH 1.3",
            "13030001 aa*32 11*32 0200 eeee 22*8 cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, 0, SIGNATURE)),
        ),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[
        ("DIGESTS 1.3", "slot mask", 3, 0x08),
        ("DIGESTS 1.3 with keys", "certificate model", 4 + 64 + 2, 4),
        ("CHALLENGE 1.2", "measurement summary hash type", 3, 2),
        ("CHALLENGE 1.2", "measurement summary hash type", 3, 0xFE),
    ]);
}

#[test]
fn the_slot_of_a_challenge_is_a_whole_byte_in_1_0() {
    for (version, slot) in [(0x10, 0xF2), (0x11, 2), (0x12, 2)] {
        let bytes = hex("1203f204 aa*32 11*32 0000 cc*64");
        let bytes = [&[version], &bytes[1..]].concat();
        let parsed = ChallengeAuth::parse(&mut Reader::new(&bytes), HASH, 0, SIGNATURE).unwrap();
        assert_eq!(parsed.slot(), slot);
    }
}

#[test]
fn chains_say_their_length() {
    let mut chain = Vec::new();
    let root = [0x11; HASH];
    CertificateChain::encode(&root, &[vec![1, 2, 3], vec![4]], &mut chain).unwrap();
    assert_eq!(chain[..4], [40, 0, 0, 0]);
    let parsed = CertificateChain::parse(&chain, HASH).unwrap();
    assert_eq!((parsed.root_hash, parsed.certificates), (&root[..], &[1, 2, 3, 4][..]));
    assert!(CertificateChain::parse(&chain[..39], HASH).is_err());
    assert!(CertificateChain::encode(&root, &[vec![0; 65_500]], &mut chain).is_err());
}

#[test]
fn the_keys_of_slots_are_in_three_lists() {
    let bytes = find("DIGESTS 1.3 with keys").bytes;
    let digests = Digests::parse(&mut Reader::new(&bytes), HASH, true).unwrap();
    let key = |key_pair, model, usage| SlotKey { key_pair, model: Some(model), usage: KeyUsage(usage) };
    assert_eq!(digests.key(0), Some(&key(1, CertificateModel::Device, 3)));
    assert_eq!(digests.key(1), None);
    assert_eq!(digests.key(2), Some(&key(3, CertificateModel::Generic, 0xF)));
    assert_eq!(digests.digest(2), Some([0xBB; HASH].as_slice()));
    assert_eq!((digests.key(3), digests.digest(8)), (None, None));
}
