//! The cursor that every decoder reads from, the helpers every encoder writes with, and their errors.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Why bytes are not the message they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DecodeError {
    /// Field at which decoding stopped.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: Reason,
}

impl DecodeError {
    /// An error at `field`.
    pub const fn new(field: &'static str, reason: Reason) -> Self {
        Self { field, reason }
    }

    /// A value that the specification does not allow at `field`.
    pub const fn illegal(field: &'static str) -> Self {
        Self::new(field, Reason::Illegal)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The message ends inside the field.
    #[error("truncated")]
    Truncated,
    /// Bytes follow the end of the message.
    #[error("trailing bytes")]
    Trailing,
    /// The value is not allowed there.
    #[error("illegal value")]
    Illegal,
    /// The message carries another request or response code.
    #[error("another message")]
    WrongCode,
}

/// A field does not fit the length that the wire format gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit its length field")]
pub struct EncodeError(pub &'static str);

/// A forward-only cursor over received bytes. It never panics and never copies.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// Number of bytes taken so far.
    pub const fn consumed(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Number of bytes left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::new(field, Reason::Truncated))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A fixed structure.
    pub fn read<T>(&mut self, field: &'static str) -> Result<T, DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let (value, rest) =
            T::read_from_prefix(self.rest).map_err(|_| DecodeError::new(field, Reason::Truncated))?;
        self.rest = rest;
        Ok(value)
    }

    /// A fixed array, such as a nonce.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        self.read(field)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.read(field)
    }

    /// A little-endian 16-bit integer.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// A little-endian 24-bit integer.
    pub fn u24(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let [low, middle, high] = self.array(field)?;
        Ok(u32::from_le_bytes([low, middle, high, 0]))
    }

    /// A little-endian 32-bit integer.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Bytes preceded by their 16-bit length.
    pub fn sized16(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u16(field)?;
        self.bytes(length.into(), field)
    }

    /// Everything that is left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Fails if more than `allowed` bytes are left, as in a message followed by transport padding.
    pub const fn finish(&self, allowed: usize) -> Result<(), DecodeError> {
        if self.rest.len() > allowed {
            return Err(DecodeError::new("end of message", Reason::Trailing));
        }
        Ok(())
    }
}

/// Appends wire values to a caller's buffer.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);
    /// A fixed structure, or a list of them.
    fn put_fixed(&mut self, value: &(impl IntoBytes + Immutable + ?Sized)) {
        self.put(value.as_bytes());
    }
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_sized16(&mut self, bytes: &[u8], field: &'static str) -> Result<(), EncodeError> {
        self.put_u16(u16::try_from(bytes.len()).map_err(|_| EncodeError(field))?);
        self.put(bytes);
        Ok(())
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_counts() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xAA]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(0x0302));
        assert_eq!(reader.u24("c"), Ok(0x0006_0504));
        assert_eq!(reader.u32("d"), Ok(0x0A09_0807));
        assert_eq!(reader.consumed(), 10);
        assert_eq!(reader.finish(1), Err(DecodeError::new("end of message", Reason::Trailing)));
        assert_eq!(reader.finish(2), Ok(()));
        assert_eq!(reader.rest(), [11, 0xAA]);
        assert_eq!(reader.u8("e"), Err(DecodeError::new("e", Reason::Truncated)));
    }

    #[test]
    fn sized_bytes_stop_at_the_end() {
        assert_eq!(Reader::new(&[2, 0, 7, 8, 9]).sized16("x"), Ok([7, 8].as_slice()));
        assert_eq!(Reader::new(&[3, 0, 7, 8]).sized16("x"), Err(DecodeError::new("x", Reason::Truncated)));
        assert_eq!(Reader::new(&[3]).sized16("x"), Err(DecodeError::new("x", Reason::Truncated)));
    }

    #[test]
    fn encoding_refuses_what_the_length_cannot_say() {
        let mut out = vec![0xA5];
        assert_eq!(out.put_sized16(&[0; 0x1_0000], "x"), Err(EncodeError("x")));
        assert_eq!(out, [0xA5]);
    }
}
