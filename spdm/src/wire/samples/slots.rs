//! SLOT_MANAGEMENT and SLOT_MANAGEMENT_RESP of every sub-code.

use super::*;
use crate::crypto::AsymAlgorithm;

pub(super) fn samples() -> Vec<Sample> {
    let request = |name, text| sample(name, text, again!(SlotManagement::parse));
    let response = |name, text| sample(name, text, again!(SlotManagementResp::parse));
    vec![
        request("SLOT_MANAGEMENT SupportedSubCodes", "14880000 0000 0000"),
        request("SLOT_MANAGEMENT GetBankInfo", "14880100 0000 0000"),
        request("SLOT_MANAGEMENT GetBankDetails", "14880200 0800 0000 0800 05 00 00000000"),
        request("SLOT_MANAGEMENT GetCertificateChain", "14880300 0800 0000 0800 05 03 00000000"),
        request(
            "SLOT_MANAGEMENT GetCSR",
            "14880400 0800 0000 0800 05 03 00000000 04 13 0200 0300 aabb cccccc",
        ),
        request(
            "SLOT_MANAGEMENT ManageBank",
            "14882000 0800 0000 0800 05 00 00000000 01 000000 10000000 04 00000000",
        ),
        request("SLOT_MANAGEMENT ManageSlot", "14882100 0800 0000 0800 05 03 00000000 01 000000"),
        request(
            "SLOT_MANAGEMENT SetCertificate",
            "14882200 0800 0000 0800 05 03 00000000 03000000 01 04 0000 aabbcc",
        ),
        response("SLOT_MANAGEMENT_RESP SupportedSubCodes", "14080000 0800 0000 2400 0000 1f 00*3 07 00*27"),
        response("SLOT_MANAGEMENT_RESP GetBankInfo", "14080100 0800 0000 0c00 00 02 04 00 0b 03 04 01 04 00"),
        response(
            "SLOT_MANAGEMENT_RESP GetBankDetails",
            "14080200 0800 0000 6700 05 00 0200 03 00 18000000 10000000 10000000 \
             04 07000000 04 00000000 04 06000000 00000000 \
             3000 00 00 01 02 03 00 0f00 0000 00100000 aa*32 \
             1000 07 00 02 00 00 00 0000 0000 00000000",
        ),
        response("SLOT_MANAGEMENT_RESP GetCertificateChain", "14080300 0800 0000 03000000 00000000 aabbcc"),
        response("SLOT_MANAGEMENT_RESP GetCSR", "14080400 0800 0000 03000000 00000000 aabbcc"),
        response("SLOT_MANAGEMENT_RESP ManageBank", "14082000 0000 0000"),
        response("SLOT_MANAGEMENT_RESP ManageSlot", "14082100 0000 0000"),
        response("SLOT_MANAGEMENT_RESP SetCertificate", "14082200 0000 0000"),
    ]
}

#[test]
fn illegal_fields_are_named() {
    const DETAILS: &str = "SLOT_MANAGEMENT_RESP GetBankDetails";
    let offset = "structure offset";
    names_illegal_fields(&[
        ("SLOT_MANAGEMENT SupportedSubCodes", offset, 4, 8),
        ("SLOT_MANAGEMENT GetBankInfo", offset, 4, 8),
        ("SLOT_MANAGEMENT GetBankDetails", offset, 4, 0),
        ("SLOT_MANAGEMENT GetBankDetails", offset, 4, 7),
        ("SLOT_MANAGEMENT GetBankDetails", offset, 5, 1),
        ("SLOT_MANAGEMENT GetBankDetails", "slot address length", 8, 7),
        ("SLOT_MANAGEMENT GetBankDetails", "slot address length", 9, 1),
        ("SLOT_MANAGEMENT GetBankDetails", "sub-code", 2, 5),
        ("SLOT_MANAGEMENT GetBankDetails", "sub-code", 2, 0xFF),
        ("SLOT_MANAGEMENT GetCSR", "certificate model", 17, 4),
        ("SLOT_MANAGEMENT GetCSR", "CSR tracking tag", 17, 0x88),
        ("SLOT_MANAGEMENT GetCSR", "opaque data length", 21, 5),
        ("SLOT_MANAGEMENT ManageBank", "operation", 16, 0),
        ("SLOT_MANAGEMENT ManageBank", "operation", 16, 2),
        ("SLOT_MANAGEMENT ManageBank", "algorithm", 20, 0),
        ("SLOT_MANAGEMENT ManageBank", "algorithm", 20, 0x18),
        ("SLOT_MANAGEMENT ManageBank", "algorithm", 25, 1),
        ("SLOT_MANAGEMENT ManageSlot", "operation", 16, 0),
        ("SLOT_MANAGEMENT ManageSlot", "operation", 16, 2),
        ("SLOT_MANAGEMENT SetCertificate", "certificate model", 20, 4),
        ("SLOT_MANAGEMENT_RESP SupportedSubCodes", offset, 4, 0),
        ("SLOT_MANAGEMENT_RESP SupportedSubCodes", "sub-codes length", 8, 1),
        ("SLOT_MANAGEMENT_RESP SupportedSubCodes", "sub-codes length", 8, 11),
        ("SLOT_MANAGEMENT_RESP SupportedSubCodes", "sub-code", 2, 5),
        ("SLOT_MANAGEMENT_RESP GetBankInfo", "bank", 11, 3),
        ("SLOT_MANAGEMENT_RESP GetBankInfo", "bank length", 12, 3),
        ("SLOT_MANAGEMENT_RESP GetBankInfo", "modifiable slots", 15, 4),
        (DETAILS, "slot length", 12, 3),
        (DETAILS, "slot length", 8, 0x66),
        (DETAILS, "certificate model", 53, 4),
        ("SLOT_MANAGEMENT_RESP ManageSlot", offset, 4, 8),
    ]);
}

