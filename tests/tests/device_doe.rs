//! The DOE mailbox of the composed device: discovery, and what gets no answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use spdm::doe::{DiscoveryRequest, DiscoveryResponse, Object, ObjectType, VENDOR_PCI_SIG};
use tdispctl::error::Error;
use tdispctl::pci::Width;
use tests::host::Host;
use tests::rig::Rig;

fn object(vendor: u16, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Object { vendor, kind: ObjectType(kind), payload }.encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn discovery_lists_three_types_and_ends() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    for version in [0, 2] {
        let mut found = Vec::new();
        let mut index = 0;
        loop {
            let request = DiscoveryRequest { index, version }.encode();
            let answer = host.object(&object(VENDOR_PCI_SIG, 0, &request)).unwrap();
            let answer = DiscoveryResponse::parse(Object::parse(&answer).unwrap().payload).unwrap();
            found.push((answer.vendor, answer.kind.0));
            index = answer.next;
            if index == 0 {
                break;
            }
        }
        assert_eq!(found, [(1, 0), (1, 1), (1, 2)]);
    }
    let beyond = host.object(&object(VENDOR_PCI_SIG, 0, &[77, 2, 0, 0])).unwrap();
    let beyond = DiscoveryResponse::parse(Object::parse(&beyond).unwrap().payload).unwrap();
    assert_eq!((beyond.vendor, beyond.kind.0, beyond.next), (0xFFFF, 0xFF, 0));
}

#[test]
fn what_nobody_can_answer_gets_silence() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    // A TDISP message outside a session: VENDOR_DEFINED_REQUEST 1.2, PCI-SIG, protocol 1, GET_TDISP_VERSION.
    let mut clear_tdisp = vec![0x12, 0xFE, 0, 0, 3, 0, 2, 1, 0, 17, 0, 1, 0x10, 0x81];
    clear_tdisp.resize(28, 0);
    for silent in [
        object(VENDOR_PCI_SIG, 9, &[0; 4]),
        object(0x1234, 1, &[0x10, 0x84, 0, 0]),
        object(VENDOR_PCI_SIG, 2, &[7; 32]),
        object(VENDOR_PCI_SIG, 0, &[0; 8]),
    ] {
        assert!(matches!(host.object(&silent), Err(Error::TimedOut { .. })), "{silent:02x?}");
    }
    // Before negotiation SPDM itself refuses it; after negotiation it is TDISP's to say nothing.
    assert_eq!(host.object(&object(VENDOR_PCI_SIG, 1, &clear_tdisp)).unwrap()[9], 0x7F);
    host.session();
    // The highest version both sides speak.
    clear_tdisp[0] = 0x14;
    assert!(matches!(host.object(&object(VENDOR_PCI_SIG, 1, &clear_tdisp)), Err(Error::TimedOut { .. })));
    host.secure_stream();
    host.lock(0);
}

#[test]
fn registers_read_the_same_at_every_width() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    let at = host.inventory.doe[0].offset;
    // An object is written; its answer's first dword is read in pieces.
    for dword in [1_u32, 3, 0] {
        host.config_write(at + 0x10, Width::Dword, dword);
    }
    host.config_write(at + 0x08, Width::Byte, 0);
    assert_eq!(host.config_read(at + 0x0C, Width::Dword), 0, "GO is in byte 3");
    host.config_write(at + 0x0B, Width::Byte, 0x80);
    while host.config_read(at + 0x0C, Width::Byte) & 1 != 0 {}
    assert_eq!(host.config_read(at + 0x0F, Width::Byte), 0x80, "ready");
    let whole = host.config_read(at + 0x14, Width::Dword);
    assert_eq!(whole, 1);
    let halves = (0..2).map(|n| host.config_read(at + 0x14 + 2 * n, Width::Word) << (16 * n));
    assert_eq!(halves.sum::<u32>(), whole);
    let bytes = (0..4).map(|n| host.config_read(at + 0x14 + n, Width::Byte) << (8 * n));
    assert_eq!(bytes.sum::<u32>(), whole);
    host.config_write(at + 0x08, Width::Dword, 1);
    assert_eq!(host.config_read(at + 0x0C, Width::Dword), 0, "aborted");
}

#[test]
fn cxl_is_not_spoken_unless_it_is_asked_for() {
    const CXL: [u8; 2] = [0x98, 0x1E];
    for (toml, spoken) in [("", false), ("[cxl]\nrespond = \"always\"\n", true)] {
        let rig = Rig::with(toml, 1);
        let mut host = Host::plug(rig.socket(0));
        host.session();
        let version = host.vendor_of(CXL, 1, &[0x10, 0x81, 0, 0]);
        assert_eq!(version.ok(), spoken.then(|| vec![0x10, 0x01, 0, 0, 1, 0x10]));
        assert_eq!(host.vendor_of(CXL, 0, &[0, 0, 0]).is_ok(), spoken);
        assert!(host.vendor_of(CXL, 2, &[0, 0, 0]).is_err(), "no such protocol");
        assert!(host.vendor_of([0x99, 0x1E], 1, &[0x10, 0x81, 0, 0]).is_err(), "no such vendor");
    }
}
