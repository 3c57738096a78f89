//! Tests of the DSM through its public face: messages in, messages and effects out.

mod adjust;
mod cascades;
mod keys;
mod lock_checks;
mod messages;
mod observe;
mod properties;
mod rehearsal;
mod report_override;
mod table;

use super::*;
use crate::wire::ide_km::{Direction, KeyHead, KeyMaterial, KeySet, KeySlot, Object, SubStream};
use crate::wire::{
    ErrorCode, FunctionId, InterfaceId, InterfaceInfo, LockFlags, Nonce, RegistryId, Request, RequestMessage,
    Response, ResponseMessage,
};

/// The session that locks.
const SESSION: SessionId = 0x0001_FFFE;
/// Any other.
const OTHER: SessionId = 0x0002_FFFD;
const STREAM: StreamIndex = StreamIndex::Selective(0);
const STREAM_ID: u8 = 5;
/// Control register of the first selective stream: id 5, default; and Enable.
const CONTROL: u16 = 0x10;
const SET_UP: u32 = 0x0540_0000;
const ENABLED: u32 = SET_UP | 1;

/// The second selective stream of [`Device::equipped`], for peers, with its control and association registers.
const PEER: StreamIndex = StreamIndex::Selective(1);
const PEER_ID: u8 = 6;
const PEER_CONTROL: u16 = 0x30;
const VENDOR: u16 = 0x1234;

const UNLOCKED: TdiState = TdiState::CONFIG_UNLOCKED;
const LOCKED: TdiState = TdiState::CONFIG_LOCKED;
const RUN: TdiState = TdiState::RUN;
const ERROR: TdiState = TdiState::ERROR;
const STATES: [TdiState; 4] = [UNLOCKED, LOCKED, RUN, ERROR];

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Nothing,
    Error(ErrorCode, u32),
    Version(Vec<u8>),
    Capabilities(crate::wire::Capabilities),
    Locked(Nonce),
    Report(Vec<u8>, u16),
    State(TdiState),
    Started,
    Stopped,
    Bound,
    Unbound,
    AttributeSet,
    Vdm(Vec<u8>),
    VendorError(u32, Vec<u8>),
}

const INVALID_REQUEST: Got = Got::Error(ErrorCode::INVALID_REQUEST, 0);
const INVALID_STATE: Got = Got::Error(ErrorCode::INVALID_INTERFACE_STATE, 0);
const INVALID_INTERFACE: Got = Got::Error(ErrorCode::INVALID_INTERFACE, 0);

/// A DSM with the functions around it.
struct Device {
    dsm: Dsm,
    functions: Vec<FunctionView>,
    random: u8,
    entropy: bool,
    /// What [`Device::lock`] asks for.
    flags: LockFlags,
}

fn range(first_page: u32, pages: u32, non_tee: bool) -> RangeView {
    RangeView { first_page, pages, non_tee, ..RangeView::default() }
}

/// BAR 0: one private register page of a 4 KiB BAR. BAR 2: private and shared memory. BAR 4: MSI-X.
fn function(number: usize) -> FunctionView {
    let base = 0x10_0000_0000 * (number as u64 + 1);
    let bar = |index, offset, size, ranges| BarView {
        index,
        address: Some(base + offset),
        size,
        aliased: false,
        size_supported: true,
        ranges,
    };
    let table = RangeView { msix_table: true, ..range(0, 1, true) };
    let pba = RangeView { msix_pba: true, ..range(1, 1, true) };
    FunctionView {
        number,
        bars: vec![
            bar(
                2,
                0x20_0000,
                0x1_0000,
                vec![range(0, 12, false), RangeView { updatable: true, ..range(12, 4, true) }],
            ),
            bar(0, 0x10_0000, 0x1000, vec![range(0, 1, false)]),
            bar(4, 0x30_0000, 0x2000, vec![table, pba]),
        ],
        rom: Some(RomView { address: base + 0x40_0000, size: 0x1_0000, enabled: true }),
        msix_message_control: Some(0x8003),
        lnr_control: 0,
        tph_control: 0x11,
        tph_capability: 0,
        tph_table_in_msix: true,
        interface_info: InterfaceInfo::new().with_dma_without_pasid(true).with_reserved(3),
        device_info: b"info".to_vec(),
        phantom_functions: false,
    }
}

