//! CXL IDE_KM objects: PCIe's, with other key bits, a capability byte in QUERY_RESP, and GET_KEY
//! (CXL 3.1 "CXL_IDE_KM"; layouts as in DMTF's `cxl_idekm.h`).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{DecodeError, Reader};

const QUERY: u8 = 0x00;
const QUERY_RESP: u8 = 0x01;
pub(super) const KEY_PROG: u8 = 0x02;
const KP_ACK: u8 = 0x03;
const K_SET_GO: u8 = 0x04;
const K_SET_STOP: u8 = 0x05;
const K_GOSTOP_ACK: u8 = 0x06;
const GET_KEY: u8 = 0x07;
const GET_KEY_ACK: u8 = 0x08;

/// Bytes of a key and its initial value: 8 and 3 doublewords.
const KEY_AND_IV: usize = 44;
/// Bytes of the CXL IDE capability structure: its nine registers.
const REGISTERS: usize = 36;

/// KP_ACK: the key is there.
pub(super) const ACK_SUCCESS: u8 = 0;
/// KP_ACK: it is not.
pub(super) const ACK_INVALID: u8 = 1;

/// QUERY_RESP: version 1, and K_SET_STOP is there. It generates neither keys nor initial values.
const CAPABILITIES: u8 = 0x01 | 0x40;

/// The key and sub-stream byte.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub(super) struct KeyBits {
    /// Reserved, zero.
    pub(super) reserved: bool,
    /// Transmit instead of receive.
    pub(super) tx: bool,
    /// Reserved, zero.
    pub(super) reserved_2: bool,
    /// KEY_PROG: the default initial value. K_SET_GO: containment mode instead of skid mode.
    pub(super) option: bool,
    /// 8 is CXL.
    #[bits(4)]
    pub(super) sub_stream: u8,
}

impl KeyBits {
    const CXL: u8 = 8;

    /// Whether it names a key of a CXL link.
    pub(super) fn is_legal(self) -> bool {
        !self.reserved() && !self.reserved_2() && self.sub_stream() == Self::CXL
    }
}

/// What KEY_PROG, KP_ACK, K_SET_GO, K_SET_STOP, K_GOSTOP_ACK, GET_KEY and GET_KEY_ACK start with, after the object id. The
/// stream id is only echoed: a link has one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    stream_id: u8,
    pub(super) key: KeyBits,
    pub(super) port_index: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    object: u8,
    reserved: [u8; 2],
    stream_id: u8,
    status: u8,
    key: u8,
    port_index: u8,
}
const _: () = assert!(size_of::<RawHead>() == 7);

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
    capabilities: u8,
    registers: [u8; REGISTERS],
}
const _: () = assert!(size_of::<RawQueryResponse>() == 44);

/// A request, parsed. KEY_PROG's key stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Query(u8),
    KeyProg(Head),
    KSetGo(Head),
    KSetStop(Head),
    GetKey(Head),
}

impl Request {
    pub(super) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let id = *message.first().ok_or(DecodeError::Truncated("object id"))?;
        let mut reader = Reader::new(message);
        let request = match id {
            QUERY => Self::Query(reader.structure::<RawQuery>("QUERY")?.port_index),
            KEY_PROG => {
                let head = Head::read(&mut reader)?;
                reader.bytes(KEY_AND_IV, "KEY_PROG key")?;
                Self::KeyProg(head)
            }
            K_SET_GO => Self::KSetGo(Head::read(&mut reader)?),
            K_SET_STOP => Self::KSetStop(Head::read(&mut reader)?),
            GET_KEY => Self::GetKey(Head::read(&mut reader)?),
            other => return Err(DecodeError::UnknownObject(other)),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw: &RawHead = reader.structure("key object")?;
        Ok(Self { stream_id: raw.stream_id, key: KeyBits::from_bits(raw.key), port_index: raw.port_index })
    }

    /// The head of a KEY_PROG of any length.
    pub(super) fn peek(message: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(message))
    }

    fn write(self, object: u8, status: u8, out: &mut Vec<u8>) {
        let Self { stream_id, key, port_index } = self;
        let key = key.into_bits();
        let raw = RawHead { object, reserved: [0; 2], stream_id, status, key, port_index };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// QUERY_RESP of the only port: no address is known, and every register of the IDE capability reads as zero, "CXL IDE
/// Capable" first of all.
pub(super) fn query_response(out: &mut Vec<u8>) {
    let raw = RawQueryResponse {
        object: QUERY_RESP,
        reserved: 0,
        port_index: 0,
        dev_func: 0,
        bus: 0,
        segment: 0,
        max_port_index: 0,
        capabilities: CAPABILITIES,
        registers: [0; REGISTERS],
    };
    out.extend_from_slice(raw.as_bytes());
}

pub(super) fn key_programmed(head: Head, status: u8, out: &mut Vec<u8>) {
    head.write(KP_ACK, status, out);
}

pub(super) fn gone_or_stopped(head: Head, out: &mut Vec<u8>) {
    head.write(K_GOSTOP_ACK, 0, out);
}

/// GET_KEY_ACK without key and initial value: whoever reads the capabilities ignores both fields.
pub(super) fn no_key(head: Head, out: &mut Vec<u8>) {
    head.write(GET_KEY_ACK, 0, out);
    out.extend_from_slice(&[0; KEY_AND_IV]);
}
