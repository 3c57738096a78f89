//! SET_CERTIFICATE, GET_CSR, GET_KEY_PAIR_INFO and SET_KEY_PAIR_INFO: the responder's slots and keys, managed.

use super::command::{CsrQuery, KeyPairReport, Reply, SlotContent};
use super::error::{Misuse, RequesterError, Violation};
use super::state::{Core, Flow, Message, Next, Request};
use crate::crypto::hash;
use crate::slot::SLOT_COUNT;
use crate::wire::{
    CertificateChain, Csr, GetCsr, GetKeyPairInfo, KeyPairInfo, KeyPairOperation, ResponderFlags,
    SetCertificate, SetCertificateRsp, SetKeyPairInfo, SetKeyPairInfoAck, SlotAction, Version,
};

/// The version, if it has the request and the responder the capability.
fn capable(core: &Core, since: Version, flag: u32, what: &'static str) -> Result<Version, Misuse> {
    let info = &core.connected()?.info;
    if info.version >= since && info.capabilities.has(flag) {
        Ok(info.version)
    } else {
        Err(Misuse::NotCapable(what))
    }
}

/// SET_CERTIFICATE.
pub(super) fn set_certificate(
    core: &Core,
    slot: u8,
    key_pair: u8,
    content: &SlotContent,
) -> Result<Next, RequesterError> {
    let version = capable(core, Version::V1_2, ResponderFlags::SET_CERT, "SET_CERTIFICATE")?;
    if usize::from(slot) >= SLOT_COUNT {
        return Err(Misuse::OutOfRange("slot").into());
    }
    let several = core.connected()?.info.algorithms.multiple_keys;
    let key_pair = if several { key_pair } else { 0 };
    let mut chain = Vec::new();
    let action = match content {
        SlotContent::Chain { certificates, model } => {
            put_chain(core, certificates, &mut chain)?;
            SlotAction::Store { model: Some(*model).filter(|_| several), chain: &chain }
        }
        SlotContent::Nothing if version < Version::V1_3 => {
            return Err(Misuse::NotCapable("erasing slots").into());
        }
        SlotContent::Nothing => SlotAction::Erase,
    };
    let mut bytes = Vec::new();
    SetCertificate { version, slot, key_pair, action }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::SetCertificate { slot })))
}

/// A chain in the form that SPDM transfers, from its certificates.
pub(super) fn put_chain(
    core: &Core,
    certificates: &[Vec<u8>],
    chain: &mut Vec<u8>,
) -> Result<(), RequesterError> {
    let algorithm = core.connected()?.hash();
    let root = certificates.first().ok_or(Misuse::OutOfRange("certificate chain"))?;
    let root_hash = hash(&*core.provider, algorithm, root)?;
    Ok(CertificateChain::encode(root_hash.as_ref(), certificates, chain)?)
}

/// SET_CERTIFICATE_RSP.
pub(super) fn certificate_set(slot: u8, message: &Message<'_>) -> Result<Next, RequesterError> {
    let (response, _) = message.parse(SetCertificateRsp::parse)?;
    message.require(response.slot == slot, Violation::Slot)?;
    Ok(Next::Done(Reply::CertificateSet))
}

/// GET_CSR.
pub(super) fn get_csr(core: &Core, query: &CsrQuery) -> Result<Next, RequesterError> {
    let version = capable(core, Version::V1_2, ResponderFlags::CSR, "GET_CSR")?;
    let several = core.connected()?.info.algorithms.multiple_keys;
    let mut bytes = Vec::new();
    csr_query(version, several, query)?.encode(&mut bytes)?;
    Ok(Next::Send(Request::new(core, version, bytes, Flow::Csr)))
}

/// What GET_CSR says of a query, in a connection with `several` keys or one.
pub(super) fn csr_query(version: Version, several: bool, query: &CsrQuery) -> Result<GetCsr<'_>, Misuse> {
    let (key_pair, model) = if several { (query.key_pair, query.model) } else { (0, None) };
    if query.tracking_tag > 7 || query.overwrite && query.tracking_tag != 0 {
        return Err(Misuse::OutOfRange("CSR tracking tag"));
    }
    Ok(GetCsr {
        version,
        key_pair,
        model,
        tracking_tag: query.tracking_tag,
        overwrite: query.overwrite,
        requester_info: &query.requester_info,
        opaque: &[],
    })
}

/// CSR.
pub(super) fn csr(message: &Message<'_>) -> Result<Next, RequesterError> {
    let (response, _) = message.parse(Csr::parse)?;
    Ok(Next::Done(Reply::Csr(response.csr.to_vec())))
}

/// GET_KEY_PAIR_INFO.
pub(super) fn get_key_pair_info(core: &Core, key_pair: u8) -> Result<Next, RequesterError> {
    let what = "GET_KEY_PAIR_INFO";
    let version = capable(core, Version::V1_3, ResponderFlags::GET_KEY_PAIR_INFO, what)?;
    let mut bytes = Vec::new();
    GetKeyPairInfo { version, key_pair }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::KeyPair(key_pair))))
}

/// KEY_PAIR_INFO.
pub(super) fn key_pair_info(key_pair: u8, message: &Message<'_>) -> Result<Next, RequesterError> {
    let (response, _) = message.parse(KeyPairInfo::parse)?;
    let about = response.key_pair == key_pair && (1..=response.total).contains(&key_pair);
    message.require(about, Violation::Echo("the key pair"))?;
    let known = response.algorithm.count() <= 1 && response.algorithm_capabilities.has(response.algorithm);
    message.require(known, Violation::Selection("key pair's algorithm"))?;
    let usage = response.usage_capabilities.has(response.usage);
    message.require(usage, Violation::Selection("key pair's usage"))?;
    Ok(Next::Done(Reply::KeyPair(KeyPairReport {
        total: response.total,
        capabilities: response.capabilities,
        usage_capabilities: response.usage_capabilities,
        usage: response.usage,
        algorithm_capabilities: response.algorithm_capabilities,
        algorithm: response.algorithm,
        slots: response.slots,
        public_key_info: response.public_key_info.to_vec(),
    })))
}

/// SET_KEY_PAIR_INFO.
pub(super) fn set_key_pair_info(
    core: &Core,
    key_pair: u8,
    operation: KeyPairOperation,
) -> Result<Next, RequesterError> {
    let what = "SET_KEY_PAIR_INFO";
    let version = capable(core, Version::V1_3, ResponderFlags::SET_KEY_PAIR_INFO, what)?;
    let mut bytes = Vec::new();
    SetKeyPairInfo { version, key_pair, operation }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::SetKeyPair)))
}

/// SET_KEY_PAIR_INFO_ACK.
pub(super) fn key_pair_set(message: &Message<'_>) -> Result<Next, RequesterError> {
    message.parse(SetKeyPairInfoAck::parse)?;
    Ok(Next::Done(Reply::KeyPairSet))
}
