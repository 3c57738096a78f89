//! SLOT_MANAGEMENT (DSP0274 1.4 "SLOT_MANAGEMENT request and SLOT_MANAGEMENT_RESP response messages"): certificate slots
//! as storage, those of every algorithm and not of the negotiated one alone.
//!
//! Slots whose keys are of one algorithm are a Bank. What a `SubCode` asks for is in a structure that `MgmtStructOffset`
//! leads to; most of them begin with a `SlotAddress`.
//!
//! Names, sub-codes, and lengths and order of most fields are those of libspdm's sources after 3.6, which has no header with
//! these structures yet. Not confirmed by anything are the places of reserved bytes in `SlotAddress`, ManageBank, ManageSlot,
//! SetCertificate and the answer to GetCertificateChain, that GetCSR has none, the values of both operations, and the bits of the
//! attributes of Banks and slots.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::key_pairs::{post_quantum, put_post_quantum};
use super::provision::{model_code, model_field};
use super::{CertificateModel, Code, GetCsr, Header, KeyPairAlgorithms, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// `SubCode` of SLOT_MANAGEMENT; any value a peer may send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubCode(pub u8);

macro_rules! sub_codes {
    ($($name:ident = $value:literal, $wire:literal;)*) => {
        impl SubCode {
            $(#[doc = $wire] pub const $name: Self = Self($value);)*
            /// All that the specification lists.
            pub const LISTED: &[Self] = &[$(Self::$name,)*];

            /// Name in DSP0274, if it is listed there.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($wire),)*
                    _ => None,
                }
            }
        }
    };
}

sub_codes! {
    SUPPORTED_SUB_CODES = 0x00, "SupportedSubCodes";
    GET_BANK_INFO = 0x01, "GetBankInfo";
    GET_BANK_DETAILS = 0x02, "GetBankDetails";
    GET_CERTIFICATE_CHAIN = 0x03, "GetCertificateChain";
    GET_CSR = 0x04, "GetCSR";
    MANAGE_BANK = 0x20, "ManageBank";
    MANAGE_SLOT = 0x21, "ManageSlot";
    SET_CERTIFICATE = 0x22, "SetCertificate";
}

impl core::fmt::Debug for SubCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

/// One slot of one Bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotAddress {
    /// `BankID`, from 0 on without gaps.
    pub bank: u8,
    /// Slot, 0 to 7; a parsed message may hold up to 15. Of no meaning to what is about a Bank.
    pub slot: u8,
}

/// SLOT_MANAGEMENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotManagement<'a> {
    /// Version of the message.
    pub version: Version,
    /// What is asked for.
    pub operation: SlotOperation<'a>,
}

/// What SLOT_MANAGEMENT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotOperation<'a> {
    /// Which of these the responder has.
    SupportedSubCodes,
    /// The Banks there are.
    BankInfo,
    /// A Bank and its slots.
    BankDetails {
        /// `BankID`.
        bank: u8,
    },
    /// The whole chain of a slot.
    CertificateChain(SlotAddress),
    /// A certificate signing request, as GET_CSR has it.
    Csr {
        /// Its Bank is that of the key; its slot says nothing.
        address: SlotAddress,
        /// What GET_CSR would say, in this message's version.
        query: GetCsr<'a>,
    },
    /// A Bank is to have another algorithm (`ManageBank`, ConfigAlgo).
    ConfigureBank {
        /// `BankID`.
        bank: u8,
        /// The algorithm.
        algorithm: KeyPairAlgorithms,
    },
    /// A slot is to lose its chain (`ManageSlot`, Erase).
    Erase(SlotAddress),
    /// A slot is to hold a chain, as SET_CERTIFICATE has it.
    SetCertificate {
        /// The slot.
        address: SlotAddress,
        /// `KeyPairID` of the chain's leaf where the connection has several keys, otherwise 0.
        key_pair: u8,
        /// Model of the chain where the connection has several keys.
        model: Option<CertificateModel>,
        /// The chain in the form that CERTIFICATE transfers, its length first.
        chain: &'a [u8],
    },
}

