//! What a device is known by: the certificate chain and signing key of one slot, made here or loaded, and the
//! checks a requester makes on a chain it received.

#[cfg(test)]
pub(crate) mod alias_samples;
mod certificate;
mod csr;
mod generate;
mod issue;
#[cfg(test)]
mod load_tests;
mod material;
mod name;
mod signature;
#[cfg(test)]
mod tests;

pub use certificate::{
    ChainError, MAX_CERTIFICATES, Policy, Purpose, VerifiedCertificates, verify_certificates,
};
pub(crate) use csr::{CsrWishes, certificate_signing_request, issuer_name, subject_name};
pub use generate::{generate, generate_by, generate_requester};
pub use material::{Material, MaterialError, read_chain};
pub use name::{NameError, PciName};

/// Object identifiers of DSP0274 1.3 "Certificates" (the arc 1.3.6.1.4.1.412.274).
pub mod oid {
    /// id-DMTF-hardware-identity: the key belongs to this one piece of hardware and does not change.
    pub const HARDWARE_IDENTITY: &[u64] = &[1, 3, 6, 1, 4, 1, 412, 274, 2];
    /// id-DMTF-eku-responder-auth: the key may authenticate a responder.
    pub const EKU_RESPONDER_AUTH: &[u64] = &[1, 3, 6, 1, 4, 1, 412, 274, 3];
    /// id-DMTF-eku-requester-auth: the key may authenticate a requester.
    pub const EKU_REQUESTER_AUTH: &[u64] = &[1, 3, 6, 1, 4, 1, 412, 274, 4];
    /// id-DMTF-SPDM-extension: the certificate extension that lists SPDM object identifiers.
    pub const SPDM_EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 412, 274, 6];
}