impl Device {
    fn new(config: DsmConfig) -> Self {
        let functions = (0..config.functions).map(function).collect();
        Self { dsm: Dsm::new(config).unwrap(), functions, random: 0, entropy: true, flags: LockFlags::new() }
    }

    /// One function, its stream secure through [`SESSION`].
    fn secure() -> Self {
        Self::with_stream(DsmConfig::default())
    }

    fn with_stream(config: DsmConfig) -> Self {
        let mut device = Self::new(config);
        device.set_up_stream(SESSION);
        device.effects();
        device
    }

    /// Functions with everything that is optional: their stream secure through [`SESSION`], a second one secure for
    /// peers, ATS enabled, and LOCK with BIND_P2P.
    fn equipped() -> Self {
        let mut device = Self::able(DsmConfig::default());
        device.set_up_stream(SESSION);
        device.set_up_peer();
        device.effects();
        device
    }

    /// Functions that can do all of that once their streams are set up.
    fn able(config: DsmConfig) -> Self {
        let bind_p2p = LockFlags::new().with_bind_p2p(true);
        let mut device = Self::new(DsmConfig {
            optional: OptionalRequests { p2p: true, mmio_attribute: true, vdm: Some(VENDOR) },
            lock_flags: bind_p2p.with_all_request_redirect(true),
            ide: crate::ide::IdeConfig { selective_streams: 3, ..Default::default() },
            ..config
        });
        device.flags = bind_p2p;
        for function in &mut device.functions {
            function.interface_info.set_ats(true);
        }
        device
    }

    /// Keys and enables the stream for peers.
    fn set_up_peer(&mut self) {
        let value = u32::from(PEER_ID) << 24;
        self.dsm.ide_write(PEER_CONTROL, &value.to_le_bytes());
        self.key_stream(SESSION, PEER_ID, KeySet::Zero);
        self.dsm.ide_write(PEER_CONTROL, &(value | 1).to_le_bytes());
    }

    /// One function brought into a state, with nothing left to poll.
    fn in_state(state: TdiState) -> Self {
        let mut device = Self::secure();
        device.bring(0, state);
        device
    }

    fn bring(&mut self, function: usize, state: TdiState) {
        if state != UNLOCKED {
            let nonce = self.lock(function);
            if state == RUN {
                assert_eq!(self.send_to(function, Request::Start(nonce)), Got::Started);
            } else if state == ERROR {
                self.dsm.function_reset(function);
            }
        }
        assert_eq!(self.dsm.state(function), state);
        self.effects();
    }

    fn set_up_stream(&mut self, session: SessionId) {
        self.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
        self.key_all(session, KeySet::Zero);
        self.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    }

    fn key_all(&mut self, session: SessionId, set: KeySet) {
        self.key_stream(session, STREAM_ID, set);
    }

    fn key_stream(&mut self, session: SessionId, stream_id: u8, set: KeySet) {
        for slot in KeySlot::of_set(set) {
            let head = KeyHead::new(0, stream_id, slot);
            assert!(self.ide_km(session, &Object::KeyProg(head, KeyMaterial::new([3; 32]))).is_some());
        }
        for slot in KeySlot::of_set(set) {
            let head = KeyHead::new(0, stream_id, slot);
            assert!(self.ide_km(session, &Object::KSetGo(head)).is_some());
        }
    }

    /// Programs, starts and stops one key of each direction, as a requester does that has no link to protect.
    fn rehearse(&mut self, session: SessionId) {
        self.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
        let heads = || pair().map(|slot| KeyHead::new(0, STREAM_ID, slot));
        for head in heads() {
            assert!(self.ide_km(session, &Object::KeyProg(head, KeyMaterial::new([3; 32]))).is_some());
        }
        for head in heads() {
            assert!(self.ide_km(session, &Object::KSetGo(head)).is_some());
        }
        for head in heads() {
            assert!(self.ide_km(session, &Object::KSetStop(head)).is_some());
        }
    }

    fn ide_km(&mut self, session: SessionId, object: &Object<'_>) -> Option<Vec<u8>> {
        let mut request = Vec::new();
        object.encode(&mut request);
        self.ide_km_bytes(Some(session), &request)
    }

