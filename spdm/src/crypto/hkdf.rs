//! HKDF-Expand over anybody's HMAC. The libraries' own prepare the key once for every output, and that is half of the work of
//! a key schedule.

use super::{CryptoError, Secret};

/// Every output by its info (RFC 5869 §2.3), with `mac` as the HMAC of the concatenated parts under the key.
pub(super) fn hkdf_expand<T: AsRef<[u8]>>(
    infos: &[&[u8]],
    outputs: &mut [Secret],
    mac: impl Fn(&[&[u8]]) -> T,
) -> Result<(), CryptoError> {
    if infos.len() != outputs.len() {
        return Err(CryptoError::Failed);
    }
    for (info, output) in infos.iter().zip(outputs) {
        let mut rest = output.as_mut();
        let mut block: Option<T> = None;
        let mut counter = 0_u8;
        while !rest.is_empty() {
            counter = counter.checked_add(1).ok_or(CryptoError::Failed)?;
            let before = block.as_ref().map(AsRef::as_ref).unwrap_or_default();
            let next = mac(&[before, info, &[counter]]);
            let (filled, after) = rest.split_at_mut(rest.len().min(next.as_ref().len()));
            filled.iter_mut().zip(next.as_ref()).for_each(|(to, from)| *to = *from);
            rest = after;
            block = Some(next);
        }
    }
    Ok(())
}
