//! Signed measurements as evidence: for somebody who has no connection to the responder, but whose nonce is in the signature.
//!
//! A requester that holds the session ([`Command::Evidence`](super::Command::Evidence)) asks with that nonce and hands on what the
//! signature is over. Whoever made up the nonce needs neither to trust it nor the way in between.

use super::command::Measurement;
use crate::codec::{DecodeError, EncodeError, Put, Reader};
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, Provider};
use crate::transcript::{Basis, SigningContext, Vca, Verifier};
use crate::wire::{
    ContentChanged, GetMeasurements, MeasurementOperation, Measurements, Nonce, SignatureRequest, Version,
};

/// GET_MEASUREMENTS of everything with a signature, its answer, and what the signature is over beside them.
///
/// Version and algorithms are the negotiated ones. They are not taken on trust: with others the signature is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Negotiated version.
    pub version: Version,
    /// Negotiated hash.
    pub hash: HashAlgorithm,
    /// Negotiated algorithm of the responder's signatures.
    pub signature: AsymAlgorithm,
    /// GET_VERSION to ALGORITHMS.
    pub vca: Vec<u8>,
    /// GET_MEASUREMENTS.
    pub request: Vec<u8>,
    /// MEASUREMENTS.
    pub response: Vec<u8>,
}

/// Why evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A message in it cannot be read.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The request is another than the one that has to be answered.
    #[error("it answers another request: {0}")]
    Request(&'static str),
    /// What was measured changed meanwhile.
    #[error("the device says that measurements changed while it was asked")]
    Changed,
    /// Not signed by this key, or something else is.
    #[error("the signature is not the device's over these measurements")]
    Signature,
    /// An algorithm that cannot be verified here.
    #[error("it cannot be verified: {0}")]
    Crypto(CryptoError),
}

impl Evidence {
    /// Appends it as bytes.
    ///
    /// # Errors
    /// Names the message that is longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put(&[self.version.0]);
        for name in [self.hash.name(), self.signature.name()] {
            out.put_sized16(name.as_bytes(), "algorithm")?;
        }
        out.put_sized16(&self.vca, "VCA")?;
        out.put_sized16(&self.request, "GET_MEASUREMENTS")?;
        out.put_sized16(&self.response, "MEASUREMENTS")
    }

    /// The opposite of [`Self::encode`].
    ///
    /// # Errors
    /// The field that is wrong, or that bytes follow.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn algorithm<T: std::str::FromStr>(
            reader: &mut Reader<'_>,
            what: &'static str,
        ) -> Result<T, DecodeError> {
            let name = std::str::from_utf8(reader.sized16(what)?).map_err(|_| DecodeError::illegal(what))?;
            name.parse().map_err(|_| DecodeError::illegal(what))
        }
        let mut reader = Reader::new(bytes);
        let evidence = Self {
            version: Version(reader.u8("version")?),
            hash: algorithm(&mut reader, "hash")?,
            signature: algorithm(&mut reader, "signature algorithm")?,
            vca: reader.sized16("VCA")?.to_vec(),
            request: reader.sized16("GET_MEASUREMENTS")?.to_vec(),
            response: reader.sized16("MEASUREMENTS")?.to_vec(),
        };
        reader.finish(0)?;
        Ok(evidence)
    }

    /// The measurements, if `public_key` (as [`Provider::verify`] takes it) signed them for this nonce.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing of it is to be believed then.
    pub fn verify(
        &self,
        provider: &dyn Provider,
        public_key: &[u8],
        nonce: &Nonce,
    ) -> Result<Vec<Measurement>, EvidenceError> {
        // Before 1.2 a signature covers no negotiation, and has no prefix that says what it is for.
        if self.version < Version::V1_2 || !Version::IMPLEMENTED.contains(&self.version) {
            return Err(EvidenceError::Request("its version"));
        }
        let request = self.check_request(nonce)?;
        let mut reader = Reader::new(&self.response);
        let response = Measurements::parse(&mut reader, self.signature.signature_size())?;
        reader.finish(0)?;
        if response.version != self.version || response.context != request.context {
            return Err(EvidenceError::Request("version or context of the answer"));
        }

        let mut vca = Vca::new();
        vca.append(&self.vca);
        let basis = Basis { provider, version: self.version, hash: self.hash, vca: &vca };
        let mut transcript = basis.l1l2().map_err(EvidenceError::Crypto)?;
        transcript.append(&self.request);
        let signed = self.response.len() - response.signature.len();
        transcript.append(self.response.get(..signed).unwrap_or_default());
        let verifier = Verifier { algorithm: self.signature, hash: self.hash, public_key };
        verifier.verify(provider, SigningContext::Measurements, &transcript, response.signature).map_err(
            |error| match error {
                CryptoError::Mismatch | CryptoError::Malformed => EvidenceError::Signature,
                CryptoError::Unavailable | CryptoError::Failed => EvidenceError::Crypto(error),
            },
        )?;
        if response.changed == ContentChanged::Changed {
            return Err(EvidenceError::Changed);
        }
        let mut measurements: Vec<Measurement> = Vec::new();
        for block in response.iter() {
            let block = block?;
            if measurements.iter().any(|earlier| earlier.index == block.index) {
                return Err(DecodeError::illegal("measurement index").into());
            }
            measurements.push(Measurement {
                index: block.index,
                kind: block.kind,
                raw: block.raw,
                value: block.value.to_vec(),
            });
        }
        Ok(measurements)
    }

    fn check_request(&self, nonce: &Nonce) -> Result<GetMeasurements, EvidenceError> {
        let mut reader = Reader::new(&self.request);
        let request = GetMeasurements::parse(&mut reader)?;
        reader.finish(0)?;
        let asked = request.signature.ok_or(EvidenceError::Request("without a signature"))?;
        let SignatureRequest { nonce: used, slot: _ } = asked;
        if used != *nonce {
            return Err(EvidenceError::Request("with another nonce"));
        }
        if request.version != self.version || request.operation != MeasurementOperation::All || request.new {
            return Err(EvidenceError::Request("not of all measurements there are"));
        }
        Ok(request)
    }
}
