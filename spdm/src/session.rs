//! One secure session, as both roles hold it: phases, keys of both directions, key update, saving and restoring.

use crate::SessionId;
use crate::codec::DecodeError;
use crate::crypto::{Aead, CryptoError, Digest, HashAlgorithm, Provider, Secret};
use crate::key_schedule::{HandshakeDirection, HandshakeSecrets, KeySchedule, Shared, TrafficKey};
use crate::secured::{Protection, RecordError, RecordKey, session_id};
use crate::wire::Version;

/// Which end of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// Sends requests.
    Requester,
    /// Answers them.
    Responder,
}

/// What is fixed for the life of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionParameters {
    /// Session id.
    pub id: SessionId,
    /// This end.
    pub role: Role,
    /// SPDM version in its raw form, `0x12` for 1.2.
    pub version: u8,
    /// Hash of the key schedule.
    pub hash: HashAlgorithm,
    /// AEAD suite.
    pub aead: Aead,
    /// What records protect.
    pub protection: Protection,
    /// First sequence number no key may use (DSP0277 1.1 "AEAD limits").
    pub sequence_limit: u64,
}

/// How far a session is.
enum Phase {
    Handshake(Box<Handshake>),
    Application { export_master: Secret },
}

/// What the handshake needs beside the keys of its records.
struct Handshake {
    /// The application phase begins from it.
    salt: Secret,
    /// Key of the HMAC in FINISH.
    request_finished: Secret,
    /// Key of the HMAC in KEY_EXCHANGE_RSP and, in the clear, FINISH_RSP.
    response_finished: Secret,
}

/// A key with the secret it came from, which the next one comes from.
struct Direction {
    secret: Secret,
    key: RecordKey,
}

/// A secure session.
pub struct Session {
    parameters: SessionParameters,
    phase: Phase,
    outbound: Direction,
    inbound: Direction,
    /// Successor of `inbound` between KEY_UPDATE and the proof that the peer uses it: both are accepted.
    inbound_next: Option<Direction>,
}

/// An established session at rest. It holds secrets: they are wiped when it is dropped, keep the file private.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SavedSession {
    parameters: SessionParameters,
    export_master: Secret,
    outbound: Secret,
    outbound_sequence: u64,
    inbound: Secret,
    inbound_sequence: u64,
}

impl SavedSession {
    /// What is fixed for the session.
    pub const fn parameters(&self) -> &SessionParameters {
        &self.parameters
    }
}

impl SessionParameters {
    fn schedule<'p>(&self, provider: &'p dyn Provider) -> KeySchedule<'p> {
        KeySchedule::new(provider, Version(self.version), self.hash)
    }

    /// One direction, with its first key from the secret.
    fn direction(
        &self,
        provider: &dyn Provider,
        secret: Secret,
        sequence: u64,
    ) -> Result<Direction, CryptoError> {
        let traffic = self.schedule(provider).traffic_key(&secret, self.aead)?;
        self.keyed(provider, secret, &traffic, sequence)
    }

    fn keyed(
        &self,
        provider: &dyn Provider,
        secret: Secret,
        traffic: &TrafficKey,
        sequence: u64,
    ) -> Result<Direction, CryptoError> {
        let limit = self.sequence_limit;
        let key = RecordKey::new(provider, self.aead, self.protection, traffic, sequence, limit)?;
        Ok(Direction { secret, key })
    }

    /// Outbound and inbound, of what requests and responses have.
    fn by_role<T>(&self, request: T, response: T) -> (T, T) {
        match self.role {
            Role::Requester => (request, response),
            Role::Responder => (response, request),
        }
    }
}

