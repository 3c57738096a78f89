//! The other side of a [`Rig`](crate::rig::Rig), one message at a time: configuration space and BARs over vfio-user, SPDM
//! through the mailbox, IDE_KM and TDISP in a session.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is the test"
)]

use std::path::Path;
use std::time::Duration;

use spdm::crypto::DefaultProvider;
use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::{
    Driver, DriverError, Requester, RequesterConfig, Response, Transport as SpdmTransport,
};
use spdm::wire::SummaryType;
use tdisp::wire::ide_km::{KeyHead, KeyMaterial, KeySet, KeySlot, KpAckStatus, Object as IdeKm};
use tdisp::wire::{
    ErrorCode, FunctionId, InterfaceId, InterfaceReport, LockFlags, LockRequest, Nonce, Request,
    RequestMessage, Response as Tdisp, ResponseMessage, TdiState,
};
use tdispctl::clock::SystemClock;
use tdispctl::doe::mailbox::Mailbox;
use tdispctl::error::Error;
use tdispctl::pci::Width;
use tdispctl::pci::capabilities::{Inventory, read as inventory};
use tdispctl::pci::ide::{SelectiveStream, StreamSettings, selective_streams};
use tdispctl::transport::Transport;
use tdispctl::transport::vfio_user::VfioUser;

const STANDARD_PCI_SIG: u16 = 3;
const VENDOR_ID: [u8; 2] = VENDOR_PCI_SIG.to_le_bytes();
const IDE_KM: u8 = 0;
const TDISP: u8 = 1;
/// How long a device in this process may take; silence costs this much.
const PATIENCE: Duration = Duration::from_secs(2);
/// Stream id that [`Host::secure_stream`] gives.
pub const STREAM: u8 = 7;

/// A host with one function plugged in.
pub struct Host {
    /// The function.
    pub device: VfioUser,
    /// The SPDM requester.
    pub requester: Requester,
    /// What configuration space holds.
    pub inventory: Inventory,
}

/// Carries SPDM messages through the mailbox.
pub struct Carrier<'a> {
    device: &'a mut VfioUser,
    mailbox: Mailbox,
}

impl SpdmTransport for Carrier<'_> {
    type Error = Error;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Error> {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let mut object = Vec::new();
        Object { vendor: VENDOR_PCI_SIG, kind, payload: message }.encode(&mut object).unwrap();
        let answer = self.mailbox.exchange(self.device.config().unwrap(), &SystemClock::new(), &object)?;
        let answer = Object::parse(&answer).unwrap();
        assert_eq!(answer.vendor, VENDOR_PCI_SIG);
        Ok(Response { secured: answer.kind == ObjectType::SECURED_SPDM, bytes: answer.payload.to_vec() })
    }

    fn wait(&mut self, delay: Duration) {
        std::thread::sleep(delay);
    }
}

impl Host {
    /// Plugs a function in: BARs placed, memory and bus mastering on.
    pub fn plug(socket: &Path) -> Self {
        let mut device = VfioUser::open(socket, Duration::from_secs(10)).unwrap();
        let inventory = inventory(device.config().unwrap()).unwrap();
        let requester = Requester::new(RequesterConfig::default(), Box::new(DefaultProvider::new())).unwrap();
        Self { device, requester, inventory }
    }

    /// The mailbox.
    pub fn mailbox(&self) -> Mailbox {
        Mailbox { capability: self.inventory.doe[0], timeout: PATIENCE }
    }

