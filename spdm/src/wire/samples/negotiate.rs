//! GET_VERSION to ALGORITHMS.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("GET_VERSION", "10840000", again!(GetVersion::parse)),
        sample("VERSION", "10040000 0002 0012 0013", again!(VersionResponse::parse)),
        sample("GET_CAPABILITIES 1.0", "10e10000", again!(GetCapabilities::parse)),
        sample("GET_CAPABILITIES 1.1", "11e10000 00 0c 0000 c6620100", again!(GetCapabilities::parse)),
        sample(
            "GET_CAPABILITIES 1.2",
            "12e10000 00 0c 0000 c6420000 00120000 00120000",
            again!(GetCapabilities::parse),
        ),
        sample(
            "GET_CAPABILITIES 1.3",
            "13e10100 00 00 0000 c6420200 00120000 00240000",
            again!(GetCapabilities::parse),
        ),
        sample("CAPABILITIES 1.0", "10610000 00 0e 0000 36000000", again!(Capabilities::parse)),
        sample("CAPABILITIES 1.1", "11610000 00 0e 0000 f6620100", again!(Capabilities::parse)),
        sample("CAPABILITIES", "12610000 00 0e 0000 f6620000 00120000 00120000", again!(Capabilities::parse)),
        // What the requester of libspdm 4.0's emulator sends, in a capture that was published; the answer has that capture's
        // values and SLOT_MGMT, which its responder does not have.
        sample(
            "GET_CAPABILITIES 1.4",
            "14e10000 00 00 0000 c6f78288 00120000 00800200",
            again!(GetCapabilities::parse),
        ),
        sample(
            "CAPABILITIES 1.4",
            "14610000 00 00 0100 f7fb9ab9 00120000 00800200",
            again!(Capabilities::parse),
        ),
        sample(
            "CAPABILITIES 1.3 with algorithms",
            "13610100 00 0e 0000 f6620200 00120000 00240000 \
             0300 2a00 01 02 90000000 03000000 00*12 00 00 00 01 02201800 03200300 05200100",
            again!(Capabilities::parse),
        ),
        sample(
            "CAPABILITIES 1.4 with algorithms",
            "14610100 00 0e 0000 f6620280 00120000 00240000 \
             0200 2600 01 02 90000000 03000000 07000000 00*8 00 00 00 00 02201800 07200700",
            again!(Capabilities::parse),
        ),
        sample(
            "NEGOTIATE_ALGORITHMS 1.0",
            "10e30000 2000 01 00 90000000 03000000 00*12 00 00 00 00",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "NEGOTIATE_ALGORITHMS 1.1",
            "11e30400 3000 01 00 90000000 03000000 00*12 00 00 00 00 \
             02201800 03200300 04209000 05200100",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.0",
            "10630000 2400 01 00 04000000 80000000 02000000 00*11 00 00 00 0000",
            again!(Algorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.1",
            "11630400 3400 01 00 04000000 80000000 02000000 00*11 00 00 00 0000 \
             02201000 03200200 04200000 05200100",
            again!(Algorithms::parse),
        ),
        sample(
            "NEGOTIATE_ALGORITHMS",
            "13e30400 3000 01 02 90000000 03000000 00*12 00 00 00 00 \
             02201800 03200300 04209000 05200100",
            again!(NegotiateAlgorithms::parse),
        ),
        // The emulator's again, with its four signature algorithms for the requester.
        sample(
            "NEGOTIATE_ALGORITHMS 1.4",
            "14e30600 3800 01 12 90000000 03000000 07000000 00*8 00 00 00 01 \
             02201b00 03200600 04200f00 05200100 06200700 07200700",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.4",
            "14630600 3c00 01 12 08000000 80000000 02000000 00000000 00*7 01 00 00 0000 \
             02201000 03200200 04200800 05200100 06200000 07200000",
            again!(Algorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.4 post-quantum",
            "14630600 3c00 01 12 08000000 00000000 02000000 02000000 00*7 00 00 00 0000 \
             02200000 03200200 04200000 05200100 06200200 07200200",
            again!(Algorithms::parse),
        ),
        sample(
            "ALGORITHMS",
            "13630400 3400 01 02 04000000 80000000 02000000 00*11 00 00 00 0000 \
             02201000 03200200 04200000 05200100",
            again!(Algorithms::parse),
        ),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[
        ("VERSION", "version", 0, 0x12),
        ("VERSION", "entry count", 5, 0),
        ("NEGOTIATE_ALGORITHMS 1.0", "length", 4, 0x41),
        ("NEGOTIATE_ALGORITHMS 1.0", "extended algorithm count", 29, 9),
        ("NEGOTIATE_ALGORITHMS 1.1", "length", 4, 0x81),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x2F),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x31),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x81),
        ("NEGOTIATE_ALGORITHMS", "extended algorithm count", 28, 21),
        ("NEGOTIATE_ALGORITHMS", "extended algorithm count", 29, 21),
        ("NEGOTIATE_ALGORITHMS", "algorithm count", 33, 0x10),
        ("NEGOTIATE_ALGORITHMS", "algorithm count", 33, 0x30),
        ("NEGOTIATE_ALGORITHMS", "extended algorithms", 33, 0x2F),
        ("NEGOTIATE_ALGORITHMS", "algorithm type", 36, 2),
        ("NEGOTIATE_ALGORITHMS", "algorithm type", 44, 6),
        ("NEGOTIATE_ALGORITHMS", "algorithm type", 44, 7),
        ("NEGOTIATE_ALGORITHMS 1.4", "algorithm type", 52, 8),
        ("NEGOTIATE_ALGORITHMS 1.4", "algorithm type", 52, 6),
        ("CAPABILITIES 1.3 with algorithms", "length", 22, 0x2E),
        ("CAPABILITIES 1.3 with algorithms", "algorithm type", 50, 6),
        ("CAPABILITIES 1.4 with algorithms", "length", 20, 1),
        ("ALGORITHMS 1.4", "selection", 20, 1),
        ("ALGORITHMS 1.4", "selection", 54, 1),
        ("ALGORITHMS 1.4", "selection", 58, 1),
        ("ALGORITHMS 1.4 post-quantum", "selection", 12, 0x10),
        ("ALGORITHMS 1.4 post-quantum", "selection", 20, 3),
        ("ALGORITHMS 1.4 post-quantum", "selection", 38, 0x10),
        ("ALGORITHMS 1.4 post-quantum", "selection", 46, 1),
        ("ALGORITHMS", "selection", 12, 0x90),
        ("ALGORITHMS", "selection", 16, 0x03),
        ("ALGORITHMS", "selection", 38, 0x18),
        ("ALGORITHMS", "length", 4, 0x30),
    ]);
}

