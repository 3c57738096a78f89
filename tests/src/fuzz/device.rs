//! The composed device: register traffic, data objects, messages behind the AEAD, resets and time, in any order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]

use std::time::Duration;

use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::{Response, Transport as SpdmTransport};
use spdm::session::Session;
use spdm::wire::{VendorDefined, Version};
use tdisp::wire::ide_km::{KeyHead, KeyMaterial, KeySet, KeySlot, Object as IdeKm};
use tdisp::wire::{
    Header, InterfaceId, LockRequest, MessageCode, Nonce, Request, RequestMessage, Response as Tdisp,
    ResponseMessage, TdiState,
};
use tdispctl::error::Result;
use tdispctl::pci::capabilities::{Inventory, read as inventory};
use tdispctl::pci::ide::{SelectiveStream, StreamSettings, selective_streams};
use tdispctl::pci::{COMMAND, ConfigSpace, Width, bars};
use tdispd::config::Config;
use tdispd::device::Device;
use tdispd::function::{DmaError, Work};

use super::peer::{material, open, requester, requesters_end};
use super::script::Script;

pub(super) const STREAM: u8 = 7;
const IDE_KM: u8 = 0;
const TDISP: u8 = 1;
const MEMORY_BAR: u32 = 2;
/// Where the TVM keeps its secret, in the private half of the memory BAR.
const SECRET_AT: u64 = 0x3000;
const SECRET: [u8; 16] = *b"a TVM's secret!!";

/// Configuration space of function 0.
struct Space<'a>(&'a mut Device);

impl ConfigSpace for Space<'_> {
    fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
        let mut value = [0; 4];
        self.0.config_read(0, offset, &mut value[..width.bytes()]);
        Ok(u32::from_le_bytes(value))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()> {
        self.0.config_write(0, offset, &value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }
}

/// SPDM past the mailbox.
struct Carrier<'a>(&'a mut Device);

impl SpdmTransport for Carrier<'_> {
    type Error = ();

    fn exchange(&mut self, secured: bool, message: &[u8]) -> std::result::Result<Response, ()> {
        let bytes = exchange(self.0, Duration::ZERO, secured, message).ok_or(())?;
        Ok(Response { secured, bytes })
    }

    fn wait(&mut self, _delay: Duration) {}
}

fn exchange(device: &mut Device, now: Duration, secured: bool, message: &[u8]) -> Option<Vec<u8>> {
    let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
    let (mut object, mut response) = (Vec::new(), Vec::new());
    Object { vendor: VENDOR_PCI_SIG, kind, payload: message }.encode(&mut object).unwrap();
    device.exchange(now, &object, &mut response).then(|| Object::parse(&response).unwrap().payload.to_vec())
}

/// How far the host has come when the traffic begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Fresh,
    Session,
    Secure,
    Locked,
    Run,
}

const STAGES: [Stage; 5] = [Stage::Fresh, Stage::Session, Stage::Secure, Stage::Locked, Stage::Run];

struct World {
    device: Device,
    inventory: Inventory,
    stream: SelectiveStream,
    session: Option<Session>,
    nonce: Option<Nonce>,
    now: Duration,
    /// Set by a START that carried the nonce of the last LOCK, until the next event.
    may_run: bool,
}