/// Bytes of both messages before the structure of the `SubCode`.
pub(super) const HEAD: u16 = 8;
/// `ReqLength` of a `SlotAddress`.
const ADDRESS_LENGTH: u16 = 8;
/// `Operation` of `ManageBank`.
const CONFIG_ALGO: u8 = 1;
/// `Operation` of `ManageSlot`.
const ERASE: u8 = 1;
const MODEL_MASK: u8 = 7;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Address {
    length: U16,
    bank: u8,
    slot: u8,
    reserved: [u8; 4],
}
const _: () = assert!(size_of::<Address>() == ADDRESS_LENGTH as usize);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CsrBody {
    key_pair: u8,
    attributes: u8,
    info_length: U16,
    opaque_length: U16,
}
const _: () = assert!(size_of::<CsrBody>() == 6);

/// What follows the address in `ManageBank` and is all of the rest in `ManageSlot`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Operation {
    operation: u8,
    reserved: [u8; 3],
}
const _: () = assert!(size_of::<Operation>() == 4);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CertificateBody {
    length: U32,
    attributes: u8,
    key_pair: u8,
    reserved: U16,
}
const _: () = assert!(size_of::<CertificateBody>() == 8);

impl SlotAddress {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let address: Address = reader.read("slot address")?;
        if address.length.get() != ADDRESS_LENGTH {
            return Err(DecodeError::illegal("slot address length"));
        }
        Ok(Self { bank: address.bank, slot: address.slot & 0xF })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let length = ADDRESS_LENGTH.into();
        out.put_fixed(&Address { length, bank: self.bank, slot: self.slot & 0xF, reserved: [0; 4] });
    }

    const fn bank(bank: u8) -> Self {
        Self { bank, slot: 0 }
    }
}

/// `MgmtStructOffset`, and where it leads: `false` if there is no structure.
pub(super) fn structure(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    const FIELD: &str = "structure offset";
    let offset = reader.u16(FIELD)?;
    reader.u16("reserved")?;
    if offset == 0 {
        return Ok(false);
    }
    let skipped = offset.checked_sub(HEAD).ok_or(DecodeError::illegal(FIELD))?;
    reader.bytes(skipped.into(), FIELD)?;
    Ok(true)
}

/// Header, `MgmtStructOffset` and what is reserved behind it.
pub(super) fn put_head(version: Version, code: Code, sub_code: SubCode, structure: bool, out: &mut Vec<u8>) {
    Header::new(version, code, sub_code.0, 0).encode(out);
    out.put_u16(if structure { HEAD } else { 0 });
    out.put_u16(0);
}

/// The operation has to be the only one that the specification has for it.
fn operation(reader: &mut Reader<'_>, only: u8) -> Result<(), DecodeError> {
    let body: Operation = reader.read("operation")?;
    if body.operation == only { Ok(()) } else { Err(DecodeError::illegal("operation")) }
}

impl<'a> SlotOperation<'a> {
    /// Its `SubCode`.
    pub const fn sub_code(&self) -> SubCode {
        match self {
            Self::SupportedSubCodes => SubCode::SUPPORTED_SUB_CODES,
            Self::BankInfo => SubCode::GET_BANK_INFO,
            Self::BankDetails { .. } => SubCode::GET_BANK_DETAILS,
            Self::CertificateChain(_) => SubCode::GET_CERTIFICATE_CHAIN,
            Self::Csr { .. } => SubCode::GET_CSR,
            Self::ConfigureBank { .. } => SubCode::MANAGE_BANK,
            Self::Erase(_) => SubCode::MANAGE_SLOT,
            Self::SetCertificate { .. } => SubCode::SET_CERTIFICATE,
        }
    }

    /// The slot or Bank it is about, in which case the slot is 0.
    pub const fn address(&self) -> Option<SlotAddress> {
        match self {
            Self::SupportedSubCodes | Self::BankInfo => None,
            Self::BankDetails { bank } | Self::ConfigureBank { bank, .. } => Some(SlotAddress::bank(*bank)),
            Self::CertificateChain(address)
            | Self::Erase(address)
            | Self::Csr { address, .. }
            | Self::SetCertificate { address, .. } => Some(*address),
        }
    }

