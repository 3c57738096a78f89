//! GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS: from nothing to a connection.

use super::command::{ConnectionInfo, Reply, SelectedAlgorithms};
use super::error::{RequesterError, Violation};
use super::state::{Connection, Core, Flow, Message, Next, Request};
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use crate::transcript::Vca;
use crate::wire::{
    AlgorithmTables, Algorithms, Capabilities, GetCapabilities, GetVersion, KEY_SCHEDULE_SPDM,
    MEASUREMENT_HASH_RAW_ONLY, MEASUREMENT_SPECIFICATION_DMTF, MEL_SPECIFICATION_DMTF,
    MIN_DATA_TRANSFER_SIZE, MULTI_KEY_CONNECTION, NegotiateAlgorithms, OPAQUE_FORMAT_GENERAL, RequesterFlags,
    ResponderFlags, Version, VersionResponse,
};

/// Longest CTExponent a responder may have: half an hour.
const MAX_CT_EXPONENT: u8 = 31;

/// The exchanges so far: what later becomes the first part of every transcript (message A).
pub(super) struct Negotiation {
    vca: Vca,
}

/// Negotiation once the version is known.
pub(super) struct Versioned {
    version: Version,
    vca: Vca,
}

/// Negotiation once the capabilities are known.
pub(super) struct Capable {
    capabilities: Capabilities,
    vca: Vca,
}

impl Negotiation {
    /// The first request. Whatever was known before is forgotten: GET_VERSION resets the responder too.
    pub(super) fn start(core: &mut Core) -> Next {
        core.disconnect();
        let mut bytes = Vec::new();
        GetVersion { version: Version::V1_0 }.encode(&mut bytes);
        Next::Send(Request::clear(Version::V1_0, bytes, Flow::Version(Self { vca: Vca::new() })))
    }

    /// VERSION: picks the highest version both sides speak.
    pub(super) fn version(mut self, core: &Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, exact) = message.parse(VersionResponse::parse)?;
        let spoken = |version: &&Version| response.entries.iter().any(|entry| entry.version() == **version);
        let version = core.config.versions.iter().filter(spoken).max().copied();
        let version = version.ok_or_else(|| message.violation(Violation::NoCommonVersion))?;
        self.vca.append(message.request);
        self.vca.append(exact);
        let mut bytes = Vec::new();
        GetCapabilities {
            version,
            supported_algorithms: core.config.ask_algorithms && core.config.chunks,
            ct_exponent: core.config.ct_exponent,
            flags: core.flags(version),
            data_transfer_size: core.config.data_transfer_size,
            max_message_size: core.config.longest_message(),
        }
        .encode(&mut bytes);
        let flow = Flow::Capabilities(Versioned { version, vca: self.vca });
        Ok(Next::Send(Request::clear(version, bytes, flow)))
    }
}

impl Versioned {
    /// CAPABILITIES: flags and sizes have to make sense.
    pub(super) fn capabilities(mut self, core: &Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (capabilities, exact) = message.parse(Capabilities::parse)?;
        if let Err(contradiction) = check_flags(capabilities.flags, self.version) {
            return Err(message.violation(Violation::Capabilities(contradiction)));
        }
        let (transfer, whole) = (capabilities.data_transfer_size, capabilities.max_message_size);
        let chunks = capabilities.flags.has(ResponderFlags::CHUNK);
        if transfer < MIN_DATA_TRANSFER_SIZE || transfer > whole || (!chunks && transfer != whole) {
            return Err(message.violation(Violation::TransferSize));
        }
        if capabilities.ct_exponent > MAX_CT_EXPONENT {
            return Err(message.violation(Violation::Capabilities("CTExponent")));
        }
        // Told without being asked, or by a responder that has no chunks for it.
        let asked = core.config.ask_algorithms && core.config.chunks;
        if capabilities.supported_algorithms.is_some() && !(asked && chunks) {
            return Err(message.violation(Violation::NotAnnounced("supported algorithms")));
        }
        self.vca.append(message.request);
        self.vca.append(exact);
        let mut bytes = Vec::new();
        offer(core, &capabilities).encode(&mut bytes);
        let flow = Flow::Algorithms(Capable { capabilities, vca: self.vca });
        Ok(Next::Send(Request::clear(self.version, bytes, flow)))
    }
}

