//! One list of sample commands drives golden bytes, truncation at every length and trailing bytes.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

struct Sample {
    command: Command,
    payload: Vec<u8>,
    request: Request<'static>,
    /// Whether bytes behind the structure are tolerated: some clients pad a request to the size of its reply.
    padding: bool,
}

fn samples() -> Vec<Sample> {
    let sample =
        |command, bytes: &str, request, padding| Sample { command, payload: hex(bytes), request, padding };
    let map = DmaMap { readable: true, writable: false, offset: 0x1000, address: 0xC_0000, size: 0x2000 };
    let writes: &[WriteMultiEntry] = Vec::leak(vec![
        WriteMultiEntry::new(0, 8, &[1, 2, 3, 4]).unwrap(),
        WriteMultiEntry::new(7, 4, &[5]).unwrap(),
    ]);
    vec![
        sample(
            Command::DMA_MAP,
            "20000000 01000000 0010000000000000 00000c0000000000 0020000000000000",
            Request::DmaMap(map),
            false,
        ),
        sample(
            Command::DMA_UNMAP,
            "18000000 00000000 0000f0fe00000000 000010 01ffffffff",
            Request::DmaUnmap(DmaUnmap::Range { address: 0xFEF0_0000, size: 0xFFFF_FFFF_0110_0000 }),
            false,
        ),
        sample(
            Command::DMA_UNMAP,
            "18000000 02000000 0000000000000000 0000000000000000",
            Request::DmaUnmap(DmaUnmap::All),
            false,
        ),
        sample(Command::DEVICE_GET_INFO, "10000000 00000000 00000000 00000000", Request::DeviceInfo, true),
        sample(
            Command::DEVICE_GET_REGION_INFO,
            "50000000 00000000 02000000 00000000 0000000000000000 0000000000000000",
            Request::RegionInfo { argsz: 80, index: 2 },
            true,
        ),
        sample(
            Command::DEVICE_GET_REGION_IO_FDS,
            "00020000 00000000 02000000 00000000",
            Request::RegionIoFds { index: 2 },
            false,
        ),
        sample(
            Command::DEVICE_GET_IRQ_INFO,
            "10000000 00000000 03000000 00000000",
            Request::IrqInfo { index: 3 },
            true,
        ),
        sample(
            Command::DEVICE_SET_IRQS,
            "16000000 22000000 02000000 01000000 02000000 0001",
            Request::SetIrqs(IrqSet {
                kind: IrqKind::Msix,
                action: IrqAction::Trigger,
                data: IrqData::Bool(&[0, 1]),
                start: 1,
                count: 2,
            }),
            false,
        ),
        sample(
            Command::REGION_READ,
            "0001000000000000 07000000 04000000",
            Request::RegionRead(RegionAccess::new(7, 0x100, 4)),
            false,
        ),
        sample(
            Command::REGION_WRITE,
            "1000000000000000 00000000 02000000 beef",
            Request::RegionWrite(RegionAccess::new(0, 0x10, 2), &[0xBE, 0xEF]),
            false,
        ),
        sample(
            Command::REGION_WRITE_MULTI,
            "0200000000000000 0800000000000000 00000000 04000000 0102030400000000 0400000000000000 07000000 01000000 0500000000000000",
            Request::RegionWriteMulti(WriteMulti { entries: writes }),
            false,
        ),
        sample(Command::DEVICE_RESET, "", Request::Reset, false),
    ]
}

