//! Data objects that carry SPDM over PCIe: header, padding and discovery (PCIe 6.1 §6.30 "Data Object Exchange").

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16, little_endian::U32,
};

use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Vendor id under which the object types of this module are defined.
pub const VENDOR_PCI_SIG: u16 = 1;
/// Size of the header, in bytes.
pub const HEADER_SIZE: usize = 8;
/// Size of the longest object, header included, in bytes: 2^18 DW.
pub const MAX_OBJECT_SIZE: usize = DW << 18;

const DW: usize = 4;
const LENGTH_MASK: u32 = (1 << 18) - 1;

/// Data object type under [`VENDOR_PCI_SIG`]; any value a peer may send.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct ObjectType(pub u8);

impl ObjectType {
    /// DOE discovery.
    pub const DISCOVERY: Self = Self(0);
    /// One clear SPDM message (CMA).
    pub const SPDM: Self = Self(1);
    /// One secured SPDM record.
    pub const SECURED_SPDM: Self = Self(2);
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    vendor: U16,
    kind: ObjectType,
    reserved: u8,
    length: U32,
}
const _: () = assert!(size_of::<Header>() == HEADER_SIZE);

/// One data object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// Vendor that defines the type.
    pub vendor: u16,
    /// Type.
    pub kind: ObjectType,
    /// Content; a parsed one is a multiple of 4 bytes and may end with padding.
    pub payload: &'a [u8],
}

/// Size in bytes of an object, from its header; `None` if its length is too small for the header itself.
pub const fn object_size(header: [u8; HEADER_SIZE]) -> Option<usize> {
    let [_, _, _, _, a, b, c, d] = header;
    match (u32::from_le_bytes([a, b, c, d]) & LENGTH_MASK) as usize {
        0 => Some(MAX_OBJECT_SIZE),
        1 => None,
        length => Some(length * DW),
    }
}

impl<'a> Object<'a> {
    /// Parses an object; its length must be that of `object`.
    pub fn parse(object: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(object);
        let header: Header = reader.read("object header")?;
        let size = object_size(Header::into_array(&header)?);
        if size != Some(object.len()) {
            return Err(DecodeError::illegal("object length"));
        }
        Ok(Self { vendor: header.vendor.get(), kind: header.kind, payload: reader.rest() })
    }

    /// Appends the object, its payload padded with zeros to a whole number of DW.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let size = HEADER_SIZE + self.payload.len().next_multiple_of(DW);
        if size > MAX_OBJECT_SIZE {
            return Err(EncodeError("payload"));
        }
        let length = u32::try_from(size / DW).map_err(|_| EncodeError("payload"))? & LENGTH_MASK;
        let start = out.len();
        out.put_fixed(&Header {
            vendor: self.vendor.into(),
            kind: self.kind,
            reserved: 0,
            length: length.into(),
        });
        out.put(self.payload);
        out.resize(start + size, 0);
        Ok(())
    }
}

impl Header {
    fn into_array(header: &Self) -> Result<[u8; HEADER_SIZE], DecodeError> {
        header.as_bytes().try_into().map_err(|_| DecodeError::illegal("object header"))
    }
}

/// Payload of a discovery request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryRequest {
    /// Which protocol is asked for, from 0.
    pub index: u8,
    /// DOE discovery version: 0 for capability version 1, 2 for version 2.
    pub version: u8,
}

impl DiscoveryRequest {
    /// Parses the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let [index, version, _, _] = reader.array("discovery request")?;
        reader.finish(0)?;
        Ok(Self { index, version })
    }

    /// The payload.
    pub const fn encode(&self) -> [u8; 4] {
        [self.index, self.version, 0, 0]
    }
}

/// Payload of a discovery response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryResponse {
    /// Vendor of the protocol.
    pub vendor: u16,
    /// Its object type.
    pub kind: ObjectType,
    /// Index to ask for next; 0 if there is no further protocol.
    pub next: u8,
}