impl Session {
    /// A session in its handshake phase, from what both ends share and the transcript hash TH1.
    pub fn new(
        provider: &dyn Provider,
        parameters: SessionParameters,
        shared: Shared<'_>,
        th1: &Digest,
    ) -> Result<Self, CryptoError> {
        let HandshakeSecrets { salt, request, response } =
            parameters.schedule(provider).handshake(shared, th1, parameters.aead)?;
        let keyed = |HandshakeDirection { secret, finished, traffic }| {
            parameters.keyed(provider, secret, &traffic, 0).map(|direction| (direction, finished))
        };
        let (request, request_finished) = keyed(request)?;
        let (response, response_finished) = keyed(response)?;
        let (outbound, inbound) = parameters.by_role(request, response);
        Ok(Self {
            parameters,
            phase: Phase::Handshake(Box::new(Handshake { salt, request_finished, response_finished })),
            outbound,
            inbound,
            inbound_next: None,
        })
    }

    /// Switches to the keys of the application phase, with the transcript hash TH2. Does nothing if done before.
    pub fn establish(&mut self, provider: &dyn Provider, th2: &Digest) -> Result<(), CryptoError> {
        let Phase::Handshake(handshake) = &self.phase else { return Ok(()) };
        let parameters = &self.parameters;
        let application = parameters.schedule(provider).application(&handshake.salt, th2)?;
        let request = parameters.direction(provider, application.request, 0)?;
        let response = parameters.direction(provider, application.response, 0)?;
        (self.outbound, self.inbound) = parameters.by_role(request, response);
        self.phase = Phase::Application { export_master: application.export_master };
        Ok(())
    }

    /// Session id.
    pub const fn id(&self) -> SessionId {
        self.parameters.id
    }

    /// What is fixed for the session.
    pub const fn parameters(&self) -> &SessionParameters {
        &self.parameters
    }