#[test]
fn golden_requests_parse() {
    for Sample { command, payload, request, .. } in samples() {
        assert_eq!(Request::parse(command, &payload), Ok(request), "{command:?}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for Sample { command, payload, .. } in samples() {
        for end in 0..payload.len() {
            assert!(Request::parse(command, &payload[..end]).is_err(), "{command:?} cut at {end}");
        }
    }
}

#[test]
fn a_trailing_byte_is_refused_where_nothing_may_follow() {
    for Sample { command, mut payload, request, padding } in samples() {
        payload.push(0);
        let parsed = Request::parse(command, &payload);
        assert_eq!(parsed == Ok(request), padding, "{command:?}");
    }
}

#[test]
fn encoders_write_the_golden_bytes() {
    let golden = samples();
    let mut encoded = 0;
    for Sample { command, payload, request, .. } in &golden {
        let bytes = match request {
            Request::DmaMap(map) => map.encode(),
            Request::DmaUnmap(unmap) => unmap.encode(),
            Request::SetIrqs(set) => set.encode(),
            Request::RegionWriteMulti(writes) => writes.encode(),
            Request::RegionRead(access) => access.as_bytes().to_vec(),
            Request::Version(_)
            | Request::DeviceInfo
            | Request::RegionInfo { .. }
            | Request::RegionIoFds { .. }
            | Request::IrqInfo { .. }
            | Request::RegionWrite(..)
            | Request::Reset
            | Request::Feature(_) => continue,
        };
        encoded += 1;
        assert_eq!(&bytes, payload, "{command:?}");
    }
    assert_eq!(encoded, 6);
}

#[test]
fn headers_are_golden_and_leave_what_is_before_them() {
    let mut out = vec![0xA5];
    put_request(&mut out, 0x1234, Command::REGION_READ, true, &[&[1, 2], &[3]]);
    assert_eq!(out, [&[0xA5][..], &hex("3412 0900 13000000 10000000 00000000 010203")].concat());

    let request = Header::parse(&out[1..]).unwrap();
    assert!(request.no_reply());
    assert_eq!(request.message_type(), MessageType::Command);

    let mut out = vec![0xA5; 3];
    put_error(&mut out, &request, 22);
    assert_eq!(out[3..], hex("3412 0900 10000000 21000000 16000000"));
    let error = Header::parse(&out[3..]).unwrap();
    assert_eq!((error.message_type(), error.failure()), (MessageType::Reply, Some(22)));

    let mut out = Vec::new();
    put_reply(&mut out, &request, &[b"x"]);
    assert_eq!(out, hex("3412 0900 11000000 01000000 00000000 78"));
    for end in 0..HEADER_SIZE {
        assert_eq!(Header::parse(&out[..end]), None);
    }
}

#[test]
fn flags_and_ranges_of_dma_are_checked() {
    let map = |argsz: u32, flags: u32, address: u64, size: u64| {
        let mut payload = [argsz.to_le_bytes(), flags.to_le_bytes()].concat();
        for field in [0, address, size] {
            payload.extend(field.to_le_bytes());
        }
        DmaMap::parse(&payload).map(|_| ())
    };
    assert_eq!(map(32, 3, 0, 4096), Ok(()));
    assert_eq!(map(31, 3, 0, 4096), Err(DecodeError::Argsz));
    assert_eq!(map(32, 4, 0, 4096), Err(DecodeError::Flags));
    assert_eq!(map(32, 0, 0, 4096), Err(DecodeError::Flags));
    assert_eq!(map(32, 3, 0, 0), Err(DecodeError::Range));
    assert_eq!(map(32, 3, u64::MAX, 1), Ok(()));
    assert_eq!(map(32, 3, u64::MAX, 2), Err(DecodeError::Range));

    let unmap = |argsz: u32, flags: u32, address: u64, size: u64| {
        let mut payload = [argsz.to_le_bytes(), flags.to_le_bytes()].concat();
        payload.extend(address.to_le_bytes());
        payload.extend(size.to_le_bytes());
        DmaUnmap::parse(&payload).map(|_| ())
    };
    assert_eq!(unmap(8, 0, 0, 4096), Err(DecodeError::Argsz));
    assert_eq!(unmap(24, 0, 0, 0), Err(DecodeError::Range));
    assert_eq!(unmap(24, 0, 4096, u64::MAX), Err(DecodeError::Range));
    assert_eq!(unmap((1 << 20) + 8, 0, 0, 4096), Err(DecodeError::Argsz));
    assert_eq!(unmap(24, 1, 0, 4096), Err(DecodeError::Flags));
    assert_eq!(unmap(24, 4, 0, 4096), Err(DecodeError::Flags));
    assert_eq!(unmap(24, 3, 0, 0), Err(DecodeError::Flags));
    assert_eq!(unmap(24, 2, 0x1_0000, 4096), Err(DecodeError::Range));
    assert_eq!(unmap(24, 2, 0, 0), Ok(()));
}

#[test]
fn irq_flags_counts_and_data_are_checked() {
    let set = |argsz: u32, flags: u32, index: u32, start: u32, count: u32, data: &[u8]| {
        let mut payload = Vec::new();
        for field in [argsz, flags, index, start, count] {
            payload.extend(field.to_le_bytes());
        }
        payload.extend(data);
        IrqSet::parse(&payload).map(|_| ())
    };
    let (none, boolean, eventfd, mask, unmask, trigger) = (1, 2, 4, 8, 16, 32);
    assert_eq!(set(20, trigger | none, 2, 0, 0, &[]), Ok(()), "disarm all");
    assert_eq!(set(3, trigger | none, 2, 0, 0, &[]), Err(DecodeError::Argsz));
    assert_eq!(set(20, trigger | none, 5, 0, 0, &[]), Err(DecodeError::Index));
    assert_eq!(set(20, mask | unmask, 2, 0, 1, &[]), Err(DecodeError::Flags));
    assert_eq!(set(20, mask | none | boolean, 2, 0, 1, &[]), Err(DecodeError::Flags));
    assert_eq!(set(20, mask, 2, 0, 1, &[]), Err(DecodeError::Flags));
    assert_eq!(set(20, 64 | trigger | none, 2, 0, 1, &[]), Err(DecodeError::Flags));
    assert_eq!(set(20, trigger | none, 2, u32::MAX, 1, &[]), Err(DecodeError::Range));
    for (flags, start) in
        [(mask | none, 0), (trigger | none, 1), (trigger | boolean, 0), (trigger | eventfd, 0)]
    {
        assert_eq!(set(20, flags, 2, start, 0, &[]), Err(DecodeError::Count), "{flags:#x}");
    }
    assert_eq!(set(22, trigger | boolean, 2, 0, 2, &[0]), Err(DecodeError::Count));
    assert_eq!(set(22, trigger | boolean, 2, 0, 2, &[0; 3]), Err(DecodeError::Count));
    assert_eq!(set(20, trigger | none, 2, 0, 1, &[0]), Err(DecodeError::Count));
    assert_eq!(set(28, trigger | eventfd, 2, 0, 2, &[0; 8]), Ok(()), "the kernel ABI's array");
    assert_eq!(set(28, trigger | eventfd, 2, 0, 2, &[0; 4]), Err(DecodeError::Count));
}

#[test]
fn counts_of_region_accesses_are_checked() {
    let read = RegionAccess::new(0, 0, MAX_DATA_XFER_SIZE + 1);
    assert_eq!(Request::parse(Command::REGION_READ, read.as_bytes()), Err(DecodeError::Count));
    let write = [RegionAccess::new(0, 0, 5).as_bytes(), &[0; 4]].concat();
    assert_eq!(Request::parse(Command::REGION_WRITE, &write), Err(DecodeError::Count));
    let mut multi = WriteMulti { entries: &[WriteMultiEntry::new(0, 0, &[1; 8]).unwrap()] }.encode();
    assert!(WriteMulti::parse(&multi).is_ok());
    multi[20] = 9;
    assert_eq!(WriteMulti::parse(&multi), Err(DecodeError::Count));
    multi[20] = 8;
    multi[0] = 2;
    assert_eq!(WriteMulti::parse(&multi), Err(DecodeError::Count));
    assert!(WriteMultiEntry::new(0, 0, &[0; 9]).is_none());
}

#[test]
fn version_data_may_be_absent_empty_or_strange() {
    let parse = |data: &[u8]| Version::parse(&[&[0, 0, 0, 0], data].concat()).map(|v| v.capabilities);
    for legal in [
        &b""[..],
        b"{}\0",
        b"{\"capabilities\":{}}\0",
        b"{\"capabilities\":{\"migration\":{\"pgsize\":4096,\"max_bitmap_size\":268435456}}}\0",
        b"{\"x\":[1],\"capabilities\":{\"migration\":{\"pgsize\":4096}}}\0",
    ] {
        assert_eq!(parse(legal), Ok(Capabilities::default()), "{}", String::from_utf8_lossy(legal));
    }
    for illegal in [
        &b"{}"[..],
        b"\0",
        b"{\0",
        b"\"\0",
        b"{}\0\0",
        b"{\"capabilities\":\"23\"}\0",
        b"{\"capabilities\":{\"max_msg_fds\":\"foo\"}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":1025}}\0",
        b"{\"capabilities\":{\"write_multiple\":1}}\0",
        b"{\"capabilities\":{\"migration\":\"23\"}}\0",
        b"{\"capabilities\":{\"migration\":{\"pgsize\":\"foo\"}}}\0",
        b"\xFF\xFF\0",
    ] {
        assert_eq!(parse(illegal), Err(DecodeError::VersionData), "{}", String::from_utf8_lossy(illegal));
    }
    let deep = [&b"["[..]; 100_000].concat();
    assert_eq!(parse(&[&deep[..], b"\0"].concat()), Err(DecodeError::VersionData));
    for end in 0..4 {
        assert_eq!(Version::parse(&[0; 4][..end]), Err(DecodeError::Length));
    }
}

