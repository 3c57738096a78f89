//! IDE_KM data objects, both directions (PCIe 6.1 §6.33.3 "IDE Key Management").

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::reader::{DecodeError, Reader};

/// QUERY.
pub const OBJECT_QUERY: u8 = 0x00;
/// QUERY_RESP.
pub const OBJECT_QUERY_RESP: u8 = 0x01;
/// KEY_PROG.
pub const OBJECT_KEY_PROG: u8 = 0x02;
/// KP_ACK.
pub const OBJECT_KP_ACK: u8 = 0x03;
/// K_SET_GO.
pub const OBJECT_K_SET_GO: u8 = 0x04;
/// K_SET_STOP.
pub const OBJECT_K_SET_STOP: u8 = 0x05;
/// K_GOSTOP_ACK.
pub const OBJECT_K_GOSTOP_ACK: u8 = 0x06;

/// Length of an AES-256-GCM key in bytes: eight doublewords.
pub const KEY_LENGTH: usize = 32;
/// Length of KEY_PROG in bytes.
pub const KEY_PROG_LENGTH: usize = 47;
/// Length of the head that KEY_PROG, KP_ACK, K_SET_GO, K_SET_STOP and K_GOSTOP_ACK share.
pub const KEY_HEAD_LENGTH: usize = 7;

/// Which of a stream's two key sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySet {
    /// Key set 0.
    Zero,
    /// Key set 1.
    One,
}

/// Direction of a key, seen from the port that is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// Sub-stream of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubStream {
    /// Posted requests.
    Posted,
    /// Non-posted requests.
    NonPosted,
    /// Completions.
    Completion,
}

/// Which key of a stream, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeySlot {
    /// Key set.
    pub set: KeySet,
    /// Direction.
    pub direction: Direction,
    /// Sub-stream.
    pub sub_stream: SubStream,
}

impl KeySlot {
    /// All twelve slots of a stream: set by set, RX before TX.
    pub fn all() -> impl Iterator<Item = Self> {
        [KeySet::Zero, KeySet::One].into_iter().flat_map(Self::of_set)
    }

    /// The six slots of one key set.
    pub fn of_set(set: KeySet) -> impl Iterator<Item = Self> {
        [Direction::Rx, Direction::Tx].into_iter().flat_map(move |direction| {
            [SubStream::Posted, SubStream::NonPosted, SubStream::Completion]
                .into_iter()
                .map(move |sub_stream| Self { set, direction, sub_stream })
        })
    }
}

/// The key and sub-stream byte as it stands in a message.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct KeySubStream {
    /// Key set 1 instead of 0.
    pub key_set_1: bool,
    /// Transmit instead of receive.
    pub tx: bool,
    /// Reserved, zero.
    #[bits(2)]
    pub reserved: u8,
    /// 0 posted, 1 non-posted, 2 completion.
    #[bits(4)]
    pub sub_stream: u8,
}

impl From<KeySlot> for KeySubStream {
    fn from(slot: KeySlot) -> Self {
        Self::new()
            .with_key_set_1(slot.set == KeySet::One)
            .with_tx(slot.direction == Direction::Tx)
            .with_sub_stream(match slot.sub_stream {
                SubStream::Posted => 0,
                SubStream::NonPosted => 1,
                SubStream::Completion => 2,
            })
    }
}

impl TryFrom<KeySubStream> for KeySlot {
    type Error = DecodeError;

    fn try_from(byte: KeySubStream) -> Result<Self, DecodeError> {
        let illegal = DecodeError::Value("key sub-stream", byte.into_bits().into());
        if byte.reserved() != 0 {
            return Err(illegal);
        }
        Ok(Self {
            set: if byte.key_set_1() { KeySet::One } else { KeySet::Zero },
            direction: if byte.tx() { Direction::Tx } else { Direction::Rx },
            sub_stream: match byte.sub_stream() {
                0 => SubStream::Posted,
                1 => SubStream::NonPosted,
                2 => SubStream::Completion,
                _ => return Err(illegal),
            },
        })
    }
}

