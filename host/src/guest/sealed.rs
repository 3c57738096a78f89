//! What a guest asks its TSM, and the answers, past a host that carries them and is not to be believed.
//!
//! On hardware, guest and TSM speak where the host cannot listen. Here a key that both know stands for that: each message ends with an
//! HMAC-SHA-384, and the one of an answer is over that of its request, too. So an answer that was altered, is another request's, or
//! is an old one, is none.
//!
//! ```text
//! request   "TGQ1"  kind u32  nonce[32]  payload  HMAC(key, all before)
//! answer    "TGA1"  status u32           payload  HMAC(key, the request's HMAC, all before)
//! ```
//!
//! Numbers are little-endian. Nothing is encrypted: what is asked is no secret, and what changes a state says what it is for.

use std::path::Path;

use ring::{digest, hmac};
use spdm::codec::{DecodeError, Reader};
use spdm::wire::Nonce;

use crate::error::{Error, Result};

const REQUEST: [u8; 4] = *b"TGQ1";
const ANSWER: [u8; 4] = *b"TGA1";

/// Bytes of an HMAC, and of what START names.
pub const TAG_SIZE: usize = 48;
/// Fewest bytes of a key.
const MIN_KEY: usize = 32;
/// Most bytes of one.
const MAX_KEY: u64 = 4096;

const STATE: u32 = 1;
const REPORT: u32 = 2;
const START: u32 = 3;
const CERTIFICATES: u32 = 4;
const MEASUREMENTS: u32 = 5;

const GOOD: u32 = 0;
const REFUSED: u32 = 1;

/// The key that stands for the guest's own way to its TSM.
pub struct Key(hmac::Key);

impl Key {
    /// A key of at least 32 bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a shorter one.
    pub fn new(secret: &[u8]) -> Result<Self> {
        if secret.len() < MIN_KEY {
            let why = format!("a guest's key has {MIN_KEY} bytes at least, not {}", secret.len());
            return Err(Error::Usage(why));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA384, secret)))
    }

    /// The content of a file, all of it.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
        let length = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
        if length > MAX_KEY {
            return Err(failed(format!("{length} bytes are no key")));
        }
        let secret = std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|e| failed(e.to_string()))?;
        Self::new(&secret).map_err(|e| failed(e.to_string()))
    }

    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        let mut tag = [0; TAG_SIZE];
        tag.copy_from_slice(context.sign().as_ref());
        Tag(tag)
    }

    fn check(&self, parts: &[&[u8]], tag: &[u8]) -> Result<Tag, Unsealed> {
        let message = parts.concat();
        hmac::verify(&self.0, &message, tag).map_err(|_| Unsealed::Tag)?;
        tag.try_into().map(Tag).map_err(|_| Unsealed::Tag)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The end of a request, which its answer is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; TAG_SIZE]);

/// What a guest has judged, and START is for: certificates, measurements and report, as the TSM told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged([u8; TAG_SIZE]);

impl Judged {
    /// A digest of all of it.
    pub fn new(certificates: &[u8], evidence: &[u8], report: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA384);
        for part in [certificates, evidence, report] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut bytes = [0; TAG_SIZE];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

/// What a guest can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The TDI's state: one byte, TDISP's code.
    State,
    /// The interface report.
    Report,
    /// START_INTERFACE, of a device that has told just this.
    Start(Judged),
    /// The certificates of the slot that the session began with: DER, one after the other, the root's side first.
    Certificates,
    /// [`spdm::requester::Evidence`], for the request's nonce.
    Measurements,
}

/// Why a message is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// It has no such form.
    #[error("malformed: {0}")]
    Malformed(DecodeError),
    /// Made under another key, altered, or an answer to another request.
    #[error("wrong HMAC: another key, altered, or of another request")]
    Tag,
}

