//! SLOT_MANAGEMENT_RESP and the Banks it describes (DSP0274 1.4 "SLOT_MANAGEMENT request and SLOT_MANAGEMENT_RESP
//! response messages").
//!
//! Lengths in the structures leave room for what later versions append; it is skipped.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::key_pairs::{post_quantum, put_post_quantum};
use super::slot_management::{put_head, structure};
use super::{CertificateModel, Code, Header, KeyPairAlgorithms, KeyUsage, SubCode, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// SLOT_MANAGEMENT_RESP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotManagementResp<'a> {
    /// Version of the message.
    pub version: Version,
    /// What it says.
    pub content: SlotReport<'a>,
}

/// What SLOT_MANAGEMENT_RESP says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotReport<'a> {
    /// What the responder has.
    SupportedSubCodes(SubCodes),
    /// The Banks there are, by `BankID`.
    BankInfo(Vec<BankElement>),
    /// A Bank and its slots.
    BankDetails(BankDetails<'a>),
    /// A chain in the form that CERTIFICATE transfers, its length first.
    CertificateChain(&'a [u8]),
    /// A PKCS#10 CertificationRequest in DER.
    Csr(&'a [u8]),
    /// One of those that change something is done.
    Done(SubCode),
}

/// `SubCodeBitmap`: which sub-codes a responder has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubCodes([u8; BITMAP_SIZE]);

impl SubCodes {
    /// These sub-codes.
    pub fn of(codes: impl IntoIterator<Item = SubCode>) -> Self {
        let mut bitmap = [0; BITMAP_SIZE];
        for SubCode(code) in codes {
            if let Some(byte) = bitmap.get_mut(usize::from(code / 8)) {
                *byte |= 1 << (code % 8);
            }
        }
        Self(bitmap)
    }

    /// Whether this one is among them.
    pub fn has(&self, SubCode(code): SubCode) -> bool {
        self.0.get(usize::from(code / 8)).is_some_and(|byte| byte >> (code % 8) & 1 == 1)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SubCode> + '_ {
        (0..=u8::MAX).map(SubCode).filter(|&code| self.has(code))
    }
}

/// A Bank as the list of all of them shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankElement {
    /// `BankID`.
    pub bank: u8,
    /// Slots that exist in it, bit per slot.
    pub slots: u8,
    /// Those among them that can be written and erased.
    pub modifiable: u8,
}

/// A Bank and its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankDetails<'a> {
    /// `BankID`.
    pub bank: u8,
    /// The Bank's algorithm can be changed; if not, `capabilities` and `available` are empty.
    pub configurable: bool,
    /// The connection uses this Bank.
    pub selected: bool,
    /// Algorithms that the Bank can have.
    pub capabilities: KeyPairAlgorithms,
    /// The algorithm that it has.
    pub current: KeyPairAlgorithms,
    /// Algorithms that it can have and no other Bank has.
    pub available: KeyPairAlgorithms,
    /// The slots that exist, by number.
    pub slots: Vec<SlotElement<'a>>,
}

/// A slot of a Bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotElement<'a> {
    /// Slot, 0 to 7; a parsed message may hold up to 15.
    pub slot: u8,
    /// It holds a chain.
    pub provisioned: bool,
    /// It cannot be written.
    pub write_protected: bool,
    /// `KeyPairID` where the connection has several keys and the slot has one, otherwise 0.
    pub key_pair: u8,
    /// Model of the chain where there is one and the connection has several keys.
    pub model: Option<CertificateModel>,
    /// What the slot's key may be used for.
    pub usage: KeyUsage,
    /// Bytes that the slot has room for.
    pub size: u32,
    /// Digest of the chain under the negotiated hash; zeros if there is none.
    pub digest: &'a [u8],
}

/// Every value that a sub-code may have has a bit.
const BITMAP_SIZE: usize = 32;
/// Bytes of a bitmap that has the sub-codes there are.
const SMALLEST_BITMAP: usize = 8;
const ELEMENT_LENGTH: u8 = 4;
const CONFIG_ALGO: u8 = 1 << 0;
const SELECTED: u8 = 1 << 1;
const PROVISIONED: u8 = 1 << 0;
const WRITE_PROTECTED: u8 = 1 << 1;
const MODEL_MASK: u8 = 7;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Element {
    length: u8,
    bank: u8,
    slots: u8,
    modifiable: u8,
}
const _: () = assert!(size_of::<Element>() == ELEMENT_LENGTH as usize);

/// What follows `RespLength` in `BankDetails`, up to the post-quantum masks.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Details {
    bank: u8,
    reserved: u8,
    slots: U16,
    attributes: u8,
    reserved_2: u8,
    capabilities: U32,
    current: U32,
    available: U32,
}
const _: () = assert!(size_of::<Details>() == 18);

