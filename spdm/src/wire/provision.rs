//! SET_CERTIFICATE and GET_CSR with their responses: how a slot gets its chain (DSP0274 1.3, sections of these names).

use super::{CertificateModel, Code, Header, MAX_OPAQUE_SIZE, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// SET_CERTIFICATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetCertificate<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slot, 0 to 7; a parsed message may hold up to 15.
    pub slot: u8,
    /// 1.3: `KeyPairID` of the chain's leaf where the connection has several keys, otherwise 0.
    pub key_pair: u8,
    /// What to do with the slot.
    pub action: SlotAction<'a>,
}

/// What SET_CERTIFICATE does with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAction<'a> {
    /// The slot is to hold this chain.
    Store {
        /// 1.3: model of the chain where the connection has several keys.
        model: Option<CertificateModel>,
        /// The chain in the form that CERTIFICATE transfers, its length first.
        chain: &'a [u8],
    },
    /// 1.3: the slot is to be empty.
    Erase,
}

const MODEL_SHIFT: u8 = 4;
const MODEL_MASK: u8 = 7;
const ERASE: u8 = 1 << 7;

/// The code of a model field, where 0 says nothing.
pub(super) fn model_field(code: u8) -> Result<Option<CertificateModel>, DecodeError> {
    match code {
        0 => Ok(None),
        code => CertificateModel::from_code(code).map(Some).ok_or(DecodeError::illegal("certificate model")),
    }
}

pub(super) fn model_code(model: Option<CertificateModel>) -> u8 {
    model.map_or(0, CertificateModel::code)
}

impl<'a> SetCertificate<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SET_CERTIFICATE)?;
        let v1_3 = header.version >= Version::V1_3;
        let (attributes, key_pair) = if v1_3 { (header.param1, header.param2) } else { (0, 0) };
        let model = model_field(attributes >> MODEL_SHIFT & MODEL_MASK)?;
        let action = if attributes & ERASE == 0 {
            // 1.4 has a length of four bytes where there were two, and two reserved ones.
            let mut ahead = reader.clone();
            let length = match header.version.0 {
                ..=0x13 => ahead.u16("chain length")?.into(),
                0x14.. => ahead.u32("chain length")?,
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            SlotAction::Store { model, chain: reader.bytes(length, "chain")? }
        } else if model.is_none() {
            SlotAction::Erase
        } else {
            return Err(DecodeError::illegal("certificate model"));
        };
        Ok(Self { version: header.version, slot: header.param1 & 0xF, key_pair, action })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (attributes, chain) = match self.action {
            SlotAction::Store { model, chain } => (model_code(model) << MODEL_SHIFT, chain),
            SlotAction::Erase => (ERASE, [].as_slice()),
        };
        let (attributes, key_pair) =
            if self.version >= Version::V1_3 { (attributes, self.key_pair) } else { (0, 0) };
        Header::new(self.version, Code::SET_CERTIFICATE, attributes | self.slot & 0xF, key_pair).encode(out);
        out.put(chain);
    }
}

/// SET_CERTIFICATE_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetCertificateRsp {
    /// Version of the message.
    pub version: Version,
    /// Slot, 0 to 7.
    pub slot: u8,
}

impl SetCertificateRsp {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SET_CERTIFICATE_RSP)?;
        Ok(Self { version: header.version, slot: header.param1 & 0xF })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::SET_CERTIFICATE_RSP, self.slot & 0xF, 0).encode(out);
    }
}

/// GET_CSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCsr<'a> {
    /// Version of the message.
    pub version: Version,
    /// 1.3: `KeyPairID` of the key to certify where the connection has several, otherwise 0.
    pub key_pair: u8,
    /// 1.3: model of the certificate to come where the connection has several keys.
    pub model: Option<CertificateModel>,
    /// 1.3: `CSRTrackingTag`, 1 to 7, of a request that had to wait for a reset; 0 for a new request.
    pub tracking_tag: u8,
    /// 1.3: a request that waits for a reset is to be forgotten.
    pub overwrite: bool,
    /// A PKCS#10 CertificationRequestInfo that says what the requester wants, or nothing.
    pub requester_info: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
}

const CSR_MODEL_MASK: u8 = 7;
const CSR_TAG_SHIFT: u8 = 3;
const CSR_TAG_MASK: u8 = 7;
const CSR_OVERWRITE: u8 = 1 << 7;

impl<'a> GetCsr<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_CSR)?;
        let v1_3 = header.version >= Version::V1_3;
        let (key_pair, attributes) = if v1_3 { (header.param1, header.param2) } else { (0, 0) };
        let lengths = [reader.u16("requester info length")?, reader.u16("opaque data length")?];
        Self::of(header.version, key_pair, attributes, lengths, reader)
    }

    /// What the fixed fields say, of this message or of SLOT_MANAGEMENT, with what they announce: as many bytes of
    /// requester information and of opaque data.
    pub(super) fn of(
        version: Version,
        key_pair: u8,
        attributes: u8,
        [info_length, opaque_length]: [u16; 2],
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let tracking_tag = attributes >> CSR_TAG_SHIFT & CSR_TAG_MASK;
        let overwrite = attributes & CSR_OVERWRITE != 0;
        if overwrite && tracking_tag != 0 {
            return Err(DecodeError::illegal("CSR tracking tag"));
        }
        if usize::from(opaque_length) > MAX_OPAQUE_SIZE {
            return Err(DecodeError::illegal("opaque data length"));
        }
        Ok(Self {
            version,
            key_pair,
            model: model_field(attributes & CSR_MODEL_MASK)?,
            tracking_tag,
            overwrite,
            requester_info: reader.bytes(info_length.into(), "requester info")?,
            opaque: reader.bytes(opaque_length.into(), "opaque data")?,
        })
    }

    /// `RequestAttributes`, from 1.3 on.
    pub(super) fn attributes(&self) -> u8 {
        let overwrite = if self.overwrite { CSR_OVERWRITE } else { 0 };
        let tag = (self.tracking_tag & CSR_TAG_MASK) << CSR_TAG_SHIFT;
        overwrite | tag | model_code(self.model)
    }

    /// Lengths of requester information and opaque data.
    pub(super) fn lengths(&self) -> Result<[u16; 2], EncodeError> {
        let info = u16::try_from(self.requester_info.len()).map_err(|_| EncodeError("requester info"))?;
        let opaque = u16::try_from(self.opaque.len()).map_err(|_| EncodeError("opaque data"))?;
        Ok([info, opaque])
    }

    /// Appends the message; fails for information over 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let [info, opaque] = self.lengths()?;
        let (key_pair, attributes) =
            if self.version >= Version::V1_3 { (self.key_pair, self.attributes()) } else { (0, 0) };
        Header::new(self.version, Code::GET_CSR, key_pair, attributes).encode(out);
        out.put_u16(info);
        out.put_u16(opaque);
        out.put(self.requester_info);
        out.put(self.opaque);
        Ok(())
    }
}

/// CSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csr<'a> {
    /// Version of the message.
    pub version: Version,
    /// A PKCS#10 CertificationRequest in DER.
    pub csr: &'a [u8],
}

impl<'a> Csr<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CSR)?;
        let length = reader.u16("CSR length")?;
        reader.u16("reserved")?;
        Ok(Self { version: header.version, csr: reader.bytes(length.into(), "CSR")? })
    }

    /// Appends the message; fails for a request over 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.csr.len()).map_err(|_| EncodeError("CSR"))?;
        Header::new(self.version, Code::CSR, 0, 0).encode(out);
        out.put_u16(length);
        out.put_u16(0);
        out.put(self.csr);
        Ok(())
    }
}
