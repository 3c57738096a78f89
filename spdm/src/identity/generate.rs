//! Makes a device's certificate chain: root, intermediate, leaf, with fresh keys.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, OtherNameValue, SanType, date_time_ymd,
};

use crate::crypto::{AsymAlgorithm, DefaultProvider, Provider};

use super::issue::IssuingKey;
use super::{Material, MaterialError, PciName, oid};

/// The value of the SPDM extension: one entry that names id-DMTF-hardware-identity, without a definition
/// (DSP0274 1.3 "Certificates", `id-spdm-cert-oids`).
const HARDWARE_IDENTITY_LIST: [u8; 16] =
    [0x30, 0x0e, 0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0x1c, 0x82, 0x12, 0x02];

/// Makes a root certificate authority, an intermediate and the leaf for `name`, all three with new keys of
/// `algorithm`. Only the leaf's key survives; nobody can issue under this root again.
///
/// The leaf follows DSP0274 1.3 "Certificates" for the device certificate model and PCIe 6.1 §6.31.3. The chain
/// is valid from 1970 and does not expire, because a device has no clock to renew it by.
///
/// # Errors
/// [`MaterialError::Unavailable`] where this build makes no keys of the algorithm, [`MaterialError::Generate`] when the
/// key generator or the encoder fails.
pub fn generate(name: &PciName, algorithm: AsymAlgorithm) -> Result<Material, MaterialError> {
    generate_by(&DefaultProvider::new(), name, algorithm)
}

/// As [`generate`], with the keys and signatures of this provider.
///
/// # Errors
/// As [`generate`].
pub fn generate_by(
    provider: &dyn Provider,
    name: &PciName,
    algorithm: AsymAlgorithm,
) -> Result<Material, MaterialError> {
    issue(provider, &leaf(name)?, algorithm)
}

/// As [`generate`], for a requester, which is no PCIe device: `subject` is its common name.
///
/// # Errors
/// As [`generate`].
pub fn generate_requester(subject: &str, algorithm: AsymAlgorithm) -> Result<Material, MaterialError> {
    let mut leaf = common(subject)?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(oid::EKU_REQUESTER_AUTH.to_vec())];
    issue(&DefaultProvider::new(), &leaf, algorithm)
}

fn issue(
    provider: &dyn Provider,
    leaf: &CertificateParams,
    algorithm: AsymAlgorithm,
) -> Result<Material, MaterialError> {
    let root_key = IssuingKey::generate(provider, algorithm)?;
    let root = authority("tdispd root CA", 1)?;
    let root_certificate = root.self_signed(&root_key).map_err(failed)?;
    let root_issuer = Issuer::from_params(&root, &root_key);

    let intermediate_key = IssuingKey::generate(provider, algorithm)?;
    let intermediate = authority("tdispd device CA", 0)?;
    let intermediate_certificate = intermediate.signed_by(&intermediate_key, &root_issuer).map_err(failed)?;
    let intermediate_issuer = Issuer::from_params(&intermediate, &intermediate_key);

    let leaf_key = IssuingKey::generate(provider, algorithm)?;
    let leaf_certificate = leaf.signed_by(&leaf_key, &intermediate_issuer).map_err(failed)?;

    let certificates = [root_certificate, intermediate_certificate, leaf_certificate]
        .iter()
        .map(|certificate| certificate.der().to_vec())
        .collect();
    Material::new(certificates, leaf_key.pkcs8(), Some(algorithm))?.by(provider)
}

fn failed(error: impl core::fmt::Display) -> MaterialError {
    MaterialError::Generate(error.to_string())
}

fn common(subject: &str) -> Result<CertificateParams, MaterialError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280 §4.1.2.5: 99991231235959Z says "no well-defined expiration date".
    params.not_after = date_time_ymd(9999, 12, 31)
        .replace_hour(23)
        .and_then(|date| date.replace_minute(59))
        .and_then(|date| date.replace_second(59))
        .map_err(failed)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn authority(subject: &str, authorities_below: u8) -> Result<CertificateParams, MaterialError> {
    let mut params = common(subject)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(authorities_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

pub(super) fn leaf(name: &PciName) -> Result<CertificateParams, MaterialError> {
    let subject = format!("tdispd device {:04x}:{:04x}", name.vendor, name.device);
    let mut params = common(&subject)?;
    // SPDM 1.3 wants the extension present and CA false; absence, as most leaves have it, is not enough.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(oid::EKU_RESPONDER_AUTH.to_vec())];
    params.subject_alt_names =
        vec![SanType::OtherName((PciName::OID.to_vec(), OtherNameValue::Utf8String(name.to_string())))];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(oid::SPDM_EXTENSION, HARDWARE_IDENTITY_LIST.to_vec())];
    Ok(params)
}
