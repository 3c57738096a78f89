//! Frames of the socket spdm-emu speaks (also QEMU's `spdm_port`): a 12-byte big-endian header, then the payload. Codec only.

use core::mem::size_of;

use thiserror::Error;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Largest payload a peer may announce, in bytes: spdm-emu's own buffers hold 0x1200.
pub const MAX_PAYLOAD: usize = 0x1200;

/// What a frame asks for or answers. Open: a peer may send any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command(pub u32);

impl Command {
    /// An SPDM message in the framing of the transport: for PCI DOE one whole data object.
    pub const NORMAL: Self = Self(0x0001);
    /// A TDISP message without SPDM around it, nor the protocol id before it; the answer's frame says NORMAL.
    pub const TDISP: Self = Self(0x0002);
    /// The responder is to ask for KEY_UPDATE when GET_ENCAPSULATED_REQUEST comes next. The payload is the session's id in
    /// little-endian order, or nothing, as older requesters send it. Answered with the same, empty.
    pub const ENCAPSULATED_KEY_UPDATE: Self = Self(0x8001);
    /// The responder is to ask for GET_ENDPOINT_INFO in the same way. No payload; answered with the same.
    pub const ENCAPSULATED_ENDPOINT_INFO: Self = Self(0x8002);
    /// Echo, close the connection, accept the next one with the state kept.
    pub const CONTINUE: Self = Self(0xFFFD);
    /// Echo and exit.
    pub const SHUTDOWN: Self = Self(0xFFFE);
    /// The answer to a command the responder does not know.
    pub const UNKNOWN: Self = Self(0xFFFF);
    /// `Client Hello!\0` is answered with `Server Hello!\0`.
    pub const TEST: Self = Self(0xDEAD);
}

/// The transport binding of a frame's payload. Open: a peer may send any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transport(pub u32);

impl Transport {
    /// No transport: the payload is a bare SPDM message.
    pub const NONE: Self = Self(0);
    /// MCTP (DSP0275).
    pub const MCTP: Self = Self(1);
    /// PCI DOE (PCIe 6.1 §6.30).
    pub const PCI_DOE: Self = Self(2);
    /// TCP (DSP0287).
    pub const TCP: Self = Self(3);
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    command: U32,
    transport: U32,
    length: U32,
}

/// Bytes before the payload.
pub const HEADER_SIZE: usize = size_of::<RawHeader>();
const _: () = assert!(HEADER_SIZE == 12);

/// One frame, its payload borrowed from the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it asks for or answers.
    pub command: Command,
    /// How the payload is framed.
    pub transport: Transport,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

/// A header that announces more than [`MAX_PAYLOAD`]. The stream cannot be followed any further.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("frame announces {announced} bytes of payload, the limit is {MAX_PAYLOAD}")]
pub struct Oversize {
    /// The length field, in bytes.
    pub announced: u32,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes` and how many bytes it takes; `None` until it is complete.
    ///
    /// # Errors
    /// [`Oversize`], already when only the header is there: nothing has to be buffered to find out.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Oversize> {
        let Ok((header, rest)) = RawHeader::ref_from_prefix(bytes) else { return Ok(None) };
        let announced = header.length.get();
        let length =
            usize::try_from(announced).ok().filter(|l| *l <= MAX_PAYLOAD).ok_or(Oversize { announced })?;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Self {
            command: Command(header.command.get()),
            transport: Transport(header.transport.get()),
            payload,
        };
        Ok(Some((frame, HEADER_SIZE + length)))
    }

    /// Appends the frame to `out`. Write the result in one piece: peers measure in round trips.
    ///
    /// # Errors
    /// [`Oversize`] if the payload is longer than a peer takes; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Oversize> {
        let announced = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        if self.payload.len() > MAX_PAYLOAD {
            return Err(Oversize { announced });
        }
        let header = RawHeader {
            command: U32::new(self.command.0),
            transport: U32::new(self.transport.0),
            length: U32::new(announced),
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"\0\0\xDE\xAD\0\0\0\x02\0\0\0\x0EClient Hello!\0";

    #[test]
    fn golden_both_ways() {
        let frame =
            Frame { command: Command::TEST, transport: Transport::PCI_DOE, payload: b"Client Hello!\0" };
        let mut out = vec![0xA5];
        frame.encode(&mut out).unwrap();
        assert_eq!(&out[1..], HELLO);
        assert_eq!(Frame::parse(HELLO), Ok(Some((frame, HELLO.len()))));
    }

    #[test]
    fn every_truncation_waits_and_the_next_frame_stays() {
        for end in 0..HELLO.len() {
            assert_eq!(Frame::parse(&HELLO[..end]), Ok(None), "{end}");
        }
        let two = [HELLO, HELLO].concat();
        let (_, taken) = Frame::parse(&two).unwrap().unwrap();
        assert_eq!(taken, HELLO.len());
    }

    #[test]
    fn oversize_is_refused_from_the_header_alone() {
        let header = [0, 0, 0, 1, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(Frame::parse(&header), Err(Oversize { announced: u32::MAX }));
        let long = vec![0; MAX_PAYLOAD + 1];
        let frame = Frame { command: Command::NORMAL, transport: Transport::PCI_DOE, payload: &long };
        let mut out = vec![0xA5];
        assert!(frame.encode(&mut out).is_err());
        assert_eq!(out, [0xA5]);
    }
}
