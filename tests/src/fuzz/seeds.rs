//! The corpus's first inputs: real messages in the shape each target takes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]

mod conversations;

use spdm::doe::{DiscoveryRequest, Object, ObjectType, VENDOR_PCI_SIG};
use tdisp::wire::ide_km::{KeyHead, KeyMaterial, KeySet, KeySlot, Object as IdeKm};
use tdisp::wire::{
    InterfaceReport, LockRequest, MmioRange, Nonce, Request, RequestMessage, Response, ResponseMessage,
    TdiState,
};
use tdispd_proto::frame::{Command as FrameCommand, Frame, Transport};
use tdispd_proto::vfio_user::{
    Command, DmaBuf, DmaMap, DmaRange, Feature, FeatureFlags, RegionAccess, put_request,
};
use zerocopy::IntoBytes;

use super::dsm::STREAM_ID;
use super::script::put_sized;

/// The inputs for the target of this name.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "certificate_chain" => conversations::certificate_chain(),
        "config_toml" => config_toml(),
        "control_request" => control_request(),
        "cxl_message" => cxl_messages(),
        "device_traffic" => device_traffic(),
        "disk_queue" => super::disk::seeds(),
        "doe_object" => doe_object(),
        "guest_message" => super::guest::seeds(),
        "ide_km_object" => ide_km_object(),
        "interface_report" => interface_report(),
        "session_file" => conversations::session_file(),
        "spdm_frame" => spdm_frame(),
        "spdm_man_in_the_middle" => conversations::man_in_the_middle(),
        "spdm_requester" => conversations::spdm_requester(),
        "spdm_responder_clear" => conversations::responder_clear(),
        "spdm_responder_in_session" => conversations::responder_in_session(),
        "tdisp_message" => tdisp_messages(),
        "vfio_user_connection" => vfio_user(),
        _ => Vec::new(),
    }
}

fn config_toml() -> Vec<Vec<u8>> {
    let config = tdispd::config::Config::default().for_sockets(2).unwrap();
    vec![
        config.to_toml().unwrap().into_bytes(),
        b"[spdm]\nsessions = 1\nversions = [\"1.3\"]\n[[spdm.slot]]\nkey = \"ecdsa-p256\"\n[[function]]\nmsix = false\n".to_vec(),
        b"[pci]\nclass = 0xffffff\n[ide]\nselective_streams = 16\naddress_blocks = 15\nsecure_on = \"last-go\"\n".to_vec(),
        b"[tdisp]\naddress_width = 64\nlenient_command = true\n[doe]\nmalformed = \"error\"\n".to_vec(),
        b"[[spdm.measurement]]\nindex = 239\nkind = \"hardware-configuration\"\nvalue = \"x\"\n".to_vec(),
        BARS.as_bytes().to_vec(),
    ]
}

/// A function with a range of every kind.
const BARS: &str = r#"[tdisp]
requests = ["mmio-attribute"]
[[function]]
[[function.bar]]
index = 0
width = 64
[[function.bar.range]]
kind = "memory"
size = "16K"
side = "private"
updatable = true
[[function.bar.range]]
kind = "registers"
size = 4096
side = "private"
[[function.bar.range]]
kind = "doorbells"
size = "4K"
side = "shared"
[[function.bar.range]]
kind = "reserved"
size = "8K"
side = "shared"
[[function.bar]]
index = 2
[[function.bar.range]]
kind = "msix-table"
size = "4K"
side = "shared"
[[function.bar.range]]
kind = "msix-pba"
size = "4K"
side = "shared"
"#;

