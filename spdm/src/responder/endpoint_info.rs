//! GET_ENDPOINT_INFO: what kind of device this is (DSP0274 1.3 "GET_ENDPOINT_INFO request and ENDPOINT_INFO response
//! messages").

use crate::slot::slot_of_field;
use crate::transcript::{SigningContext, sign};
use crate::wire::{
    DEVICE_CLASS_IDENTIFIER, DeviceClass, EndpointInfo, GetEndpointInfo, KeyUsage, NONCE_SIZE, ResponderFlags,
};

use super::reject::{Handled, Next, Reject};
use super::state::Request;
use super::{ConfigError, Core};

impl Core {
    pub(super) fn get_endpoint_info(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetEndpointInfo::parse)?;
        let negotiated = self.connection.negotiated()?;
        let suite = negotiated.suite;
        if body.sub_code != DEVICE_CLASS_IDENTIFIER {
            return Err(Reject::INVALID);
        }
        let provider = self.provider.as_ref();
        let signer = match body.nonce {
            None => None,
            Some(_) if !self.flags.has(ResponderFlags::EP_INFO_SIG) => {
                return Err(Reject::unsupported(request.header.code));
            }
            Some(_) => {
                let slot = slot_of_field(body.slot);
                let (key, _) = suite.identity(&self.chains, slot, KeyUsage::ENDPOINT_INFO)?;
                let mut nonce = [0; NONCE_SIZE];
                provider.random(&mut nonce)?;
                Some((key, nonce))
            }
        };
        let nonce = signer.map(|(_, nonce)| nonce);
        let info = &self.device_classes;
        EndpointInfo { version: body.version, slot: body.slot, nonce, info, signature: &[] }.encode(out)?;
        if let Some((key, _)) = signer {
            let mut transcript = negotiated.basis(provider).endpoint_info()?;
            transcript.append(message);
            transcript.append(out);
            sign(key, suite.hash, SigningContext::EndpointInfo, &transcript, out)?;
        }
        Ok(Next::Stay)
    }
}

/// The answer, which is always the same.
pub(super) fn encode(classes: &[DeviceClass]) -> Result<Vec<u8>, ConfigError> {
    let mut info = Vec::new();
    DeviceClass::encode_list(classes, &mut info).map_err(|_| ConfigError::OutOfRange {
        field: "device_classes",
        expected: "at most 255, none longer than 255 bytes",
    })?;
    Ok(info)
}
