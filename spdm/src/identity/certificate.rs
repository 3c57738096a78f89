//! Parses and checks a received list of X.509 certificates, root side first.

use x509_parser::certificate::{BasicExtension, X509Certificate};
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use crate::crypto::{AsymAlgorithm, CryptoError, DefaultProvider, parse_public_key};

use super::signature;
use crate::der::{algorithm_identifiers_agree, explicit_utf8, signed_parts};

/// Longest chain that is looked at; bounds the signatures a hostile peer can make us verify.
pub const MAX_CERTIFICATES: usize = 10;

const PCI_NAME: Oid<'static> = oid!(2.23.147);
const EKU_RESPONDER_AUTH: Oid<'static> = oid!(1.3.6.1.4.1.412.274.3);
const EKU_REQUESTER_AUTH: Oid<'static> = oid!(1.3.6.1.4.1.412.274.4);

/// What a chain is checked against, beyond its own consistency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy<'a> {
    /// Seconds since 1970 at which every certificate has to be valid. `None` skips the check: early boot code
    /// and guests without a clock have no time to offer.
    pub time: Option<i64>,
    /// DER of a root certificate that may be missing from the chain's front.
    pub root: Option<&'a [u8]>,
    /// SPDM 1.3 wants basicConstraints present in a leaf; 1.2 lets it be absent.
    pub leaf_constraints_required: bool,
    /// What the leaf's key is to do.
    pub purpose: Purpose,
}

/// What a leaf's key is to authenticate (DSP0274 1.3 "extendedKeyUsage").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A responder.
    #[default]
    Responder,
    /// A requester.
    Requester,
    /// Either.
    Any,
}

/// A list of certificates that passed [`verify_certificates`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCertificates {
    /// Each certificate's DER, root side first, leaf last, as received.
    pub certificates: Vec<Vec<u8>>,
    /// DER of the self-signed certificate everything hangs from: the first of the chain, or the policy's.
    pub root: Vec<u8>,
    /// Algorithm of the leaf's key; [`AsymAlgorithm::serves`] says what it is good for.
    pub algorithm: AsymAlgorithm,
    /// The leaf's public key, as [`Provider::verify`](crate::crypto::Provider::verify) takes it.
    pub public_key: Vec<u8>,
    /// Text of the PCIe subject alternative name ([`super::PciName`]) of the leaf, unparsed.
    pub pci_name: Option<String>,
}

/// Why a chain was refused. `index` counts certificates from 0 at the root side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no certificate at all.
    #[error("the chain is empty")]
    Empty,
    /// More than [`MAX_CERTIFICATES`].
    #[error("the chain has more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// Not a DER X.509 version 3 certificate, or an extension of it is malformed or repeated.
    #[error("certificate {index} is malformed: {reason}")]
    Malformed {
        /// Which certificate.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// An extension marked critical that this code does not know: its restrictions cannot be honoured.
    #[error("certificate {index} has an unknown critical extension {oid}")]
    UnknownCritical {
        /// Which certificate.
        index: usize,
        /// The extension, in dotted form.
        oid: String,
    },
    /// The first certificate is not self-signed and the policy has no root for it.
    #[error("the chain does not start with a root certificate and no root was given")]
    RootMissing,
    /// Issuer and subject names do not join up.
    #[error("certificate {index} was not issued by the one before it")]
    Issuer {
        /// The issued certificate.
        index: usize,
    },
    /// A signature is wrong.
    #[error("certificate {index} has a wrong signature")]
    Signature {
        /// The certificate that carries the signature.
        index: usize,
    },
    /// A signature algorithm that is not implemented, that is broken (SHA-1, MD5), or not the issuer key's.
    #[error("certificate {index} is signed with an unsupported algorithm")]
    SignatureAlgorithm {
        /// The certificate that carries the signature.
        index: usize,
    },
    /// A certificate that issued another is no certificate authority.
    #[error("certificate {index} issues another without being a certificate authority")]
    NotAuthority {
        /// The issuing certificate.
        index: usize,
    },
    /// More authorities follow than the path length constraint of this one allows.
    #[error("certificate {index} does not allow so many authorities below it")]
    PathLength {
        /// The constraining certificate.
        index: usize,
    },
    /// keyUsage lacks the bit for what the key does: keyCertSign, or digitalSignature in a leaf.
    #[error("certificate {index} has the wrong key usage")]
    KeyUsage {
        /// Which certificate.
        index: usize,
    },
    /// The leaf says that it is a certificate authority, or does not say that it is none where it has to.
    #[error("the leaf certificate's basic constraints do not say CA=FALSE")]
    LeafConstraints,
    /// The leaf is good for authenticating the other role only.
    #[error("the leaf certificate may not authenticate this role")]
    LeafPurpose,
    /// Not valid yet, or not any more, or never.
    #[error("certificate {index} is outside its validity period")]
    Validity {
        /// Which certificate.
        index: usize,
    },
    /// The leaf's key is of no supported algorithm or malformed.
    #[error("the leaf certificate's public key is unsupported")]
    PublicKey,
}

