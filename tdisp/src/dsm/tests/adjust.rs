//! What a TVM may change of its TDI in RUN: P2P streams, attributes, the vendor's messages.

use super::*;
use crate::wire::{MmioRange, RangeAttributes, Vdm};

/// The four updatable pages of BAR 2 as the report has them, to become shared or private.
pub(super) fn updatable(non_tee: bool) -> MmioRange {
    MmioRange {
        first_page: 0x100_020C,
        pages: 4,
        attributes: RangeAttributes::new().with_non_tee(non_tee),
        range_id: 2,
    }
}

/// A message of this device's vendor.
pub(super) fn echo(data: &[u8]) -> Vdm<'_> {
    Vdm::new(RegistryId::PCI_SIG, &[0x34, 0x12], data).unwrap()
}

fn running() -> Device {
    let mut device = Device::equipped();
    device.bring(0, RUN);
    device
}

fn refused(device: &mut Device, request: Request<'_>, reason: Refusal) {
    let state = device.dsm.state(0);
    device.effects();
    assert_eq!(device.send(request), INVALID_REQUEST, "{reason}");
    assert_eq!((device.refusal(), device.dsm.state(0)), (reason, state));
}

/// Writes a valid RID association, and an address association of one mebibyte, into the stream at `control`.
fn associate(device: &mut Device, control: u16, requester: u16, mebibyte: u16) {
    let words = [
        u32::from(requester) << 8,
        u32::from(requester) << 8 | 1,
        u32::from(mebibyte) << 20 | u32::from(mebibyte) << 8 | 1,
        0,
        0,
    ];
    for (place, word) in (0_u16..).zip(words) {
        device.dsm.ide_write(control + 8 + 4 * place, &word.to_le_bytes());
    }
}

#[test]
fn the_capabilities_tell_what_is_offered() {
    let requests = |optional| {
        let mut device = Device::new(DsmConfig { optional, ..DsmConfig::default() });
        let Got::Capabilities(found) = device.send(Request::GetCapabilities { tsm_caps: 0 }) else {
            panic!("no capabilities")
        };
        u32::from_le_bytes(found.requests.0[..4].try_into().unwrap())
    };
    let none = OptionalRequests::default();
    assert_eq!(requests(none), 0xFE);
    assert_eq!(requests(OptionalRequests { p2p: true, ..none }), 0x3FE);
    assert_eq!(requests(OptionalRequests { mmio_attribute: true, ..none }), 0x4FE);
    assert_eq!(requests(OptionalRequests { vdm: Some(VENDOR), ..none }), 0x8FE);

    let mut device = Device::new(DsmConfig { dsm_caps: 0x8000_0001, ..DsmConfig::default() });
    let got = device.send(Request::GetCapabilities { tsm_caps: 1 });
    assert!(matches!(got, Got::Capabilities(found) if found.dsm_caps == 0x8000_0001));
}

#[test]
fn a_stream_is_bound_and_unbound() {
    let mut device = running();
    assert_eq!(device.send(Request::BindP2p(PEER_ID)), Got::Bound);
    assert_eq!(device.effects(), [Effect::P2pStream { function: 0, stream: PEER, bound: true }]);
    refused(&mut device, Request::BindP2p(PEER_ID), Refusal::StreamBound(PEER));
    assert_eq!(device.send(Request::UnbindP2p(PEER_ID)), Got::Unbound);
    assert_eq!(
        device.effects(),
        [Effect::DrainDma { function: 0 }, Effect::P2pStream { function: 0, stream: PEER, bound: false }]
    );
    for stream_id in [PEER_ID, STREAM_ID, 99] {
        refused(&mut device, Request::UnbindP2p(stream_id), Refusal::P2pNotBound(stream_id));
    }
    // Its registers are free again, and it can be bound again.
    device.dsm.ide_write(PEER_CONTROL + 8, &0x0001_0000_u32.to_le_bytes());
    assert_eq!((device.dsm.state(0), device.effects()), (RUN, vec![]));
    assert_eq!(device.send(Request::BindP2p(PEER_ID)), Got::Bound);
}

