//! Bytes on their way to the client, and the descriptors that travel with some of them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tdispd_proto::vfio_user::{Command, DmaAccess, HEADER_SIZE, Header, put_error, put_reply, put_request};
use zerocopy::FromBytes;

use super::device::Errno;

/// Capacity kept once everything is sent, in bytes; a megabyte of reply must not stay for ever.
const KEEP: usize = 64 * 1024;

/// What to hand to the socket in one call.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Never empty.
    pub bytes: &'a [u8],
    /// To be attached to the first of the bytes.
    pub fd: Option<&'a Arc<OwnedFd>>,
}

#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// Ascending positions in `bytes` at which a descriptor is due.
    fds: VecDeque<(usize, Arc<OwnedFd>)>,
    /// Ascending positions in `bytes` at which requests of ours begin; they are behind any reply.
    requests: Vec<usize>,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn chunk(&self) -> Option<Chunk<'_>> {
        let mut due = self.fds.iter();
        let mut next = due.next();
        let mut fd = None;
        if let Some((at, found)) = next
            && *at == self.sent
        {
            fd = Some(found);
            next = due.next();
        }
        let end = next.map_or(self.bytes.len(), |(at, _)| *at);
        let bytes = self.bytes.get(self.sent..end).filter(|bytes| !bytes.is_empty())?;
        Some(Chunk { bytes, fd })
    }

    pub(super) fn sent(&mut self, count: usize) {
        if count > 0 && self.fds.front().is_some_and(|(at, _)| *at == self.sent) {
            self.fds.pop_front();
        }
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.requests.clear();
        }
    }

    pub(super) fn reply(&mut self, request: &Header, parts: &[&[u8]]) {
        put_reply(&mut self.bytes, request, parts);
    }

    pub(super) fn reply_with_fd(&mut self, request: &Header, payload: &[u8], fd: Arc<OwnedFd>) {
        self.fds.push_back((self.bytes.len(), fd));
        self.reply(request, &[payload]);
    }

    pub(super) fn error(&mut self, request: &Header, errno: Errno) {
        put_error(&mut self.bytes, request, errno.raw_os_error().unsigned_abs());
    }

    /// DMA_READ or DMA_WRITE; a [`DmaAccess`] is the first of `parts`.
    pub(super) fn request(&mut self, message_id: u16, command: Command, parts: &[&[u8]]) {
        self.requests.push(self.bytes.len());
        put_request(&mut self.bytes, message_id, command, false, parts);
    }

    /// Takes back the requests that have not begun to leave. One that has must go on, as the client awaits its length: with
    /// zeroes for the rest of its data. Returns whether any was taken back.
    pub(super) fn withdraw_requests(&mut self) -> bool {
        let begun = self.requests.partition_point(|start| *start < self.sent);
        if let Some(first) = self.requests.get(begun) {
            self.bytes.truncate(*first);
        }
        if let Some(start) = begun.checked_sub(1).and_then(|last| self.requests.get(last)) {
            let data = (start + HEADER_SIZE + size_of::<DmaAccess>()).max(self.sent);
            self.bytes.get_mut(data..).unwrap_or_default().fill(0);
        }
        let withdrawn = begun < self.requests.len();
        self.requests.truncate(begun);
        self.sent(0);
        withdrawn
    }

    /// A reply whose last `count` bytes are filled in place, so that data is copied once.
    ///
    /// # Errors
    /// What `fill` returns; nothing has been added then.
    pub(super) fn reply_filled(
        &mut self,
        request: &Header,
        fixed: &[u8],
        count: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let before = self.bytes.len();
        put_reply(&mut self.bytes, request, &[fixed]);
        let data_at = self.bytes.len();
        self.bytes.resize(data_at + count, 0);
        let filled = fill(self.bytes.get_mut(data_at..).unwrap_or_default());
        if filled.is_err() {
            self.bytes.truncate(before);
            return filled;
        }
        let size = u32::try_from(self.bytes.len() - before).unwrap_or(u32::MAX);
        if let Some((header, _)) =
            self.bytes.get_mut(before..).and_then(|bytes| Header::mut_from_prefix(bytes).ok())
        {
            header.message_size = size.into();
        }
        Ok(())
    }

    /// Drops everything added since `mark`: the client wanted no reply.
    pub(super) fn rewind(&mut self, mark: usize) {
        self.bytes.truncate(mark);
        self.fds.retain(|(at, _)| *at < mark);
    }

    pub(super) fn mark(&self) -> usize {
        self.bytes.len()
    }
}
