//! OpenSSL's cryptography, for comparing it with ours (`c/crypto.c`).

use std::ffi::{CStr, c_char, c_int};

/// What a signature is over.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Digest by OpenSSL's name, for algorithms that do not hash by themselves.
    pub digest: Option<&'a CStr>,
    /// RSASSA-PSS.
    pub pss: bool,
    /// Context string, for algorithms that have one.
    pub context: &'a [u8],
    /// The message.
    pub bytes: &'a [u8],
}

#[repr(C)]
struct RawMessage {
    digest: *const c_char,
    pss: c_int,
    context: *const u8,
    context_size: usize,
    bytes: *const u8,
    size: usize,
}

unsafe extern "C" {
    fn ref_crypto_verify(
        info: *const u8,
        info_size: usize,
        message: *const RawMessage,
        signature: *const u8,
        signature_size: usize,
    ) -> c_int;
    fn ref_crypto_sign(
        pkcs8: *const u8,
        pkcs8_size: usize,
        message: *const RawMessage,
        signature: *mut u8,
        signature_size: *mut usize,
    ) -> c_int;
    fn ref_crypto_issued(
        issuer: *const u8,
        issuer_size: usize,
        subject: *const u8,
        subject_size: usize,
    ) -> c_int;
    fn ref_crypto_generate(
        name: *const c_char,
        curve: *const c_char,
        pkcs8: *mut u8,
        pkcs8_size: *mut usize,
    ) -> c_int;
    fn ref_crypto_public(
        pkcs8: *const u8,
        pkcs8_size: usize,
        public_key: *mut u8,
        public_size: *mut usize,
    ) -> c_int;
    fn ref_crypto_derive(
        pkcs8: *const u8,
        pkcs8_size: usize,
        point: *const u8,
        point_size: usize,
        secret: *mut u8,
        secret_size: *mut usize,
    ) -> c_int;
    fn ref_crypto_encapsulate(
        name: *const c_char,
        public_key: *const u8,
        public_size: usize,
        cipher_text: *mut u8,
        cipher_text_size: *mut usize,
        secret: *mut u8,
        secret_size: *mut usize,
    ) -> c_int;
    fn ref_crypto_decapsulate(
        pkcs8: *const u8,
        pkcs8_size: usize,
        cipher_text: *const u8,
        cipher_text_size: usize,
        secret: *mut u8,
        secret_size: *mut usize,
    ) -> c_int;
}

/// Longer than anything that is made here.
const ROOM: usize = 8192;

/// Lets a function fill a buffer and say how much of it.
fn filled(fill: impl FnOnce(*mut u8, *mut usize) -> c_int) -> Option<Vec<u8>> {
    let (mut buffer, mut size) = (vec![0; ROOM], ROOM);
    let good = fill(buffer.as_mut_ptr(), &raw mut size) == 1;
    buffer.truncate(size);
    good.then_some(buffer)
}

impl Message<'_> {
    fn raw(&self) -> RawMessage {
        RawMessage {
            digest: self.digest.map_or(std::ptr::null(), CStr::as_ptr),
            pss: self.pss.into(),
            context: self.context.as_ptr(),
            context_size: self.context.len(),
            bytes: self.bytes.as_ptr(),
            size: self.bytes.len(),
        }
    }
}

/// Whether a signature holds for the key of a SubjectPublicKeyInfo.
pub fn verify(info: &[u8], message: &Message<'_>, signature: &[u8]) -> bool {
    let raw = message.raw();
    // SAFETY: all pointers are of slices that live as long as the call, with their sizes.
    let good =
        unsafe { ref_crypto_verify(info.as_ptr(), info.len(), &raw, signature.as_ptr(), signature.len()) };
    good == 1
}

/// A signature by a PKCS#8 key.
pub fn sign(pkcs8: &[u8], message: &Message<'_>) -> Option<Vec<u8>> {
    let raw = message.raw();
    // SAFETY: as in `verify`; the buffer has the size it is said to have.
    filled(|buffer, size| unsafe { ref_crypto_sign(pkcs8.as_ptr(), pkcs8.len(), &raw, buffer, size) })
}

/// Whether one certificate issued another.
pub fn issued(issuer: &[u8], subject: &[u8]) -> bool {
    // SAFETY: as in `verify`.
    let good = unsafe { ref_crypto_issued(issuer.as_ptr(), issuer.len(), subject.as_ptr(), subject.len()) };
    good == 1
}

/// A new key, PKCS#8: an algorithm by OpenSSL's name, with a curve for "EC".
pub fn generate(name: &CStr, curve: Option<&CStr>) -> Option<Vec<u8>> {
    let curve = curve.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: strings end in a NUL; as in `sign`.
    filled(|buffer, size| unsafe { ref_crypto_generate(name.as_ptr(), curve, buffer, size) })
}

/// The public half of a PKCS#8 key: a point with its form byte, or an encapsulation key.
pub fn public(pkcs8: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: as in `sign`.
    filled(|buffer, size| unsafe { ref_crypto_public(pkcs8.as_ptr(), pkcs8.len(), buffer, size) })
}

/// The secret of a PKCS#8 key and a point with its form byte.
pub fn derive(pkcs8: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: as in `sign`.
    filled(|buffer, size| unsafe {
        ref_crypto_derive(pkcs8.as_ptr(), pkcs8.len(), point.as_ptr(), point.len(), buffer, size)
    })
}

/// Cipher text and secret for an encapsulation key.
pub fn encapsulate(name: &CStr, public: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut secret = None;
    let cipher_text = filled(|buffer, size| {
        secret = filled(|secret, secret_size| {
            // SAFETY: as in `generate`.
            unsafe {
                ref_crypto_encapsulate(
                    name.as_ptr(),
                    public.as_ptr(),
                    public.len(),
                    buffer,
                    size,
                    secret,
                    secret_size,
                )
            }
        });
        secret.is_some().into()
    });
    cipher_text.zip(secret)
}

/// The secret in a cipher text for a PKCS#8 key.
pub fn decapsulate(pkcs8: &[u8], cipher_text: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: as in `sign`.
    filled(|buffer, size| unsafe {
        ref_crypto_decapsulate(
            pkcs8.as_ptr(),
            pkcs8.len(),
            cipher_text.as_ptr(),
            cipher_text.len(),
            buffer,
            size,
        )
    })
}
