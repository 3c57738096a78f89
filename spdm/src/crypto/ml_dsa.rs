//! ML-DSA (FIPS 204) with context strings, by RustCrypto; SPDM's context goes into every signature
//! (DSP0274 1.4 "Signature generation").

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use ml_dsa::{
    EncodedVerifyingKey, ExpandedSigningKey, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature, VerifyingKey,
};
use zeroize::Zeroizing;

use super::public_key::key_identifier;
use super::{AsymAlgorithm, CryptoError, SignedMessage};
use crate::der::{INTEGER, OCTET_STRING, SEQUENCE, encode, only, tagged};

/// Size of the seed that a key is made of, in bytes.
const SEED_SIZE: usize = 32;
/// Tag of the seed in an ML-DSA-PrivateKey (RFC 9881 §6).
const SEED: u8 = 0x80;

/// A private key of some parameter set.
pub(super) trait Key: Send + Sync {
    fn public_key(&self) -> &[u8];
    fn sign(
        &self,
        random: &SystemRandom,
        message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;
}

struct Expanded<P: MlDsaParams> {
    key: ExpandedSigningKey<P>,
    public: Vec<u8>,
}

/// A key from PKCS#8 with a seed.
pub(super) fn from_pkcs8(algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Box<dyn Key>, CryptoError> {
    fn expand<P: MlDsaParams + Send + Sync + 'static>(seed: &[u8; SEED_SIZE]) -> Box<dyn Key> {
        let key = ExpandedSigningKey::<P>::from_seed(&(*seed).into());
        let public = key.verifying_key().encode().to_vec();
        Box::new(Expanded { key, public })
    }
    let seed = seed(algorithm, pkcs8).ok_or(CryptoError::Malformed)?;
    if algorithm == AsymAlgorithm::MlDsa44 {
        Ok(expand::<MlDsa44>(&seed))
    } else if algorithm == AsymAlgorithm::MlDsa65 {
        Ok(expand::<MlDsa65>(&seed))
    } else if algorithm == AsymAlgorithm::MlDsa87 {
        Ok(expand::<MlDsa87>(&seed))
    } else {
        Err(CryptoError::Unavailable)
    }
}

fn seed(algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Option<Zeroizing<[u8; SEED_SIZE]>> {
    let (_version, rest) = tagged(only(pkcs8, SEQUENCE)?, INTEGER)?;
    let key = rest.strip_prefix(key_identifier(algorithm).as_slice())?;
    let seed = only(tagged(key, OCTET_STRING)?.0, SEED)?;
    Some(Zeroizing::new(seed.try_into().ok()?))
}

/// A new key, as PKCS#8 with a seed.
pub(super) fn generate_pkcs8(
    algorithm: AsymAlgorithm,
    random: &SystemRandom,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let mut seed = Zeroizing::new([0; SEED_SIZE]);
    random.fill(seed.as_mut()).map_err(|_| CryptoError::Failed)?;
    let key = Zeroizing::new(encode(SEED, &[seed.as_ref()]));
    let key = Zeroizing::new(encode(OCTET_STRING, &[&key]));
    Ok(Zeroizing::new(encode(SEQUENCE, &[&[2, 1, 0], &key_identifier(algorithm), &key])))
}

impl<P: MlDsaParams + Send + Sync> Key for Expanded<P> {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// The hedged variant of FIPS 204 §5.2.
    fn sign(
        &self,
        random: &SystemRandom,
        message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let size = u8::try_from(message.context.len()).map_err(|_| CryptoError::Failed)?;
        let mut hedge = Zeroizing::new([0; 32]);
        random.fill(hedge.as_mut()).map_err(|_| CryptoError::Failed)?;
        let formatted = [&[0, size][..], message.context, message.bytes];
        let made = self.key.sign_internal(&formatted, &(*hedge).into());
        signature.extend_from_slice(&made.encode());
        Ok(())
    }
}

/// Checks a signature.
pub(super) fn verify(
    algorithm: AsymAlgorithm,
    public_key: &[u8],
    message: SignedMessage<'_>,
    signature: &[u8],
) -> Result<(), CryptoError> {
    fn check<P: MlDsaParams>(
        public_key: &[u8],
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let key = EncodedVerifyingKey::<P>::try_from(public_key).map_err(|_| CryptoError::Malformed)?;
        let signature = Signature::<P>::try_from(signature).map_err(|_| CryptoError::Mismatch)?;
        let genuine =
            VerifyingKey::<P>::decode(&key).verify_with_context(message.bytes, message.context, &signature);
        if genuine { Ok(()) } else { Err(CryptoError::Mismatch) }
    }
    if algorithm == AsymAlgorithm::MlDsa44 {
        check::<MlDsa44>(public_key, message, signature)
    } else if algorithm == AsymAlgorithm::MlDsa65 {
        check::<MlDsa65>(public_key, message, signature)
    } else if algorithm == AsymAlgorithm::MlDsa87 {
        check::<MlDsa87>(public_key, message, signature)
    } else {
        Err(CryptoError::Unavailable)
    }
}
