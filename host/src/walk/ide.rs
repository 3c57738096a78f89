//! The IDE stream: its registers through configuration space, its keys through IDE_KM in the session.

use ring::rand::{SecureRandom, SystemRandom};
use tdisp::wire::ide_km::{KEY_LENGTH, KeyHead, KeyMaterial, KeySet, KeySlot, KpAckStatus, Object};
use zeroize::Zeroizing;

use super::session::Bound;
use super::{Seen, Walk};
use crate::cli::{IdeOrder, LockArgs};
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::pci::ide::{SelectiveStream, StreamSettings, selective_streams};
use crate::pci::{ConfigSpace, Width};

/// Protocol id of IDE_KM in a vendor-defined message of PCI-SIG's.
const PROTOCOL_IDE_KM: u8 = 0;
/// The device's port towards the root port.
const PORT: u8 = 0;
/// Stream id where the caller has no wish. Not the reset value, so that a device that ignores it shows.
const STREAM_ID: u8 = 1;

impl Walk {
    /// Brings a stream up in the order asked for, and notes it in the binding.
    pub(super) fn bring_up_stream(&mut self, args: &LockArgs) -> Result<()> {
        let stream = self.choose_stream()?;
        let id = match (args.stream_id, &stream) {
            (Some(id), _) => id,
            (None, Some(_)) => STREAM_ID,
            (None, None) => self.query()?,
        };
        if let Some(bound) = &mut self.bound {
            bound.stream_id = id;
            bound.stream_index = stream.map(|stream| stream.index);
        }
        let Some(stream) = stream else {
            // Without configuration space somebody else has to enable the stream.
            return self.program_keys(id, KeySet::Zero);
        };
        self.program_stream(stream, id)?;
        self.query()?;
        match args.ide_order {
            IdeOrder::KeysFirst => {
                self.program_keys(id, KeySet::Zero)?;
                self.enable_stream(stream)?;
            }
            IdeOrder::EnableFirst => {
                self.enable_stream(stream)?;
                self.program_keys(id, KeySet::Zero)?;
            }
        }
        self.step(Layer::Ide, "stream status", "secure at the first read", |walk| {
            let (secure, status) = stream.secure(walk.configuration()?)?;
            let text = format!("{status:#010x}, {}", if secure { "secure" } else { "insecure" });
            Ok(Seen::checked((), text, secure))
        })
    }

    pub(super) fn configuration(&mut self) -> Result<&mut dyn ConfigSpace> {
        self.transport
            .config()
            .ok_or_else(|| Error::NoDevice("this target has no configuration space".into()))
    }

    /// The first stream that is not in use, or the first of all; none without configuration space.
    fn choose_stream(&mut self) -> Result<Option<SelectiveStream>> {
        let Some(inventory) = &self.found()?.inventory else { return Ok(None) };
        let offset =
            inventory.ide.ok_or_else(|| Error::NoDevice("the function has no IDE capability".into()))?;
        let config = self.configuration()?;
        let streams = selective_streams(config, offset)?;
        let mut free = None;
        for stream in &streams {
            if !stream.enabled(config)? {
                free = Some(*stream);
                break;
            }
        }
        Ok(free.or_else(|| streams.first().copied()))
    }

    fn program_stream(&mut self, stream: SelectiveStream, id: u8) -> Result<()> {
        let partner = self.transport.port_above().map_or((0, 0, 0), |port| {
            let [segment, _] = port.segment.to_le_bytes();
            (segment, port.requester_id(), port.requester_id())
        });
        let name = format!("selective stream {}", stream.index);
        self.step(Layer::Ide, &name, "registers take id, default and associations", |walk| {
            stream.program(walk.configuration()?, StreamSettings { id, partner })?;
            Ok(Seen::good((), format!("stream id {id}, default stream, partner {:#06x}", partner.1)))
        })
    }

    pub(super) fn enable_stream(&mut self, stream: SelectiveStream) -> Result<()> {
        self.step(Layer::Ide, "enable", "the enable bit sticks", |walk| {
            let config = walk.configuration()?;
            stream.set_enabled(config, true)?;
            let enabled = stream.enabled(config)?;
            Ok(Seen::checked((), if enabled { "enabled" } else { "still disabled" }, enabled))
        })
    }

    /// QUERY: the stream id that the first selective stream has in the register image.
    fn query(&mut self) -> Result<u8> {
        self.step(Layer::Ide, "QUERY", "the capability's registers", |walk| {
            let answer = walk.ide_km(&Object::Query(PORT))?;
            let Object::QueryResponse(response) = decode(&answer)? else {
                return Err(unexpected("QUERY"));
            };
            let mut image = Image(response.registers);
            let streams = selective_streams(&mut image, 0)?;
            let first = streams.first().ok_or_else(|| Error::Protocol("QUERY shows no stream".into()))?;
            let id = first.id(&mut image)?;
            let (bus, devfn) = (response.bus, response.dev_func);
            let text = format!(
                "port {} of {:02x}:{:02x}.{}, {} streams, first has id {id}",
                response.port_index,
                bus,
                devfn >> 3,
                devfn & 7,
                streams.len()
            );
            Ok(Seen::checked(id, text, response.port_index == PORT))
        })
    }

