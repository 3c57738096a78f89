//! What is checked before any handler runs: which requests were advertised, in which version, where they belong, and
//! which transcripts they begin anew.

use crate::wire::{Code, ErrorCode, RequesterFlags, ResponderFlags, Version};

use super::Core;
use super::reject::Reject;
use super::sessions::Stage;
use super::state::{Connection, Request};

impl Core {
    /// Requests that were not advertised are refused before anything else is looked at.
    pub(super) fn check_supported(&self, code: Code) -> Result<(), Reject> {
        let responder = match code {
            Code::GET_VERSION
            | Code::GET_CAPABILITIES
            | Code::NEGOTIATE_ALGORITHMS
            | Code::VENDOR_DEFINED_REQUEST => 0,
            Code::GET_DIGESTS | Code::GET_CERTIFICATE => ResponderFlags::CERT,
            Code::CHALLENGE => ResponderFlags::CHAL,
            Code::GET_MEASUREMENTS => ResponderFlags::MEAS_MASK,
            Code::KEY_EXCHANGE | Code::FINISH => ResponderFlags::KEY_EX,
            Code::PSK_EXCHANGE => ResponderFlags::PSK_MASK,
            Code::PSK_FINISH => ResponderFlags::PSK_WITH_CONTEXT,
            Code::END_SESSION => ResponderFlags::KEY_EX | ResponderFlags::PSK_MASK,
            Code::HEARTBEAT => ResponderFlags::HBEAT,
            Code::KEY_UPDATE => ResponderFlags::KEY_UPD,
            Code::CHUNK_SEND | Code::CHUNK_GET => ResponderFlags::CHUNK,
            Code::SET_CERTIFICATE => ResponderFlags::SET_CERT,
            Code::GET_CSR => ResponderFlags::CSR,
            Code::GET_KEY_PAIR_INFO => ResponderFlags::GET_KEY_PAIR_INFO,
            Code::SET_KEY_PAIR_INFO => ResponderFlags::SET_KEY_PAIR_INFO,
            Code::GET_MEASUREMENT_EXTENSION_LOG => ResponderFlags::MEL,
            Code::GET_ENDPOINT_INFO => ResponderFlags::EP_INFO_MASK,
            Code::GET_SUPPORTED_EVENT_TYPES | Code::SUBSCRIBE_EVENT_TYPES => ResponderFlags::EVENT,
            // Its flag is an extended one.
            Code::SLOT_MANAGEMENT if self.config.capabilities.provisioning.slot_management => 0,
            Code::RESPOND_IF_READY if self.defers() => 0,
            Code::GET_ENCAPSULATED_REQUEST | Code::DELIVER_ENCAPSULATED_RESPONSE => {
                self.check_encapsulation(code)?;
                ResponderFlags::ENCAP
            }
            _ => return Err(Reject::unsupported(code)),
        };
        // Before a version is chosen, none of these requests is expected anyway.
        let flags = self.connection.peer().map_or(self.flags, |peer| self.flags.of(peer.version));
        if responder != 0 && !flags.any(responder) {
            return Err(Reject::unsupported(code));
        }
        // These bits are the same in both directions; a requester without them must not send the request.
        let requester = match code {
            Code::KEY_EXCHANGE
            | Code::FINISH
            | Code::HEARTBEAT
            | Code::KEY_UPDATE
            | Code::CHUNK_SEND
            | Code::CHUNK_GET => responder,
            Code::PSK_EXCHANGE | Code::PSK_FINISH => RequesterFlags::PSK,
            Code::END_SESSION => RequesterFlags::KEY_EX | RequesterFlags::PSK,
            _ => 0,
        };
        match self.connection.peer() {
            Some(peer) if requester != 0 && !peer.flags.any(requester) => Err(Reject::unsupported(code)),
            Some(peer) if peer.version < since(code) => Err(Reject::unsupported(code)),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn check_version(&self, version: Version) -> Result<(), Reject> {
        match self.connection.peer() {
            None => Err(Reject::UNEXPECTED),
            Some(peer) if peer.version != version => Err(Reject::error(ErrorCode::VERSION_MISMATCH)),
            Some(_) => Ok(()),
        }
    }

    /// Which requests belong inside a session, outside, or into its handshake
    /// (DSP0274 1.3 "SPDM request and response messages validity").
    pub(super) fn check_phase(&self, request: &Request<'_>) -> Result<(), Reject> {
        let stage = match request.session {
            None => None,
            Some(index) => Some(&self.sessions.get(index).ok_or(Reject::UNEXPECTED)?.stage),
        };
        match (request.header.code, stage) {
            // These look for themselves: it depends on where the handshake takes place, and on its kind.
            (
                Code::FINISH
                | Code::PSK_FINISH
                | Code::GET_ENCAPSULATED_REQUEST
                | Code::DELIVER_ENCAPSULATED_RESPONSE,
                _,
            ) => Ok(()),
            (
                Code::HEARTBEAT
                | Code::KEY_UPDATE
                | Code::END_SESSION
                | Code::GET_SUPPORTED_EVENT_TYPES
                | Code::SUBSCRIBE_EVENT_TYPES,
                None,
            ) => Err(Reject::SESSION_REQUIRED),
            (Code::CHALLENGE | Code::KEY_EXCHANGE | Code::PSK_EXCHANGE, Some(_))
            | (_, Some(Stage::Handshake { .. } | Stage::PskHandshake { .. })) => Err(Reject::UNEXPECTED),
            (_, None | Some(Stage::Application { .. })) => Ok(()),
        }
    }

    /// DSP0274 1.3 "M1/M2 ... rules" and "L1/L2 ... rules": any request but GET_MEASUREMENTS starts L1/L2 again,
    /// and those that leave authentication behind start M1/M2 again.
    pub(super) fn reset_transcripts(&mut self, request: &Request<'_>) {
        let Connection::Negotiated(negotiated) = &mut self.connection else { return };
        let code = request.header.code;
        if code != Code::GET_MEASUREMENTS {
            match request.session {
                None => negotiated.l1l2 = None,
                Some(index) => {
                    if let Some(entry) = self.sessions.get_mut(index)
                        && let Stage::Application { l1l2, .. } = &mut entry.stage
                    {
                        *l1l2 = None;
                    }
                }
            }
        }
        match code {
            Code::GET_DIGESTS => negotiated.m1m2 = None,
            Code::KEY_EXCHANGE
            | Code::GET_MEASUREMENTS
            | Code::FINISH
            | Code::PSK_EXCHANGE
            | Code::PSK_FINISH
            | Code::KEY_UPDATE
            | Code::HEARTBEAT
            | Code::END_SESSION
            | Code::GET_MEASUREMENT_EXTENSION_LOG
            | Code::GET_ENCAPSULATED_REQUEST
            | Code::DELIVER_ENCAPSULATED_RESPONSE
                if !negotiated.authenticated =>
            {
                negotiated.m1m2 = None;
            }
            _ => {}
        }
    }
}

/// The version that brought a request whose capability flag may be set in earlier ones.
const fn since(code: Code) -> Version {
    match code {
        Code::SET_CERTIFICATE | Code::GET_CSR => Version::V1_2,
        Code::GET_KEY_PAIR_INFO
        | Code::SET_KEY_PAIR_INFO
        | Code::GET_MEASUREMENT_EXTENSION_LOG
        | Code::GET_ENDPOINT_INFO
        | Code::GET_SUPPORTED_EVENT_TYPES
        | Code::SUBSCRIBE_EVENT_TYPES => Version::V1_3,
        Code::SLOT_MANAGEMENT => Version::V1_4,
        _ => Version::V1_0,
    }
}
