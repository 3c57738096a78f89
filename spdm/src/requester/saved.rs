//! A connection with its session, at rest: what separate invocations of a program hand to each other.

use serde::{Deserialize, Serialize};

use super::command::{ConnectionInfo, SelectedAlgorithms, SessionInfo};
use super::sessions::ActiveSession;
use super::state::{Connection, Core};
use crate::SessionId;
use crate::crypto::{CryptoError, Digest, Provider};
use crate::session;
use crate::slot::SLOT_COUNT;
use crate::transcript::Vca;
use crate::trust::PeerKey;
use crate::wire::{ResponderExtendedFlags, ResponderFlags, Version};

/// An established session and the connection it lives on. It holds keys, which are wiped when it is dropped and
/// not shown by `Debug`; whoever stores it keeps others from reading it. Using a copy after the original has sent
/// something repeats sequence numbers: store it again after every command, and restore the newest only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedSession {
    session: session::SavedSession,
    heartbeat_period: u8,
    secured_version: u8,
    version: u8,
    capabilities: u32,
    extended_capabilities: u16,
    ct_exponent: u8,
    data_transfer_size: u32,
    max_message_size: u32,
    algorithms: SelectedAlgorithms,
    authenticated: bool,
    vca: Vec<u8>,
    /// The next session's transcript begins with it.
    #[serde(default)]
    first_digests: Vec<u8>,
    peers: Vec<SavedPeer>,
}

/// What signatures of one slot are checked with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedPeer {
    slot: u8,
    public_key: Vec<u8>,
    chain_digest: Vec<u8>,
}

/// A saved session that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its parts contradict each other; it was not written by this program or was damaged.
    #[error("the saved session is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// The provider cannot use its keys.
    #[error("the saved session's keys cannot be used: {0}")]
    Crypto(#[from] CryptoError),
}

impl SavedSession {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session.parameters().id
    }

    pub(super) fn of(core: &Core) -> Option<Self> {
        let ActiveSession { session, info: session_info, .. } = core.sessions.current()?;
        let connection = core.connection.as_ref()?;
        let info = &connection.info;
        let peers = (0_u8..).zip(&connection.peers).filter_map(|(slot, peer)| {
            let PeerKey { public_key, digest } = peer.clone()?;
            Some(SavedPeer { slot, public_key, chain_digest: digest.as_ref().to_vec() })
        });
        Some(Self {
            session: session.save()?,
            heartbeat_period: session_info.heartbeat_period,
            secured_version: session_info.secured_version.0,
            version: info.version.0,
            capabilities: info.capabilities.0,
            extended_capabilities: info.extended_capabilities.0,
            ct_exponent: info.ct_exponent,
            data_transfer_size: info.data_transfer_size,
            max_message_size: info.max_message_size,
            algorithms: info.algorithms,
            authenticated: connection.authenticated,
            vca: connection.vca.as_ref().to_vec(),
            first_digests: connection.first_digests.clone(),
            peers: peers.collect(),
        })
    }

    pub(super) fn revive(
        &self,
        provider: &dyn Provider,
    ) -> Result<(Connection, ActiveSession), RestoreError> {
        let parameters = self.session.parameters();
        let algorithms = &self.algorithms;
        let agrees = parameters.role == session::Role::Requester
            && parameters.version == self.version
            && parameters.hash == algorithms.hash
            && Some(parameters.aead) == algorithms.aead;
        if !agrees {
            return Err(RestoreError::Inconsistent("the session is not of this connection"));
        }
        let mut vca = Vca::new();
        vca.append(&self.vca);
        let info = ConnectionInfo {
            version: Version(self.version),
            capabilities: ResponderFlags(self.capabilities),
            extended_capabilities: ResponderExtendedFlags(self.extended_capabilities),
            supported_algorithms: None,
            ct_exponent: self.ct_exponent,
            data_transfer_size: self.data_transfer_size,
            max_message_size: self.max_message_size,
            algorithms: *algorithms,
        };
        let mut connection = Connection::new(info, vca);
        connection.authenticated = self.authenticated;
        connection.first_digests.clone_from(&self.first_digests);
        for saved in &self.peers {
            let slot = connection.peers.get_mut(usize::from(saved.slot).min(SLOT_COUNT));
            let slot = slot.ok_or(RestoreError::Inconsistent("a slot number"))?;
            if saved.chain_digest.len() != algorithms.hash.size() {
                return Err(RestoreError::Inconsistent("a digest's length"));
            }
            let digest = Digest::new(&saved.chain_digest);
            *slot = Some(PeerKey { public_key: saved.public_key.clone(), digest });
        }
        let session_info = SessionInfo {
            id: parameters.id,
            heartbeat_period: self.heartbeat_period,
            secured_version: Version(self.secured_version),
            summary: None,
            authenticated_as: None,
        };
        let session = session::Session::restore(provider, &self.session)?;
        Ok((connection, ActiveSession::new(session, session_info)))
    }
}