#[test]
fn fields_of_later_versions_do_not_travel() {
    let set = "ffffffff";
    rewritten("GET_CAPABILITIES 1.0", "10e1ffff", "10e10000");
    rewritten("GET_CAPABILITIES 1.1", &format!("11e10100 00 0c 0000 {set}"), "11e10000 00 0c 0000 ffff0100");
    let sizes = "00120000 00120000";
    let at = |bytes: &str| format!("{bytes} {sizes}");
    rewritten(
        "GET_CAPABILITIES 1.2",
        &at(&format!("12e10100 00 0c ffff {set}")),
        &at("12e10000 00 0c 0000 ffff3f00"),
    );
    rewritten(
        "GET_CAPABILITIES 1.3",
        &at(&format!("13e10100 00 0c ffff {set}")),
        &at("13e10100 00 0c 0000 ffffff3f"),
    );
    rewritten(
        "CAPABILITIES",
        &at(&format!("12610100 00 0c ffff {set}")),
        &at("12610000 00 0c 0000 ffff3f00"),
    );
    rewritten(
        "CAPABILITIES",
        &at(&format!("13610000 00 0c ffff {set}")),
        &at("13610000 00 0c 0000 ffffff3f"),
    );
    rewritten(
        "CAPABILITIES",
        &at(&format!("14610000 00 0c ffff {set}")),
        &at(&format!("14610000 00 0c ffff {set}")),
    );
    let tail = "00*8 00 00 00 00";
    rewritten(
        "NEGOTIATE_ALGORITHMS",
        &format!("13e30000 2000 01 02 90000000 03000000 ffffffff {tail}"),
        &format!("13e30000 2000 01 02 90000000 03000000 00000000 {tail}"),
    );
    rewritten("CAPABILITIES 1.0", &format!("10610000 00 0e 0000 {set}"), "10610000 00 0e 0000 3f000000");
    rewritten("CAPABILITIES 1.1", &format!("11610000 00 0e 0000 {set}"), "11610000 00 0e 0000 ffff0100");
    let tail = "90000000 03000000 00*16";
    let message = format!("10e304ff 2000 01 ff {tail}");
    rewritten("NEGOTIATE_ALGORITHMS 1.0", &message, &format!("10e30000 2000 01 00 {tail}"));
    let message = format!("11e30000 2000 01 ff {tail}");
    rewritten("NEGOTIATE_ALGORITHMS 1.1", &message, &format!("11e30000 2000 01 00 {tail}"));
    let tail = "04000000 80000000 02000000 00*16";
    let message = format!("10630400 2400 01 03 {tail}");
    rewritten("ALGORITHMS 1.0", &message, &format!("10630000 2400 01 00 {tail}"));
}
