//! Which requesters are asked to authenticate themselves, and how
//! (DSP0274 1.3 "Basic mutual authentication", "Session-based mutual authentication").

use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, Provider};
use crate::slot::{PUBLIC_KEY_SLOT, SLOT_COUNT};
use crate::trust::{KnownKey, PeerKey, TrustPolicy};
use crate::wire::{MutualAuth, RequesterFlags, ResponderFlags, Version, encapsulates};

use super::ConfigError;
use super::encapsulated::Conversation;
use super::interview::Interview;
use super::state::{Negotiated, Peer, Suite};

/// Whether and how a requester that can authenticate itself is asked to. `Default` asks nobody.
#[derive(Clone, Debug)]
pub struct MutualAuthentication {
    /// CHALLENGE_AUTH asks for it (`BasicMutAuthReq`), in 1.1 to 1.3.
    pub challenge: bool,
    /// What KEY_EXCHANGE_RSP asks for.
    pub session: SessionAuthentication,
    /// The requester's slot to ask for; if it holds no chain, the lowest one that does.
    pub slot: u8,
    /// Signature algorithms of requesters, most preferred first. Only those the provider can verify are offered.
    pub asym: Vec<AsymAlgorithm>,
    /// Whose certificates are believed.
    pub trust: TrustPolicy,
    /// Seconds since 1970 at which certificates have to be valid; `None` does not check.
    pub time: Option<i64>,
    /// Key of requesters that have no certificates. With it, they are asked for a signature alone.
    pub public_key: Option<KnownKey>,
}

/// What KEY_EXCHANGE_RSP asks a requester with certificates for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionAuthentication {
    /// Nothing.
    #[default]
    Never,
    /// A signature, if the chain was learned earlier on the connection.
    Known,
    /// The chain, in an encapsulated flow that the requester begins, then a signature.
    Encapsulated,
    /// The same, in an encapsulated flow that KEY_EXCHANGE_RSP begins by asking for digests.
    Digests,
}

impl Default for MutualAuthentication {
    fn default() -> Self {
        Self {
            challenge: false,
            session: SessionAuthentication::Never,
            slot: 0,
            asym: vec![AsymAlgorithm::EcdsaP384, AsymAlgorithm::EcdsaP256],
            trust: TrustPolicy::FirstUse,
            time: None,
            public_key: None,
        }
    }
}

impl MutualAuthentication {
    /// The key of a requester without certificates, if it is known and fits what was negotiated.
    pub(super) fn known_key(
        &self,
        provider: &dyn Provider,
        peer: &Peer,
        suite: &Suite,
    ) -> Result<Option<PeerKey>, CryptoError> {
        match (&self.public_key, suite.requester_asym) {
            (Some(known), Some(asym)) if peer.flags.has(RequesterFlags::PUB_KEY_ID) => {
                known.for_algorithm(provider, suite.hash, asym)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn asks_in_sessions(&self) -> bool {
        self.session != SessionAuthentication::Never
    }

    /// Drops the algorithms that the provider cannot verify; it is an error if none is left.
    pub(super) fn settle(
        &mut self,
        provider: &dyn Provider,
        hashes: &[HashAlgorithm],
    ) -> Result<(), ConfigError> {
        self.asym.retain(|&asym| hashes.iter().any(|&hash| provider.supports_signature(asym, hash)));
        if (self.challenge || self.asks_in_sessions()) && self.asym.is_empty() {
            return Err(ConfigError::NoAlgorithm("signature algorithm of requesters"));
        }
        if usize::from(self.slot) >= SLOT_COUNT {
            return Err(ConfigError::OutOfRange { field: "mutual.slot", expected: "0 to 7" });
        }
        Ok(())
    }
}

/// What FINISH has to prove beside knowledge of the session's secret.
#[derive(Debug)]
pub(super) enum Proof {
    /// Nothing.
    Nothing,
    /// That the requester holds a key which it has not told yet.
    Untold,
    /// That the requester holds this key, which it knows by this slot.
    Key { slot: u8, key: PeerKey, digests: Vec<u8> },
}

/// What a KEY_EXCHANGE_RSP asks for.
pub(super) struct Demand {
    pub(super) form: MutualAuth,
    /// `SlotIDParam`.
    pub(super) slot: u8,
    pub(super) proof: Proof,
    pub(super) conversation: Option<Conversation>,
}

impl Demand {
    const NOTHING: Self = Self { form: MutualAuth::None, slot: 0, proof: Proof::Nothing, conversation: None };
}

/// Whether this requester can be asked in a way that needs `bits` of it beside certificates.
fn can_ask(ours: ResponderFlags, negotiated: &Negotiated, bits: u32) -> bool {
    let peer = &negotiated.peer;
    negotiated.suite.requester_asym.is_some()
        && peer.flags.has(RequesterFlags::CERT | bits)
        && encapsulates(peer.version, peer.flags, ours)
}

impl MutualAuthentication {
    /// What CHALLENGE_AUTH begins, if it asks for the requester's own authentication.
    pub(super) fn after_challenge(
        &self,
        ours: ResponderFlags,
        negotiated: &Negotiated,
    ) -> Option<Conversation> {
        // 1.4 knows it no more.
        if !self.challenge || negotiated.peer.version >= Version::V1_4 {
            return None;
        }
        let (peer, known) = (&negotiated.peer, negotiated.known.is_some());
        if known && peer.flags.has(RequesterFlags::CHAL) && encapsulates(peer.version, peer.flags, ours) {
            return Some(Conversation::interview(Interview::known()));
        }
        can_ask(ours, negotiated, RequesterFlags::CHAL).then(|| Conversation::interview(Interview::new(true)))
    }

    /// What KEY_EXCHANGE_RSP asks for. A requester that cannot do what the configuration says is not asked.
    pub(super) fn demand(&self, ours: ResponderFlags, negotiated: &Negotiated) -> Demand {
        let known = || {
            let key = negotiated.identities.get(self.slot)?.clone();
            let proof = Proof::Key { slot: self.slot, key, digests: Vec::new() };
            Some(Demand { form: MutualAuth::Known, slot: self.slot, proof, conversation: None })
        };
        let told = |form, conversation| Demand {
            form,
            slot: 0,
            proof: Proof::Untold,
            conversation: Some(conversation),
        };
        let version = negotiated.peer.version;
        if let (Some(key), true) = (&negotiated.known, self.asks_in_sessions()) {
            let proof = Proof::Key { slot: PUBLIC_KEY_SLOT, key: key.clone(), digests: Vec::new() };
            return Demand { form: MutualAuth::Known, slot: PUBLIC_KEY_SLOT, proof, conversation: None };
        }
        let demand = match self.session {
            SessionAuthentication::Never => None,
            SessionAuthentication::Known => known(),
            SessionAuthentication::Encapsulated => can_ask(ours, negotiated, 0)
                .then(|| told(MutualAuth::Encapsulated, Conversation::interview(Interview::new(false)))),
            SessionAuthentication::Digests => can_ask(ours, negotiated, 0)
                .then(|| told(MutualAuth::Digests, Conversation::digests_asked(version))),
        };
        demand.unwrap_or(Demand::NOTHING)
    }
}
