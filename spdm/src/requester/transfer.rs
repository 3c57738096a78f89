//! Requests and responses larger than one transfer: CHUNK_SEND and CHUNK_GET around any command
//! (DSP0274 1.3 "Large SPDM message transfer mechanism").

use super::error::{Misuse, RequesterError, Violation};
use super::negotiate::both;
use super::state::{Core, Flow, Message, Request};
use crate::codec::EncodeError;
use crate::secured::LONGEST_MESSAGE;
use crate::wire::{
    Chunk, ChunkGet, ChunkSendAck, Code, ErrorCode, ErrorResponse, Header, RequesterFlags, ResponderFlags,
    Version, longest_chunked,
};

/// How the command's current request and response travel.
pub(super) enum Transfer {
    /// Each in one piece.
    Whole,
    /// The request goes in chunks.
    Sending(Sending),
    /// The response comes in chunks.
    Fetching(Fetching),
}

/// CHUNK_SEND of a request.
pub(super) struct Sending {
    handle: u8,
    /// Number of the chunk under way.
    sequence: u32,
    /// Bytes that went before it.
    sent: usize,
    /// Largest transfer, in bytes.
    transfer_size: usize,
}

/// CHUNK_GET of a response.
pub(super) struct Fetching {
    handle: u8,
    /// Number of the chunk under way.
    sequence: u32,
    message: Vec<u8>,
    /// Size of the whole, once the first chunk told it.
    size: Option<usize>,
    /// Largest size that is acceptable.
    limit: usize,
}

/// What the responder takes, in bytes.
struct Limits {
    transfer: usize,
    message: usize,
    chunks: bool,
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Limits {
    /// Limits of a request; nothing is known of them before CAPABILITIES.
    fn of(core: &Core, flow: &Flow) -> Option<Self> {
        let (version, flags, transfer, message) = match (flow, &core.connection) {
            (Flow::Algorithms(capable), _) => {
                let theirs = capable.capabilities();
                (theirs.version, theirs.flags, theirs.data_transfer_size, theirs.max_message_size)
            }
            (_, Some(connection)) => {
                let info = &connection.info;
                (info.version, info.capabilities, info.data_transfer_size, info.max_message_size)
            }
            (_, None) => return None,
        };
        let transfer = size(transfer).min(LONGEST_MESSAGE);
        let chunks = both(core.config.flags(), RequesterFlags::CHUNK, flags, ResponderFlags::CHUNK);
        let message = if chunks { size(message).min(longest_chunked(version, transfer)) } else { transfer };
        Some(Self { transfer, message, chunks })
    }
}

impl Core {
    /// Size in bytes of the longest response that we can take of this connection.
    pub(super) fn longest_response(&self) -> usize {
        let config = &self.config;
        let theirs = self.connection.as_ref().map(|connection| connection.info.capabilities);
        let chunks = theirs
            .is_some_and(|theirs| both(config.flags(), RequesterFlags::CHUNK, theirs, ResponderFlags::CHUNK));
        size(if chunks { config.max_message_size } else { config.data_transfer_size })
    }

    /// Whether ERROR may announce chunks of the response to this request now.
    pub(super) fn may_fetch(&self, request: &Request, transfer: &Transfer) -> bool {
        let sent = match transfer {
            Transfer::Whole => true,
            Transfer::Sending(sending) => sending.is_last(&request.bytes),
            Transfer::Fetching(_) => false,
        };
        // Before CAPABILITIES nobody knows whether the responder has chunks, but it seems so.
        let agreed = Limits::of(self, &request.flow).is_none_or(|limits| limits.chunks);
        sent && agreed && self.config.chunks && request.version >= Version::V1_2
    }
}

impl Transfer {
    /// How a request has to travel. `handle` counts the transfers.
    pub(super) fn plan(core: &Core, request: &Request, handle: &mut u8) -> Result<Self, Misuse> {
        let Some(limits) = Limits::of(core, &request.flow) else { return Ok(Self::Whole) };
        let length = request.bytes.len();
        if length <= limits.transfer {
            return Ok(Self::Whole);
        }
        if length > limits.message {
            return Err(Misuse::TooLong { length, limit: limits.message });
        }
        *handle = handle.wrapping_add(1);
        Ok(Self::Sending(Sending { handle: *handle, sequence: 0, sent: 0, transfer_size: limits.transfer }))
    }

    /// After ERROR LargeResponse.
    pub(super) fn fetch(core: &Core, error: &ErrorResponse<'_>) -> Self {
        let limit = size(core.config.max_message_size);
        let handle = error.extended.first().copied().unwrap_or_default();
        Self::Fetching(Fetching { handle, sequence: 0, message: Vec::new(), size: None, limit })
    }

