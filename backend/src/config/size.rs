//! Sizes in the file: a number of bytes or text, written as text where that is shorter.

use core::fmt;

use mmio::ByteSize;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(size: &u64, out: S) -> Result<S::Ok, S::Error> {
    let text = ByteSize(*size).to_string();
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        out.serialize_u64(*size)
    } else {
        out.collect_str(&text)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Size)
}

struct Size;

impl Visitor<'_> for Size {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or text such as \"16K\", \"1M\" or \"8G\"")
    }

    fn visit_u64<E: Error>(self, size: u64) -> Result<u64, E> {
        Ok(size)
    }

    fn visit_i64<E: Error>(self, size: i64) -> Result<u64, E> {
        u64::try_from(size).map_err(|_| E::custom("a size is not negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        text.parse().map(|ByteSize(size)| size).map_err(|error| E::custom(format!("{text:?}: {error}")))
    }
}

/// A size that need not be there.
pub(super) mod optional {
    use serde::{Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(size: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => super::serialize(size, out),
            None => out.serialize_none(),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u64>, D::Error> {
        super::deserialize(from).map(Some)
    }
}
