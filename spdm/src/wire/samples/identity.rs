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
        sample(
            "GET_CERTIFICATE 1.4 large",
            "14828300 0000 0000 00000000 f07f0200",
            again!(GetCertificate::parse),
        ),
        sample("CERTIFICATE 1.4", "14020301 0300 0102 aabbcc", again!(Certificate::parse)),
        sample(
            "CERTIFICATE 1.4 large",
            "14028301 0000 0000 03000000 04030201 aabbcc",
            again!(Certificate::parse),
        ),
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
    // A reserved field before 1.4, the length's upper half since.
    let mut reserved = chain.clone();
    reserved[2] = 1;
    assert_eq!(CertificateChain::parse(&reserved, HASH), Ok(parsed));
}

#[test]
fn a_chain_may_need_more_than_16_bits() {
    let mut chain = Vec::new();
    let root = [0x11; HASH];
    CertificateChain::encode(&root, &[vec![7; 65_500]], &mut chain).unwrap();
    assert_eq!(chain[..4], [0, 0, 1, 0]);
    assert_eq!(CertificateChain::parse(&chain, HASH).unwrap().certificates.len(), 65_500);
    chain[2] = 0;
    assert!(CertificateChain::parse(&chain, HASH).is_err());
}

/// What the form has no room for, and the form that a version does not have.
#[test]
fn offsets_and_lengths_fit_their_form() {
    let mut out = Vec::new();
    let ask = GetCertificate {
        version: Version::V1_4,
        slot: 1,
        slot_size: false,
        large: false,
        offset: 0x1_0000,
        length: 1,
    };
    assert_eq!(ask.encode(&mut out), Err(EncodeError("offset")));
    assert_eq!(
        GetCertificate { offset: 0, length: 0x1_0000, ..ask }.encode(&mut out),
        Err(EncodeError("length"))
    );
    out.clear();
    GetCertificate { large: true, ..ask }.encode(&mut out).unwrap();
    assert_eq!(out, hex("14828100 0000 0000 00000100 01000000"));
    let earlier = GetCertificate { version: Version::V1_3, large: true, ..ask };
    assert_eq!(earlier.encode(&mut out), Err(EncodeError("offset")));
    let mut early = out.clone();
    early[0] = 0x13;
    let parsed = GetCertificate::parse(&mut Reader::new(&early)).unwrap();
    assert_eq!((parsed.large, parsed.offset, parsed.slot), (false, 0, 1), "reserved bits before 1.4");
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
