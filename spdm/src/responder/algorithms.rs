//! NEGOTIATE_ALGORITHMS: the responder selects, by its own order of preference
//! (DSP0274 1.4 "NEGOTIATE_ALGORITHMS request and ALGORITHMS response messages").

use crate::crypto::{AsymAlgorithm, DheGroup, HashAlgorithm};
use crate::secured::Protection;
use crate::wire::{
    AlgorithmTables, Algorithms, ErrorCode, KEY_SCHEDULE_SPDM, MEASUREMENT_HASH_RAW_ONLY,
    MEASUREMENT_SPECIFICATION_DMTF, MEL_SPECIFICATION_DMTF, MULTI_KEY_CONNECTION, NegotiateAlgorithms,
    OPAQUE_FORMAT_GENERAL, RequesterFlags, ResponderFlags, Version,
};

use super::reject::{Handled, Next, Reject};
use super::requester_info::Endpoint;
use super::state::{BySlot, Connection, MeasurementForm, Negotiated, Peer, Request, SessionSuite, Suite};
use super::{Core, MultipleKeys};

impl Core {
    pub(super) fn negotiate_algorithms(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let Connection::Capabilities { peer, .. } = &self.connection else {
            return Err(Reject::UNEXPECTED);
        };
        if request.session.is_some() {
            return Err(Reject::UNEXPECTED);
        }
        if peer.version != request.header.version {
            return Err(Reject::error(ErrorCode::VERSION_MISMATCH));
        }
        let (body, message) = request.parse(NegotiateAlgorithms::parse)?;
        let peer = *peer;
        let suite = self.select(&peer, &body)?;
        self.selection(&body, &suite).encode(out);

        let known = self.config.mutual.known_key(self.provider.as_ref(), &peer, &suite)?;
        let mut vca = self.connection.take_vca();
        vca.append(message);
        vca.append(out);
        self.connection = Connection::Negotiated(Box::new(Negotiated {
            peer,
            suite,
            vca,
            m1m2: None,
            l1l2: None,
            authenticated: false,
            first_digests: Vec::new(),
            identities: BySlot::new(),
            known,
            conversation: None,
            endpoint: Endpoint::default(),
            read: BySlot::new(),
            shown: BySlot::new(),
        }));
        Ok(Next::Stay)
    }

    /// No common algorithm for something that both sides advertise is an invalid request.
    fn select(&self, peer: &Peer, body: &NegotiateAlgorithms) -> Result<Suite, Reject> {
        // Who has no algorithm of a kind leaves its table out; libspdm, too, refuses one that names none, whether it is of use
        // or not. In 1.4 two tables may stand for one choice, and what names none there takes nothing from the other.
        if body.version < Version::V1_4 && body.tables.any_empty() {
            return Err(Reject::INVALID);
        }
        let (asym, hash) = if self.chains.is_empty() {
            let common = |hash: &&HashAlgorithm| body.base_hash & hash.bit() != 0;
            (None, *self.config.hashes.iter().find(common).ok_or(Reject::INVALID)?)
        } else {
            let (asym, hash) = self.select_signature(body).ok_or(Reject::INVALID)?;
            (Some(asym), hash)
        };
        let key_exchange = self.flags.has(ResponderFlags::KEY_EX) && peer.flags.has(RequesterFlags::KEY_EX);
        let psk = self.flags.any(ResponderFlags::PSK_MASK) && peer.flags.has(RequesterFlags::PSK);
        let session = if key_exchange || psk {
            Some(self.select_session(peer, &body.tables, key_exchange).ok_or(Reject::INVALID)?)
        } else {
            None
        };
        let measurements = if self.flags.any(ResponderFlags::MEAS_MASK) && body.measurement_specification != 0
        {
            if body.measurement_specification & MEASUREMENT_SPECIFICATION_DMTF == 0 {
                return Err(Reject::INVALID);
            }
            Some(self.measured.form())
        } else {
            None
        };
        let general_opaque = body.version < Version::V1_2 || body.other_params & OPAQUE_FORMAT_GENERAL != 0;
        // A session's handshake agrees on the version of secured messages in opaque data.
        if session.is_some() && !general_opaque {
            return Err(Reject::INVALID);
        }
        let multiple_keys = self.select_keys(body)?;
        let measurement_log = body.version >= Version::V1_3
            && self.flags.has(ResponderFlags::MEL)
            && measurements.is_some()
            && body.mel_specification & MEL_SPECIFICATION_DMTF != 0;
        let requester_asym = self.select_requester(peer, hash, &body.tables)?;
        let requester_keys = requester_has_several(peer);
        Ok(Suite {
            hash,
            asym,
            requester_asym,
            requester_keys,
            session,
            measurements,
            general_opaque,
            multiple_keys,
            measurement_log,
        })
    }

