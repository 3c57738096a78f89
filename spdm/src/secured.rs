//! One direction of a secured session: records sealed and opened under one key
//! (DSP0277 1.1 "Secured Message format", the DOE binding: no sequence number on the wire, no application header).

use zeroize::Zeroize;

use crate::SessionId;
use crate::codec::{DecodeError, Put, Reader};
use crate::crypto::{Aead, AeadKey, CryptoError, IV_SIZE, Provider, TAG_SIZE};
use crate::key_schedule::TrafficKey;

/// Session id and length, in clear at the start of a record, in bytes.
pub const RECORD_HEADER_SIZE: usize = 6;
/// `Application Data Length`, the encrypted field before the message, in bytes.
const APPLICATION_LENGTH_SIZE: usize = 2;

/// What records protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Protection {
    /// Encrypted and authenticated.
    EncryptAndMac,
    /// Authenticated only.
    MacOnly,
}

impl Protection {
    /// Bytes by which a record is longer than its message.
    pub const fn overhead(self) -> usize {
        match self {
            Self::EncryptAndMac => RECORD_HEADER_SIZE + APPLICATION_LENGTH_SIZE + TAG_SIZE,
            Self::MacOnly => RECORD_HEADER_SIZE + TAG_SIZE,
        }
    }
}

/// Why a record could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record is malformed.
    #[error("malformed record: {0}")]
    Malformed(#[from] DecodeError),
    /// The tag is wrong, or the provider failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The key has protected as many records as it may.
    #[error("sequence number used up")]
    Exhausted,
    /// The message does not fit a record.
    #[error("message too long for a record")]
    TooLong,
}

/// The session a record belongs to.
pub fn session_id(record: &[u8]) -> Result<SessionId, DecodeError> {
    Reader::new(record).u32("session id")
}

/// Key, initial vector and counter of one direction. A sequence number is never used twice: it moves on before the
/// record leaves, and stops at the limit.
pub struct RecordKey {
    key: Box<dyn AeadKey>,
    iv: [u8; IV_SIZE],
    sequence: u64,
    limit: u64,
    protection: Protection,
}

impl RecordKey {
    /// A key whose next record has this sequence number; `limit` is the first sequence number it must not use.
    pub fn new(
        provider: &dyn Provider,
        aead: Aead,
        protection: Protection,
        traffic: &TrafficKey,
        sequence: u64,
        limit: u64,
    ) -> Result<Self, CryptoError> {
        let key = provider.aead_key(aead, traffic.key.as_ref())?;
        Ok(Self { key, iv: traffic.iv, sequence, limit, protection })
    }

    /// Sequence number of the next record.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Initial vector XOR little-endian sequence number (DSP0277 1.1 "AEAD IV").
    fn nonce(&self) -> Result<[u8; IV_SIZE], RecordError> {
        if self.sequence >= self.limit {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = self.iv;
        nonce.iter_mut().zip(self.sequence.to_le_bytes()).for_each(|(byte, counter)| *byte ^= counter);
        Ok(nonce)
    }

    /// Appends one record. On error `record` is as it was.
    pub fn seal(
        &mut self,
        session: SessionId,
        message: &[u8],
        record: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let nonce = self.nonce()?;
        let length = u16::try_from(message.len() + self.protection.overhead() - RECORD_HEADER_SIZE)
            .map_err(|_| RecordError::TooLong)?;
        let application_length = u16::try_from(message.len()).map_err(|_| RecordError::TooLong)?;
        let start = record.len();
        record.put_u32(session);
        record.put_u16(length);
        if self.protection == Protection::EncryptAndMac {
            record.put_u16(application_length);
        }
        record.put(message);
        let (header, body) =
            record.get_mut(start..).unwrap_or_default().split_at_mut(match self.protection {
                Protection::EncryptAndMac => RECORD_HEADER_SIZE,
                Protection::MacOnly => RECORD_HEADER_SIZE + message.len(),
            });
        match self.key.seal(&nonce, header, body) {
            Ok(tag) => record.put(&tag),
            Err(error) => {
                record.truncate(start);
                return Err(error.into());
            }
        }
        self.sequence += 1;
        Ok(())
    }

    /// Opens one record, which may be followed by at most 3 bytes of DOE padding, and puts its message into
    /// `message`, replacing what is there. On error the sequence number stays.
    pub fn open(&mut self, record: &[u8], message: &mut Vec<u8>) -> Result<(), RecordError> {
        let nonce = self.nonce()?;
        let mut reader = Reader::new(record);
        let header = reader.clone().bytes(RECORD_HEADER_SIZE, "record header")?;
        reader.u32("session id")?;
        let body = reader.sized16("record")?;
        reader.finish(3)?;
        message.clear();
        match self.protection {
            Protection::EncryptAndMac => {
                message.put(body);
                let plain = self.key.open(&nonce, header, message)?.len();
                let mut inner = Reader::new(message.get(..plain).unwrap_or_default());
                // What follows the application data is random padding.
                let length = inner.sized16("application data")?.len();
                message.drain(..APPLICATION_LENGTH_SIZE);
                message.truncate(length);
            }
            Protection::MacOnly => {
                let split = body.len().checked_sub(TAG_SIZE).unwrap_or(body.len());
                let (content, tag) = body.split_at_checked(split).unwrap_or_default();
                message.put(tag);
                let associated = record.get(..RECORD_HEADER_SIZE + content.len()).unwrap_or_default();
                self.key.open(&nonce, associated, message)?;
                message.clear();
                message.put(content);
            }
        }
        self.sequence += 1;
        Ok(())
    }
}

impl Drop for RecordKey {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl core::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RecordKey(sequence {})", self.sequence)
    }
}
