//! DOE discovery: which data objects a mailbox speaks (PCIe 6.1 §6.30.1.1).

use spdm::doe::{DiscoveryRequest, DiscoveryResponse, Object, ObjectType, VENDOR_PCI_SIG};

use crate::error::{Error, Result};

/// Protocols a mailbox can name: one for each index.
const MAX_PROTOCOLS: usize = 256;

/// Asks for every protocol in turn: vendor and type, in the mailbox's order.
///
/// `version` is the mailbox's capability version; `exchange` sends an object and returns its answer.
///
/// # Errors
/// [`Error::Protocol`] for an answer that is none, or a list without end.
pub fn discover(
    version: u8,
    mut exchange: impl FnMut(&[u8]) -> Result<Vec<u8>>,
) -> Result<Vec<(u16, ObjectType)>> {
    let version = if version >= 2 { 2 } else { 0 };
    let mut protocols = Vec::new();
    let mut index = 0;
    loop {
        if protocols.len() >= MAX_PROTOCOLS {
            return Err(Error::Protocol("DOE discovery never ends".into()));
        }
        let payload = DiscoveryRequest { index, version }.encode();
        let answer = exchange(&wrap(ObjectType::DISCOVERY, &payload)?)?;
        let answer = DiscoveryResponse::parse(unwrap(ObjectType::DISCOVERY, &answer)?)
            .map_err(|e| Error::Protocol(format!("DOE discovery: {e}")))?;
        protocols.push((answer.vendor, answer.kind));
        match answer.next {
            0 => return Ok(protocols),
            next => index = next,
        }
    }
}

/// An object of PCI-SIG's.
///
/// # Errors
/// [`Error::Protocol`] if the payload is too long for one.
pub fn wrap(kind: ObjectType, payload: &[u8]) -> Result<Vec<u8>> {
    let mut object = Vec::new();
    Object { vendor: VENDOR_PCI_SIG, kind, payload }
        .encode(&mut object)
        .map_err(|_| Error::Protocol(format!("{} bytes do not fit a DOE object", payload.len())))?;
    Ok(object)
}

/// The payload of an answer, which has to be of the request's kind.
///
/// # Errors
/// [`Error::Protocol`] for any other object.
pub fn unwrap(kind: ObjectType, object: &[u8]) -> Result<&[u8]> {
    let parsed = Object::parse(object).map_err(|e| Error::Protocol(format!("DOE answer: {e}")))?;
    if (parsed.vendor, parsed.kind) == (VENDOR_PCI_SIG, kind) {
        Ok(parsed.payload)
    } else {
        Err(Error::Protocol(format!(
            "a DOE object of type 0001:{:02x} was answered with {:04x}:{:02x}",
            kind.0, parsed.vendor, parsed.kind.0
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<Vec<(u16, ObjectType)>>;

    /// Answers discovery from a table of next indexes.
    fn asked(version: u8, answer: impl Fn(u8) -> [u8; 4]) -> (Found, Vec<Vec<u8>>) {
        let mut seen = vec![];
        let result = discover(version, |object| {
            seen.push(object.to_vec());
            wrap(ObjectType::DISCOVERY, &answer(object[8]))
        });
        (result, seen)
    }

    #[test]
    fn the_list_is_followed_to_its_end() {
        let (found, seen) = asked(2, |index| [1, 0, index, [1, 2, 0][usize::from(index)]]);
        let kinds: Vec<_> = found.unwrap().iter().map(|(vendor, kind)| (*vendor, kind.0)).collect();
        assert_eq!(kinds, [(1, 0), (1, 1), (1, 2)]);
        assert_eq!(seen[1], [1, 0, 0, 0, 3, 0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn the_first_capability_version_asks_without_one() {
        let (_, seen) = asked(1, |_| [1, 0, 0, 0]);
        assert_eq!(seen, [[1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]]);
    }

    #[test]
    fn an_endless_list_ends() {
        for answer in [|_: u8| [1, 0, 1, 1], |index: u8| [1, 0, 1, index | 1]] {
            let (found, seen) = asked(2, answer);
            assert!(matches!(found, Err(Error::Protocol(_))));
            assert_eq!(seen.len(), MAX_PROTOCOLS);
        }
    }

    #[test]
    fn other_answers_are_refused() {
        for answer in [
            vec![],
            vec![1, 0, 1, 0, 3, 0, 0, 0, 1, 0, 0, 0],
            vec![2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0],
            vec![1, 0, 0, 0, 2, 0, 0, 0],
            vec![1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            vec![1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0],
        ] {
            let result = discover(2, |_| Ok(answer.clone()));
            assert!(matches!(result, Err(Error::Protocol(_))), "{answer:?}");
        }
    }
}
