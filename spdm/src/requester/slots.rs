//! SLOT_MANAGEMENT: the responder's slots of every algorithm, by Bank (DSP0274 1.4 "SLOT_MANAGEMENT request and
//! SLOT_MANAGEMENT_RESP response messages").

use super::certificate::{disapproved, judge};
use super::command::{CsrQuery, PeerCertificate, Reply, SlotContent};
use super::error::{Misuse, RequesterError, Violation};
use super::provision;
use super::state::{Core, Flow, Message, Next, Request};
use crate::slot::SLOT_COUNT;
use crate::wire::{
    BankDetails, BankElement, CertificateModel, KeyPairAlgorithms, KeyUsage, ResponderExtendedFlags,
    SlotAddress, SlotElement, SlotManagement, SlotManagementResp, SlotOperation, SlotReport, SubCode,
    SubCodes,
};

/// What SLOT_MANAGEMENT is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotCommand {
    /// Tell which of these the responder has (SupportedSubCodes).
    SubCodes,
    /// List the Banks (GetBankInfo).
    Banks,
    /// Describe a Bank and its slots (GetBankDetails).
    Bank {
        /// `BankID`.
        bank: u8,
    },
    /// Fetch a slot's chain, then the checks of the whole chain (GetCertificateChain). Transcripts do not begin from it:
    /// that takes [`Command::Certificate`](super::Command::Certificate).
    Certificate {
        /// Bank and slot, 0 to 7.
        address: SlotAddress,
    },
    /// Ask for a certificate signing request (GetCSR). A responder that needs a reset refuses with ResetRequired when it
    /// has accepted.
    Csr {
        /// Bank of the key.
        bank: u8,
        /// As in GET_CSR.
        query: CsrQuery,
    },
    /// Give a Bank without chains another algorithm (ManageBank).
    Configure {
        /// `BankID`.
        bank: u8,
        /// Exactly one algorithm.
        algorithm: KeyPairAlgorithms,
    },
    /// Write or erase a slot (SetCertificate, ManageSlot). A responder that needs a reset refuses with ResetRequired when
    /// it has accepted.
    Write {
        /// Bank and slot, 0 to 7.
        address: SlotAddress,
        /// Key pair of the chain's leaf, where the connection has several keys.
        key_pair: u8,
        /// What the slot is to hold.
        content: SlotContent,
    },
}

/// What SLOT_MANAGEMENT brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotReply {
    /// Of [`SlotCommand::SubCodes`].
    SubCodes(SubCodes),
    /// Of [`SlotCommand::Banks`].
    Banks(Vec<BankElement>),
    /// Of [`SlotCommand::Bank`].
    Bank(BankReport),
    /// Of [`SlotCommand::Certificate`].
    Certificate(PeerCertificate),
    /// Of [`SlotCommand::Csr`]: a PKCS#10 CertificationRequest in DER, as the responder says.
    Csr(Vec<u8>),
    /// Of [`SlotCommand::Configure`] and [`SlotCommand::Write`].
    Done,
}

/// What a responder says of one Bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankReport {
    /// The Bank's algorithm can be changed.
    pub configurable: bool,
    /// The connection uses this Bank.
    pub selected: bool,
    /// Algorithms that it can have, if it is configurable.
    pub capabilities: KeyPairAlgorithms,
    /// The algorithm that it has; none if that is still to be configured.
    pub current: KeyPairAlgorithms,
    /// Algorithms that it can have and no other Bank has, if it is configurable.
    pub available: KeyPairAlgorithms,
    /// The slots that exist, ascending.
    pub slots: Vec<BankSlot>,
}

/// What a responder says of one slot of a Bank. It is hearsay until a chain or a signature confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankSlot {
    /// Slot, 0 to 7.
    pub slot: u8,
    /// Digest of its chain under the negotiated hash, if it holds one.
    pub digest: Option<Vec<u8>>,
    /// It cannot be written.
    pub write_protected: bool,
    /// Key pair, where the connection has several keys and the slot has one, otherwise 0.
    pub key_pair: u8,
    /// Model of the chain, where the connection has several keys.
    pub model: Option<CertificateModel>,
    /// What the slot's key may be used for.
    pub usage: KeyUsage,
    /// Bytes that it has room for.
    pub size: u32,
}

/// SLOT_MANAGEMENT under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingSlots {
    sub_code: SubCode,
    address: SlotAddress,
}

