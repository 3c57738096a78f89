//! GET_CAPABILITIES: chooses the version and tells what each side can do
//! (DSP0274 1.4 "GET_CAPABILITIES request and CAPABILITIES response messages").

use crate::wire::{
    Capabilities, ErrorCode, GetCapabilities, MIN_DATA_TRANSFER_SIZE, RequesterFlags, ResponderFlags, Version,
};

use super::Core;
use super::config::MAX_CT_EXPONENT;
use super::reject::{Handled, Next, Reject};
use super::state::{Connection, Peer, Request};

impl Core {
    pub(super) fn get_capabilities(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        if request.session.is_some() || !matches!(self.connection, Connection::Version { .. }) {
            return Err(Reject::UNEXPECTED);
        }
        if !self.config.versions.contains(&request.header.version) {
            return Err(Reject::error(ErrorCode::VERSION_MISMATCH));
        }
        let parsed = request.parse(GetCapabilities::parse).ok().filter(|(body, _)| legal(body));
        let Some((body, message)) = parsed else {
            // The version was understood, so the refusal is written in it.
            return Err(Reject::InVersion(request.header.version, ErrorCode::INVALID_REQUEST));
        };
        // The block makes the message larger than the smallest transfer, which it is allowed to be with chunks.
        let tells = body.supported_algorithms && self.flags.has(ResponderFlags::CHUNK);
        Capabilities {
            version: body.version,
            ct_exponent: self.config.ct_exponent,
            flags: self.flags,
            extended_flags: self.config.capabilities.provisioning.extended_flags(),
            data_transfer_size: self.config.data_transfer_size,
            max_message_size: self.config.max_message_size,
            supported_algorithms: tells.then(|| self.supported_algorithms(body.version)),
        }
        .encode(out);

        let mut vca = self.connection.take_vca();
        vca.append(message);
        vca.append(out);
        let peer = Peer {
            version: body.version,
            flags: body.flags,
            data_transfer_size: body.data_transfer_size,
            max_message_size: body.max_message_size,
        };
        self.connection = Connection::Capabilities { vca, peer };
        Ok(Next::Stay)
    }
}

/// Sizes and flags that DSP0274 allows together; DSP0277 adds that sessions need at least authentication.
fn legal(body: &GetCapabilities) -> bool {
    let has = |bits| body.flags.has(bits);
    let field = |mask: u32| (body.flags.0 & mask) >> mask.trailing_zeros();
    let key_exchange = has(RequesterFlags::KEY_EX);
    let psk = field(RequesterFlags::PSK_MASK);
    let sessions = key_exchange || psk != 0;
    let certificate = has(RequesterFlags::CERT);
    let public_key = has(RequesterFlags::PUB_KEY_ID);
    let challenge = has(RequesterFlags::CHAL);
    let v1_3 = body.version >= Version::V1_3;
    // ENCAP_CAP was deprecated with 1.2, and MUT_AUTH_CAP implied it for a while.
    let v1_1 = body.version == Version::V1_1;
    let multi_key = field(RequesterFlags::MULTI_KEY_MASK);
    let endpoint_info = field(RequesterFlags::EP_INFO_MASK);

    let sizes = body.ct_exponent <= MAX_CT_EXPONENT
        && body.data_transfer_size >= MIN_DATA_TRANSFER_SIZE
        && body.data_transfer_size <= body.max_message_size
        && (has(RequesterFlags::CHUNK) || body.data_transfer_size == body.max_message_size);
    let sessions_need = if sessions {
        has(RequesterFlags::MAC)
    } else {
        body.flags.0
            & (RequesterFlags::MAC
                | RequesterFlags::ENCRYPT
                | RequesterFlags::HANDSHAKE_IN_THE_CLEAR
                | RequesterFlags::HBEAT
                | RequesterFlags::KEY_UPD)
            == 0
            && !(v1_3 && has(RequesterFlags::EVENT))
    };
    let identity = if certificate || public_key {
        certificate != public_key && (challenge || key_exchange)
    } else {
        !(challenge || has(RequesterFlags::MUT_AUTH) || v1_3 && endpoint_info == 2)
    };
    // Asking for the supported algorithms takes chunks, even if the answer is that they are not told.
    let question = !body.supported_algorithms || has(RequesterFlags::CHUNK);
    sizes
        && question
        && psk < 2
        && sessions_need
        && (key_exchange || !has(RequesterFlags::HANDSHAKE_IN_THE_CLEAR))
        && identity
        && (!v1_1 || has(RequesterFlags::ENCAP) || !has(RequesterFlags::MUT_AUTH))
        && (!v1_3 || (endpoint_info != 3 && multi_key != 3 && (multi_key == 0 || !public_key)))
}