    /// Reads a register of configuration space.
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.device.config().unwrap().read(offset, width).unwrap()
    }

    /// Writes a register of configuration space.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.device.config().unwrap().write(offset, width, value).unwrap();
    }

    /// Reads BAR bytes.
    pub fn bar_read<const N: usize>(&mut self, bar: u8, offset: u64) -> [u8; N] {
        let mut data = [0xA5; N];
        self.device.bars().unwrap().read(bar, offset, &mut data).unwrap();
        data
    }

    /// Writes BAR bytes.
    pub fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.device.bars().unwrap().write(bar, offset, data).unwrap();
    }

    /// Sends one data object through the mailbox.
    pub fn object(&mut self, object: &[u8]) -> Result<Vec<u8>, Error> {
        self.mailbox().exchange(self.device.config().unwrap(), &SystemClock::new(), object)
    }

    /// Has the SPDM requester do something through the mailbox.
    ///
    /// # Errors
    /// Whatever the requester or the mailbox finds wrong.
    pub fn spdm<T>(
        &mut self,
        act: impl FnOnce(&mut Driver<'_, Carrier<'_>>) -> Result<T, DriverError<Error>>,
    ) -> Result<T, DriverError<Error>> {
        let mailbox = self.mailbox();
        let carrier = Carrier { device: &mut self.device, mailbox };
        act(&mut Driver::new(&mut self.requester, carrier))
    }

    /// Negotiates, checks the certificate and opens a session; its id.
    pub fn session(&mut self) -> u32 {
        self.session_that(false)
    }

    /// The same; the session's TerminationPolicy says whether an update at run time is to end it.
    pub fn session_that(&mut self, ends_on_update: bool) -> u32 {
        self.spdm(|driver| {
            driver.connect()?;
            driver.digests()?;
            driver.certificate(0)?;
            driver.start_session(0, SummaryType::None, ends_on_update)
        })
        .unwrap()
        .id
    }

    /// Ends the session.
    pub fn end_session(&mut self) {
        self.spdm(|driver| driver.end_session(false)).unwrap();
    }

    /// A vendor-defined message of the PCI-SIG in the session; `Err` where there is no such answer.
    pub fn vendor(&mut self, protocol: u8, message: &[u8]) -> Result<Vec<u8>, DriverError<Error>> {
        self.vendor_of(VENDOR_ID, protocol, message)
    }

    /// The same under another vendor id of its registry.
    pub fn vendor_of(
        &mut self,
        vendor: [u8; 2],
        protocol: u8,
        message: &[u8],
    ) -> Result<Vec<u8>, DriverError<Error>> {
        let payload = [&[protocol], message].concat();
        let answer = self.spdm(|driver| driver.vendor(STANDARD_PCI_SIG, &vendor, &payload))?;
        assert_eq!(answer.first(), Some(&protocol));
        Ok(answer[1..].to_vec())
    }

    /// An IDE_KM object and its answer.
    pub fn ide_km<T>(&mut self, object: &IdeKm<'_>, then: impl FnOnce(IdeKm<'_>) -> T) -> T {
        let mut message = Vec::new();
        object.encode(&mut message);
        let answer = self.vendor(IDE_KM, &message).unwrap();
        then(IdeKm::decode(&answer).unwrap())
    }

    /// A TDISP request to a function, and the answer's body.
    pub fn tdisp<T>(&mut self, function: u16, request: Request<'_>, then: impl FnOnce(Tdisp<'_>) -> T) -> T {
        let interface = InterfaceId { function: FunctionId::new(function, None), reserved: 0 };
        let mut message = Vec::new();
        RequestMessage { interface, request }.encode(&mut message);
        let answer = self.vendor(TDISP, &message).unwrap();
        let answer = ResponseMessage::decode(&answer).unwrap();
        assert_eq!(answer.interface, interface, "INTERFACE_ID comes back");
        then(answer.response)
    }

    /// The first selective stream.
    pub fn stream(&mut self) -> SelectiveStream {
        let capability = self.inventory.ide.unwrap();
        selective_streams(self.device.config().unwrap(), capability).unwrap().remove(0)
    }

    /// Programs and starts the six keys of key set 0 for [`STREAM`], then enables the stream and finds it secure.
    pub fn secure_stream(&mut self) {
        let stream = self.stream();
        let settings = StreamSettings { id: STREAM, partner: (0, 0, 0xFFFF) };
        stream.program(self.device.config().unwrap(), settings).unwrap();
        self.key_stream(STREAM);
        stream.set_enabled(self.device.config().unwrap(), true).unwrap();
        assert!(stream.secure(self.device.config().unwrap()).unwrap().0, "secure at the next read");
    }

    /// Programs and starts the six keys of key set 0 for the stream with this id.
    pub fn key_stream(&mut self, stream_id: u8) {
        for slot in KeySlot::of_set(KeySet::Zero) {
            let head = KeyHead::new(0, stream_id, slot);
            self.ide_km(&IdeKm::KeyProg(head, KeyMaterial::new([0x5A; 32])), |answer| {
                let IdeKm::KpAck(ack) = answer else { panic!("{answer:?}") };
                assert_eq!(ack.status, KpAckStatus::SUCCESS);
            });
        }
        for slot in KeySlot::of_set(KeySet::Zero) {
            self.ide_km(&IdeKm::KSetGo(KeyHead::new(0, stream_id, slot)), |answer| {
                assert!(matches!(answer, IdeKm::KGoStopAck(_)), "{answer:?}");
            });
        }
    }

    /// LOCK with [`STREAM`] and these flags; the nonce, or the error.
    pub fn try_lock(&mut self, function: u16, flags: LockFlags, offset: u64) -> Result<Nonce, ErrorCode> {
        let lock = LockRequest {
            flags,
            default_stream_id: STREAM,
            mmio_reporting_offset: offset,
            ..LockRequest::default()
        };
        self.tdisp(function, Request::Lock(lock), |answer| match answer {
            Tdisp::Lock(nonce) => Ok(nonce),
            Tdisp::Error { code, .. } => Err(code),
            other => panic!("{other:?}"),
        })
    }

    /// A request that has no other answer than yes; the error code where it is refused.
    pub fn ask(&mut self, function: u16, request: Request<'_>) -> Result<(), ErrorCode> {
        self.tdisp(function, request, |answer| match answer {
            Tdisp::Error { code, .. } => Err(code),
            Tdisp::BindP2p | Tdisp::UnbindP2p | Tdisp::SetMmioAttribute | Tdisp::Vdm(_) => Ok(()),
            other => panic!("{other:?}"),
        })
    }

    /// LOCK that has to succeed.
    pub fn lock(&mut self, function: u16) -> Nonce {
        self.try_lock(function, LockFlags::new(), 0).unwrap()
    }

    /// START that has to succeed.
    pub fn start(&mut self, function: u16, nonce: Nonce) {
        self.tdisp(function, Request::Start(nonce), |answer| assert_eq!(answer, Tdisp::Start));
    }

    /// From a fresh connection to RUN.
    pub fn run(&mut self) {
        self.session();
        self.secure_stream();
        let nonce = self.lock(0);
        self.start(0, nonce);
        assert_eq!(self.state(0), TdiState::RUN);
    }

    /// STOP.
    pub fn stop(&mut self, function: u16) {
        self.tdisp(function, Request::Stop, |answer| assert_eq!(answer, Tdisp::Stop));
    }

    /// The TDI's state, by GET_DEVICE_INTERFACE_STATE.
    pub fn state(&mut self, function: u16) -> TdiState {
        self.tdisp(function, Request::GetState, |answer| match answer {
            Tdisp::State(state) => state,
            other => panic!("{other:?}"),
        })
    }

    /// The whole interface report, in portions of `portion` bytes.
    pub fn report(&mut self, function: u16, portion: u16) -> InterfaceReport {
        let mut bytes = Vec::new();
        loop {
            let request = Request::GetReport { offset: bytes.len() as u16, length: portion };
            let left = self.tdisp(function, request, |answer| match answer {
                Tdisp::Report { portion, remainder } => {
                    bytes.extend_from_slice(portion);
                    remainder
                }
                other => panic!("{other:?}"),
            });
            if left == 0 {
                return InterfaceReport::decode(&bytes).unwrap();
            }
        }
    }
}