impl Capable {
    /// What the responder said.
    pub(super) const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// ALGORITHMS: everything selected was offered, and everything needed was selected.
    pub(super) fn algorithms(
        mut self,
        core: &mut Core,
        message: &Message<'_>,
    ) -> Result<Next, RequesterError> {
        let (selected, exact) = message.parse(Algorithms::parse)?;
        let version = self.capabilities.version;
        let algorithms = select(&offer(core, &self.capabilities), &selected, &self.capabilities, core)
            .map_err(|what| message.violation(Violation::Selection(what)))?;
        self.vca.append(message.request);
        self.vca.append(exact);
        let info = ConnectionInfo {
            version,
            capabilities: self.capabilities.flags,
            extended_capabilities: self.capabilities.extended_flags,
            supported_algorithms: self.capabilities.supported_algorithms,
            ct_exponent: self.capabilities.ct_exponent,
            data_transfer_size: self.capabilities.data_transfer_size,
            max_message_size: self.capabilities.max_message_size,
            algorithms,
        };
        let mut connection = Connection::new(info, self.vca);
        connection.known = core.known_key(&connection.info)?;
        core.connection = Some(connection);
        Ok(Next::Done(Reply::Connected(info)))
    }
}

/// NEGOTIATE_ALGORITHMS as the configuration has it.
fn offer(core: &Core, capabilities: &Capabilities) -> NegotiateAlgorithms {
    let config = &core.config;
    let version = capabilities.version;
    let v1_3 = version >= Version::V1_3;
    let several = match capabilities.flags.0 & ResponderFlags::MULTI_KEY_MASK {
        ResponderFlags::MULTI_KEY_ONLY => v1_3,
        ResponderFlags::MULTI_KEY_NEGOTIATED => v1_3 && config.multiple_keys,
        _ => false,
    };
    let log = v1_3 && capabilities.flags.has(ResponderFlags::MEL);
    // A table with nothing in it is left out.
    let table = |mask: u16| (mask != 0).then_some(mask);
    let of_requester = core.requester_offer();
    NegotiateAlgorithms {
        version,
        measurement_specification: MEASUREMENT_SPECIFICATION_DMTF,
        other_params: OPAQUE_FORMAT_GENERAL | if several { MULTI_KEY_CONNECTION } else { 0 },
        base_asym: config.signatures.iter().fold(0, |mask, signature| mask | signature.base_bit()),
        base_hash: config.hashes.iter().fold(0, |mask, hash| mask | hash.bit()),
        pqc_asym: config.signatures.iter().fold(0, |mask, signature| mask | signature.pqc_bit()),
        mel_specification: if log { MEL_SPECIFICATION_DMTF } else { 0 },
        tables: AlgorithmTables {
            dhe: table(config.groups.iter().fold(0, |mask, group| mask | group.dhe_bit())),
            aead: Some(config.aeads.iter().fold(0, |mask, aead| mask | aead.bit())),
            requester_asym: of_requester.and_then(|[base, _]| table(base)),
            key_schedule: Some(KEY_SCHEDULE_SPDM),
            requester_pqc_asym: of_requester.and_then(|[_, pqc]| table(pqc)),
            kem: table(config.groups.iter().fold(0, |mask, group| mask | group.kem_bit())),
        },
    }
}