/// Status of a KP_ACK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KpAckStatus(pub u8);

impl KpAckStatus {
    /// The key is in its slot.
    pub const SUCCESS: Self = Self(0);
    /// KEY_PROG was too short or too long.
    pub const INCORRECT_LENGTH: Self = Self(1);
    /// No such port.
    pub const UNSUPPORTED_PORT_INDEX: Self = Self(2);
    /// Another field holds a value that is not supported: stream id, sub-stream, IFV.
    pub const UNSUPPORTED_VALUE: Self = Self(3);
    /// Anything else.
    pub const UNSPECIFIED_FAILURE: Self = Self(4);
}

impl fmt::Display for KpAckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SUCCESS => f.write_str("success"),
            Self::INCORRECT_LENGTH => f.write_str("incorrect length"),
            Self::UNSUPPORTED_PORT_INDEX => f.write_str("unsupported port index"),
            Self::UNSUPPORTED_VALUE => f.write_str("unsupported value"),
            Self::UNSPECIFIED_FAILURE => f.write_str("unspecified failure"),
            Self(other) => write!(f, "status {other:#04x}"),
        }
    }
}

/// Stream, key and port: what five of the objects start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHead {
    /// IDE stream id.
    pub stream_id: u8,
    /// KP_ACK's status; reserved in the other objects.
    pub status: KpAckStatus,
    /// Which key.
    pub key: KeySubStream,
    /// Which port of the device.
    pub port_index: u8,
}

impl KeyHead {
    /// Head of a request for one key.
    pub fn new(port_index: u8, stream_id: u8, slot: KeySlot) -> Self {
        Self { stream_id, status: KpAckStatus::SUCCESS, key: slot.into(), port_index }
    }
}

/// A key as KEY_PROG carries it: 256 bits and the invocation field. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// The eight key doublewords, in the order of the message.
    pub key: [u8; KEY_LENGTH],
    /// The two doublewords of the initial invocation field, in the order of the message.
    pub ifv: [u32; 2],
}

impl KeyMaterial {
    /// The initial invocation field that is required: first doubleword 0, second 1.
    pub const INITIAL_IFV: [u32; 2] = [0, 1];

    /// A key with the initial invocation field.
    pub const fn new(key: [u8; KEY_LENGTH]) -> Self {
        Self { key, ifv: Self::INITIAL_IFV }
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(..)")
    }
}

/// Head of QUERY_RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryResponse<'a> {
    /// The port asked for.
    pub port_index: u8,
    /// Device and function number of the port.
    pub dev_func: u8,
    /// Bus number.
    pub bus: u8,
    /// Segment number.
    pub segment: u8,
    /// Highest port index there is.
    pub max_port_index: u8,
    /// The IDE extended capability from its capability register on.
    pub registers: &'a [u8],
}