    /// Six KEY_PROG with fresh keys, then six K_SET_GO.
    pub(super) fn program_keys(&mut self, stream_id: u8, set: KeySet) -> Result<()> {
        self.step(Layer::Ide, "KEY_PROG, six keys", "six times success", |walk| {
            let random = SystemRandom::new();
            for slot in KeySlot::of_set(set) {
                let mut key = Zeroizing::new([0; KEY_LENGTH]);
                random
                    .fill(&mut *key)
                    .map_err(|_| Error::NoDevice("the random number generator failed".into()))?;
                let head = KeyHead::new(PORT, stream_id, slot);
                let answer = walk.ide_km(&Object::KeyProg(head, KeyMaterial::new(*key)))?;
                let Object::KpAck(ack) = decode(&answer)? else { return Err(unexpected("KEY_PROG")) };
                if ack.status != KpAckStatus::SUCCESS {
                    return Err(Error::Refused {
                        request: format!("KEY_PROG {:?} {:?}", slot.direction, slot.sub_stream),
                        reason: ack.status.to_string(),
                    });
                }
                check_head("KEY_PROG", head, ack)?;
            }
            Ok(Seen::good((), format!("stream {stream_id}: RX and TX of posted, non-posted, completion")))
        })?;
        self.step(Layer::Ide, "K_SET_GO, six keys", "six acknowledgements", |walk| {
            for slot in KeySlot::of_set(set) {
                let head = KeyHead::new(PORT, stream_id, slot);
                let answer = walk.ide_km(&Object::KSetGo(head))?;
                let Object::KGoStopAck(ack) = decode(&answer)? else { return Err(unexpected("K_SET_GO")) };
                check_head("K_SET_GO", head, ack)?;
            }
            Ok(Seen::good((), format!("{} in use", name_of(set))))
        })
    }

    /// Six K_SET_STOP.
    pub(super) fn stop_keys(&mut self, stream_id: u8, set: KeySet) -> Result<()> {
        self.step(Layer::Ide, "K_SET_STOP, six keys", "six acknowledgements", |walk| {
            for slot in KeySlot::of_set(set) {
                let head = KeyHead::new(PORT, stream_id, slot);
                let answer = walk.ide_km(&Object::KSetStop(head))?;
                let Object::KGoStopAck(ack) = decode(&answer)? else { return Err(unexpected("K_SET_STOP")) };
                check_head("K_SET_STOP", head, ack)?;
            }
            Ok(Seen::good((), format!("{} is gone", name_of(set))))
        })
    }

    /// Disables the stream of a session that has ended.
    pub(super) fn disable_stream(&mut self, bound: &Bound) -> Result<()> {
        let Some(index) = bound.stream_index else { return Ok(()) };
        let Some(offset) = self.found()?.inventory.as_ref().and_then(|inventory| inventory.ide) else {
            return Ok(());
        };
        self.step(Layer::Ide, "disable", "the enable bit goes", |walk| {
            let config = walk.configuration()?;
            let streams = selective_streams(config, offset)?;
            let Some(stream) = streams.iter().find(|stream| stream.index == index) else {
                return Err(Error::Protocol(format!("selective stream {index} is gone")));
            };
            stream.set_enabled(config, false)?;
            let (enabled, (secure, _)) = (stream.enabled(config)?, stream.secure(config)?);
            let text = if enabled { "still enabled" } else { "disabled" };
            Ok(Seen::checked((), text, !enabled && !secure))
        })
    }

    fn ide_km(&mut self, object: &Object<'_>) -> Result<Vec<u8>> {
        let mut payload = Zeroizing::new(vec![PROTOCOL_IDE_KM]);
        object.encode(&mut payload);
        log::debug!("IDE_KM object {:#04x}", payload.get(1).copied().unwrap_or_default());
        let mut answer = self.vendor(&payload)?;
        if answer.first() != Some(&PROTOCOL_IDE_KM) {
            return Err(Error::Protocol("an IDE_KM request was answered in another protocol".into()));
        }
        answer.remove(0);
        log::debug!("IDE_KM object {:#04x}", answer.first().copied().unwrap_or_default());
        Ok(answer)
    }
}

const fn name_of(set: KeySet) -> &'static str {
    match set {
        KeySet::Zero => "key set 0",
        KeySet::One => "key set 1",
    }
}

fn decode(answer: &[u8]) -> Result<Object<'_>> {
    Object::decode(answer).map_err(|e| Error::Protocol(format!("IDE_KM answer: {e}")))
}

fn unexpected(request: &str) -> Error {
    Error::Protocol(format!("{request} was answered with another object"))
}

fn check_head(request: &str, sent: KeyHead, received: KeyHead) -> Result<()> {
    let same = (sent.stream_id, sent.key, sent.port_index)
        == (received.stream_id, received.key, received.port_index);
    if same { Ok(()) } else { Err(Error::Protocol(format!("{request} was acknowledged for another key"))) }
}

/// QUERY_RESP's register image, which begins with the capability register, as a capability at offset 0.
struct Image<'a>(&'a [u8]);

impl ConfigSpace for Image<'_> {
    fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
        let short = || Error::Protocol(format!("QUERY_RESP shows only {} bytes of registers", self.0.len()));
        let at = usize::from(offset).checked_sub(4).ok_or_else(short)?;
        let bytes = self.0.get(at..).and_then(|rest| rest.get(..width.bytes())).ok_or_else(short)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn write(&mut self, _: u16, _: Width, _: u32) -> Result<()> {
        Err(Error::Usage("a register image cannot be written".into()))
    }
}
