//! What a guest asks about its TDI, by way of its host. Questions under the guest's key are the guest's own; all others are the host's,
//! who may look, but not start anything once there is a key.

#[cfg(test)]
mod tests;

use spdm::wire::Nonce;

use super::abi::{GUEST_REPORT, GUEST_SEALED, GUEST_START, GUEST_STATE, STATE_CHANGE};
use super::firmware::Tdi;
use crate::error::{Error, Result};
use crate::guest::sealed::{self, Ask, Judged, Key};
use crate::walk::Walk;

/// What was told to the guest since LOCK.
#[derive(Default)]
pub(super) struct Told {
    certificates: Option<Vec<u8>>,
    evidence: Option<Vec<u8>>,
    report: Option<Vec<u8>>,
}

impl Told {
    /// The digest of all of it, if it is all.
    fn judged(&self) -> Option<Judged> {
        Some(Judged::new(self.certificates.as_ref()?, self.evidence.as_ref()?, self.report.as_ref()?))
    }
}

/// An answer, and what the kernel's side is to hear of it.
pub(super) struct Answered {
    pub(super) response: Vec<u8>,
    pub(super) result: Result<()>,
}

/// Answers one request.
///
/// # Errors
/// What the host gets to see: a request that is none, or not its to make.
pub(super) fn answer(
    walk: &mut Walk,
    tdi: &mut Tdi,
    key: Option<&Key>,
    scope: u32,
    payload: &[u8],
) -> Result<Answered> {
    let unknown = || Error::Usage("the guest's request is unknown".into());
    let (kind, rest) = payload.split_first_chunk().ok_or_else(unknown)?;
    let good = |response| Ok(Answered { response, result: Ok(()) });
    match (u32::from_ne_bytes(*kind), rest) {
        (GUEST_STATE, []) => good(u32::from(walk.tsm_state(&mut tdi.binding)?.0).to_ne_bytes().to_vec()),
        (GUEST_REPORT, []) => good(walk.tsm_report(&mut tdi.binding)?),
        (GUEST_START, []) => {
            may_change(scope)?;
            if key.is_some() {
                let (request, reason) =
                    ("START_INTERFACE".into(), "only the guest may ask for it, under its key".into());
                return Err(Error::Refused { request, reason });
            }
            walk.tsm_start(&mut tdi.binding)?;
            good(Vec::new())
        }
        (GUEST_SEALED, sealed) => {
            let key = key.ok_or_else(|| Error::Usage("there is no key for guests (--guest-key)".into()))?;
            let opened = sealed::open_request(key, sealed);
            let (ask, nonce, tag) =
                opened.map_err(|why| Error::Verification(format!("the guest's request: {why}")))?;
            let result = of_guest(walk, tdi, scope, &ask, &nonce);
            let reason = result.as_ref().err().map(Error::to_string);
            let told = match (&result, &reason) {
                (Ok(bytes), _) => Ok(bytes.as_slice()),
                (Err(_), reason) => Err(reason.as_deref().unwrap_or_default()),
            };
            let response = sealed::answer(key, &tag, told);
            Ok(Answered { response, result: result.map(drop) })
        }
        _ => Err(unknown()),
    }
}

/// What the guest itself asks.
fn of_guest(walk: &mut Walk, tdi: &mut Tdi, scope: u32, ask: &Ask, nonce: &Nonce) -> Result<Vec<u8>> {
    match ask {
        Ask::State => Ok(vec![walk.tsm_state(&mut tdi.binding)?.0]),
        Ask::Report => {
            let report = walk.tsm_report(&mut tdi.binding)?;
            Ok(tdi.told.report.insert(report).clone())
        }
        Ask::Certificates => {
            let certificates = walk.tsm_certificates()?;
            Ok(tdi.told.certificates.insert(certificates).clone())
        }
        Ask::Measurements => {
            let evidence = walk.tsm_evidence(nonce)?;
            Ok(tdi.told.evidence.insert(evidence).clone())
        }
        Ask::Start(judged) => {
            may_change(scope)?;
            // An old START is of an old LOCK's evidence, and whoever judged something else starts nothing.
            if tdi.told.judged() != Some(*judged) {
                return Err(Error::Check(
                    "what the guest has judged is not what it was told after this LOCK".into(),
                ));
            }
            walk.tsm_start(&mut tdi.binding).map(|()| Vec::new())
        }
    }
}

fn may_change(scope: u32) -> Result<()> {
    if scope == STATE_CHANGE {
        Ok(())
    } else {
        Err(Error::Usage("START is a change of state, which this scope forbids".into()))
    }
}