#[test]
fn the_answer_to_qemu_is_not_longer_than_its_proposal() {
    let proposal = concat!(
        r#"{"capabilities":{"pgsizes":4096,"max_msg_fds":16,"max_dma_maps":65535,"max_data_xfer_size":1048576,"#,
        r#""migration":{"max_bitmap_size":268435456,"pgsize":4096},"write_multiple":true}}"#,
        "\0"
    );
    let proposal = [&[0; 4], proposal.as_bytes()].concat();
    let parsed = Version::parse(&proposal).unwrap();
    assert_eq!(parsed.capabilities.max_msg_fds, Some(16));
    let capabilities = Capabilities::answer(&parsed.capabilities);
    assert_eq!(capabilities.write_multiple, Some(true));
    let answer = Version { major: MAJOR, minor: MINOR, capabilities }.encode();
    assert!(answer.len() <= proposal.len());
    assert_eq!(answer.last(), Some(&0));
    assert_eq!(Capabilities::answer(&Capabilities::default()).write_multiple, None);
}

#[test]
fn region_info_tells_what_room_its_capability_needs() {
    let reply = RegionInfoReply {
        info: RegionInfo { flags: 7.into(), index: 2.into(), size: 0x8000.into(), ..RegionInfo::default() },
        kind: None,
        areas: vec![MmapArea::new(0x2000, 0x1000), MmapArea::new(0x4000, 0x2000)],
    };
    let short = reply.encode(79);
    assert_eq!(short.len(), 32);
    let info = RegionInfoReply::parse(&short).unwrap().info;
    assert_eq!((info.argsz.get(), info.cap_offset.get(), info.flags.get()), (80, 0, 7));

    let whole = reply.encode(80);
    let golden = "50000000 0f000000 02000000 20000000 0080000000000000 0000000000000000
        0100 0100 00000000 02000000 00000000 0020000000000000 0010000000000000 0040000000000000 0020000000000000";
    assert_eq!(whole, hex(golden));
    let parsed = RegionInfoReply::parse(&whole).unwrap();
    assert_eq!(parsed.areas, reply.areas);
    for end in 0..whole.len() {
        assert_eq!(RegionInfoReply::parse(&whole[..end]), Err(DecodeError::Length), "{end}");
    }
    let mut circular = whole;
    circular[36] = 0x20;
    assert_eq!(RegionInfoReply::parse(&circular), Err(DecodeError::CapabilityChain));
    let plain = RegionInfoReply { areas: Vec::new(), ..reply }.encode(40);
    assert_eq!((plain.len(), plain[0]), (32, 32));
}