/// Checks `der`, certificates one after another with the root side first, of one slot
/// (DSP0274 1.3 "Certificates"; RFC 5280 §6 as far as names, signatures, authority and usage go).
///
/// Whether the *root* deserves trust is the caller's question: compare [`VerifiedCertificates::root`].
///
/// # Errors
/// The first [`ChainError`] found. Nothing is accepted in part.
pub fn verify_certificates(der: &[u8], policy: &Policy<'_>) -> Result<VerifiedCertificates, ChainError> {
    let chain = split(der)?;
    let (Some(first), Some(leaf)) = (chain.first(), chain.last()) else {
        return Err(ChainError::Empty);
    };
    for (index, certificate) in chain.iter().enumerate() {
        check_one(index, certificate, policy)?;
    }

    let root = if first.issuer().as_raw() == first.subject().as_raw() {
        check_signature(0, first, first.public_key())?;
        first.as_raw()
    } else {
        let root = policy.root.ok_or(ChainError::RootMissing)?;
        let (rest, issuer) = X509Certificate::from_der(root)
            .map_err(|_| ChainError::Malformed { index: 0, reason: "root" })?;
        if !rest.is_empty() {
            return Err(ChainError::Malformed { index: 0, reason: "root" });
        }
        check_one(0, &issuer, policy)?;
        check_authority(0, &issuer, chain.len() - 1)?;
        check_signature(0, &issuer, issuer.public_key())?;
        check_issued(0, first, &issuer)?;
        root
    };

    for (position, pair) in chain.windows(2).enumerate() {
        let [issuer, subject] = pair else { continue };
        // Authorities between this one and the leaf.
        check_authority(position, issuer, chain.len() - position - 2)?;
        check_issued(position + 1, subject, issuer)?;
    }

    let leaf_index = chain.len() - 1;
    check_leaf(leaf_index, leaf, policy)?;
    let (algorithm, public_key) =
        parse_public_key(leaf.public_key().raw).map_err(|_| ChainError::PublicKey)?;
    Ok(VerifiedCertificates {
        certificates: chain.iter().map(|certificate| certificate.as_raw().to_vec()).collect(),
        root: root.to_vec(),
        algorithm,
        public_key: public_key.to_vec(),
        pci_name: pci_name(leaf_index, leaf)?,
    })
}

fn split(mut der: &[u8]) -> Result<Vec<X509Certificate<'_>>, ChainError> {
    let mut chain = Vec::new();
    while !der.is_empty() {
        let index = chain.len();
        if index == MAX_CERTIFICATES {
            return Err(ChainError::TooMany);
        }
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|_| ChainError::Malformed { index, reason: "not a DER certificate" })?;
        chain.push(certificate);
        der = rest;
    }
    Ok(chain)
}

