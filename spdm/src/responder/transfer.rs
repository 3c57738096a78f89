//! CHUNK_SEND and CHUNK_GET: requests and responses larger than one transfer
//! (DSP0274 1.3 "Large SPDM message transfer mechanism").
//!
//! There is one transfer at a time. From its first to its last chunk every request that does not belong to it is
//! unexpected in the same session or in the clear, GET_VERSION apart; what libspdm 3.6 does, which gives the transfer up
//! instead, is what 1.2 left open. That is what is done for a request from elsewhere, which must not wait for a
//! transfer that somebody else may never finish.

use zeroize::Zeroizing;

use crate::SessionId;
use crate::codec::Reader;
use crate::secured::LONGEST_MESSAGE;
use crate::wire::{
    Chunk, ChunkGet, ChunkHead, ChunkSendAck, Code, ErrorCode, ErrorResponse, Header, MIN_DATA_TRANSFER_SIZE,
    RequesterFlags, ResponderFlags, longest_chunked,
};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Connection, Peer, Request};
use super::vendor::VendorHandler;

/// The transfer under way, and what outlives it.
#[derive(Default)]
pub(super) struct Transfers {
    transfer: Option<Transfer>,
    last_handle: u8,
}

/// A message on its way in chunks. It may be confidential: it is wiped when it is dropped.
struct Transfer {
    direction: Direction,
    /// The session it belongs to; `None` if it travels in the clear.
    session: Option<SessionId>,
    handle: u8,
    /// Number of the next chunk.
    sequence: u32,
    message: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// CHUNK_SEND collects a request of this size.
    Inbound { size: usize },
    /// CHUNK_GET fetches a response, of which this much has been sent.
    Outbound { sent: usize },
}

impl Transfers {
    pub(super) fn clear(&mut self) {
        self.transfer = None;
    }

    fn next_handle(&mut self) -> u8 {
        self.last_handle = self.last_handle.wrapping_add(1);
        self.last_handle
    }
}

impl Peer {
    /// Most bytes that fit one transfer to the requester, in a record or not.
    fn transfer_size(&self) -> usize {
        usize::try_from(self.data_transfer_size).unwrap_or(usize::MAX).min(LONGEST_MESSAGE)
    }
}

impl Core {
    /// Whether both sides have chunks.
    fn has_chunks(&self, peer: &Peer) -> bool {
        self.flags.has(ResponderFlags::CHUNK) && peer.flags.has(RequesterFlags::CHUNK)
    }

    /// Size in bytes of the longest response the requester can receive, in chunks if need be
    /// (DSP0274 1.3 "DataTransferSize", "MaxSPDMmsgSize").
    pub(super) fn longest_response(&self) -> usize {
        let Some(peer) = self.connection.peer() else { return usize::MAX };
        let transfer = peer.transfer_size();
        if !self.has_chunks(peer) {
            return transfer;
        }
        let message = usize::try_from(peer.max_message_size).unwrap_or(usize::MAX);
        message.min(longest_chunked(peer.version, transfer)).max(transfer)
    }

    /// A response must fit what the requester can receive (DSP0274 1.3 "ResponseTooLarge").
    pub(super) fn fits(&self, out: &[u8]) -> Result<(), Reject> {
        let size = u32::try_from(out.len()).unwrap_or(u32::MAX);
        if out.len() > self.longest_response() { Err(Reject::TooLarge(size)) } else { Ok(()) }
    }

    /// What is too long for one transfer is kept for CHUNK_GET, and `out` says so.
    pub(super) fn offer_chunks(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        if self.connection.peer().is_some_and(|peer| out.len() > peer.transfer_size()) {
            let message = core::mem::take(out);
            self.offer(request, message, out);
        }
    }

    /// ERROR LargeResponse for a response.
    ///
    /// What follows the response does not wait until it has been fetched: those that establish or end a session fit
    /// any transfer, but for FINISH_RSP in the clear, which is not under the keys that change.
    fn offer(&mut self, request: &Request<'_>, message: Vec<u8>, out: &mut Vec<u8>) {
        let handle = self.transfers.next_handle();
        self.transfers.transfer = Some(Transfer {
            direction: Direction::Outbound { sent: 0 },
            session: self.session_of(request),
            handle,
            sequence: 0,
            message: Zeroizing::new(message),
        });
        let version = self.connection.error_version();
        ErrorResponse { version, code: ErrorCode::LARGE_RESPONSE, data: 0, extended: &[handle] }.encode(out);
    }

    /// Only the transfer's own chunks may come in the middle of it. A request in another session, or in the clear
    /// when the transfer is not, ends it, unless it carries chunks itself.
    pub(super) fn check_transfer(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let Some(transfer) = &self.transfers.transfer else { return Ok(()) };
        if transfer.session.is_some_and(|id| self.sessions.find(id).is_none()) {
            self.transfers.clear();
            return Ok(());
        }
        let expected = match transfer.direction {
            Direction::Inbound { .. } => Code::CHUNK_SEND,
            Direction::Outbound { .. } => Code::CHUNK_GET,
        };
        let code = request.header.code;
        let ours = transfer.session == self.session_of(request);
        if !ours && ![Code::CHUNK_SEND, Code::CHUNK_GET].contains(&code) {
            self.transfers.clear();
            return Ok(());
        }
        if ours && code == expected { Ok(()) } else { Err(Reject::UNEXPECTED) }
    }

    /// Id of the session that a request came in.
    pub(super) fn session_of(&self, request: &Request<'_>) -> Option<SessionId> {
        Some(self.sessions.get(request.session?)?.session.id())
    }