#[test]
fn a_regions_type_comes_alone_or_before_its_areas() {
    let kind = RegionType::window(0x1234, 2);
    assert_eq!(kind, RegionType { id: 0x8000_1234, subtype: 0x7D15_0002 });
    let info = RegionInfo { flags: 3.into(), index: 11.into(), size: 0x8000.into(), ..RegionInfo::default() };
    let mut reply = RegionInfoReply { info, kind: Some(kind), areas: Vec::new() };
    let short = reply.encode(47);
    assert_eq!((short.len(), short[0], short[4]), (32, 48, 3));
    let alone = reply.encode(48);
    let golden = "30000000 0b000000 0b000000 20000000 0080000000000000 0000000000000000
        0200 0100 00000000 34120080 0200157d";
    assert_eq!(alone, hex(golden));
    assert_eq!(RegionInfoReply::parse(&alone).map(|reply| reply.kind), Ok(Some(kind)));

    reply.info.flags = 7.into();
    reply.areas = vec![MmapArea::new(0x2000, 0x1000)];
    assert_eq!(reply.encode(79).len(), 32, "both or none");
    let both = reply.encode(80);
    let golden = "50000000 0f000000 0b000000 20000000 0080000000000000 0000000000000000
        0200 0100 30000000 34120080 0200157d
        0100 0100 00000000 01000000 00000000 0020000000000000 0010000000000000";
    assert_eq!(both, hex(golden));
    let parsed = RegionInfoReply::parse(&both).unwrap();
    assert_eq!((parsed.kind, &parsed.areas), (Some(kind), &reply.areas));
    for whole in [alone, both] {
        for end in 0..whole.len() {
            assert_eq!(RegionInfoReply::parse(&whole[..end]), Err(DecodeError::Length), "{end}");
        }
    }
}