/// What holds for every certificate, whatever its place.
fn check_one(index: usize, certificate: &X509Certificate<'_>, policy: &Policy<'_>) -> Result<(), ChainError> {
    let malformed = |reason| ChainError::Malformed { index, reason };
    if certificate.version() != X509Version::V3 {
        return Err(malformed("not version 3"));
    }
    if certificate.raw_serial().is_empty() {
        return Err(malformed("no serial number"));
    }
    if !algorithm_identifiers_agree(certificate.as_raw()) {
        return Err(malformed("two different signature algorithms"));
    }
    // DER leaves one way to write a signature; accepting another would make certificates malleable.
    if certificate.signature_value.unused_bits != 0 {
        return Err(malformed("signature is not whole bytes"));
    }
    certificate.extensions_map().map_err(|_| malformed("an extension appears twice"))?;
    for extension in certificate.extensions() {
        let parsed = extension.parsed_extension();
        if matches!(parsed, ParsedExtension::ParseError { .. }) {
            return Err(malformed("an extension cannot be parsed"));
        }
        let evaluated = matches!(
            parsed,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        // Name constraints, policies and the like restrict a chain in ways not evaluated here.
        if extension.critical && !evaluated {
            return Err(ChainError::UnknownCritical { index, oid: extension.oid.to_id_string() });
        }
    }
    let validity = certificate.validity();
    let valid = validity.not_before <= validity.not_after
        && match policy.time {
            None => true,
            Some(seconds) => ASN1Time::from_timestamp(seconds).is_ok_and(|time| validity.is_valid_at(time)),
        };
    if valid { Ok(()) } else { Err(ChainError::Validity { index }) }
}

/// What holds for a certificate that issued another; `below` authorities follow before the leaf.
fn check_authority(index: usize, issuer: &X509Certificate<'_>, below: usize) -> Result<(), ChainError> {
    let constraints = one(index, issuer.basic_constraints())?;
    match constraints {
        Some(constraints) if constraints.ca => {
            if let Some(limit) = constraints.path_len_constraint
                && usize::try_from(limit).is_ok_and(|limit| below > limit)
            {
                return Err(ChainError::PathLength { index });
            }
        }
        _ => return Err(ChainError::NotAuthority { index }),
    }
    match key_usage(index, issuer)? {
        Some(usage) if !usage.key_cert_sign() => Err(ChainError::KeyUsage { index }),
        _ => Ok(()),
    }
}

fn check_issued(
    index: usize,
    subject: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<(), ChainError> {
    if subject.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(ChainError::Issuer { index });
    }
    check_signature(index, subject, issuer.public_key())
}

fn check_signature(
    index: usize,
    certificate: &X509Certificate<'_>,
    issuer: &SubjectPublicKeyInfo<'_>,
) -> Result<(), ChainError> {
    let unsupported = ChainError::SignatureAlgorithm { index };
    let Ok(key) = parse_public_key(issuer.raw) else { return Err(unsupported) };
    let Some((algorithm, signed)) = signed_parts(certificate.as_raw()) else { return Err(unsupported) };
    let signature = certificate.signature_value.data.as_ref();
    match signature::verify(&DefaultProvider::default(), key, algorithm, signed, signature) {
        Ok(()) => Ok(()),
        Err(CryptoError::Unavailable) => Err(unsupported),
        Err(_) => Err(ChainError::Signature { index }),
    }
}

fn check_leaf(index: usize, leaf: &X509Certificate<'_>, policy: &Policy<'_>) -> Result<(), ChainError> {
    match one(index, leaf.basic_constraints())? {
        Some(constraints) if constraints.ca => return Err(ChainError::LeafConstraints),
        None if policy.leaf_constraints_required => return Err(ChainError::LeafConstraints),
        _ => {}
    }
    if !key_usage(index, leaf)?.is_some_and(KeyUsage::digital_signature) {
        return Err(ChainError::KeyUsage { index });
    }
    if let Some(usage) = one(index, leaf.extended_key_usage())? {
        // Other purposes may stand beside SPDM's; only "the other role, not this one" rules a leaf out.
        let has = |purpose: &Oid<'_>| usage.other.iter().any(|other| other == purpose);
        let wrong = match policy.purpose {
            Purpose::Responder => has(&EKU_REQUESTER_AUTH) && !has(&EKU_RESPONDER_AUTH),
            Purpose::Requester => has(&EKU_RESPONDER_AUTH) && !has(&EKU_REQUESTER_AUTH),
            Purpose::Any => false,
        };
        if wrong {
            return Err(ChainError::LeafPurpose);
        }
    }
    Ok(())
}

fn key_usage<'c>(
    index: usize,
    certificate: &'c X509Certificate<'_>,
) -> Result<Option<&'c KeyUsage>, ChainError> {
    one(index, certificate.key_usage())
}

fn one<T>(
    index: usize,
    extension: Result<Option<BasicExtension<T>>, X509Error>,
) -> Result<Option<T>, ChainError> {
    extension
        .map(|found| found.map(|extension| extension.value))
        .map_err(|_| ChainError::Malformed { index, reason: "an extension is invalid" })
}

fn pci_name(index: usize, leaf: &X509Certificate<'_>) -> Result<Option<String>, ChainError> {
    let Some(names) = one(index, leaf.subject_alternative_name())? else { return Ok(None) };
    for name in &names.general_names {
        let GeneralName::OtherName(kind, value) = name else { continue };
        if *kind == PCI_NAME {
            let text = explicit_utf8(value)
                .ok_or(ChainError::Malformed { index, reason: "PCIe name is not a UTF-8 string" })?;
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(None)
}