    fn ide_km_bytes(&mut self, session: Option<SessionId>, request: &[u8]) -> Option<Vec<u8>> {
        let mut response = Vec::new();
        match self.dsm.ide_km(session, request, &mut response) {
            Answer::Respond => Some(response),
            Answer::Silent => {
                assert!(response.is_empty());
                None
            }
        }
    }

    fn lock(&mut self, function: usize) -> Nonce {
        let Got::Locked(nonce) = self.send_to(function, lock_with(self.flags)) else {
            panic!("LOCK was refused")
        };
        nonce
    }

    fn send(&mut self, request: Request<'_>) -> Got {
        self.send_to(0, request)
    }

    fn send_to(&mut self, function: usize, request: Request<'_>) -> Got {
        self.send_as(SESSION, FunctionId::new(0xAB00 + function as u16, None).into(), request)
    }

    fn send_as(&mut self, session: SessionId, interface: InterfaceId, request: Request<'_>) -> Got {
        let mut bytes = Vec::new();
        RequestMessage { interface, request }.encode(&mut bytes);
        self.send_bytes(Some(session), &bytes)
    }

    fn send_bytes(&mut self, session: Option<SessionId>, bytes: &[u8]) -> Got {
        let Self { dsm, functions, random, entropy, .. } = self;
        let mut fill = |out: &mut [u8]| {
            *random = random.wrapping_add(1);
            out.fill(*random);
            *entropy
        };
        let mut response = vec![0xA5; 3];
        if dsm.tdisp(session, bytes, functions, &mut fill, &mut response) == Answer::Silent {
            assert_eq!(response, [0xA5; 3]);
            return Got::Nothing;
        }
        let message = ResponseMessage::decode(&response[3..]).expect("a legal response");
        if let Ok((header, _)) = crate::wire::Header::decode(bytes) {
            assert_eq!(message.interface, header.interface, "INTERFACE_ID is echoed");
        }
        match message.response.clone() {
            Response::Error { code, data, extended: None } => Got::Error(code, data),
            Response::Version(versions) => Got::Version(versions.to_vec()),
            Response::Capabilities(capabilities) => Got::Capabilities(capabilities),
            Response::Lock(nonce) => Got::Locked(nonce),
            Response::Report { portion, remainder } => Got::Report(portion.to_vec(), remainder),
            Response::State(state) => Got::State(state),
            Response::Start => Got::Started,
            Response::Stop => Got::Stopped,
            Response::BindP2p => Got::Bound,
            Response::UnbindP2p => Got::Unbound,
            Response::SetMmioAttribute => Got::AttributeSet,
            Response::Vdm(vdm) => Got::Vdm([vdm.vendor_id(), vdm.data].concat()),
            Response::Error { code, data, extended: Some(vdm) } => {
                assert_eq!((code, vdm.registry), (ErrorCode::VENDOR_SPECIFIC_ERROR, RegistryId::PCI_SIG));
                Got::VendorError(data, [vdm.vendor_id(), vdm.data].concat())
            }
        }
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.dsm.poll_effect()).collect()
    }

    /// The one refusal that is due.
    fn refusal(&mut self) -> Refusal {
        match self.effects()[..] {
            [Effect::Refused { refusal, .. }] => refusal,
            ref others => panic!("{others:?}"),
        }
    }
}

/// The posted requests' keys of key set 0, both directions.
fn pair() -> [KeySlot; 2] {
    [Direction::Rx, Direction::Tx].map(|direction| KeySlot {
        set: KeySet::Zero,
        direction,
        sub_stream: SubStream::Posted,
    })
}

fn lock_request() -> Request<'static> {
    Request::Lock(LockRequest { default_stream_id: STREAM_ID, ..LockRequest::default() })
}

fn lock_with(flags: LockFlags) -> Request<'static> {
    Request::Lock(LockRequest { flags, default_stream_id: STREAM_ID, ..LockRequest::default() })
}

const REPORT: Request<'static> = Request::GetReport { offset: 0, length: 0x400 };

fn changed(function: usize, from: TdiState, to: TdiState, cause: Cause) -> Effect {
    Effect::StateChanged { function, from, to, cause }
}

/// What must follow the fall of a TDI.
fn fell(function: usize, from: TdiState, cause: Cause) -> Vec<Effect> {
    vec![Effect::StopDma { function }, changed(function, from, ERROR, cause)]
}
