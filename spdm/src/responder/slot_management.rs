//! SLOT_MANAGEMENT: the slots of every algorithm, shown, written and erased (DSP0274 1.4 "SLOT_MANAGEMENT request and
//! SLOT_MANAGEMENT_RESP response messages").
//!
//! A slot of this device is in the Bank of its key's algorithm. A number is not used twice, so (Bank, slot) is the slot that
//! every other request knows by its number. Which algorithms there are follows from the keys, so that no Bank can be
//! configured to have another: ManageBank is not supported.

use crate::crypto::HashAlgorithm;
use crate::slot::{Slot, Slots};
use crate::wire::{
    BankDetails, BankElement, Code, KeyPairAlgorithms, SlotAction, SlotAddress, SlotElement, SlotManagement,
    SlotManagementResp, SlotOperation, SlotReport, SubCode, SubCodes,
};

use super::Core;
use super::provision::check_key_pair;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, Suite};

/// Algorithms of the Banks, by `BankID`: those of the slots' keys, then those that keys can get. They stay as they are, so
/// that a Bank has the same number whatever becomes of the keys.
#[derive(Debug)]
pub(super) struct Banks(Vec<KeyPairAlgorithms>);

impl Banks {
    pub(super) fn of(slots: &Slots) -> Self {
        let mut banks = Vec::new();
        let present = slots.existing().map(|(_, slot)| slot.algorithm());
        let kept = slots.key_pairs.iter().filter_map(|pair| pair.key.as_ref()).map(|key| key.algorithm());
        let possible = slots.key_pairs.iter().flat_map(|pair| pair.algorithms.iter().copied());
        for algorithm in present.chain(kept).chain(possible).map(KeyPairAlgorithms::of) {
            if !banks.contains(&algorithm) {
                banks.push(algorithm);
            }
        }
        Self(banks)
    }

    fn get(&self, bank: u8) -> Result<KeyPairAlgorithms, Reject> {
        self.0.get(usize::from(bank)).copied().ok_or(Reject::INVALID)
    }
}

/// Whether a slot is in the Bank of this algorithm. As in DIGESTS, one without a key exists for all of them.
fn is_in(slot: &Slot, bank: KeyPairAlgorithms) -> bool {
    slot.key_pair == 0 || KeyPairAlgorithms::of(slot.algorithm()) == bank
}

/// Bytes of a request before the chain.
const OVERHEAD: u32 = 24;

impl Core {
    pub(super) fn slot_management(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let sub_code = SubCode(request.header.param1);
        if SubCode::LISTED.contains(&sub_code) && !self.sub_codes().has(sub_code) {
            return Err(Reject::unsupported(Code::SLOT_MANAGEMENT));
        }
        let (SlotManagement { version, operation }, message) = request.parse(SlotManagement::parse)?;
        let suite = self.connection.negotiated()?.suite;
        let csr;
        let content = match operation {
            SlotOperation::SupportedSubCodes => SlotReport::SupportedSubCodes(self.sub_codes()),
            SlotOperation::BankInfo => SlotReport::BankInfo(self.bank_elements()),
            SlotOperation::BankDetails { bank } => SlotReport::BankDetails(self.bank_details(&suite, bank)?),
            SlotOperation::CertificateChain(address) => {
                SlotReport::CertificateChain(self.chain_at(suite.hash, address)?)
            }
            SlotOperation::Csr { address, query } => {
                let bank = self.banks.get(address.bank)?;
                csr = self.csr(&query, message, Some(bank))?;
                SlotReport::Csr(&csr)
            }
            SlotOperation::Erase(address) => {
                let provisioned = self.slot_at(address)?.is_provisioned();
                self.check_trust(request, address.slot, &SlotAction::Erase)?;
                if !provisioned && !self.waits(address.slot) {
                    return Err(Reject::INVALID);
                }
                self.place(&suite, None, version, address.slot, SlotAction::Erase)?;
                SlotReport::Done(sub_code)
            }
            SlotOperation::SetCertificate { address, key_pair, model, chain } => {
                let slot = self.slot_at(address)?;
                let (asym, action) = (slot.algorithm(), SlotAction::Store { model, chain });
                self.check_trust(request, address.slot, &action)?;
                check_key_pair(&suite, slot, key_pair)?;
                self.place(&suite, Some(asym), version, address.slot, action)?;
                SlotReport::Done(sub_code)
            }
            SlotOperation::ConfigureBank { .. } => return Err(Reject::unsupported(Code::SLOT_MANAGEMENT)),
        };
        SlotManagementResp { version, content }.encode(out)?;
        self.fits(out)?;
        if sub_code == SubCode::GET_CSR {
            self.pending_csr = None;
        }
        Ok(Next::Stay)
    }