impl DiscoveryResponse {
    /// Answers a request for `index` among `protocols`. An index beyond them gets vendor 0xFFFF and type 0xFF.
    pub fn answer(protocols: &[(u16, ObjectType)], index: u8) -> Self {
        match protocols.get(usize::from(index)) {
            None => Self { vendor: 0xFFFF, kind: ObjectType(0xFF), next: 0 },
            Some(&(vendor, kind)) => {
                let next =
                    index.checked_add(1).filter(|&next| usize::from(next) < protocols.len()).unwrap_or(0);
                Self { vendor, kind, next }
            }
        }
    }

    /// Parses the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let [low, high, kind, next] = reader.array("discovery response")?;
        reader.finish(0)?;
        Ok(Self { vendor: u16::from_le_bytes([low, high]), kind: ObjectType(kind), next })
    }

    /// The payload.
    pub const fn encode(&self) -> [u8; 4] {
        let [low, high] = self.vendor.to_le_bytes();
        [low, high, self.kind.0, self.next]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_padded_to_whole_dwords() {
        let mut out = vec![0xA5];
        let object = Object { vendor: 1, kind: ObjectType::SPDM, payload: &[0x10, 0x84, 0, 0, 9] };
        object.encode(&mut out).unwrap();
        assert_eq!(out, [0xA5, 1, 0, 1, 0, 4, 0, 0, 0, 0x10, 0x84, 0, 0, 9, 0, 0, 0]);
        let parsed = Object::parse(&out[1..]).unwrap();
        assert_eq!(parsed.payload, [0x10, 0x84, 0, 0, 9, 0, 0, 0]);
        assert_eq!((parsed.vendor, parsed.kind), (1, ObjectType::SPDM));
        for length in 1..out.len() {
            assert!(Object::parse(&out[1..length]).is_err(), "{length}");
        }
        out.extend_from_slice(&[0; 4]);
        assert!(Object::parse(&out[1..]).is_err());
    }

    #[test]
    fn length_zero_means_the_longest_object() {
        assert_eq!(object_size([1, 0, 1, 0, 0, 0, 0, 0]), Some(1 << 20));
        assert_eq!(object_size([1, 0, 1, 0, 1, 0, 0, 0]), None);
        assert_eq!(object_size([1, 0, 1, 0, 2, 0, 0xFC, 0xFF]), Some(8), "upper bits are not length");
        let payload = vec![0; MAX_OBJECT_SIZE - HEADER_SIZE];
        let mut out = Vec::new();
        Object { vendor: 1, kind: ObjectType::SPDM, payload: &payload }.encode(&mut out).unwrap();
        assert_eq!(out[4..8], [0; 4]);
        assert!(Object::parse(&out).is_ok());
        let payload = vec![0; MAX_OBJECT_SIZE - HEADER_SIZE + 1];
        assert!(Object { vendor: 1, kind: ObjectType::SPDM, payload: &payload }.encode(&mut out).is_err());
    }

    #[test]
    fn discovery_walks_the_list_and_ends() {
        let protocols = [(1, ObjectType::DISCOVERY), (1, ObjectType::SPDM), (1, ObjectType::SECURED_SPDM)];
        assert_eq!(DiscoveryResponse::answer(&protocols, 0).encode(), [1, 0, 0, 1]);
        assert_eq!(DiscoveryResponse::answer(&protocols, 1).encode(), [1, 0, 1, 2]);
        assert_eq!(DiscoveryResponse::answer(&protocols, 2).encode(), [1, 0, 2, 0]);
        assert_eq!(DiscoveryResponse::answer(&protocols, 3).encode(), [0xFF, 0xFF, 0xFF, 0]);
        assert_eq!(DiscoveryRequest::parse(&[7, 2, 0, 0]), Ok(DiscoveryRequest { index: 7, version: 2 }));
        assert_eq!(
            DiscoveryResponse::parse(&[1, 0, 1, 2]),
            Ok(DiscoveryResponse { vendor: 1, kind: ObjectType::SPDM, next: 2 })
        );
        assert!(DiscoveryRequest::parse(&[0; 3]).is_err());
        assert!(DiscoveryRequest::parse(&[0; 8]).is_err());
    }
}