impl From<DecodeError> for Unsealed {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

/// A request and its HMAC.
pub fn request(key: &Key, ask: &Ask, nonce: &Nonce) -> (Vec<u8>, Tag) {
    let (kind, payload): (u32, &[u8]) = match ask {
        Ask::State => (STATE, &[]),
        Ask::Report => (REPORT, &[]),
        Ask::Start(judged) => (START, &judged.0),
        Ask::Certificates => (CERTIFICATES, &[]),
        Ask::Measurements => (MEASUREMENTS, &[]),
    };
    let mut bytes = [&REQUEST[..], &kind.to_le_bytes(), nonce, payload].concat();
    let tag = key.tag(&[&bytes]);
    bytes.extend_from_slice(&tag.0);
    (bytes, tag)
}

/// Whether a request is for the report, as it seems to somebody without the key.
pub fn is_report(bytes: &[u8]) -> bool {
    bytes.get(REQUEST.len()..).and_then(<[u8]>::first_chunk) == Some(&REPORT.to_le_bytes())
}

/// What is asked, with which nonce, and the HMAC that the answer needs.
///
/// # Errors
/// [`Unsealed`] for what no guest with this key made.
pub fn open_request(key: &Key, bytes: &[u8]) -> Result<(Ask, Nonce, Tag), Unsealed> {
    let (message, tag) = split(bytes)?;
    // Nobody's word is read before it is known to be somebody's.
    let tag = key.check(&[message], tag)?;
    let mut reader = Reader::new(message);
    if reader.array("magic")? != REQUEST {
        return Err(DecodeError::illegal("magic").into());
    }
    let kind = reader.u32("kind")?;
    let nonce = reader.array("nonce")?;
    let ask = match kind {
        STATE => Ask::State,
        REPORT => Ask::Report,
        START => Ask::Start(Judged(reader.array("what was judged")?)),
        CERTIFICATES => Ask::Certificates,
        MEASUREMENTS => Ask::Measurements,
        _ => return Err(DecodeError::illegal("kind").into()),
    };
    reader.finish(0)?;
    Ok((ask, nonce, tag))
}

/// The answer to the request with this HMAC: what was asked for, or why not.
pub fn answer(key: &Key, request: &Tag, result: Result<&[u8], &str>) -> Vec<u8> {
    let (status, payload) = match result {
        Ok(payload) => (GOOD, payload),
        Err(why) => (REFUSED, why.as_bytes()),
    };
    let mut bytes = [&ANSWER[..], &status.to_le_bytes(), payload].concat();
    let tag = key.tag(&[&request.0, &bytes]);
    bytes.extend_from_slice(&tag.0);
    bytes
}

/// What the TSM answered to the request with this HMAC.
///
/// # Errors
/// [`Unsealed`] for what is not its answer.
pub fn open_answer(key: &Key, request: &Tag, bytes: &[u8]) -> Result<Result<Vec<u8>, String>, Unsealed> {
    let (message, tag) = split(bytes)?;
    key.check(&[&request.0, message], tag)?;
    let mut reader = Reader::new(message);
    if reader.array("magic")? != ANSWER {
        return Err(DecodeError::illegal("magic").into());
    }
    match reader.u32("status")? {
        GOOD => Ok(Ok(reader.rest().to_vec())),
        REFUSED => Ok(Err(String::from_utf8_lossy(reader.rest()).into_owned())),
        _ => Err(DecodeError::illegal("status").into()),
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Unsealed> {
    let at = bytes.len().checked_sub(TAG_SIZE).ok_or(DecodeError::illegal("length"))?;
    bytes.split_at_checked(at).ok_or(Unsealed::Tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = [7; 32];

    fn key(byte: u8) -> Key {
        Key::new(&[byte; MIN_KEY]).unwrap()
    }

    fn asks() -> [Ask; 5] {
        let judged = Judged::new(b"chain", b"evidence", b"report");
        [Ask::State, Ask::Report, Ask::Start(judged), Ask::Certificates, Ask::Measurements]
    }

    #[test]
    fn requests_arrive_as_they_were_asked_and_in_no_other_form() {
        for ask in asks() {
            let (bytes, tag) = request(&key(1), &ask, &NONCE);
            assert_eq!(open_request(&key(1), &bytes), Ok((ask, NONCE, tag)));
            assert_eq!(open_request(&key(2), &bytes), Err(Unsealed::Tag));
            assert_eq!(is_report(&bytes), ask == Ask::Report);
            for length in 0..bytes.len() {
                assert!(open_request(&key(1), &bytes[..length]).is_err(), "{ask:?} {length}");
            }
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 0x80;
                assert_eq!(open_request(&key(1), &altered), Err(Unsealed::Tag), "{ask:?} {at}");
            }
            assert!(open_request(&key(1), &[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn an_answer_belongs_to_one_request() {
        let (_, first) = request(&key(1), &Ask::Report, &NONCE);
        let (_, second) = request(&key(1), &Ask::Report, &[8; 32]);
        for result in [Ok(&b"report"[..]), Err("why not")] {
            let bytes = answer(&key(1), &first, result);
            let expected = result.map(<[u8]>::to_vec).map_err(str::to_owned);
            assert_eq!(open_answer(&key(1), &first, &bytes), Ok(expected));
            assert_eq!(open_answer(&key(1), &second, &bytes), Err(Unsealed::Tag), "an old one");
            assert_eq!(open_answer(&key(2), &first, &bytes), Err(Unsealed::Tag));
            for length in 0..bytes.len() {
                assert!(open_answer(&key(1), &first, &bytes[..length]).is_err(), "{length}");
            }
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 1;
                assert_eq!(open_answer(&key(1), &first, &altered), Err(Unsealed::Tag), "{at}");
            }
        }
        // Neither is a request an answer, whoever made it.
        let (bytes, _) = request(&key(1), &Ask::State, &NONCE);
        assert!(open_answer(&key(1), &first, &bytes).is_err());
    }

    #[test]
    fn what_has_the_right_key_still_has_to_have_the_form() {
        let sealed = |message: &[u8]| [message, &key(1).tag(&[message]).0].concat();
        let with = |magic: &[u8], kind: u32, payload: &[u8]| {
            sealed(&[magic, &kind.to_le_bytes(), &NONCE, payload].concat())
        };
        for (bytes, field) in [
            (with(b"TGA1", STATE, &[]), "magic"),
            (with(b"TGQ1", 0, &[]), "kind"),
            (with(b"TGQ1", 6, &[]), "kind"),
            (with(b"TGQ1", STATE, &[0]), ""),
            (with(b"TGQ1", START, &[0; 47]), "what was judged"),
            (with(b"TGQ1", START, &[0; 49]), ""),
        ] {
            let error = open_request(&key(1), &bytes).unwrap_err();
            assert!(matches!(error, Unsealed::Malformed(_)) && error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn what_was_judged_is_told_apart_by_its_parts() {
        assert_ne!(Judged::new(b"ab", b"c", b""), Judged::new(b"a", b"bc", b""));
        assert_ne!(Judged::new(b"", b"", b"r"), Judged::new(b"", b"r", b""));
    }

    #[test]
    fn short_keys_are_none() {
        assert!(matches!(Key::new(&[1; 31]), Err(Error::Usage(why)) if why.contains("32")));
    }
}
