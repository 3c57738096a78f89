//! Opaque data in the general form (DSP0274 1.3 "General opaque data format"; before 1.2 DSP0277 1.0 "Secured Message
//! general opaque data format") and the elements by which a session's secured message version is agreed on
//! (DSP0277 1.1 "Secured Message opaque element data format").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

use super::{Version, VersionNumber};
use crate::codec::{DecodeError, EncodeError, Put, Reader, Reason};

const REGISTRY_DMTF: u8 = 0;
const DATA_VERSION: u8 = 1;
const VERSION_SELECTION: u8 = 0;
const SUPPORTED_VERSIONS: u8 = 1;
const ALIGNMENT: usize = 4;
/// `SpecID` of the header before 1.2, the letters `DMTF`, and its `OpaqueVersion`.
const SPECIFICATION: u32 = 0x444D_5446;
const OPAQUE_VERSION: u8 = 1;

/// What precedes the elements: before 1.2 DSP0277's own header, from 1.2 on that of DSP0274. Returns their number.
fn parse_header(reader: &mut Reader<'_>, version: Version) -> Result<u8, DecodeError> {
    if version >= Version::V1_2 {
        let [count, ..] = reader.array::<4>("opaque data header")?;
        return Ok(count);
    }
    if reader.u32("opaque data specification")? != SPECIFICATION {
        return Err(DecodeError::illegal("opaque data specification"));
    }
    let [opaque_version, count, ..] = reader.array::<4>("opaque data header")?;
    if opaque_version != OPAQUE_VERSION {
        return Err(DecodeError::illegal("opaque data version"));
    }
    Ok(count)
}

fn encode_header(version: Version, count: u8, out: &mut Vec<u8>) {
    if version >= Version::V1_2 {
        out.put(&[count, 0, 0, 0]);
    } else {
        out.put_u32(SPECIFICATION);
        out.put(&[OPAQUE_VERSION, count, 0, 0]);
    }
}

/// One element of opaque data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueElement<'a> {
    /// Registry that assigned the vendor id; 0 for DMTF.
    pub registry: u8,
    /// Vendor id; empty for DMTF.
    pub vendor: &'a [u8],
    /// Data of the element.
    pub data: &'a [u8],
}

impl OpaqueElement<'_> {
    /// Appends the element with its padding.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let vendor = u8::try_from(self.vendor.len()).map_err(|_| EncodeError("vendor id"))?;
        let start = out.len();
        out.put(&[self.registry, vendor]);
        out.put(self.vendor);
        out.put_sized16(self.data, "opaque element")?;
        out.resize(start + (out.len() - start).next_multiple_of(ALIGNMENT), 0);
        Ok(())
    }
}

/// Walks opaque data in the general form, from 1.2 on `OpaqueDataFmt1`. The last item is an error if the data is malformed.
#[derive(Clone, Debug)]
pub struct OpaqueElements<'a> {
    reader: Reader<'a>,
    left: u8,
}

impl<'a> OpaqueElements<'a> {
    /// Starts at the first element. Empty opaque data has no elements.
    pub fn new(version: Version, opaque: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(opaque);
        if opaque.is_empty() {
            return Ok(Self { reader, left: 0 });
        }
        let left = parse_header(&mut reader, version)?;
        Ok(Self { reader, left })
    }

    fn element(&mut self) -> Result<OpaqueElement<'a>, DecodeError> {
        let start = self.reader.consumed();
        let registry = self.reader.u8("opaque element id")?;
        let vendor_length = self.reader.u8("opaque vendor length")?;
        let vendor = self.reader.bytes(vendor_length.into(), "opaque vendor id")?;
        let data = self.reader.sized16("opaque element data")?;
        let length = self.reader.consumed() - start;
        let padding =
            self.reader.bytes(length.next_multiple_of(ALIGNMENT) - length, "opaque element padding")?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(DecodeError::illegal("opaque element padding"));
        }
        Ok(OpaqueElement { registry, vendor, data })
    }
}

impl<'a> Iterator for OpaqueElements<'a> {
    type Item = Result<OpaqueElement<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(left) = self.left.checked_sub(1) else {
            let trailing = !self.reader.rest().is_empty();
            return trailing.then_some(Err(DecodeError::new("opaque data", Reason::Trailing)));
        };
        let element = self.element();
        self.left = left;
        if element.is_err() {
            self.left = 0;
            self.reader.rest();
        }
        Some(element)
    }
}

/// A DMTF element of secured messages: version of the element, kind, data.
fn secured_element<'a>(element: &OpaqueElement<'a>) -> Result<Option<(u8, Reader<'a>)>, DecodeError> {
    if element.registry != REGISTRY_DMTF || !element.vendor.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(element.data);
    let version = reader.u8("secured message data version")?;
    let kind = reader.u8("secured message data id")?;
    Ok((version == DATA_VERSION).then_some((kind, reader)))
}

/// Appends a general opaque data header for one element, and the element.
fn encode_single(version: Version, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_header(version, 1, out);
    OpaqueElement { registry: REGISTRY_DMTF, vendor: &[], data }.encode(out)
}

/// Opaque data of KEY_EXCHANGE: the secured message versions a requester supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedSecuredVersions<'a>(pub &'a [VersionNumber]);

impl<'a> SupportedSecuredVersions<'a> {
    /// Finds the element in opaque data of the general form; elements of others are skipped.
    pub fn find(version: Version, opaque: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let mut found = None;
        for element in OpaqueElements::new(version, opaque)? {
            let Some((SUPPORTED_VERSIONS, mut reader)) = secured_element(&element?)? else { continue };
            if found.is_some() {
                return Err(DecodeError::illegal("supported secured message versions"));
            }
            let count = usize::from(reader.u8("version count")?);
            let bytes = reader.bytes(count * size_of::<VersionNumber>(), "versions")?;
            reader.finish(0)?;
            let versions = <[VersionNumber]>::ref_from_bytes(bytes)
                .map_err(|_| DecodeError::new("versions", Reason::Truncated))?;
            found = Some(Self(versions));
        }
        Ok(found)
    }

    /// Appends opaque data with this element alone; fails for more than 255 versions.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = u8::try_from(self.0.len()).map_err(|_| EncodeError("versions"))?;
        let mut data = vec![DATA_VERSION, SUPPORTED_VERSIONS, count];
        data.put_fixed(self.0);
        encode_single(version, &data, out)
    }
}

/// Opaque data of KEY_EXCHANGE_RSP: the secured message version the responder selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedSecuredVersion(pub VersionNumber);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Selection {
    data_version: u8,
    kind: u8,
    version: U16,
}
const _: () = assert!(size_of::<Selection>() == 4);

impl SelectedSecuredVersion {
    /// Size in bytes of opaque data with this element alone; from 1.2 on 4 less.
    pub const MAX_SIZE: usize = 16;

    /// Finds the element in opaque data of the general form; elements of others are skipped.
    pub fn find(version: Version, opaque: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut found = None;
        for element in OpaqueElements::new(version, opaque)? {
            let Some((VERSION_SELECTION, mut reader)) = secured_element(&element?)? else { continue };
            if found.is_some() {
                return Err(DecodeError::illegal("selected secured message version"));
            }
            let version = reader.read("version")?;
            reader.finish(0)?;
            found = Some(Self(version));
        }
        Ok(found)
    }

    /// Major and minor number.
    pub const fn version(self) -> Version {
        self.0.version()
    }

    /// Appends opaque data with this element alone.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let selection = Selection { data_version: DATA_VERSION, kind: VERSION_SELECTION, version: self.0.0 };
        encode_single(version, selection.as_bytes(), out)
    }
}