    /// The message that goes next.
    pub(super) fn message(&self, request: &Request) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Whole => Ok(request.bytes.clone()),
            Self::Sending(sending) => sending.message(request.version, &request.bytes),
            Self::Fetching(Fetching { handle, sequence, .. }) => {
                let mut out = Vec::new();
                let get = ChunkGet { version: request.version, handle: *handle, sequence: *sequence };
                get.encode(&mut out).map(|()| out)
            }
        }
    }

    /// Takes the answer to a chunk; gives the response it completes, nothing while the next chunk has to go.
    pub(super) fn carried(
        &mut self,
        message: &Message<'_>,
        header: Header,
        version: Version,
    ) -> Result<Option<Vec<u8>>, RequesterError> {
        let response = match self {
            Self::Whole => return Ok(Some(message.response.to_vec())),
            Self::Sending(sending) => {
                message.expect(header, version, Code::CHUNK_SEND_ACK)?;
                let (ack, _) = message.parse(ChunkSendAck::parse)?;
                sending.acknowledged(message.request, &ack)
            }
            Self::Fetching(fetching) => {
                message.expect(header, version, Code::CHUNK_RESPONSE)?;
                let (chunk, _) = message.parse(Chunk::parse_response)?;
                fetching.received(&chunk)
            }
        };
        let response = response.map_err(|violation| message.violation(violation))?;
        if response.is_some() {
            *self = Self::Whole;
        }
        Ok(response)
    }
}

impl Sending {
    /// The chunk under way.
    fn chunk<'a>(&self, request: &'a [u8]) -> &'a [u8] {
        let rest = request.get(self.sent..).unwrap_or_default();
        rest.get(..self.transfer_size.saturating_sub(Chunk::overhead(self.sequence))).unwrap_or(rest)
    }

    fn is_last(&self, request: &[u8]) -> bool {
        self.sent + self.chunk(request).len() == request.len()
    }

    fn message(&self, version: Version, request: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(self.transfer_size.min(request.len() + Chunk::FIRST_OVERHEAD));
        let first = self.sequence == 0;
        Chunk {
            version,
            last: self.is_last(request),
            handle: self.handle,
            sequence: self.sequence,
            message_size: u32::try_from(request.len()).ok().filter(|_| first),
            bytes: self.chunk(request),
        }
        .encode_request(&mut out)?;
        Ok(out)
    }

    /// Takes the acknowledgement of the chunk under way; the response to the request, if it has one.
    fn acknowledged(&mut self, request: &[u8], ack: &ChunkSendAck<'_>) -> Result<Option<Vec<u8>>, Violation> {
        if ack.handle != self.handle || ack.sequence != self.sequence {
            return Err(Violation::Chunk("another chunk is acknowledged"));
        }
        if ack.early_error && ack.response.get(1) != Some(&Code::ERROR.0) {
            return Err(Violation::Chunk("an early error that is none"));
        }
        if ack.early_error || self.is_last(request) {
            return Ok(Some(ack.response.to_vec()));
        }
        self.sent += self.chunk(request).len();
        self.sequence += 1;
        Ok(None)
    }
}

impl Fetching {
    /// Takes the chunk under way; the whole message, if that was its end.
    fn received(&mut self, chunk: &Chunk<'_>) -> Result<Option<Vec<u8>>, Violation> {
        if chunk.handle != self.handle || chunk.sequence != self.sequence {
            return Err(Violation::Chunk("another chunk was asked for"));
        }
        if !chunk.is_long_enough() {
            return Err(Violation::Chunk("it is shorter than the smallest transfer"));
        }
        let announced = chunk.message_size.map(size);
        if announced.is_some_and(|announced| announced > self.limit) {
            return Err(Violation::TooLong(announced.unwrap_or_default()));
        }
        self.size = self.size.or(announced);
        let missing = self.size.unwrap_or_default().saturating_sub(self.message.len());
        if chunk.bytes.len() > missing || chunk.last != (chunk.bytes.len() == missing) {
            return Err(Violation::Chunk("the chunks do not add up"));
        }
        self.message.extend_from_slice(chunk.bytes);
        self.sequence += 1;
        // A message that announces another would never end.
        if chunk.last && self.message.get(1..3) == Some(&[Code::ERROR.0, ErrorCode::LARGE_RESPONSE.0]) {
            return Err(Violation::Chunk("there are chunks in the chunks"));
        }
        Ok(chunk.last.then(|| core::mem::take(&mut self.message)))
    }
}
