//! Exports that the device is done with and their holders are not: what is in them is in use.
use std::sync::Arc;

use crate::memory::MemoryFile;

/// How much of that a BAR may have, in times its own size: a holder that forgets a mapping or two goes on, one that never lets go
/// does not take all of the host's memory.
const TIMES: u64 = 4;

/// Files of exports that lost all their pages.
#[derive(Debug, Default)]
pub(super) struct Former(Vec<(Arc<MemoryFile>, u64)>);

impl Former {
    /// The most bytes that may be in use beside a BAR of `size` bytes.
    pub(super) const fn limit(size: u64) -> u64 {
        size.saturating_mul(TIMES)
    }

    /// Notes a file of `bytes` bytes, if somebody holds it.
    pub(super) fn push(&mut self, file: Arc<MemoryFile>, bytes: u64) {
        if file.is_held() {
            self.0.push((file, bytes));
        }
    }

    /// Forgets those that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|(file, _)| file.is_held());
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// What they may have in use, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::{MAX_EXPORTS, Refused, Revocation, Sides};
    use crate::memory::{FileAccess, Size};
    use crate::pages::PageRange;
    use crate::{PAGE_SIZE, Tee};

    const ALL: PageRange = PageRange { first: 0, pages: 4 };

    fn sides(pages: u32) -> Sides {
        Sides::new(0, pages, 0, None).unwrap()
    }

    fn export(sides: &mut Sides, side: Tee, pages: PageRange) -> Result<OwnedFd, Refused> {
        let exported = sides.export(side, &[pages], false, Size::Cuttable, FileAccess::ReadWrite);
        exported.map(|exported| exported.fd)
    }

    /// The bytes that are in the way.
    fn lingering(refused: Result<OwnedFd, Refused>) -> Option<u64> {
        match refused {
            Err(Refused::Lingering(bytes)) => Some(bytes),
            Ok(_) | Err(Refused::Overlap(_) | Refused::ReadOnly | Refused::TooMany | Refused::Memory(_)) => {
                None
            }
        }
    }

    #[test]
    fn who_never_lets_go_gets_no_more_until_it_does() {
        for (side, how) in
            [(Tee::NonTee, Revocation::Orphan), (Tee::Tee, Revocation::Orphan), (Tee::Tee, Revocation::Keep)]
        {
            let mut sides = sides(ALL.pages);
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(export(&mut sides, side, ALL).unwrap());
                sides.revoke(side, ALL, how).unwrap();
            }
            assert_eq!(lingering(export(&mut sides, side, ALL)), Some(16 * PAGE_SIZE), "{side:?} {how:?}");
            held.pop();
            held.push(export(&mut sides, side, ALL).unwrap());
            sides.revoke(side, ALL, how).unwrap();
            assert_eq!(lingering(export(&mut sides, side, ALL)), Some(16 * PAGE_SIZE), "{side:?} {how:?}");
        }
    }

    #[test]
    fn what_is_cut_or_comes_back_is_not_in_the_way() {
        let mut sides = sides(ALL.pages);
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(export(&mut sides, Tee::Tee, ALL).unwrap());
            sides.revoke(Tee::Tee, ALL, Revocation::Sigbus).unwrap();
            held.push(export(&mut sides, Tee::NonTee, ALL).unwrap());
            sides.revoke(Tee::NonTee, ALL, Revocation::Keep).unwrap();
            sides.revive().unwrap();
        }
    }

    #[test]
    fn lost_pages_count_while_others_live_and_hosts_while_they_hold_on() {
        let mut some = sides(ALL.pages);
        let most = PageRange { pages: 3, ..ALL };
        let mut held = vec![export(&mut some, Tee::NonTee, ALL).unwrap()];
        some.revoke(Tee::NonTee, most, Revocation::Orphan).unwrap();
        for _ in 0..4 {
            held.push(export(&mut some, Tee::NonTee, most).unwrap());
            some.revoke(Tee::NonTee, most, Revocation::Orphan).unwrap();
        }
        assert_eq!(lingering(export(&mut some, Tee::NonTee, most)), Some(15 * PAGE_SIZE));

        let mut hosts = sides(ALL.pages);
        for _ in 0..4 {
            held.push(export(&mut hosts, Tee::NonTee, ALL).unwrap());
            hosts.part().unwrap();
        }
        assert_eq!(lingering(export(&mut hosts, Tee::NonTee, ALL)), Some(16 * PAGE_SIZE));
    }

    #[test]
    fn there_are_only_so_many_exports() {
        let pages = u32::try_from(MAX_EXPORTS).unwrap() + 1;
        let mut sides = sides(pages);
        let mut page = (0..pages).map(|first| PageRange { first, pages: 1 });
        let mut held: Vec<_> = page
            .by_ref()
            .take(MAX_EXPORTS)
            .map(|page| export(&mut sides, Tee::NonTee, page).unwrap())
            .collect();
        let last = page.next().unwrap();
        assert!(matches!(export(&mut sides, Tee::NonTee, last), Err(Refused::TooMany)));
        // Who asks for the same again gets the same.
        held.push(export(&mut sides, Tee::NonTee, PageRange { first: 0, pages: 1 }).unwrap());
        held.remove(1);
        assert!(export(&mut sides, Tee::NonTee, last).is_ok());
    }
}