impl PendingSlots {
    /// SLOT_MANAGEMENT.
    pub(super) fn start(core: &Core, command: &SlotCommand) -> Result<Next, RequesterError> {
        let info = &core.connected()?.info;
        let version = info.version;
        if !info.extended_capabilities.of(version).has(ResponderExtendedFlags::SLOT_MGMT) {
            return Err(Misuse::NotCapable("SLOT_MANAGEMENT").into());
        }
        let several = info.algorithms.multiple_keys;
        let mut chain = Vec::new();
        let operation = match command {
            SlotCommand::SubCodes => SlotOperation::SupportedSubCodes,
            SlotCommand::Banks => SlotOperation::BankInfo,
            SlotCommand::Bank { bank } => SlotOperation::BankDetails { bank: *bank },
            SlotCommand::Certificate { address } => SlotOperation::CertificateChain(*address),
            SlotCommand::Csr { bank, query } => SlotOperation::Csr {
                address: SlotAddress { bank: *bank, slot: 0 },
                query: provision::csr_query(version, several, query)?,
            },
            SlotCommand::Configure { algorithm, .. } if algorithm.count() != 1 => {
                return Err(Misuse::OutOfRange("number of algorithms").into());
            }
            SlotCommand::Configure { bank, algorithm } => {
                SlotOperation::ConfigureBank { bank: *bank, algorithm: *algorithm }
            }
            SlotCommand::Write { address, content: SlotContent::Nothing, .. } => {
                SlotOperation::Erase(*address)
            }
            SlotCommand::Write { address, key_pair, content: SlotContent::Chain { certificates, model } } => {
                provision::put_chain(core, certificates, &mut chain)?;
                SlotOperation::SetCertificate {
                    address: *address,
                    key_pair: if several { *key_pair } else { 0 },
                    model: Some(*model).filter(|_| several),
                    chain: &chain,
                }
            }
        };
        let address = operation.address().unwrap_or_default();
        if usize::from(address.slot) >= SLOT_COUNT {
            return Err(Misuse::OutOfRange("slot").into());
        }
        let mut bytes = Vec::new();
        SlotManagement { version, operation }.encode(&mut bytes)?;
        let pending = Self { sub_code: operation.sub_code(), address };
        Ok(Next::Send(Request::new(core, version, bytes, Flow::Slots(pending))))
    }

    /// SLOT_MANAGEMENT_RESP.
    pub(super) fn answered(self, core: &Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (SlotManagementResp { content, .. }, _) = message.parse(SlotManagementResp::parse)?;
        message.require(content.sub_code() == self.sub_code, Violation::Echo("the sub-code"))?;
        let reply = match content {
            SlotReport::SupportedSubCodes(codes) => {
                let required = [
                    SubCode::SUPPORTED_SUB_CODES,
                    SubCode::GET_BANK_INFO,
                    SubCode::GET_BANK_DETAILS,
                    SubCode::GET_CERTIFICATE_CHAIN,
                ];
                let complete = required.iter().all(|&code| codes.has(code));
                message.require(complete, Violation::Slots("a required sub-code is missing"))?;
                SlotReply::SubCodes(codes)
            }
            SlotReport::BankInfo(banks) => {
                let ascending = banks.is_sorted_by(|one, next| one.bank < next.bank);
                message.require(ascending, Violation::Slots("the Banks are not in order"))?;
                SlotReply::Banks(banks)
            }
            SlotReport::BankDetails(details) => {
                message.require(details.bank == self.address.bank, Violation::Echo("the Bank"))?;
                SlotReply::Bank(self.bank(core, message, details)?)
            }
            SlotReport::CertificateChain(chain) => {
                SlotReply::Certificate(self.certificate(core, message, chain)?)
            }
            SlotReport::Csr(csr) => SlotReply::Csr(csr.to_vec()),
            SlotReport::Done(_) => SlotReply::Done,
        };
        Ok(Next::Done(Reply::Slots(reply)))
    }

    fn bank(
        self,
        core: &Core,
        message: &Message<'_>,
        details: BankDetails<'_>,
    ) -> Result<BankReport, RequesterError> {
        let require = |holds, what| message.require(holds, Violation::Slots(what));
        let info = &core.connected()?.info;
        let (size, several) = (info.algorithms.hash.size(), info.algorithms.multiple_keys);
        let BankDetails { configurable, selected, capabilities, current, available, slots, .. } = details;
        require(current.count() <= 1, "the Bank has several algorithms")?;
        require(capabilities.has(available), "algorithms are available that the Bank cannot have")?;
        require(slots.is_sorted_by(|one, next| one.slot < next.slot), "the slots are not in order")?;
        for slot in &slots {
            require(usize::from(slot.slot) < SLOT_COUNT, "there are eight slots")?;
            require(slot.digest.len() == size, "a digest is not of the negotiated hash")?;
            let single = slot.key_pair == 0 && slot.model.is_none();
            require(several || single, "the connection has one key")?;
        }
        let slots = slots.iter().map(BankSlot::from).collect();
        Ok(BankReport { configurable, selected, capabilities, current, available, slots })
    }

    /// Checks the whole chain. Which algorithm its leaf has to be of is the Bank's affair.
    fn certificate(
        self,
        core: &Core,
        message: &Message<'_>,
        chain: &[u8],
    ) -> Result<PeerCertificate, RequesterError> {
        let slot = self.address.slot;
        let digest = core.digest(chain)?;
        let found = judge(core, None)?.approve(chain).map_err(|reason| disapproved(slot, message, reason))?;
        Ok(PeerCertificate {
            slot,
            chain: found.certificates,
            chain_digest: digest.as_ref().to_vec(),
            root_digest: found.root_digest.as_ref().to_vec(),
            trust: found.trust,
        })
    }
}

impl From<&SlotElement<'_>> for BankSlot {
    fn from(element: &SlotElement<'_>) -> Self {
        Self {
            slot: element.slot,
            digest: element.provisioned.then(|| element.digest.to_vec()),
            write_protected: element.write_protected,
            key_pair: element.key_pair,
            model: element.model,
            usage: element.usage,
            size: element.size,
        }
    }
}
