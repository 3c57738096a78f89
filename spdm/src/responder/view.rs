//! What can be said of a responder's sessions without giving a secret away.

use core::time::Duration;

use crate::SessionId;
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use crate::secured::Protection;
use crate::slot::PUBLIC_KEY_SLOT;
use crate::wire::Version;

use super::Core;
use super::sessions::Entry;
use super::state::Connection;

/// One session, to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Session id.
    pub id: SessionId,
    /// Whether its handshake is done.
    pub established: bool,
    /// SPDM version.
    pub version: Version,
    /// DSP0277 version that was selected; `None` if the requester offered none.
    pub secured_version: Option<Version>,
    /// Hash of the key schedule.
    pub hash: HashAlgorithm,
    /// AEAD suite.
    pub aead: Aead,
    /// What records protect.
    pub protection: Protection,
    /// Key exchange of the connection; `None` if only PSK_EXCHANGE begins sessions on it.
    pub exchange: Option<DheGroup>,
    /// The responder's signature algorithm on the connection, if it signs at all.
    pub signature: Option<AsymAlgorithm>,
    /// Where its secret came from.
    pub origin: Origin,
    /// Slot of the key with which the requester proved who it is, 0xFF for its public key; `None` if it did not.
    pub requester: Option<u8>,
    /// Heartbeat period; zero if the session needs none.
    pub heartbeat: Duration,
}

/// What the responder began a session with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// KEY_EXCHANGE with the certificate of a slot.
    Slot(u8),
    /// KEY_EXCHANGE with the public key that the requester was given beforehand.
    PublicKey,
    /// PSK_EXCHANGE.
    Psk {
        /// `PSKHint` of the key; empty for one without a name.
        hint: Vec<u8>,
    },
}

impl Origin {
    /// From the slot that KEY_EXCHANGE names.
    pub(super) const fn of_slot(slot: u8) -> Self {
        if slot == PUBLIC_KEY_SLOT { Self::PublicKey } else { Self::Slot(slot) }
    }
}

/// What the table of sessions remembers to tell, and does not need itself.
#[derive(Clone, Debug)]
pub(super) struct Provenance {
    origin: Origin,
    secured_version: Option<Version>,
    /// See [`SessionView::requester`].
    pub(super) requester: Option<u8>,
}

impl Provenance {
    pub(super) const fn new(origin: Origin, secured_version: Option<Version>) -> Self {
        Self { origin, secured_version, requester: None }
    }
}

impl Core {
    pub(super) fn session_views(&self) -> impl Iterator<Item = SessionView> + '_ {
        // No session outlives the negotiation that it began under.
        let suite = match &self.connection {
            Connection::Negotiated(negotiated) => Some(negotiated.suite),
            Connection::Start | Connection::Version { .. } | Connection::Capabilities { .. } => None,
        };
        let view = move |entry: &Entry| {
            let parameters = entry.session.parameters();
            let Provenance { origin, secured_version, requester } = entry.provenance.clone();
            SessionView {
                id: parameters.id,
                established: entry.session.is_established(),
                version: Version(parameters.version),
                secured_version,
                hash: parameters.hash,
                aead: parameters.aead,
                protection: parameters.protection,
                exchange: suite.and_then(|suite| suite.session?.group),
                signature: suite.and_then(|suite| suite.asym),
                origin,
                requester,
                heartbeat: entry.heartbeat,
            }
        };
        self.sessions.iter().map(view)
    }
}