impl World {
    fn new(stage: Stage) -> Self {
        let config: Config =
            toml::from_str("[spdm]\nheartbeat_seconds = 5\n[[spdm.slot]]\nkey = \"ecdsa-p256\"\n").unwrap();
        let config = config.for_sockets(1).unwrap();
        // An identity that is there already spares making one for every input.
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("slot0.chain.pem"), material().chain_pem()).unwrap();
        std::fs::write(state.path().join("slot0.key.pem"), material().key_pem().as_bytes()).unwrap();
        let mut device = Device::new(&config, Some(state.path())).unwrap();
        let mut space = Space(&mut device);
        let inventory = inventory(&mut space).unwrap();
        let stream = selective_streams(&mut space, inventory.ide.unwrap()).unwrap().remove(0);
        let mut world = Self {
            device,
            inventory,
            stream,
            session: None,
            nonce: None,
            now: Duration::ZERO,
            may_run: false,
        };
        if stage >= Stage::Session {
            world.bring(stage);
        }
        world
    }

    fn bring(&mut self, stage: Stage) {
        let mut space = Space(&mut self.device);
        let mut found = bars::size(&mut space).unwrap();
        bars::assign(&mut space, &mut found).unwrap();
        space.write(COMMAND, Width::Word, 6).unwrap();
        let saved = open(&mut requester(false), Carrier(&mut self.device));
        self.session = Some(requesters_end(&saved));
        if stage >= Stage::Secure {
            let settings = StreamSettings { id: STREAM, partner: (0, 0, 0xFFFF) };
            self.stream.program(&mut Space(&mut self.device), settings).unwrap();
            for slot in KeySlot::of_set(KeySet::Zero) {
                self.ide_km(&IdeKm::KeyProg(KeyHead::new(0, STREAM, slot), KeyMaterial::new([0x5A; 32])));
            }
            for slot in KeySlot::of_set(KeySet::Zero) {
                self.ide_km(&IdeKm::KSetGo(KeyHead::new(0, STREAM, slot)));
            }
            self.stream.set_enabled(&mut Space(&mut self.device), true).unwrap();
        }
        if stage >= Stage::Locked {
            self.lock();
            assert_eq!(self.device.tdi_state(0), TdiState::CONFIG_LOCKED);
        }
        if stage >= Stage::Run {
            self.start();
            assert_eq!(self.device.tdi_state(0), TdiState::RUN);
        }
    }

    fn lock(&mut self) {
        self.request(Request::Lock(LockRequest { default_stream_id: STREAM, ..LockRequest::default() }));
    }

    fn start(&mut self) {
        let nonce = self.nonce.clone().unwrap_or(Nonce::new([0x77; 32]));
        self.request(Request::Start(nonce));
    }

    fn request(&mut self, request: Request<'_>) {
        let mut message = Vec::new();
        RequestMessage { interface: InterfaceId::default(), request }.encode(&mut message);
        self.vendor(TDISP, &message);
    }

    fn ide_km(&mut self, object: &IdeKm<'_>) {
        let mut message = Vec::new();
        object.encode(&mut message);
        self.vendor(IDE_KM, &message);
    }

    /// A vendor-defined request of the PCI-SIG in the session.
    fn vendor(&mut self, protocol: u8, message: &[u8]) {
        let payload = [&[protocol], message].concat();
        let mut plain = Vec::new();
        let request = VendorDefined {
            version: Version::V1_4,
            large: false,
            standard_id: 3,
            vendor_id: &[1, 0],
            payload: &payload,
        };
        request.encode_request(&mut plain).unwrap();
        if message.get(1) == Some(&MessageCode::START_INTERFACE_REQUEST.0)
            && let (Some(nonce), Some(sent)) = (&self.nonce, message.get(16..))
        {
            self.may_run |= protocol == TDISP && sent == nonce.as_bytes();
        }
        let Some(answer) = self.sealed(&plain) else { return };
        let Ok((answer, _)) =
            VendorDefined::parse_response(&mut spdm::codec::Reader::new(&answer)).map(|a| (a, ()))
        else {
            return;
        };
        if let Some((&TDISP, answer)) = answer.payload.split_first()
            && let Tdisp::Lock(nonce) = ResponseMessage::decode(answer).unwrap().response
        {
            self.nonce = Some(nonce);
        }
    }

    /// Any plain text in the session.
    fn sealed(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let session = self.session.as_mut()?;
        let mut record = Vec::new();
        session.seal(plain, &mut record).unwrap();
        let answer = exchange(&mut self.device, self.now, true, &record)?;
        let mut out = Vec::new();
        // After a KEY_UPDATE of both directions it cannot be read any more, which is the input's own doing.
        session.open(&answer, &mut out).ok().map(|()| out)
    }

    /// A whole data object through the mailbox, dword by dword, and the answer read to its end.
    fn object(&mut self, kind: u8, payload: &[u8], read: bool) {
        let at = self.inventory.doe[0].offset;
        let mut object = Vec::new();
        Object { vendor: VENDOR_PCI_SIG, kind: ObjectType(kind), payload }.encode(&mut object).unwrap();
        for dword in object.as_chunks::<4>().0 {
            self.device.config_write(0, at + 0x10, dword);
        }
        self.device.config_write(0, at + 0x08, &(1_u32 << 31).to_le_bytes());
        self.device.run(self.now);
        self.device.deliver();
        let mut status = [0; 4];
        for _ in 0..=0x1200 {
            self.device.config_read(0, at + 0x0C, &mut status);
            if !read || status[3] & 0x80 == 0 {
                return;
            }
            self.device.config_write(0, at + 0x14, &[0; 4]);
        }
        assert_eq!(status[3] & 0x80, 0, "an answer without an end");
    }

    fn event(&mut self, event: u8, script: &mut Script<'_>) {
        match event % 16 {
            0 | 1 => {
                let (at, data) = (script.u16() % 4096, script.sized(8));
                let data = &data[..data.len().min(4096 - usize::from(at))];
                self.device.config_write(0, at, data);
            }
            2 => {
                let at = script.u16() % 4096;
                let length = usize::from(script.byte()).min(4096 - usize::from(at));
                self.device.config_read(0, at, &mut vec![0xA5; length]);
            }
            3 | 4 => {
                let (bar, at, data) = (script.byte() % 8, script.u32(), script.sized(32));
                // Whoever knows the secret can write it where everybody reads.
                if !data.windows(4).any(|piece| SECRET.windows(4).any(|part| part == piece)) {
                    self.device.bar_write(0, bar.into(), at.into(), data);
                }
            }
            5 => {
                let (bar, at, length) = (script.byte() % 8, script.u32(), script.byte());
                self.device.bar_read(0, bar.into(), at.into(), &mut vec![0xA5; length.into()]);
            }
            6 => self.object(script.byte() % 4, script.sized(600), script.byte() & 1 == 0),
            7 => self.device.reset(0),
            8 => {
                self.now += Duration::from_millis(script.u16().into());
                self.device.tick(self.now);
            }
            9 => self.vendor(script.byte() % 3, script.sized(600)),
            10 => {
                let mut message = Vec::new();
                Header::new(MessageCode(script.byte()), InterfaceId::default()).encode(&mut message);
                message.extend_from_slice(script.sized(600));
                self.vendor(TDISP, &message);
            }
            11 => {
                let mut message = vec![2 + script.byte() % 4, 0, 0, STREAM, 0, script.byte(), 0];
                if message[0] == 2 {
                    message.extend_from_slice(&[0x5A; 32]);
                    message.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
                }
                self.vendor(IDE_KM, &message);
            }
            12 => self.lock(),
            13 => self.start(),
            14 => self.request(Request::Stop),
            _ => drop(self.sealed(script.sized(600))),
        }
        self.device.run(self.now);
        self.device.deliver();
    }

    /// The function's work, and that it is let do it.
    fn work(&mut self) {
        for turn in 0.. {
            assert!(turn < 10_000, "a function never runs out of work");
            let Some(work) = self.device.poll_work(0) else { return };
            let state = self.device.tdi_state(0);
            let dma = [TdiState::CONFIG_UNLOCKED, TdiState::RUN].contains(&state);
            match work {
                Work::DmaRead { id, length, .. } => {
                    assert!(dma, "DMA in {state}");
                    let data = vec![7; length];
                    self.device.dma_done(0, id, if turn % 3 == 0 { Err(DmaError::Fault) } else { Ok(&data) });
                }
                Work::DmaWrite { id, data, .. } => {
                    assert!(dma, "DMA in {state}");
                    let secret = data.windows(SECRET.len()).any(|piece| piece == SECRET);
                    assert!(!secret || state == TdiState::RUN, "the secret leaves in {state}");
                    self.device.dma_done(0, id, Ok(&[]));
                }
                Work::Interrupt { vector } => assert!(vector < self.device.vectors(0)),
                Work::IntxLevel(_) => {}
            }
        }
    }

    fn check(&mut self, before: TdiState) {
        let state = self.device.tdi_state(0);
        let bound = state == TdiState::CONFIG_LOCKED || state == TdiState::RUN;
        if bound {
            assert!(
                self.stream.secure(&mut Space(&mut self.device)).unwrap().0,
                "{state} over an insecure stream"
            );
        }
        if state == TdiState::RUN && before != TdiState::RUN {
            assert!(before == TdiState::CONFIG_LOCKED && self.may_run, "RUN from {before} without the nonce");
        }
        let mut seen = [0; SECRET.len()];
        self.device.bar_read(0, MEMORY_BAR, SECRET_AT, &mut seen);
        match state {
            TdiState::RUN => self.device.bar_write(0, MEMORY_BAR, SECRET_AT, &SECRET),
            TdiState::CONFIG_UNLOCKED => assert_ne!(seen, SECRET, "not scrubbed"),
            _ => assert_eq!(seen, [0xFF; SECRET.len()], "private memory shows in {state}"),
        }
    }
}

/// Whatever a host, a guest and a TSM do: the device answers within its regions, comes to LOCKED and RUN over a secure stream
/// and with the nonce only, does no DMA where it must not, and shows a TVM's secret to nobody once RUN is left.
pub fn device_traffic(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let stage = STAGES[usize::from(script.byte()) % STAGES.len()];
    let mut world = World::new(stage);
    world.check(world.device.tdi_state(0));
    while let Some(event) = script.event() {
        let before = world.device.tdi_state(0);
        world.may_run = false;
        world.event(event, &mut script);
        world.work();
        world.check(before);
    }
    let mut id = [0; 4];
    world.device.config_read(0, 0, &mut id);
    assert_eq!(id, [0x34, 0x12, 0x15, 0x7D], "what cannot be changed is what it was");
}