/// Turns the responder's masks into algorithms; the error names the one that does not fit.
fn select(
    offered: &NegotiateAlgorithms,
    selected: &Algorithms,
    capabilities: &Capabilities,
    core: &Core,
) -> Result<SelectedAlgorithms, &'static str> {
    let flags = capabilities.flags;
    let hash = HashAlgorithm::from_bit(selected.base_hash & offered.base_hash).ok_or("hash")?;
    // One bit at most in both masks together, as decoding has made sure of; the same for the two kinds of exchange.
    let signature = AsymAlgorithm::from_base_bit(selected.base_asym & offered.base_asym)
        .or_else(|| AsymAlgorithm::from_pqc_bit(selected.pqc_asym & offered.pqc_asym));
    let identity = flags.any(ResponderFlags::CERT | ResponderFlags::PUB_KEY_ID);
    if signature.is_none() && (identity || selected.base_asym | selected.pqc_asym != 0) {
        return Err("signature algorithm");
    }
    if signature.is_some_and(|signature| !core.provider.supports_signature(signature, hash)) {
        return Err("pair of signature algorithm and hash");
    }

    let measures = flags.any(ResponderFlags::MEAS_MASK);
    let specification = if measures { MEASUREMENT_SPECIFICATION_DMTF } else { 0 };
    if selected.measurement_specification != specification {
        return Err("measurement specification");
    }
    let measurement_hash = HashAlgorithm::from_measurement_bit(selected.measurement_hash);
    let raw_only = selected.measurement_hash == MEASUREMENT_HASH_RAW_ONLY;
    let none = selected.measurement_hash == 0;
    let fits = if measures { measurement_hash.is_some() || raw_only } else { none };
    if !fits {
        return Err("measurement hash");
    }

    let key_exchange = flags.has(ResponderFlags::KEY_EX);
    let psk = flags.any(ResponderFlags::PSK_MASK) && !core.config.psks.is_empty();
    let sessions = key_exchange || psk;
    let (dhe, kem) = (selected.tables.dhe.unwrap_or(0), selected.tables.kem.unwrap_or(0));
    let aead = selected.tables.aead.unwrap_or(0);
    let group = DheGroup::from_dhe_bit(dhe & offered.tables.dhe.unwrap_or(0))
        .or_else(|| DheGroup::from_kem_bit(kem & offered.tables.kem.unwrap_or(0)));
    if group.is_none() && (key_exchange || dhe | kem != 0) {
        return Err("key exchange group");
    }
    let cipher = Aead::from_bit(aead & offered.tables.aead.unwrap_or(0));
    if cipher.is_none() && (sessions || aead != 0) {
        return Err("AEAD suite");
    }
    let schedule = selected.tables.key_schedule.unwrap_or(0);
    if schedule & !KEY_SCHEDULE_SPDM != 0 || (sessions && schedule != KEY_SCHEDULE_SPDM) {
        return Err("key schedule");
    }
    let requester_signature = core.requester_selection(selected, flags, hash)?;
    // Multiple keys of our own and free-form opaque data were not offered; the general form is needed for sessions only, and
    // before 1.2 it is not negotiated.
    let needed = sessions && offered.version >= Version::V1_2;
    if selected.other_params & !OPAQUE_FORMAT_GENERAL != 0 || (needed && selected.other_params == 0) {
        return Err("opaque data format");
    }
    if selected.mel_specification != offered.mel_specification {
        return Err("measurement extension log specification");
    }
    let multiple_keys = offered.other_params & MULTI_KEY_CONNECTION != 0;
    let measurement_log = selected.mel_specification != 0;
    Ok(SelectedAlgorithms {
        hash,
        signature,
        requester_signature,
        measurement_hash,
        group,
        aead: cipher,
        multiple_keys,
        measurement_log,
    })
}

/// DSP0274 1.4 "GET_CAPABILITIES request and CAPABILITIES response messages": combinations that no responder may
/// have. The error names the flag at fault.
fn check_flags(flags: ResponderFlags, version: Version) -> Result<(), &'static str> {
    use ResponderFlags as F;
    let has = |bits| flags.has(bits);
    let any = |bits| flags.any(bits);
    let signs = flags.0 & F::MEAS_MASK == F::MEAS_SIG;
    let sessions = any(F::KEY_EX | F::PSK_MASK);
    let identity = any(F::CERT | F::PUB_KEY_ID);
    let v1_3 = version >= Version::V1_3;
    if version < Version::V1_1 {
        return check_flags_1_0(flags);
    }
    let rules = [
        ("MEAS_CAP", has(F::MEAS_MASK)),
        ("MEAS_FRESH_CAP", has(F::MEAS_FRESH) && !any(F::MEAS_MASK)),
        ("PSK_CAP", has(F::PSK_MASK)),
        // DSP0277 has no records without authentication.
        ("MAC_CAP", sessions && !has(F::MAC)),
        (
            "MAC_CAP, ENCRYPT_CAP, HBEAT_CAP or KEY_UPD_CAP without a key exchange",
            !sessions && any(F::MAC | F::ENCRYPT | F::HANDSHAKE_IN_THE_CLEAR | F::HBEAT | F::KEY_UPD),
        ),
        ("HANDSHAKE_IN_THE_CLEAR_CAP", has(F::HANDSHAKE_IN_THE_CLEAR) && !has(F::KEY_EX)),
        ("CERT_CAP and PUB_KEY_ID_CAP", has(F::CERT | F::PUB_KEY_ID)),
        ("CERT_CAP without use", identity && !any(F::CHAL | F::KEY_EX) && !signs),
        (
            "CHAL_CAP, KEY_EX_CAP or MUT_AUTH_CAP without CERT_CAP",
            !identity && any(F::CHAL | F::KEY_EX | F::MUT_AUTH),
        ),
        ("MEAS_CAP without CERT_CAP", !identity && signs),
        ("MUT_AUTH_CAP", has(F::MUT_AUTH) && !any(F::KEY_EX | F::CHAL)),
        ("MUT_AUTH_CAP without ENCAP_CAP", version == Version::V1_1 && has(F::MUT_AUTH) && !has(F::ENCAP)),
        (
            "ALIAS_CERT_CAP or SET_CERT_CAP without CERT_CAP",
            any(F::ALIAS_CERT | F::SET_CERT) && !has(F::CERT),
        ),
        ("CSR_CAP", has(F::CSR) && !has(F::SET_CERT)),
        ("CERT_INSTALL_RESET_CAP", has(F::CERT_INSTALL_RESET) && !any(F::CSR | F::SET_CERT)),
        ("SET_KEY_PAIR_RESET_CAP", has(F::SET_KEY_PAIR_RESET) && !has(F::SET_KEY_PAIR_INFO)),
        ("EVENT_CAP", v1_3 && has(F::EVENT) && !sessions),
        ("EP_INFO_CAP", v1_3 && has(F::EP_INFO_MASK)),
        ("MULTI_KEY_CAP", v1_3 && has(F::MULTI_KEY_MASK)),
        (
            "MULTI_KEY_CAP without GET_KEY_PAIR_INFO_CAP",
            v1_3 && any(F::MULTI_KEY_MASK) && !has(F::GET_KEY_PAIR_INFO),
        ),
    ];
    broken(&rules)
}