#[test]
fn streams_that_cannot_be_bound() {
    type Spoil = fn(&mut Device);
    let table: [(Spoil, u8, Refusal); 9] = [
        (|_| {}, 99, Refusal::NoStream(99)),
        (|_| {}, STREAM_ID, Refusal::DefaultStream(STREAM)),
        (|d| d.functions[0].interface_info.set_ats(false), PEER_ID, Refusal::AtsDisabled),
        (
            |d| d.dsm.ide_write(0x50, &(u32::from(PEER_ID) << 24).to_le_bytes()),
            PEER_ID,
            Refusal::SeveralStreams(PEER_ID),
        ),
        (
            |d| d.dsm.ide_write(PEER_CONTROL, &(u32::from(PEER_ID) << 24 | 1 << 22 | 1).to_le_bytes()),
            PEER_ID,
            Refusal::DefaultStream(PEER),
        ),
        (
            |d| {
                let slot = KeySlot::of_set(KeySet::Zero).last().unwrap();
                d.ide_km(SESSION, &Object::KSetStop(KeyHead::new(0, PEER_ID, slot))).unwrap();
            },
            PEER_ID,
            Refusal::Keys(PEER),
        ),
        (
            |d| {
                d.dsm.ide_write(PEER_CONTROL, &(u32::from(PEER_ID) << 24).to_le_bytes());
                d.key_stream(SESSION, PEER_ID, KeySet::Zero);
            },
            PEER_ID,
            Refusal::StreamInsecure(PEER),
        ),
        (
            |d| {
                associate(d, PEER_CONTROL, 0x0300, 0x120);
                associate(d, 0x50, 0x0300, 0x340);
            },
            PEER_ID,
            Refusal::AssociationsOverlap(PEER, StreamIndex::Selective(2)),
        ),
        (
            |d| {
                associate(d, PEER_CONTROL, 0x0300, 0x120);
                associate(d, 0x50, 0x0400, 0x120);
            },
            PEER_ID,
            Refusal::AssociationsOverlap(PEER, StreamIndex::Selective(2)),
        ),
    ];
    for (spoil, stream_id, reason) in table {
        let mut device = running();
        spoil(&mut device);
        refused(&mut device, Request::BindP2p(stream_id), reason);
        assert_eq!(device.dsm.state(0), RUN, "{reason}");
    }
}

#[test]
fn binding_wants_the_lock_flag() {
    let mut device = Device::equipped();
    device.flags = LockFlags::new();
    device.bring(0, RUN);
    refused(&mut device, Request::BindP2p(PEER_ID), Refusal::P2pNotLocked);
}

#[test]
fn a_link_stream_is_no_p2p_stream() {
    let mut device = Device::equipped();
    let config = DsmConfig {
        ide: crate::ide::IdeConfig { link_streams: 1, ..device.dsm.config().ide.clone() },
        ..device.dsm.config().clone()
    };
    device.dsm = Dsm::new(config).unwrap();
    // The link stream's block comes first and moves the others by eight bytes.
    device.dsm.ide_write(0x0C, &(u32::from(PEER_ID) << 24 | 1).to_le_bytes());
    device.dsm.ide_write(CONTROL + 8, &SET_UP.to_le_bytes());
    device.key_all(SESSION, KeySet::Zero);
    device.dsm.ide_write(CONTROL + 8, &ENABLED.to_le_bytes());
    device.bring(0, RUN);
    let reason = Refusal::NotSelective(StreamIndex::Link(0));
    refused(&mut device, Request::BindP2p(PEER_ID), reason);
}

#[test]
fn a_bound_p2p_stream_takes_its_tdi_along() {
    type Spoil = fn(&mut Device);
    let table: [Spoil; 3] = [
        |d| d.dsm.stream_failed(PEER, crate::ide::InsecureCause::IntegrityFailure),
        |d| d.dsm.ide_write(PEER_CONTROL, &[0]),
        |d| d.dsm.ide_write(PEER_CONTROL + 8, &0x0001_0000_u32.to_le_bytes()),
    ];
    for (spoil, bound) in table.into_iter().flat_map(|spoil| [(spoil, true), (spoil, false)]) {
        let mut device = running();
        if bound {
            assert_eq!(device.send(Request::BindP2p(PEER_ID)), Got::Bound);
        }
        spoil(&mut device);
        assert_eq!(device.dsm.state(0), if bound { ERROR } else { RUN });
    }
}