    /// Chunks travel as soon as CAPABILITIES has agreed on them.
    fn check_chunks(&self, request: &Request<'_>) -> Result<(), Reject> {
        self.check_version(request.header.version)?;
        match &self.connection {
            Connection::Capabilities { .. } | Connection::Negotiated(_) => Ok(()),
            Connection::Start | Connection::Version { .. } => Err(Reject::UNEXPECTED),
        }
    }

    pub(super) fn chunk_send(
        &mut self,
        request: &Request<'_>,
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Handled {
        self.check_chunks(request)?;
        let (ChunkHead { version, handle, sequence, .. }, _) = request.parse(ChunkHead::parse_request)?;
        let mut ack = ChunkSendAck { version, early_error: false, handle, sequence, response: &[] };
        match self.collect(request) {
            Ok(None) => {
                ack.encode(out)?;
                Ok(Next::Stay)
            }
            Ok(Some(message)) => {
                let mut response = Vec::new();
                let next = self.respond_large(request.session, &message, vendor, &mut response);
                if matches!(next, Next::Silent) {
                    return Ok(next);
                }
                let room = self.connection.peer().map_or(usize::MAX, Peer::transfer_size);
                if ChunkSendAck::overhead(version) + response.len() > room {
                    // Chunks within chunks there are not: the response itself is what CHUNK_GET fetches.
                    self.offer(request, response, out);
                } else {
                    ack.response = &response;
                    ack.encode(out)?;
                }
                Ok(next)
            }
            Err(reject) => {
                let mut response = Vec::new();
                let next = self.refuse(reject, &mut response);
                ack.early_error = true;
                ack.response = &response;
                ack.encode(out)?;
                Ok(next)
            }
        }
    }

    /// Takes one chunk; the message, if that was the last. An unfit chunk ends the transfer.
    fn collect(&mut self, request: &Request<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Reject> {
        let session = self.session_of(request);
        let under_way = self.transfers.transfer.take();
        let (chunk, _) = request.parse(Chunk::parse_request)?;
        if !chunk.is_long_enough() {
            return Err(Reject::INVALID);
        }
        let mut transfer = match under_way {
            Some(transfer) => transfer,
            None => {
                let announced = chunk.message_size.ok_or(Reject::INVALID)?;
                if announced > self.config.max_message_size {
                    return Err(Reject::error(ErrorCode::REQUEST_TOO_LARGE));
                }
                if announced <= MIN_DATA_TRANSFER_SIZE {
                    return Err(Reject::INVALID);
                }
                let size = usize::try_from(announced).map_err(|_| Reject::INVALID)?;
                Transfer {
                    direction: Direction::Inbound { size },
                    session,
                    handle: chunk.handle,
                    sequence: 0,
                    message: Zeroizing::new(Vec::with_capacity(size)),
                }
            }
        };
        let Direction::Inbound { size } = transfer.direction else { return Err(Reject::UNEXPECTED) };
        let continues = chunk.handle == transfer.handle && chunk.sequence == transfer.sequence;
        let missing = size.saturating_sub(transfer.message.len());
        let complete = chunk.bytes.len() == missing;
        if !continues || chunk.bytes.len() > missing || chunk.last != complete {
            return Err(Reject::INVALID);
        }
        transfer.message.extend_from_slice(chunk.bytes);
        if complete && transfer.sequence != 0 {
            return Ok(Some(transfer.message));
        }
        if complete {
            // One chunk would have been one transfer.
            return Err(Reject::INVALID);
        }
        transfer.sequence = transfer.sequence.checked_add(1).ok_or(Reject::INVALID)?;
        self.transfers.transfer = Some(transfer);
        Ok(None)
    }

    /// Handles the request that came in chunks. What carries chunks, or comes before they are agreed on, cannot.
    fn respond_large(
        &mut self,
        session: Option<usize>,
        message: &[u8],
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Next {
        let Ok(header) = Header::parse(&mut Reader::new(message)) else {
            return self.refuse(Reject::INVALID, out);
        };
        let whole = [Code::GET_VERSION, Code::GET_CAPABILITIES, Code::CHUNK_SEND, Code::CHUNK_GET]
            .contains(&header.code);
        if whole {
            return self.refuse(Reject::INVALID, out);
        }
        self.answer(&Request { header, bytes: message, session }, vendor, out)
    }

    pub(super) fn chunk_get(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        self.check_chunks(request)?;
        let (body, _) = request.parse(ChunkGet::parse)?;
        let peer = self.connection.peer().ok_or(Reject::UNEXPECTED)?;
        let room = peer.transfer_size().saturating_sub(Chunk::overhead(body.sequence));
        let transfer = self.transfers.transfer.as_mut().ok_or(Reject::UNEXPECTED)?;
        let Direction::Outbound { sent } = &mut transfer.direction else { return Err(Reject::UNEXPECTED) };
        // A wrong chunk is refused and the right one may still be fetched.
        if body.handle != transfer.handle || body.sequence != transfer.sequence {
            return Err(Reject::INVALID);
        }
        let rest = transfer.message.get(*sent..).unwrap_or_default();
        let bytes = rest.get(..room).unwrap_or(rest);
        let last = bytes.len() == rest.len();
        let first = body.sequence == 0;
        let message_size = u32::try_from(transfer.message.len()).ok().filter(|_| first);
        Chunk {
            version: body.version,
            last,
            handle: body.handle,
            sequence: body.sequence,
            message_size,
            bytes,
        }
        .encode_response(out)?;
        *sent += bytes.len();
        transfer.sequence = transfer.sequence.saturating_add(1);
        if last {
            self.transfers.clear();
        }
        Ok(Next::Stay)
    }
}