/// What follows `ElementLength` in `SlotElement`, up to the digest.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Slot {
    slot: u8,
    reserved: u8,
    attributes: u8,
    key_pair: u8,
    certificate_info: u8,
    reserved_2: u8,
    usage: U16,
    reserved_3: U16,
    size: U32,
}
const _: () = assert!(size_of::<Slot>() == 14);

/// The rest of something that begins with its own length in 16 bits.
fn measured<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Reader<'a>, DecodeError> {
    let length = usize::from(reader.u16(field)?).checked_sub(2).ok_or(DecodeError::illegal(field))?;
    Ok(Reader::new(reader.bytes(length, field)?))
}

/// Appends what `write` writes with its length, these two bytes included, before it.
fn put_measured(
    out: &mut Vec<u8>,
    field: &'static str,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let mut body = Vec::new();
    write(&mut body)?;
    let length = body.len().checked_add(2).and_then(|length| u16::try_from(length).ok());
    out.put_u16(length.ok_or(EncodeError(field))?);
    out.put(&body);
    Ok(())
}

/// Bytes behind their length in 32 bits and four reserved ones.
fn large<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(reader.u32(field)?).unwrap_or(usize::MAX);
    reader.u32("reserved")?;
    reader.bytes(length, field)
}

fn put_large(out: &mut Vec<u8>, bytes: &[u8], field: &'static str) -> Result<(), EncodeError> {
    out.put_u32(u32::try_from(bytes.len()).map_err(|_| EncodeError(field))?);
    out.put_u32(0);
    out.put(bytes);
    Ok(())
}

impl SubCodes {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut body = measured(reader, "sub-codes length")?;
        body.u16("reserved")?;
        let sent = body.rest();
        if sent.len() < SMALLEST_BITMAP {
            return Err(DecodeError::illegal("sub-codes length"));
        }
        let mut bitmap = [0; BITMAP_SIZE];
        bitmap.iter_mut().zip(sent).for_each(|(bits, sent)| *bits = *sent);
        Ok(Self(bitmap))
    }
}

impl BankElement {
    fn parse_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        let mut body = measured(reader, "bank information length")?;
        body.u8("reserved")?;
        let count = body.u8("number of banks")?;
        (0..count).map(|_| Self::parse(&mut body)).collect()
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let element: Element = reader.read("bank")?;
        let more = element.length.checked_sub(ELEMENT_LENGTH).ok_or(DecodeError::illegal("bank length"))?;
        reader.bytes(more.into(), "bank")?;
        if element.modifiable & !element.slots != 0 {
            return Err(DecodeError::illegal("modifiable slots"));
        }
        Ok(Self { bank: element.bank, slots: element.slots, modifiable: element.modifiable })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (length, Self { bank, slots, modifiable }) = (ELEMENT_LENGTH, *self);
        out.put_fixed(&Element { length, bank, slots, modifiable });
    }
}

impl<'a> BankDetails<'a> {
    fn parse(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = measured(reader, "bank details length")?;
        let details: Details = body.read("bank details")?;
        let (capabilities, current, available) = (
            post_quantum(&mut body, version)?,
            post_quantum(&mut body, version)?,
            post_quantum(&mut body, version)?,
        );
        body.u32("reserved")?;
        let algorithms =
            |classic: U32, post_quantum| KeyPairAlgorithms { classic: classic.get(), post_quantum };
        let slots =
            (0..details.slots.get()).map(|_| SlotElement::parse(&mut body)).collect::<Result<_, _>>()?;
        Ok(Self {
            bank: details.bank,
            configurable: details.attributes & CONFIG_ALGO != 0,
            selected: details.attributes & SELECTED != 0,
            capabilities: algorithms(details.capabilities, capabilities),
            current: algorithms(details.current, current),
            available: algorithms(details.available, available),
            slots,
        })
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let slots = u16::try_from(self.slots.len()).map_err(|_| EncodeError("slots"))?;
        let attributes = [(self.configurable, CONFIG_ALGO), (self.selected, SELECTED)];
        put_measured(out, "bank details", |out| {
            out.put_fixed(&Details {
                bank: self.bank,
                reserved: 0,
                slots: slots.into(),
                attributes: flags(attributes),
                reserved_2: 0,
                capabilities: self.capabilities.classic.into(),
                current: self.current.classic.into(),
                available: self.available.classic.into(),
            });
            for algorithms in [self.capabilities, self.current, self.available] {
                put_post_quantum(algorithms.post_quantum, version, out);
            }
            out.put_u32(0);
            self.slots.iter().try_for_each(|slot| slot.encode(out))
        })
    }
}