fn key_objects(stream: u8) -> Vec<Vec<u8>> {
    let heads = || KeySlot::of_set(KeySet::Zero).map(|slot| KeyHead::new(0, stream, slot));
    let objects = [IdeKm::Query(0)]
        .into_iter()
        .chain(heads().map(|head| IdeKm::KeyProg(head, KeyMaterial::new([3; 32]))))
        .chain(heads().map(IdeKm::KSetGo))
        .chain(heads().take(1).map(IdeKm::KSetStop));
    objects.map(|object| encoded(|out| object.encode(out))).collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn tdisp_requests(stream: u8) -> Vec<Vec<u8>> {
    let lock = LockRequest { default_stream_id: stream, ..LockRequest::default() };
    [
        Request::GetVersion,
        Request::GetCapabilities { tsm_caps: 0 },
        Request::Lock(lock),
        Request::GetReport { offset: 0, length: 64 },
        Request::GetState,
        // The first nonce of the machine that takes it.
        Request::Start(Nonce::new([1; 32])),
        Request::Stop,
    ]
    .map(|request| encoded(|out| RequestMessage { interface: Default::default(), request }.encode(out)))
    .to_vec()
}

fn tdisp_messages() -> Vec<Vec<u8>> {
    let responses = [
        Response::Version(&[0x10]),
        Response::Lock(Nonce::new([9; 32])),
        Response::Report { portion: b"portion", remainder: 3 },
        Response::State(TdiState::RUN),
        Response::Start,
    ];
    let responses = responses.map(|response| {
        encoded(|out| ResponseMessage { interface: Default::default(), response }.encode(out).unwrap())
    });
    tdisp_requests(STREAM_ID).into_iter().chain(responses).collect()
}

/// What spdm_requester_emu sends, once per session.
fn cxl_messages() -> Vec<Vec<u8>> {
    let (mut keys, mut tsp) = (Vec::new(), Vec::new());
    let key_prog = |key: u8| [&[2, 0, 0, 0, 0, key, 0][..], &[0x5A; 44]].concat();
    let mut objects = vec![vec![0, 0, 0], vec![7, 0, 0, 0, 0, 0x80, 0], key_prog(0x80), key_prog(0x82)];
    for (object, key) in [(4, 0x80), (4, 0x82), (5, 0x80), (5, 0x82)] {
        objects.push(vec![object, 0, 0, 0, 0, key, 0]);
    }
    let mut configuration = vec![0; 352];
    for (at, value) in [(0, 0x10), (1, 0x83), (2, 1), (4, 2), (12, 0x16), (24, 1)] {
        configuration[at] = value;
    }
    let requests = [
        vec![0x10, 0x81, 0, 0],
        vec![0x10, 0x82, 0, 0],
        configuration,
        vec![0x10, 0x84, 0, 0],
        vec![0x10, 0x85, 0, 0, 0, 0, 0x40, 0],
        vec![0x10, 0x86, 0, 0],
        vec![0x10, 0x84, 0, 0],
    ];
    for object in objects {
        keys.push(1);
        put_sized(&mut keys, &object);
    }
    for request in requests {
        tsp.push(0);
        put_sized(&mut tsp, &request);
    }
    let both = [&keys[..], &tsp, &[2, 6, 4, 4, 0, 0x10, 0x81, 0, 0, 2]].concat();
    vec![keys, tsp, both]
}

fn ide_km_object() -> Vec<Vec<u8>> {
    let mut by_message = vec![0];
    for object in key_objects(STREAM_ID) {
        by_message.extend_from_slice(&[5, 0, 0]);
        put_sized(&mut by_message, &object);
    }
    let mut by_tdisp = vec![1];
    for request in tdisp_requests(STREAM_ID) {
        by_tdisp.extend_from_slice(&[0, 0, 0]);
        put_sized(&mut by_tdisp, &request);
    }
    let plain = |stage: u8, events: &[[u8; 3]]| [&[stage], events.as_flattened()].concat();
    let mut out = key_objects(STREAM_ID);
    out.truncate(2);
    out.extend([
        by_message,
        by_tdisp,
        plain(0, &[[14, 0, 0], [3, 0, 0], [2, 0, 0], [3, 0, 1], [2, 0, 1], [4, 0, 0], [9, 0, 0]]),
        // A TDI that was locked after a rehearsal, and one that is rehearsed and locked here.
        plain(7, &[[2, 0, 0], [3, 0, 0], [4, 0, 0], [3, 0, 0]]),
        plain(5, &[[0x8E, 0, 0], [3, 0, 0], [2, 0, 0], [12, 0, 0]]),
        plain(2, &[[2, 0, 0], [10, 0, 0], [4, 0, 0], [3, 0, 0], [13, 0, 0], [14, 1, 0], [3, 1, 1]]),
        [&plain(3, &[[7, 0, 0]])[..], &[0x10, 0, 4, 0, 0, 0, 0x40, 5, 12, 0, 0, 2, 8, 0, 0, 3, 1]].concat(),
        plain(4, &[[4, 0, 0], [14, 0, 0], [3, 0, 0], [12, 0, 0]]),
    ]);
    out
}

fn interface_report() -> Vec<Vec<u8>> {
    let range = |first_page, pages| MmioRange { first_page, pages, ..MmioRange::default() };
    [
        InterfaceReport::default(),
        InterfaceReport {
            msix_message_control: 0x8003,
            ranges: vec![range(0x10, 4), range(0x8000, 128), range(u64::MAX, u32::MAX)],
            device_info: b"device info".to_vec(),
            ..InterfaceReport::default()
        },
    ]
    .map(|report| report.encode().unwrap())
    .to_vec()
}

fn objects() -> Vec<Vec<u8>> {
    let discovery = DiscoveryRequest { index: 1, version: 2 }.encode();
    [
        (ObjectType::DISCOVERY, &discovery[..]),
        (ObjectType::SPDM, &[0x10, 0x84, 0, 0]),
        (ObjectType::SECURED_SPDM, &[0x55; 30]),
        (ObjectType(9), &[]),
    ]
    .map(|(kind, payload)| {
        encoded(|out| Object { vendor: VENDOR_PCI_SIG, kind, payload }.encode(out).unwrap())
    })
    .to_vec()
}

fn doe_object() -> Vec<Vec<u8>> {
    let mut lies = objects()[1].clone();
    lies[4] = 9;
    objects().into_iter().chain([lies]).collect()
}

fn control_request() -> Vec<Vec<u8>> {
    [
        r#"{"id":1,"command":"state"}"#,
        r#"{"id":"a","command":"report-get","function":0,"lock_flags":4,"mmio_reporting_offset":"0xfffffffff0000000"}"#,
        r#"{"command":"report-set","function":1,"report":{"hex":"0200000000000000000000000000000000000000"}}"#,
        r#"{"command":"report-set","function":0,"report":{"interface_info":{"ats":true},"tph_control":"0x1","ranges":[{"bar":2,"first_page":0,"pages":16,"non_tee":true,"range_id":2},{"page":"0xfffffffffffff","pages":1,"attributes":"0xfff1"}],"device_info":"c0ffee"}}"#,
        r#"{"command":"report-reset","function":0}"#,
        r#"{"id":2,"command":"lock","function":0}"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

fn spdm_frame() -> Vec<Vec<u8>> {
    let object = objects().remove(1);
    let frames = [
        (FrameCommand::TEST, &b"Client Hello!\0"[..]),
        (FrameCommand::NORMAL, &object),
        (FrameCommand::SHUTDOWN, &[]),
    ];
    let frames = frames.map(|(command, payload)| {
        encoded(|out| Frame { command, transport: Transport::PCI_DOE, payload }.encode(out).unwrap())
    });
    let oversize = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0x12, 1].to_vec();
    vec![frames.concat(), frames[1].clone(), oversize]
}

fn device_traffic() -> Vec<Vec<u8>> {
    let fresh = {
        let mut out = vec![0];
        for (kind, payload) in [(0_u8, &[0, 0, 0, 0][..]), (1, &[0x10, 0x84, 0, 0]), (2, &[9; 40])] {
            out.extend_from_slice(&[6, kind]);
            put_sized(&mut out, payload);
            out.push(0);
        }
        out
    };
    // Command register, BAR 0, device control with FLR, MSI-X control, DOE control, IDE control.
    let registers: Vec<u8> =
        [(0x04_u16, 6_u32), (0x10, 0xFFFF_FFFF), (0x48, 0x8000), (0x70, 0x8000_0000), (0x118, 1)]
            .into_iter()
            .flat_map(|(at, value)| {
                let mut event = vec![0];
                event.extend_from_slice(&at.to_le_bytes());
                put_sized(&mut event, &value.to_le_bytes());
                event
            })
            .collect();
    let bar = |bar: u8, at: u32, data: &[u8]| {
        let mut event = vec![3, bar];
        event.extend_from_slice(&at.to_le_bytes());
        put_sized(&mut event, data);
        event
    };
    let bars =
        [bar(0, 0x10, &[1; 8]), bar(2, 0x3000, &[2; 16]), bar(2, 0x80_FFC, &[3; 8]), bar(4, 0, &[4; 16])]
            .concat();
    let tdisp: Vec<u8> = tdisp_requests(super::device::STREAM)
        .iter()
        .flat_map(|message| {
            let mut event = vec![9, 1];
            put_sized(&mut event, message);
            event
        })
        .collect();
    let from = |stage: u8, rest: &[&[u8]]| [&[stage][..], &rest.concat()].concat();
    vec![
        fresh,
        from(0, &[&registers, &bars]),
        from(1, &[&bars, &tdisp, &[12, 13]]),
        from(2, &[&[12, 13], &bars, &[14, 12, 13], &registers]),
        from(2, &[&tdisp]),
        from(3, &[&bars, &[13, 14, 12, 7]]),
        from(4, &[&bars, &[14, 12, 13], &bars, &[8, 0x10, 0x27, 8, 0x10, 0x27]]),
        from(4, &[&registers]),
        from(4, &[&[11, 3, 0, 14]]),
        from(4, &[&[15, 4, 0, 0x13, 0xEC, 0, 0, 14, 13]]),
        from(4, &[&bars, &[7], &bars]),
    ]
}

fn vfio_user() -> Vec<Vec<u8>> {
    let message = |id, command, parts: &[&[u8]]| encoded(|out| put_request(out, id, command, false, parts));
    let version = message(
        0,
        Command::VERSION,
        &[b"\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0"],
    );
    let map =
        |offset| DmaMap { readable: true, writable: true, offset, address: 0x1000, size: 0x2000 }.encode();
    let info = |index: u32| [&32_u32.to_le_bytes()[..], &[0; 4], &index.to_le_bytes(), &[0; 20]].concat();
    let irqs = |flags: u32, index: u32, count: u32| {
        [20, flags, index, 0, count].map(u32::to_le_bytes).as_flattened().to_vec()
    };
    let export = |region, ranges: &[DmaRange]| {
        let data = DmaBuf { region, open_flags: 0x8_0002, flags: 0, ranges }.encode();
        Feature::new(FeatureFlags::get(DmaBuf::INDEX), &data).encode()
    };
    let probe = Feature::new(FeatureFlags::probe_get(DmaBuf::INDEX), &[]).encode();
    let read = |offset: u64, region, count| RegionAccess::new(region, offset, count).as_bytes().to_vec();
    vec![
        version.clone(),
        [
            version.clone(),
            message(1, Command::DEVICE_GET_INFO, &[&16_u32.to_le_bytes(), &[0; 12]]),
            message(2, Command::DEVICE_GET_REGION_INFO, &[&info(2)]),
            message(3, Command::DEVICE_GET_REGION_INFO, &[&info(7)]),
            message(
                4,
                Command::DEVICE_GET_IRQ_INFO,
                &[&16_u32.to_le_bytes(), &[0; 4], &2_u32.to_le_bytes(), &[0; 4]],
            ),
            message(5, Command::REGION_READ, &[&read(0, 7, 64)]),
            message(6, Command::REGION_WRITE, &[&read(4, 7, 2), &[6, 0]]),
            message(7, Command::REGION_READ, &[&read(0xFC, 0, 4)]),
            message(8, Command::DEVICE_RESET, &[]),
        ]
        .concat(),
        [
            version.clone(),
            message(1, Command::DMA_MAP, &[&map(0)]),
            message(2, Command::DEVICE_SET_IRQS, &[&irqs(0x24, 2, 1)]),
            message(3, Command::DEVICE_SET_IRQS, &[&irqs(0x21, 0, 0)]),
            message(
                4,
                Command::REGION_WRITE_MULTI,
                &[
                    &1_u64.to_le_bytes(),
                    &8_u64.to_le_bytes(),
                    &0_u32.to_le_bytes(),
                    &4_u32.to_le_bytes(),
                    &[1; 8],
                ],
            ),
            message(
                5,
                Command::DMA_UNMAP,
                &[&24_u32.to_le_bytes(), &[0; 4], &0x1000_u64.to_le_bytes(), &0x2000_u64.to_le_bytes()],
            ),
        ]
        .concat(),
        [
            version.clone(),
            // Just inside, just outside, and where a region does not allow it.
            message(1, Command::REGION_READ, &[&read(0xFFC, 0, 4)]),
            message(2, Command::REGION_READ, &[&read(0xFFD, 0, 4)]),
            message(3, Command::REGION_WRITE, &[&read(0x3FFD, 2, 4), &[1; 4]]),
            message(4, Command::REGION_WRITE, &[&read(0, 4, 4), &[1; 4]]),
            message(5, Command::REGION_READ, &[&read(0, 6, 4)]),
            message(6, Command::REGION_READ, &[&read(0, 1, 1)]),
        ]
        .concat(),
        [
            version.clone(),
            message(1, Command::REGION_READ, &[&read(u64::MAX, 7, 16)]),
            vec![9, 0, 9, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat(),
        [
            version,
            message(1, Command::DEVICE_GET_REGION_INFO, &[&info(11)]),
            message(2, Command::DEVICE_FEATURE, &[&probe]),
            message(3, Command::DEVICE_FEATURE, &[&export(0, &[DmaRange::new(0, 0x1000)])]),
            message(
                4,
                Command::DEVICE_FEATURE,
                &[&export(11, &[DmaRange::new(0x1000, 0x2000), DmaRange::new(0, 0x4000)])],
            ),
            message(5, Command::DEVICE_FEATURE, &[&export(2, &[DmaRange::new(0x3000, 0x2000)])]),
        ]
        .concat(),
    ]
}