/// An IDE_KM object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// QUERY with a port index.
    Query(u8),
    /// QUERY_RESP.
    QueryResponse(QueryResponse<'a>),
    /// KEY_PROG.
    KeyProg(KeyHead, KeyMaterial),
    /// KP_ACK.
    KpAck(KeyHead),
    /// K_SET_GO.
    KSetGo(KeyHead),
    /// K_SET_STOP.
    KSetStop(KeyHead),
    /// K_GOSTOP_ACK.
    KGoStopAck(KeyHead),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawQuery {
    object: u8,
    reserved: u8,
    port_index: u8,
}
const _: () = assert!(size_of::<RawQuery>() == 3);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawQueryResponse {
    object: u8,
    reserved: u8,
    port_index: u8,
    dev_func: u8,
    bus: u8,
    segment: u8,
    max_port_index: u8,
}
const _: () = assert!(size_of::<RawQueryResponse>() == 7);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawKeyHead {
    object: u8,
    reserved: [u8; 2],
    stream_id: u8,
    status: u8,
    key: u8,
    port_index: u8,
}
const _: () = assert!(size_of::<RawKeyHead>() == KEY_HEAD_LENGTH);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawKey {
    key: [u8; KEY_LENGTH],
    ifv: [zerocopy::little_endian::U32; 2],
}
const _: () = assert!(KEY_HEAD_LENGTH + size_of::<RawKey>() == KEY_PROG_LENGTH);

impl KeyHead {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw: &RawKeyHead = reader.structure("IDE_KM key object")?;
        Ok(Self {
            stream_id: raw.stream_id,
            status: KpAckStatus(raw.status),
            key: KeySubStream::from_bits(raw.key),
            port_index: raw.port_index,
        })
    }

    fn write(&self, object: u8, status: u8, out: &mut Vec<u8>) {
        let raw = RawKeyHead {
            object,
            reserved: [0; 2],
            stream_id: self.stream_id,
            status,
            key: self.key.into_bits(),
            port_index: self.port_index,
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The head of a key object whatever its length beyond the head: a KEY_PROG of a wrong length is still
    /// answered, with the head it had.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if not even the head is there.
    pub fn peek(object: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(object))
    }
}

impl<'a> Object<'a> {
    /// Decodes an object. Reserved fields are not judged.
    ///
    /// # Errors
    /// An unknown object id, or any other length than the object's own.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let id = *bytes.first().ok_or(DecodeError::Truncated("IDE_KM object id"))?;
        let mut reader = Reader::new(bytes);
        let object = match id {
            OBJECT_QUERY => Self::Query(reader.structure::<RawQuery>("QUERY")?.port_index),
            OBJECT_QUERY_RESP => {
                let raw: &RawQueryResponse = reader.structure("QUERY_RESP")?;
                Self::QueryResponse(QueryResponse {
                    port_index: raw.port_index,
                    dev_func: raw.dev_func,
                    bus: raw.bus,
                    segment: raw.segment,
                    max_port_index: raw.max_port_index,
                    registers: reader.rest(),
                })
            }
            OBJECT_KEY_PROG => {
                let head = KeyHead::read(&mut reader)?;
                let raw: &RawKey = reader.structure("KEY_PROG key")?;
                let [first, second] = raw.ifv;
                Self::KeyProg(head, KeyMaterial { key: raw.key, ifv: [first.get(), second.get()] })
            }
            OBJECT_KP_ACK => Self::KpAck(KeyHead::read(&mut reader)?),
            OBJECT_K_SET_GO => Self::KSetGo(KeyHead::read(&mut reader)?),
            OBJECT_K_SET_STOP => Self::KSetStop(KeyHead::read(&mut reader)?),
            OBJECT_K_GOSTOP_ACK => Self::KGoStopAck(KeyHead::read(&mut reader)?),
            unknown => return Err(DecodeError::UnknownObject(unknown)),
        };
        reader.finish()?;
        Ok(object)
    }

    /// Appends the object to `out`. Only KP_ACK writes its status; the byte is reserved elsewhere.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Query(port_index) => {
                let raw = RawQuery { object: OBJECT_QUERY, reserved: 0, port_index: *port_index };
                out.extend_from_slice(raw.as_bytes());
            }
            Self::QueryResponse(response) => {
                let raw = RawQueryResponse {
                    object: OBJECT_QUERY_RESP,
                    reserved: 0,
                    port_index: response.port_index,
                    dev_func: response.dev_func,
                    bus: response.bus,
                    segment: response.segment,
                    max_port_index: response.max_port_index,
                };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(response.registers);
            }
            Self::KeyProg(head, material) => {
                head.write(OBJECT_KEY_PROG, 0, out);
                out.extend_from_slice(&material.key);
                for word in &material.ifv {
                    out.extend_from_slice(&word.to_le_bytes());
                }
            }
            Self::KpAck(head) => head.write(OBJECT_KP_ACK, head.status.0, out),
            Self::KSetGo(head) => head.write(OBJECT_K_SET_GO, 0, out),
            Self::KSetStop(head) => head.write(OBJECT_K_SET_STOP, 0, out),
            Self::KGoStopAck(head) => head.write(OBJECT_K_GOSTOP_ACK, 0, out),
        }
    }
}