#[test]
fn only_our_own_types_are_windows() {
    for bar in 0..6 {
        assert_eq!(RegionType::window(0xFFFF, bar).window_of(0xFFFF), Some(bar));
        assert_eq!(RegionType::window(0x1234, bar).window_of(0x8086), None);
    }
    for (id, subtype) in [
        (0x8000_1234, 0x7D15_0006),
        (0x8000_1234, 0x7D15_0100),
        (0x8000_1234, 0x7D14_0000),
        (0x1234, 0x7D15_0000),
        (0x8001_1234, 0x7D15_0000),
    ] {
        assert_eq!(RegionType { id, subtype }.window_of(0x1234), None, "{id:#x} {subtype:#x}");
    }
}

#[test]
fn dma_replies_are_read_in_both_forms() {
    let fixed = DmaAccess::new(0x1000, 4);
    let read = [fixed.as_bytes(), b"data"].concat();
    assert_eq!(
        DmaAccessReply::parse_read(&read),
        Ok(DmaAccessReply { address: 0x1000, count: 4, data: b"data" })
    );
    for end in 0..read.len() {
        assert!(DmaAccessReply::parse_read(&read[..end]).is_err());
    }
    let written = Ok(DmaAccessReply { address: 0x1000, count: 4, data: &[] });
    for length in 0..=17 {
        let payload = [fixed.as_bytes(), &[0]].concat();
        let parsed = DmaAccessReply::parse_write(&payload[..length]);
        assert_eq!(parsed == written, matches!(length, 12 | 16), "{length}");
    }
    assert_eq!(DmaAccess::parse_read(fixed.as_bytes()), Ok(fixed));
}

proptest! {
    #[test]
    fn no_payload_panics(code in 0u16..24, payload in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = Request::parse(Command::new(code), &payload);
        let _ = RegionInfoReply::parse(&payload);
        let _ = DmaBuf::parse(&payload);
        let _ = DmaAccessReply::parse_read(&payload);
        let _ = DmaAccessReply::parse_write(&payload);
    }
}