impl<'a> SlotElement<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut body = measured(reader, "slot length")?;
        let slot: Slot = body.read("slot")?;
        let code = slot.certificate_info & MODEL_MASK;
        let model = CertificateModel::from_code(code);
        if model.is_none() && code != 0 {
            return Err(DecodeError::illegal("certificate model"));
        }
        Ok(Self {
            slot: slot.slot & 0xF,
            provisioned: slot.attributes & PROVISIONED != 0,
            write_protected: slot.attributes & WRITE_PROTECTED != 0,
            key_pair: slot.key_pair,
            model,
            usage: KeyUsage(slot.usage.get()),
            size: slot.size.get(),
            digest: body.rest(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let attributes = [(self.provisioned, PROVISIONED), (self.write_protected, WRITE_PROTECTED)];
        put_measured(out, "slot", |out| {
            out.put_fixed(&Slot {
                slot: self.slot & 0xF,
                reserved: 0,
                attributes: flags(attributes),
                key_pair: self.key_pair,
                certificate_info: self.model.map_or(0, CertificateModel::code),
                reserved_2: 0,
                usage: self.usage.0.into(),
                reserved_3: 0.into(),
                size: self.size.into(),
            });
            out.put(self.digest);
            Ok(())
        })
    }
}

/// The bits of what holds.
fn flags<const N: usize>(switches: [(bool, u8); N]) -> u8 {
    switches.iter().filter(|(on, _)| *on).fold(0, |flags, (_, bit)| flags | bit)
}

impl SlotReport<'_> {
    /// Its `SubCode`, that of the request.
    pub const fn sub_code(&self) -> SubCode {
        match self {
            Self::SupportedSubCodes(_) => SubCode::SUPPORTED_SUB_CODES,
            Self::BankInfo(_) => SubCode::GET_BANK_INFO,
            Self::BankDetails(_) => SubCode::GET_BANK_DETAILS,
            Self::CertificateChain(_) => SubCode::GET_CERTIFICATE_CHAIN,
            Self::Csr(_) => SubCode::GET_CSR,
            Self::Done(code) => *code,
        }
    }
}

impl<'a> SlotManagementResp<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let Header { version, param1, .. } = Header::expect(reader, Code::SLOT_MANAGEMENT_RESP)?;
        let sub_code = SubCode(param1);
        let content = match (sub_code, structure(reader)?) {
            (SubCode::MANAGE_BANK | SubCode::MANAGE_SLOT | SubCode::SET_CERTIFICATE, false) => {
                SlotReport::Done(sub_code)
            }
            (_, false) | (SubCode::MANAGE_BANK | SubCode::MANAGE_SLOT | SubCode::SET_CERTIFICATE, true) => {
                return Err(DecodeError::illegal("structure offset"));
            }
            (SubCode::SUPPORTED_SUB_CODES, true) => SlotReport::SupportedSubCodes(SubCodes::parse(reader)?),
            (SubCode::GET_BANK_INFO, true) => SlotReport::BankInfo(BankElement::parse_list(reader)?),
            (SubCode::GET_BANK_DETAILS, true) => {
                SlotReport::BankDetails(BankDetails::parse(reader, version)?)
            }
            (SubCode::GET_CERTIFICATE_CHAIN, true) => SlotReport::CertificateChain(large(reader, "chain")?),
            (SubCode::GET_CSR, true) => SlotReport::Csr(large(reader, "CSR")?),
            (_, true) => return Err(DecodeError::illegal("sub-code")),
        };
        Ok(Self { version, content })
    }

    /// Appends the message; fails for more Banks or slots than their lengths can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let structured = !matches!(self.content, SlotReport::Done(_));
        put_head(self.version, Code::SLOT_MANAGEMENT_RESP, self.content.sub_code(), structured, out);
        match &self.content {
            SlotReport::SupportedSubCodes(SubCodes(bitmap)) => put_measured(out, "sub-codes", |out| {
                out.put_u16(0);
                out.put(bitmap);
                Ok(())
            }),
            SlotReport::BankInfo(banks) => put_measured(out, "banks", |out| {
                out.put(&[0, u8::try_from(banks.len()).map_err(|_| EncodeError("banks"))?]);
                banks.iter().for_each(|bank| bank.encode(out));
                Ok(())
            }),
            SlotReport::BankDetails(details) => details.encode(self.version, out),
            SlotReport::CertificateChain(chain) => put_large(out, chain, "chain"),
            SlotReport::Csr(csr) => put_large(out, csr, "CSR"),
            SlotReport::Done(_) => Ok(()),
        }
    }
}