/// The structure may be anywhere behind the head, and what lies between says nothing.
#[test]
fn the_offset_leads_to_the_structure() {
    rewritten(
        "SLOT_MANAGEMENT GetBankDetails",
        "14880200 0b00 0000 a5a5a5 0800 05 a3 a5a5a5a5",
        "14880200 0800 0000 0800 05 00 00000000",
    );
    rewritten(
        "SLOT_MANAGEMENT_RESP GetBankInfo",
        "14080100 0a00 0000 a5a5 0800 a5 01 04 00 0b 03",
        "14080100 0800 0000 0800 00 01 04 00 0b 03",
    );
}

/// Structures may be longer than this version has them.
#[test]
fn what_later_versions_append_is_skipped() {
    rewritten(
        "SLOT_MANAGEMENT_RESP GetBankInfo",
        "14080100 0800 0000 0d00 00 01 06 00 0b 03 a5a5 a5a5a5",
        "14080100 0800 0000 0800 00 01 04 00 0b 03",
    );
    // A bitmap of as many bits as there are sub-codes, and a longer one.
    for bitmap in ["0c00 0000 1f 00*7", "2800 0000 1f 00*31 a5*4"] {
        rewritten(
            "SLOT_MANAGEMENT_RESP SupportedSubCodes",
            &format!("14080000 0800 0000 {bitmap}"),
            "14080000 0800 0000 2400 0000 1f 00*31",
        );
    }
}

/// Post-quantum masks have the length that their sender likes.
#[test]
fn masks_have_any_length() {
    rewritten(
        "SLOT_MANAGEMENT_RESP GetBankDetails",
        "14080200 0800 0000 2400 05 00 0000 00 00 00000000 00000000 00000000 \
         00 01 02 08 0100000000000000 00000000",
        "14080200 0800 0000 2700 05 00 0000 00 00 00000000 00000000 00000000 \
         04 00000000 04 02000000 04 01000000 00000000",
    );
    rewritten(
        "SLOT_MANAGEMENT ManageBank",
        "14882000 0800 0000 0800 05 00 00000000 01 000000 00000000 01 02",
        "14882000 0800 0000 0800 05 00 00000000 01 000000 00000000 04 02000000",
    );
}

#[test]
fn sub_codes_are_bits() {
    let all = SubCodes::of(SubCode::LISTED.iter().copied());
    assert!(all.iter().eq(SubCode::LISTED.iter().copied()));
    assert!(SubCode::LISTED.iter().all(|code| code.name().is_some()));
    assert!(!all.has(SubCode(5)) && SubCode(5).name().is_none());
    let last = SubCodes::of([SubCode(0xFF)]);
    assert!(last.has(SubCode(0xFF)) && last.iter().count() == 1);
    assert_eq!(format!("{:?} {:?}", SubCode::GET_CSR, SubCode(0x23)), "GetCSR 0x23");
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let version = Version::V1_4;
    let mut out = Vec::new();
    let bank = BankElement { bank: 0, slots: 0, modifiable: 0 };
    let content = SlotReport::BankInfo(vec![bank; 256]);
    assert!(SlotManagementResp { version, content }.encode(&mut out).is_err());
    let digest = &[0; 0x1_0000][..];
    let slot = SlotElement {
        slot: 0,
        provisioned: true,
        write_protected: false,
        key_pair: 0,
        model: None,
        usage: KeyUsage(0),
        size: 0,
        digest,
    };
    let algorithms = KeyPairAlgorithms::of(AsymAlgorithm::EcdsaP256);
    let content = SlotReport::BankDetails(BankDetails {
        bank: 0,
        configurable: false,
        selected: true,
        capabilities: KeyPairAlgorithms::default(),
        current: algorithms,
        available: KeyPairAlgorithms::default(),
        slots: vec![slot],
    });
    assert!(SlotManagementResp { version, content }.encode(&mut out).is_err());
}
