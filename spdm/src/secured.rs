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

/// Longest message that a record of any kind has room for, in bytes.
pub const LONGEST_MESSAGE: usize = 0xFFFF - APPLICATION_LENGTH_SIZE - TAG_SIZE;

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
                message.copy_within(APPLICATION_LENGTH_SIZE.., 0);
                // Nothing of the message stays behind its end.
                message.get_mut(length..).unwrap_or_default().zeroize();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RingProvider, Secret};

    const ID: SessionId = 0x5678_1234;

    fn pair(aead: Aead, protection: Protection, limit: u64) -> (RecordKey, RecordKey) {
        let provider = RingProvider::new();
        let traffic =
            TrafficKey { key: Secret::new(&vec![0x42; aead.key_size()]).unwrap(), iv: [7; IV_SIZE] };
        let key = || RecordKey::new(&provider, aead, protection, &traffic, 0, limit).unwrap();
        (key(), key())
    }

    #[test]
    fn a_record_has_the_layout_of_dsp0277() {
        let (mut seal, mut open) = pair(Aead::Aes256Gcm, Protection::EncryptAndMac, u64::MAX);
        let mut record = vec![0xA5];
        seal.seal(ID, b"message", &mut record).unwrap();
        assert_eq!(record[..7], [0xA5, 0x34, 0x12, 0x78, 0x56, 25, 0]);
        assert_eq!(record.len(), 1 + 7 + Protection::EncryptAndMac.overhead());

        // The plain text is the length and the message; the nonce of the first record is the IV itself.
        let provider = RingProvider::new();
        let mut plain = record[7..].to_vec();
        let key = provider.aead_key(Aead::Aes256Gcm, &[0x42; 32]).unwrap();
        assert_eq!(key.open(&[7; 12], &record[1..7], &mut plain).unwrap(), b"\x07\0message");

        let mut message = Vec::new();
        open.open(&record[1..], &mut message).unwrap();
        assert_eq!(message, b"message");
    }

    #[test]
    fn the_counter_goes_into_the_low_bytes_of_the_iv() {
        let (mut seal, _) = pair(Aead::Aes128Gcm, Protection::EncryptAndMac, u64::MAX);
        let mut record = Vec::new();
        seal.seal(ID, b"first", &mut record).unwrap();
        record.clear();
        seal.seal(ID, b"second", &mut record).unwrap();
        let key = RingProvider::new().aead_key(Aead::Aes128Gcm, &[0x42; 16]).unwrap();
        let mut nonce = [7; 12];
        nonce[0] ^= 1;
        let (header, body) = record.split_at_mut(6);
        assert!(key.open(&nonce, header, body).is_ok());
    }

    #[test]
    fn every_changed_byte_and_every_truncation_is_found() {
        for protection in [Protection::EncryptAndMac, Protection::MacOnly] {
            let (mut seal, mut open) = pair(Aead::Aes256Gcm, protection, u64::MAX);
            let mut record = Vec::new();
            seal.seal(ID, b"message", &mut record).unwrap();
            assert_eq!(record.len(), 7 + protection.overhead());
            let mut message = Vec::new();
            for at in 0..record.len() {
                let mut changed = record.clone();
                changed[at] ^= 0x10;
                assert!(open.open(&changed, &mut message).is_err(), "{protection:?} {at}");
                assert!(open.open(&record[..at], &mut message).is_err(), "{protection:?} {at}");
            }
            record.extend_from_slice(&[0; 3]);
            open.open(&record, &mut message).unwrap();
            assert_eq!(message, b"message", "{protection:?}: none of the failures moved the counter");
            assert!(open.open(&record, &mut message).is_err(), "{protection:?}: a replay");
            record.push(0);
            assert!(matches!(open.open(&record, &mut message), Err(RecordError::Malformed(_))));
        }
    }

    #[test]
    fn random_padding_behind_the_message_is_dropped() {
        let (_, mut open) = pair(Aead::Aes256Gcm, Protection::EncryptAndMac, u64::MAX);
        let key = RingProvider::new().aead_key(Aead::Aes256Gcm, &[0x42; 32]).unwrap();
        let mut plain = b"\x02\0hiRANDOM".to_vec();
        let header = [0x34, 0x12, 0x78, 0x56, 26, 0];
        let tag = key.seal(&[7; 12], &header, &mut plain).unwrap();
        let record = [&header[..], &plain, &tag].concat();
        let mut message = Vec::new();
        open.open(&record, &mut message).unwrap();
        assert_eq!(message, b"hi");
    }

    #[test]
    fn a_key_stops_at_its_limit() {
        let (mut seal, mut open) = pair(Aead::Aes256Gcm, Protection::EncryptAndMac, 1);
        let mut record = Vec::new();
        seal.seal(ID, b"x", &mut record).unwrap();
        let mut second = vec![0xA5];
        assert_eq!(seal.seal(ID, b"x", &mut second), Err(RecordError::Exhausted));
        assert_eq!(second, [0xA5]);
        let mut message = Vec::new();
        open.open(&record, &mut message).unwrap();
        assert_eq!(open.open(&record, &mut message), Err(RecordError::Exhausted));
    }

    #[test]
    fn a_message_too_long_for_its_length_field_is_refused() {
        let (mut seal, _) = pair(Aead::Aes256Gcm, Protection::EncryptAndMac, u64::MAX);
        let mut record = Vec::new();
        let longest = 0xFFFF - 18;
        assert_eq!(seal.seal(ID, &vec![0; longest + 1], &mut record), Err(RecordError::TooLong));
        assert_eq!((record.len(), seal.sequence()), (0, 0));
        seal.seal(ID, &vec![0; longest], &mut record).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_records_never_open(record in proptest::collection::vec(proptest::num::u8::ANY, 0..96)) {
            let (_, mut open) = pair(Aead::Aes128Gcm, Protection::EncryptAndMac, u64::MAX);
            proptest::prop_assert!(open.open(&record, &mut Vec::new()).is_err());
        }
    }
}