    fn parse_structure(
        sub_code: SubCode,
        version: Version,
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let address = SlotAddress::parse(reader)?;
        Ok(match sub_code {
            SubCode::GET_BANK_DETAILS => Self::BankDetails { bank: address.bank },
            SubCode::GET_CERTIFICATE_CHAIN => Self::CertificateChain(address),
            SubCode::GET_CSR => {
                let body: CsrBody = reader.read("CSR request")?;
                let lengths = [body.info_length.get(), body.opaque_length.get()];
                let query = GetCsr::of(version, body.key_pair, body.attributes, lengths, reader)?;
                Self::Csr { address, query }
            }
            SubCode::MANAGE_BANK => {
                operation(reader, CONFIG_ALGO)?;
                let classic = reader.u32("algorithm")?;
                let algorithm = KeyPairAlgorithms { classic, post_quantum: post_quantum(reader, version)? };
                if algorithm.count() != 1 {
                    return Err(DecodeError::illegal("algorithm"));
                }
                Self::ConfigureBank { bank: address.bank, algorithm }
            }
            SubCode::MANAGE_SLOT => {
                operation(reader, ERASE)?;
                Self::Erase(address)
            }
            SubCode::SET_CERTIFICATE => {
                let body: CertificateBody = reader.read("certificate request")?;
                let model = model_field(body.attributes & MODEL_MASK)?;
                let length = usize::try_from(body.length.get()).unwrap_or(usize::MAX);
                let chain = reader.bytes(length, "chain")?;
                Self::SetCertificate { address, key_pair: body.key_pair, model, chain }
            }
            _ => return Err(DecodeError::illegal("sub-code")),
        })
    }
}

impl<'a> SlotManagement<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let Header { version, param1, .. } = Header::expect(reader, Code::SLOT_MANAGEMENT)?;
        let sub_code = SubCode(param1);
        let operation = match (structure(reader)?, sub_code) {
            (false, SubCode::SUPPORTED_SUB_CODES) => SlotOperation::SupportedSubCodes,
            (false, SubCode::GET_BANK_INFO) => SlotOperation::BankInfo,
            (true, SubCode::SUPPORTED_SUB_CODES | SubCode::GET_BANK_INFO) | (false, _) => {
                return Err(DecodeError::illegal("structure offset"));
            }
            (true, sub_code) => SlotOperation::parse_structure(sub_code, version, reader)?,
        };
        Ok(Self { version, operation })
    }

    /// Appends the message; fails for a chain over 4 GiB, and for GET_CSR's information over 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (operation, address) = (&self.operation, self.operation.address());
        put_head(self.version, Code::SLOT_MANAGEMENT, operation.sub_code(), address.is_some(), out);
        if let Some(address) = address {
            address.encode(out);
        }
        match operation {
            SlotOperation::SupportedSubCodes
            | SlotOperation::BankInfo
            | SlotOperation::BankDetails { .. }
            | SlotOperation::CertificateChain(_) => {}
            SlotOperation::Csr { query, .. } => {
                let [info_length, opaque_length] = query.lengths()?;
                out.put_fixed(&CsrBody {
                    key_pair: query.key_pair,
                    attributes: query.attributes(),
                    info_length: info_length.into(),
                    opaque_length: opaque_length.into(),
                });
                out.put(query.requester_info);
                out.put(query.opaque);
            }
            SlotOperation::ConfigureBank { algorithm, .. } => {
                out.put_fixed(&Operation { operation: CONFIG_ALGO, reserved: [0; 3] });
                out.put_u32(algorithm.classic);
                put_post_quantum(algorithm.post_quantum, self.version, out);
            }
            SlotOperation::Erase(_) => {
                out.put_fixed(&Operation { operation: ERASE, reserved: [0; 3] });
            }
            SlotOperation::SetCertificate { key_pair, model, chain, .. } => {
                let length = u32::try_from(chain.len()).map_err(|_| EncodeError("chain"))?;
                out.put_fixed(&CertificateBody {
                    length: length.into(),
                    attributes: model_code(*model),
                    key_pair: *key_pair,
                    reserved: 0.into(),
                });
                out.put(chain);
            }
        }
        Ok(())
    }
}