/// The same for 1.0, which has five flags: a certificate is there to sign something.
fn check_flags_1_0(flags: ResponderFlags) -> Result<(), &'static str> {
    use ResponderFlags as F;
    let signs = flags.0 & F::MEAS_MASK == F::MEAS_SIG;
    broken(&[
        ("MEAS_CAP", flags.has(F::MEAS_MASK)),
        ("MEAS_FRESH_CAP", flags.has(F::MEAS_FRESH) && !flags.any(F::MEAS_MASK)),
        ("MEAS_CAP without CERT_CAP", signs && !flags.has(F::CERT)),
        ("CERT_CAP without CHAL_CAP", !signs && flags.has(F::CERT) && !flags.has(F::CHAL)),
        ("CHAL_CAP without CERT_CAP", flags.has(F::CHAL) && !flags.has(F::CERT)),
    ])
}

/// The first rule that is broken.
fn broken(rules: &[(&'static str, bool)]) -> Result<(), &'static str> {
    match rules.iter().find(|(_, broken)| *broken) {
        Some((flag, _)) => Err(flag),
        None => Ok(()),
    }
}

/// Whether a capability that both sides have to announce is there.
pub(super) const fn both(
    ours: RequesterFlags,
    requester: u32,
    theirs: ResponderFlags,
    responder: u32,
) -> bool {
    ours.has(requester) && theirs.has(responder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_flags_are_accepted() {
        use ResponderFlags as F;
        let full = F::CERT | F::CHAL | F::MEAS_SIG | F::ENCRYPT | F::MAC | F::KEY_EX | F::HBEAT | F::KEY_UPD;
        for flags in [0, F::MEAS_NO_SIG, F::CERT | F::CHAL, F::CERT | F::MEAS_SIG, full, full | F::MEAS_FRESH]
        {
            for version in Version::IMPLEMENTED {
                assert_eq!(check_flags(ResponderFlags(flags).of(version), version), Ok(()), "{flags:#x}");
            }
        }
    }

    #[test]
    fn contradictory_flags_are_refused() {
        use ResponderFlags as F;
        let session = F::CERT | F::KEY_EX | F::MAC | F::ENCRYPT;
        for flags in [
            F::MEAS_MASK | F::CERT,
            F::MEAS_FRESH,
            F::PSK_MASK | F::MAC,
            F::CERT | F::KEY_EX,
            F::CERT | F::CHAL | F::ENCRYPT,
            F::CERT | F::CHAL | F::HBEAT,
            (1 << 10) | F::MAC | F::HANDSHAKE_IN_THE_CLEAR,
            session | F::PUB_KEY_ID,
            F::CERT,
            F::CHAL,
            F::MEAS_SIG,
            F::CERT | F::MEAS_SIG | F::MUT_AUTH,
            F::ALIAS_CERT,
            session | F::CSR,
            session | F::CERT_INSTALL_RESET,
        ] {
            assert!(check_flags(ResponderFlags(flags), Version::V1_2).is_err(), "{flags:#x}");
        }
        let mutual = session | F::MUT_AUTH;
        assert!(check_flags(ResponderFlags(mutual), Version::V1_1).is_err());
        assert!(check_flags(ResponderFlags(mutual | F::ENCAP), Version::V1_1).is_ok());
        for flags in
            [F::MEAS_MASK | F::CERT, F::MEAS_FRESH, F::CERT, F::CHAL, F::MEAS_SIG, F::CERT | F::MEAS_NO_SIG]
        {
            assert!(check_flags(ResponderFlags(flags), Version::V1_0).is_err(), "{flags:#x}");
        }
        for flags in [F::EVENT, session | F::EP_INFO_MASK, session | F::MULTI_KEY_MASK, session | (1 << 26)] {
            assert!(check_flags(ResponderFlags(flags), Version::V1_3).is_err(), "{flags:#x}");
        }
    }
}