    /// Whether FINISH is done.
    pub const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Application { .. })
    }

    /// Verify data that `sender` puts into a message of the handshake; fails once established.
    pub fn verify_data(
        &self,
        provider: &dyn Provider,
        sender: Role,
        transcript: &Digest,
    ) -> Result<Secret, CryptoError> {
        self.parameters.schedule(provider).verify_data(self.finished_key(sender)?, transcript)
    }

    /// Checks the verify data that `sender` put into a message of the handshake; fails once established.
    pub fn check_verify_data(
        &self,
        provider: &dyn Provider,
        sender: Role,
        transcript: &Digest,
        verify_data: &[u8],
    ) -> Result<(), CryptoError> {
        let finished = self.finished_key(sender)?;
        self.parameters.schedule(provider).check_verify_data(finished, transcript, verify_data)
    }

    const fn finished_key(&self, sender: Role) -> Result<&Secret, CryptoError> {
        match (&self.phase, sender) {
            (Phase::Handshake(handshake), Role::Requester) => Ok(&handshake.request_finished),
            (Phase::Handshake(handshake), Role::Responder) => Ok(&handshake.response_finished),
            (Phase::Application { .. }, _) => Err(CryptoError::Unavailable),
        }
    }

    /// Bytes by which a record is longer than its message.
    pub const fn overhead(&self) -> usize {
        self.parameters.protection.overhead()
    }

    /// Appends one record with `message`.
    pub fn seal(&mut self, message: &[u8], record: &mut Vec<u8>) -> Result<(), RecordError> {
        self.outbound.key.seal(self.parameters.id, message, record)
    }

    /// Opens one record into `message`, replacing what is there. It has to be of this session, whoever has the key
    /// (DSP0277 1.1 "Secured Message format", Session ID).
    pub fn open(&mut self, record: &[u8], message: &mut Vec<u8>) -> Result<(), RecordError> {
        if session_id(record)? != self.parameters.id {
            return Err(DecodeError::illegal("session id").into());
        }
        if let Some(next) = &mut self.inbound_next
            && next.key.open(record, message).is_ok()
        {
            return Ok(());
        }
        self.inbound.key.open(record, message)
    }

    /// Derives the next inbound key. Until [`Session::confirm_inbound`] records under either are accepted.
    pub fn update_inbound(&mut self, provider: &dyn Provider) -> Result<(), CryptoError> {
        let secret = self.parameters.schedule(provider).update(&self.inbound.secret)?;
        self.inbound_next = Some(self.parameters.direction(provider, secret, 0)?);
        Ok(())
    }

    /// Drops the old inbound key, once the peer has proved that it uses the new one.
    pub fn confirm_inbound(&mut self) {
        if let Some(next) = self.inbound_next.take() {
            self.inbound = next;
        }
    }

    /// Drops the new inbound key, if the peer refused to use it.
    pub fn revert_inbound(&mut self) {
        self.inbound_next = None;
    }

    /// Whether an inbound key waits for its confirmation.
    pub const fn inbound_pending(&self) -> bool {
        self.inbound_next.is_some()
    }

    /// Whether the peer has used the inbound key that waits for its confirmation.
    pub fn inbound_used(&self) -> bool {
        self.inbound_next.as_ref().is_some_and(|next| next.key.sequence() != 0)
    }

    /// Replaces the outbound key by its successor.
    pub fn update_outbound(&mut self, provider: &dyn Provider) -> Result<(), CryptoError> {
        let secret = self.parameters.schedule(provider).update(&self.outbound.secret)?;
        self.outbound = self.parameters.direction(provider, secret, 0)?;
        Ok(())
    }

    /// `export_master_secret`, once established.
    pub const fn export_master(&self) -> Option<&Secret> {
        match &self.phase {
            Phase::Handshake(_) => None,
            Phase::Application { export_master } => Some(export_master),
        }
    }

    /// The session at rest; `None` during the handshake and while a key update is unconfirmed.
    pub fn save(&self) -> Option<SavedSession> {
        if self.inbound_next.is_some() {
            return None;
        }
        Some(SavedSession {
            parameters: self.parameters,
            export_master: self.export_master()?.clone(),
            outbound: self.outbound.secret.clone(),
            outbound_sequence: self.outbound.key.sequence(),
            inbound: self.inbound.secret.clone(),
            inbound_sequence: self.inbound.key.sequence(),
        })
    }

    /// A session that was saved; fails if its secrets are not as long as its hash.
    pub fn restore(provider: &dyn Provider, saved: &SavedSession) -> Result<Self, CryptoError> {
        let parameters = saved.parameters;
        let secrets = [&saved.export_master, &saved.outbound, &saved.inbound];
        if secrets.iter().any(|secret| secret.as_ref().len() != parameters.hash.size()) {
            return Err(CryptoError::Malformed);
        }
        Ok(Self {
            parameters,
            phase: Phase::Application { export_master: saved.export_master.clone() },
            outbound: parameters.direction(provider, saved.outbound.clone(), saved.outbound_sequence)?,
            inbound: parameters.direction(provider, saved.inbound.clone(), saved.inbound_sequence)?,
            inbound_next: None,
        })
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("parameters", &self.parameters)
            .field("established", &self.is_established())
            .field("outbound", &self.outbound.key)
            .field("inbound", &self.inbound.key)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RingProvider;

    fn pair(established: bool) -> (Session, Session) {
        let provider = RingProvider::new();
        let end = |role| {
            let parameters = SessionParameters {
                id: 7,
                role,
                version: 0x12,
                hash: HashAlgorithm::Sha256,
                aead: Aead::Aes128Gcm,
                protection: Protection::EncryptAndMac,
                sequence_limit: u64::MAX,
            };
            let shared = Secret::new(&[9; 32]).unwrap();
            let mut session =
                Session::new(&provider, parameters, Shared::Exchanged(&shared), &Digest::new(&[1; 32]))
                    .unwrap();
            if established {
                session.establish(&provider, &Digest::new(&[2; 32])).unwrap();
            }
            session
        };
        (end(Role::Requester), end(Role::Responder))
    }

    fn carries(from: &mut Session, to: &mut Session) -> bool {
        let (mut record, mut message) = (Vec::new(), Vec::new());
        from.seal(b"payload", &mut record).unwrap();
        to.open(&record, &mut message).is_ok() && message == b"payload"
    }

    /// Under the right key, even.
    #[test]
    fn a_record_of_another_session_is_refused() {
        let (mut requester, mut responder) = pair(true);
        let (mut record, mut message) = (Vec::new(), Vec::new());
        requester.outbound.key.seal(8, b"payload", &mut record).unwrap();
        let error = DecodeError::illegal("session id").into();
        assert_eq!(responder.open(&record, &mut message), Err(error));
        assert!(responder.inbound.key.open(&record, &mut message).is_ok());
    }

    #[test]
    fn both_ends_understand_each_other_in_both_phases() {
        for established in [false, true] {
            let (mut requester, mut responder) = pair(established);
            assert!(carries(&mut requester, &mut responder));
            assert!(carries(&mut responder, &mut requester));
            assert_eq!(requester.is_established(), established);
            assert_eq!(requester.export_master().is_some(), established);
        }
        let ((mut early, _), (_, mut late)) = (pair(false), pair(true));
        assert!(!carries(&mut early, &mut late), "the phases have different keys");
    }

    #[test]
    fn verify_data_exists_in_the_handshake_only() {
        let provider = RingProvider::new();
        let (requester, responder) = pair(false);
        let digest = Digest::new(&[3; 32]);
        for sender in [Role::Requester, Role::Responder] {
            let data = requester.verify_data(&provider, sender, &digest).unwrap();
            responder.check_verify_data(&provider, sender, &digest, data.as_ref()).unwrap();
            let other = Digest::new(&[4; 32]);
            assert!(responder.check_verify_data(&provider, sender, &other, data.as_ref()).is_err());
            assert!(responder.check_verify_data(&provider, sender, &digest, &data.as_ref()[1..]).is_err());
        }
        let (requester, _) = pair(true);
        assert!(requester.verify_data(&provider, Role::Requester, &digest).is_err());
    }

    #[test]
    fn old_and_new_key_are_both_accepted_until_confirmed() {
        let provider = RingProvider::new();
        let (mut requester, mut responder) = pair(true);
        responder.update_inbound(&provider).unwrap();
        assert!(carries(&mut requester, &mut responder), "old key");
        assert!(responder.inbound_pending() && !responder.inbound_used());
        assert!(responder.save().is_none());
        requester.update_outbound(&provider).unwrap();
        assert!(carries(&mut requester, &mut responder), "new key");
        assert!(responder.inbound_used());
        responder.confirm_inbound();
        assert!(carries(&mut requester, &mut responder), "new key alone");

        responder.update_inbound(&provider).unwrap();
        responder.revert_inbound();
        assert!(carries(&mut requester, &mut responder), "update taken back");
        requester.update_outbound(&provider).unwrap();
        assert!(!carries(&mut requester, &mut responder), "the key that was taken back");
    }

    #[test]
    fn a_saved_session_goes_on_where_it_was() {
        let provider = RingProvider::new();
        assert!(pair(false).0.save().is_none());
        let (mut requester, mut responder) = pair(true);
        assert!(carries(&mut requester, &mut responder));
        let saved = requester.save().unwrap();
        let debug = format!("{saved:?}");
        assert!(debug.contains("Secret(32 bytes)") && !debug.contains("bytes: ["), "{debug}");
        let longer = SavedSession { inbound: Secret::new(&[1; 65]).unwrap(), ..saved.clone() };
        assert_eq!(Session::restore(&provider, &longer).err(), Some(CryptoError::Malformed));
        let mut restored = Session::restore(&provider, &saved).unwrap();
        assert!(carries(&mut restored, &mut responder));
        assert!(carries(&mut responder, &mut restored));
    }
}