#[test]
fn dma_takes_the_stream_of_the_peer_it_is_for() {
    let here = |address, translated| P2pAccess { address, length: 0x1000, translated };
    let mut device = running();
    associate(&mut device, PEER_CONTROL, 0x0300, 0x120);
    let (peer, elsewhere) = (here(0x1200_0000, true), here(0x1210_0000, true));
    assert_eq!(device.dsm.stream_of(0, peer), Some(STREAM), "not bound yet");
    assert_eq!(device.send(Request::BindP2p(PEER_ID)), Got::Bound);
    assert_eq!(device.dsm.stream_of(0, peer), Some(PEER));
    assert_eq!(device.dsm.stream_of(0, elsewhere), Some(STREAM));
    assert_eq!(device.dsm.stream_of(0, here(0x120F_F001, true)), Some(STREAM), "one byte beyond");
    assert_eq!(device.dsm.stream_of(0, here(0x1200_0000, false)), Some(STREAM), "not translated by ATS");
    device.dsm.function_reset(0);
    assert_eq!(device.dsm.stream_of(0, peer), None);

    let mut device = Device::equipped();
    device.flags.set_all_request_redirect(true);
    associate(&mut device, PEER_CONTROL, 0x0300, 0x120);
    device.bring(0, RUN);
    assert_eq!(device.send(Request::BindP2p(PEER_ID)), Got::Bound);
    assert_eq!(device.dsm.stream_of(0, peer), Some(STREAM), "everything goes upstream");
}

#[test]
fn attributes_of_updatable_pages() {
    let mut device = running();
    let mut set = |range: MmioRange| {
        assert_eq!(device.send(Request::SetMmioAttribute(range)), Got::AttributeSet);
        device.effects()
    };
    let told = |first_page, pages, non_tee| {
        vec![Effect::MmioAttribute { function: 0, bar: 2, first_page, pages, non_tee }]
    };
    assert_eq!(set(updatable(false)), told(12, 4, false));
    assert_eq!(set(updatable(true)), told(12, 4, true));
    let last = MmioRange { first_page: 0x100_020F, pages: 1, ..updatable(false) };
    assert_eq!(set(last), told(15, 1, false));
}

#[test]
fn ranges_and_attributes_that_cannot_be_updated() {
    let range = updatable(true);
    let missing = |range: MmioRange| Refusal::NoRange {
        first_page: range.first_page,
        pages: range.pages,
        range_id: range.range_id,
    };
    for wrong in [
        MmioRange { first_page: 0x100_020B, ..range },
        MmioRange { first_page: 0x100_020D, ..range },
        MmioRange { pages: 0, ..range },
        MmioRange { pages: 5, ..range },
        MmioRange { pages: u32::MAX, ..range },
        MmioRange { first_page: u64::MAX, ..range },
        MmioRange { first_page: 12, ..range },
        MmioRange { range_id: 0, ..range },
        // The MSI-X table, which is not locked and so not reported.
        MmioRange { first_page: 0x100_0300, pages: 1, range_id: 4, ..range },
    ] {
        refused(&mut running(), Request::SetMmioAttribute(wrong), missing(wrong));
    }
    let fixed = MmioRange { first_page: 0x100_0200, ..range };
    refused(&mut running(), Request::SetMmioAttribute(fixed), Refusal::RangeFixed(2));
    for bits in [0b01, 0b10, 0b111] {
        let wrong = MmioRange { attributes: RangeAttributes::from_bits(bits), ..range };
        refused(&mut running(), Request::SetMmioAttribute(wrong), Refusal::Attributes(bits));
    }
}

#[test]
fn reserved_attribute_bits_are_ignored_or_refused() {
    let dirty = MmioRange { attributes: RangeAttributes::from_bits(0x800C), ..updatable(true) };
    assert_eq!(running().send(Request::SetMmioAttribute(dirty)), Got::AttributeSet);
    let mut device = Device::equipped();
    device.dsm.config.reserved_fields = ReservedFields::Reject;
    device.bring(0, RUN);
    refused(&mut device, Request::SetMmioAttribute(dirty), Refusal::Attributes(0x800C));
}

#[test]
fn the_vendors_messages() {
    let mut device = running();
    assert_eq!(device.send(Request::Vdm(echo(&[0]))), Got::Vdm(vec![0x34, 0x12, 0]));
    assert_eq!(device.send(Request::Vdm(echo(&[0, 9, 8]))), Got::Vdm(vec![0x34, 0x12, 0, 9, 8]));
    for (data, told) in [(&[][..], 0), (&[7, 0], 7)] {
        // ERROR_DATA is the length of the extended data: registry, length, two bytes of vendor, one of data.
        assert_eq!(device.send(Request::Vdm(echo(data))), Got::VendorError(5, vec![0x34, 0x12, told]));
    }
    for (registry, vendor) in
        [(1, &[0x34, 0x12][..]), (0, &[0x34]), (0, &[0x34, 0x12, 0]), (0, &[0x35, 0x12])]
    {
        let vdm = Vdm::new(RegistryId(registry), vendor, &[0]).unwrap();
        refused(&mut device, Request::Vdm(vdm), Refusal::Vendor);
    }
}