    /// What there is: all that reads, and what the configuration allows of the rest.
    fn sub_codes(&self) -> SubCodes {
        let settings = self.config.capabilities.provisioning;
        let codes = [
            (true, SubCode::SUPPORTED_SUB_CODES),
            (true, SubCode::GET_BANK_INFO),
            (true, SubCode::GET_BANK_DETAILS),
            (true, SubCode::GET_CERTIFICATE_CHAIN),
            (settings.csr, SubCode::GET_CSR),
            (settings.set_certificate, SubCode::MANAGE_SLOT),
            (settings.set_certificate, SubCode::SET_CERTIFICATE),
        ];
        SubCodes::of(codes.into_iter().filter(|(on, _)| *on).map(|(_, code)| code))
    }

    fn bank_elements(&self) -> Vec<BankElement> {
        let writable = self.config.capabilities.provisioning.set_certificate;
        let element = |(bank, &algorithm): (u8, &KeyPairAlgorithms)| {
            let slots = self.slots_of(algorithm).fold(0, |mask, (number, _)| mask | 1 << number);
            BankElement { bank, slots, modifiable: if writable { slots } else { 0 } }
        };
        (0_u8..).zip(&self.banks.0).map(element).collect()
    }

    fn slots_of(&self, bank: KeyPairAlgorithms) -> impl Iterator<Item = (u8, &Slot)> {
        self.chains.slots().existing().filter(move |(_, slot)| is_in(slot, bank))
    }

    /// The slot, if there is one in this Bank.
    fn slot_at(&self, address: SlotAddress) -> Result<&Slot, Reject> {
        let bank = self.banks.get(address.bank)?;
        self.chains.slots().at(address.slot).filter(|slot| is_in(slot, bank)).ok_or(Reject::INVALID)
    }

    fn bank_details(&self, suite: &Suite, bank: u8) -> Result<BankDetails<'_>, Reject> {
        let current = self.banks.get(bank)?;
        let mut slots = Vec::new();
        for (number, slot) in self.slots_of(current) {
            self.check_installed(Some(number))?;
            slots.push(self.slot_element(suite, number, slot));
        }
        Ok(BankDetails {
            bank,
            configurable: false,
            selected: suite.asym.is_some_and(|asym| KeyPairAlgorithms::of(asym) == current),
            capabilities: KeyPairAlgorithms::default(),
            current,
            available: KeyPairAlgorithms::default(),
            slots,
        })
    }

    fn slot_element(&self, suite: &Suite, number: u8, slot: &Slot) -> SlotElement<'_> {
        const ZEROS: [u8; 64] = [0; 64];
        let settings = self.config.capabilities.provisioning;
        let (several, empty) = (suite.multiple_keys, ZEROS.get(..suite.hash.size()).unwrap_or(&ZEROS));
        let chain = self.chains.get(number, slot.algorithm(), suite.hash).map(|(_, chain)| chain);
        let length = chain.map_or(0, |chain| u32::try_from(chain.bytes.len()).unwrap_or(u32::MAX));
        let room = self.config.max_message_size.saturating_sub(OVERHEAD);
        SlotElement {
            slot: number,
            provisioned: chain.is_some(),
            write_protected: !settings.set_certificate,
            key_pair: if several { slot.key_pair } else { 0 },
            model: Some(slot.model).filter(|_| several && chain.is_some()),
            usage: if slot.key_pair == 0 { Default::default() } else { slot.usage },
            size: if settings.set_certificate { length.max(room) } else { length },
            digest: chain.map_or(empty, |chain| chain.digest.as_ref()),
        }
    }

    /// A whole chain. As GET_CERTIFICATE, it tells nothing that has to be protected.
    fn chain_at(&self, hash: HashAlgorithm, address: SlotAddress) -> Result<&[u8], Reject> {
        let slot = self.slot_at(address)?;
        self.check_installed(Some(address.slot))?;
        let (_, chain) = self.chains.get(address.slot, slot.algorithm(), hash).ok_or(Reject::INVALID)?;
        Ok(&chain.bytes)
    }
}