    /// Whether slots have keys of their own: as CAPABILITIES said, or as the requester chooses.
    fn select_keys(&self, body: &NegotiateAlgorithms) -> Result<bool, Reject> {
        if body.version < Version::V1_3 {
            return Ok(false);
        }
        let wanted = body.other_params & MULTI_KEY_CONNECTION != 0;
        match (self.config.capabilities.provisioning.multiple_keys, wanted) {
            (MultipleKeys::No, true) | (MultipleKeys::Always, false) => Err(Reject::INVALID),
            (MultipleKeys::No | MultipleKeys::Always | MultipleKeys::Negotiated, _) => Ok(wanted),
        }
    }

    /// Signature and hash go together: some slot must be able to sign with the pair, or at least be there to be given a
    /// chain by which it can: a device whose slots are empty is provisioned in such a connection. Post-quantum algorithms
    /// have their place in the order of preference like all others; before 1.4 nobody offers them.
    fn select_signature(&self, body: &NegotiateAlgorithms) -> Option<(AsymAlgorithm, HashAlgorithm)> {
        let offered =
            |asym: &&AsymAlgorithm| body.base_asym & asym.base_bit() | body.pqc_asym & asym.pqc_bit() != 0;
        let asyms = self.config.asym.iter().filter(offered);
        let pairs = asyms
            .flat_map(|&asym| self.config.hashes.iter().map(move |&hash| (asym, hash)))
            .filter(|(_, hash)| body.base_hash & hash.bit() != 0);
        pairs
            .clone()
            .find(|&(asym, hash)| self.chains.can_sign(asym, hash))
            .or_else(|| pairs.clone().find(|&(asym, hash)| self.chains.could_sign(asym, hash)))
    }

    /// A signature algorithm of the requester, if both sides can do mutual authentication.
    fn select_requester(
        &self,
        peer: &Peer,
        hash: HashAlgorithm,
        tables: &AlgorithmTables,
    ) -> Result<Option<AsymAlgorithm>, Reject> {
        if !self.flags.has(ResponderFlags::MUT_AUTH) || !peer.flags.has(RequesterFlags::MUT_AUTH) {
            return Ok(None);
        }
        let (base, pqc) = (tables.requester_asym.unwrap_or(0), tables.requester_pqc_asym.unwrap_or(0));
        let verifiable = |asym: &&AsymAlgorithm| {
            base & asym.requester_bit() | pqc & asym.requester_pqc_bit() != 0
                && self.provider.supports_signature(**asym, hash)
        };
        self.config.mutual.asym.iter().find(verifiable).copied().map(Some).ok_or(Reject::INVALID)
    }

    /// A pre-shared key alone needs no group.
    fn select_session(
        &self,
        peer: &Peer,
        tables: &AlgorithmTables,
        key_exchange: bool,
    ) -> Option<SessionSuite> {
        let (groups, kems, aeads) = (tables.dhe.unwrap_or(0), tables.kem.unwrap_or(0), tables.aead?);
        let offered = |group: &&DheGroup| groups & group.dhe_bit() | kems & group.kem_bit() != 0;
        let mut common = self.config.groups.iter().filter(offered);
        let group = if key_exchange { Some(*common.next()?) } else { None };
        if tables.key_schedule? & KEY_SCHEDULE_SPDM == 0 {
            return None;
        }
        let encrypt = self.flags.has(ResponderFlags::ENCRYPT) && peer.flags.has(RequesterFlags::ENCRYPT);
        Some(SessionSuite {
            group,
            aead: *self.config.aeads.iter().find(|aead| aeads & aead.bit() != 0)?,
            protection: if encrypt { Protection::EncryptAndMac } else { Protection::MacOnly },
        })
    }

    /// The response carries the tables the request carried, with at most one bit each.
    fn selection(&self, body: &NegotiateAlgorithms, suite: &Suite) -> Algorithms {
        let session = suite.session;
        let group = session.and_then(|session| session.group);
        let tables = &body.tables;
        let opaque_format = if suite.general_opaque { OPAQUE_FORMAT_GENERAL } else { 0 };
        let requester_keys = if suite.requester_keys { MULTI_KEY_CONNECTION } else { 0 };
        Algorithms {
            version: body.version,
            measurement_specification: suite.measurements.map_or(0, |_| MEASUREMENT_SPECIFICATION_DMTF),
            other_params: opaque_format | requester_keys,
            measurement_hash: match suite.measurements {
                None => 0,
                Some(MeasurementForm::RawOnly) => MEASUREMENT_HASH_RAW_ONLY,
                Some(MeasurementForm::Hashed(hash)) => hash.measurement_bit(),
            },
            base_asym: suite.asym.map_or(0, AsymAlgorithm::base_bit),
            base_hash: suite.hash.bit(),
            pqc_asym: suite.asym.map_or(0, AsymAlgorithm::pqc_bit),
            mel_specification: if suite.measurement_log { MEL_SPECIFICATION_DMTF } else { 0 },
            tables: AlgorithmTables {
                dhe: tables.dhe.map(|_| group.map_or(0, DheGroup::dhe_bit)),
                aead: tables.aead.map(|_| session.map_or(0, |session| session.aead.bit())),
                requester_asym: tables
                    .requester_asym
                    .map(|_| suite.requester_asym.map_or(0, AsymAlgorithm::requester_bit)),
                key_schedule: tables.key_schedule.map(|_| session.map_or(0, |_| KEY_SCHEDULE_SPDM)),
                requester_pqc_asym: tables
                    .requester_pqc_asym
                    .map(|_| suite.requester_asym.map_or(0, AsymAlgorithm::requester_pqc_bit)),
                kem: tables.kem.map(|_| group.map_or(0, DheGroup::kem_bit)),
            },
        }
    }

    /// Everything there is to select from, as the supported algorithms block of CAPABILITIES tells it.
    pub(super) fn supported_algorithms(&self, version: Version) -> NegotiateAlgorithms {
        let config = &self.config;
        let measures = self.flags.any(ResponderFlags::MEAS_MASK);
        let sessions = self.flags.any(ResponderFlags::KEY_EX | ResponderFlags::PSK_MASK);
        let several = config.capabilities.provisioning.multiple_keys != MultipleKeys::No;
        let log = measures && self.flags.has(ResponderFlags::MEL);
        // A table with nothing in it is left out.
        let table = |mask: u16| (sessions && mask != 0).then_some(mask);
        let mutual = self.flags.has(ResponderFlags::MUT_AUTH);
        let of_requester = |bit: fn(AsymAlgorithm) -> u16| {
            let mask = config.mutual.asym.iter().fold(0, |mask, &asym| mask | bit(asym));
            (mutual && mask != 0).then_some(mask)
        };
        NegotiateAlgorithms {
            version,
            measurement_specification: if measures { MEASUREMENT_SPECIFICATION_DMTF } else { 0 },
            other_params: OPAQUE_FORMAT_GENERAL | if several { MULTI_KEY_CONNECTION } else { 0 },
            base_asym: config.asym.iter().fold(0, |mask, asym| mask | asym.base_bit()),
            base_hash: config.hashes.iter().fold(0, |mask, hash| mask | hash.bit()),
            pqc_asym: config.asym.iter().fold(0, |mask, asym| mask | asym.pqc_bit()),
            mel_specification: if log { MEL_SPECIFICATION_DMTF } else { 0 },
            tables: AlgorithmTables {
                dhe: table(config.groups.iter().fold(0, |mask, group| mask | group.dhe_bit())),
                aead: table(config.aeads.iter().fold(0, |mask, aead| mask | aead.bit())),
                requester_asym: of_requester(AsymAlgorithm::requester_bit),
                key_schedule: table(KEY_SCHEDULE_SPDM),
                requester_pqc_asym: of_requester(AsymAlgorithm::requester_pqc_bit),
                kem: table(config.groups.iter().fold(0, |mask, group| mask | group.kem_bit())),
            },
        }
    }
}

/// A requester that cannot do without several keys of its own has to be told that it may use them.
fn requester_has_several(peer: &Peer) -> bool {
    let only_several = peer.flags.0 & RequesterFlags::MULTI_KEY_MASK == RequesterFlags::MULTI_KEY_ONLY;
    peer.version >= Version::V1_3 && only_several
}
