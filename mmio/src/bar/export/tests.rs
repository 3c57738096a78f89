//! Exports by phase, side and policy; and that no byte crosses, whatever anybody does.
use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;
use crate::{Access, AddressWidth, BarLayout, FileKind, Gate, Place, RangeLayout, RegisterBlock, TeeSource};
use Attribute::{Private, Shared};
use Revocation::{Keep, Orphan, Sigbus};
use TdiPhase::{Error, Locked, Run, Unlocked};
use Tee::{NonTee, Tee as Trusted};

const PAGE: u64 = PAGE_SIZE;

struct Nothing;

impl RegisterBlock for Nothing {
    fn read(&mut self, _: Place, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, _: Place, _: &[u8]) {}
}

/// Page 0 registers, 1–3 private, 4–5 private and updatable, 6–15 shared.
fn bar(exporting: Exporting) -> Bar {
    bar_of(exporting, [None; 2])
}

/// The same, with the policies of pages 1–3 and 4–5.
fn bar_of(exporting: Exporting, [private, updatable]: [Option<Revocation>; 2]) -> Bar {
    let range =
        |kind, pages, attribute| RangeLayout { kind, pages, attribute, updatable: false, revocation: None };
    let ranges = [
        range(Kind::Registers, 1, Private),
        RangeLayout { revocation: private, ..range(Kind::Memory, 3, Private) },
        RangeLayout { updatable: true, revocation: updatable, ..range(Kind::Memory, 2, Private) },
        range(Kind::Memory, 10, Shared),
    ];
    let layout = BarLayout::new(2, AddressWidth::Bits64, true, &ranges).unwrap();
    Bar::new(layout, Gate::default(), exporting).unwrap()
}

/// A driver without a kernel: what it makes are other descriptors of the file, and it has no idea who holds them.
#[derive(Debug)]
struct Fake;

impl DmaBufMaker for Fake {
    fn make(&self, memfd: std::os::fd::BorrowedFd<'_>, bytes: u64) -> std::io::Result<std::os::fd::OwnedFd> {
        if bytes > 8 * PAGE {
            return Err(std::io::Error::other("more than it makes"));
        }
        memfd.try_clone_to_owned()
    }

    fn is_held(&self, _: std::os::fd::BorrowedFd<'_>) -> bool {
        true
    }
}

fn with_dmabufs(revocation: Revocation) -> Exporting {
    Exporting { revocation, maker: Some(Arc::new(Fake)), ..Exporting::default() }
}

/// The kernel's dma-buf has the pages that the file had: none may be given back while it lives.
#[test]
fn a_dma_buf_keeps_its_pages() {
    use std::os::unix::fs::MetadataExt;
    for how in [Orphan, Keep] {
        let mut bar = bar(with_dmabufs(how));
        let file = export(&mut bar, Unlocked, NonTee, &[pages(1, 4)]).unwrap();
        for page in 0..4 {
            set(&file, page, 5);
        }
        let blocks = file.metadata().unwrap().blocks();
        bar.lock().unwrap();
        bar.start().unwrap();
        put(&mut bar, Run, Trusted, 1, 6);
        stop(&mut bar);
        bar.scrub_all().unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), blocks, "{how:?}");
        assert_eq!(seen(&file, 0), Some(if how == Keep { 0 } else { 5 }));
    }
}

#[test]
fn what_may_be_cut_is_no_dma_buf() {
    let kind = |bar: &mut Bar, first| {
        bar.export(Unlocked, NonTee, &[pages(first, 1)], FileAccess::ReadWrite).map(|exported| exported.kind)
    };
    let mut cut = bar(with_dmabufs(Sigbus));
    assert_eq!(kind(&mut cut, 1).unwrap(), FileKind::Memfd);
    let mut some = bar_of(with_dmabufs(Orphan), [Some(Sigbus), None]);
    assert_eq!(kind(&mut some, 1).unwrap(), FileKind::Memfd);
    assert_eq!(kind(&mut some, 4).unwrap(), FileKind::DmaBuf);
    let read_only = some.export(Unlocked, NonTee, &[pages(5, 1)], FileAccess::ReadOnly).unwrap_err();
    assert!(matches!(read_only, ExportError::ReadOnly), "{read_only}");
    let too_large = some.export(Unlocked, NonTee, &[pages(6, 9)], FileAccess::ReadWrite).unwrap_err();
    assert!(matches!(too_large, ExportError::Memory(_)), "{too_large}");
    assert_eq!(get(&mut some, Unlocked, NonTee, 6), 0, "nothing has changed");
    assert!(some.export(Unlocked, NonTee, &[pages(6, 1)], FileAccess::ReadOnly).is_err());
}

const fn with_policy(revocation: Revocation) -> Exporting {
    Exporting { revocation, early: false, behind_itself: false, maker: None }
}

fn with(revocation: Revocation) -> Bar {
    bar(with_policy(revocation))
}

fn pages(first: u64, count: u64) -> (u64, u64) {
    (first * PAGE, count * PAGE)
}

fn export(bar: &mut Bar, phase: TdiPhase, side: Tee, ranges: &[(u64, u64)]) -> Result<File, ExportError> {
    bar.export(phase, side, ranges, FileAccess::ReadWrite).map(|exported| File::from(exported.fd))
}

fn get(bar: &mut Bar, phase: TdiPhase, tee: Tee, page: u64) -> u8 {
    let mut data = [0xa5];
    let access = Access { phase, tee: TeeSource::Known(tee) };
    let _ = bar.read(access, page * PAGE + 8, &mut data, &mut Nothing).unwrap();
    data[0]
}

fn put(bar: &mut Bar, phase: TdiPhase, tee: Tee, page: u64, byte: u8) {
    let access = Access { phase, tee: TeeSource::Known(tee) };
    let _ = bar.write(access, page * PAGE + 8, &[byte], &mut Nothing).unwrap();
}

/// `None` where the file was cut: a mapping would raise SIGBUS.
fn seen(file: &File, page: u64) -> Option<u8> {
    let mut data = [0xa5];
    (file.read_at(&mut data, page * PAGE + 8).unwrap() == 1).then_some(data[0])
}

fn set(file: &File, page: u64, byte: u8) {
    // Refused where it was cut.
    let _ = file.write_at(&[byte], page * PAGE + 8);
}

/// From RUN or CONFIG_LOCKED back to CONFIG_UNLOCKED.
fn stop(bar: &mut Bar) {
    bar.scrub_private().unwrap();
    bar.unlock().unwrap();
}

/// Each page goes the way of its range; where one of them takes the file away, all of it goes.
#[test]
fn ranges_have_policies_of_their_own() {
    for (own, seen_after) in [
        ([Some(Keep), None], [Some(0xff), Some(4), Some(4)]),
        ([None, Some(Keep)], [Some(4), Some(0xff), Some(4)]),
        ([Some(Keep), Some(Sigbus)], [None; 3]),
        ([Some(Sigbus), None], [None; 3]),
    ] {
        let mut bar = bar_of(Exporting::default(), own);
        let file = export(&mut bar, Unlocked, NonTee, &[pages(3, 4)]).unwrap();
        let alone = export(&mut bar, Unlocked, NonTee, &[pages(7, 1)]).unwrap();
        for page in [0, 1, 3] {
            set(&file, page, 4);
        }
        set(&alone, 0, 4);
        bar.lock().unwrap();
        assert_eq!([0, 1, 3].map(|page| seen(&file, page)), seen_after, "{own:?}");
        assert_eq!(seen(&alone, 0), Some(4), "nothing of it went to the other side");
        let revoked = bar.take_revoked();
        assert_eq!(revoked.len(), 1, "{own:?}: one export");
        stop(&mut bar);
        let good = seen_after.map(|seen| if seen == Some(0xff) { Some(0) } else { seen });
        assert_eq!([0, 1, 3].map(|page| seen(&file, page)), good, "{own:?}");
    }
}

#[test]
fn an_export_is_the_device_s_memory() {
    let mut bar = with(Orphan);
    put(&mut bar, Unlocked, NonTee, 2, 7);
    let both = export(&mut bar, Unlocked, NonTee, &[pages(7, 2), pages(1, 3)]).unwrap();
    assert_eq!(both.metadata().unwrap().len(), 5 * PAGE);
    assert_eq!(seen(&both, 3), Some(7));
    set(&both, 0, 9);
    assert_eq!(get(&mut bar, Unlocked, NonTee, 7), 9);
    put(&mut bar, Unlocked, NonTee, 8, 3);
    assert_eq!(seen(&both, 1), Some(3));
    assert_eq!(bar.sides.held(), 1);
    let again = export(&mut bar, Unlocked, NonTee, &[pages(7, 2), pages(1, 3)]).unwrap();
    assert_eq!(seen(&again, 1), Some(3));
    // Nobody holds it any more: its pages may be exported in another way, with what is in them.
    drop((both, again));
    assert_eq!(bar.sides.held(), 0);
    let other = export(&mut bar, Unlocked, NonTee, &[pages(8, 1)]).unwrap();
    assert_eq!(seen(&other, 0), Some(3));
    assert_eq!(get(&mut bar, Unlocked, NonTee, 7), 9);
}

#[test]
fn every_refusal_says_why_and_changes_nothing() {
    let text = |bar: &mut Bar, phase, side, ranges: &[(u64, u64)]| {
        export(bar, phase, side, ranges).map(|_| ()).unwrap_err().to_string()
    };
    let mut bar = with(Orphan);
    let size = 16 * PAGE;
    for (phase, side, ranges, expected) in [
        (Unlocked, NonTee, vec![], "no ranges"),
        (Unlocked, NonTee, vec![(PAGE, 0)], "not whole pages"),
        (Unlocked, NonTee, vec![(PAGE + 1, PAGE)], "not whole pages"),
        (Unlocked, NonTee, vec![(PAGE, 100)], "not whole pages"),
        (Unlocked, NonTee, vec![(size, PAGE)], "beyond the BAR"),
        (Unlocked, NonTee, vec![(PAGE, size)], "beyond the BAR"),
        (Unlocked, NonTee, vec![(u64::MAX - 0xfff, PAGE)], "beyond the BAR"),
        (Unlocked, NonTee, vec![pages(2, 2), pages(3, 1)], "page 3 is asked for twice"),
        (Unlocked, NonTee, vec![pages(0, 2)], "page 0 is registers"),
        (Unlocked, Trusted, vec![pages(1, 1)], "no T = 1 export in Unlocked"),
        (Error, Trusted, vec![pages(1, 1)], "no T = 1 export in Error"),
        (Locked, NonTee, vec![pages(5, 2)], "page 6 is Shared"),
        (Locked, Trusted, vec![pages(5, 2)], "page 6 is Shared"),
        (Run, NonTee, vec![pages(6, 1), pages(1, 1)], "page 1 is Private"),
        (Run, NonTee, vec![pages(1, 1)], "Private pages are not exported with T = 0"),
        (Run, Trusted, vec![pages(6, 1)], "Shared pages are not exported with T = 1"),
    ] {
        let says = text(&mut bar, phase, side, &ranges);
        assert!(says.contains(expected), "{phase:?} {side:?} {ranges:x?}: {says}");
    }
    assert_eq!(bar.sides.held(), 0);
    let _held = export(&mut bar, Unlocked, NonTee, &[pages(1, 2)]).unwrap();
    assert!(text(&mut bar, Unlocked, NonTee, &[pages(2, 2)]).contains("page 2 is in another export"));
    let mapped = bar.hand_out_shared().unwrap();
    assert!(
        text(&mut bar, Unlocked, NonTee, &[pages(6, 1)]).contains("page 6 is in what the region offered")
    );
    drop(mapped);
    let shared = export(&mut bar, Unlocked, NonTee, &[pages(6, 1)]).unwrap();
    assert_eq!(bar.shared_mapping(), None);
    drop(shared);
    assert!(bar.shared_mapping().is_some());
}

/// The whole life of a T = 1 export: ones and lost writes until START, then the TVM's memory, then nothing.
#[test]
fn a_private_export_opens_at_start_and_ends_with_run() {
    for how in [Orphan, Sigbus, Keep] {
        for early in [false, true] {
            let mut bar = bar(Exporting { revocation: how, early, ..Exporting::default() });
            let before = early.then(|| export(&mut bar, Unlocked, Trusted, &[pages(1, 1)]).unwrap());
            bar.lock().unwrap();
            let locked = export(&mut bar, Locked, Trusted, &[pages(2, 1)]).unwrap();
            for file in before.iter().chain([&locked]) {
                assert_eq!(seen(file, 0), Some(0xff), "{how:?}");
                set(file, 0, 5);
            }
            bar.start().unwrap();
            put(&mut bar, Run, Trusted, 3, 6);
            let running = export(&mut bar, Run, Trusted, &[pages(3, 2)]).unwrap();
            assert_eq!(seen(&running, 0), Some(6));
            for (page, file) in before.iter().map(|file| (1, file)).chain([(2, &locked), (3, &running)]) {
                let expected = if page == 3 { 6 } else { 0 };
                assert_eq!(
                    get(&mut bar, Run, Trusted, page),
                    expected,
                    "what was written before START, {how:?}"
                );
                set(file, 0, 8);
                assert_eq!(get(&mut bar, Run, Trusted, page), 8);
                assert_eq!(get(&mut bar, Run, NonTee, page), 0xff);
            }
            bar.scrub_private().unwrap();
            let revoked = bar.take_revoked();
            assert_eq!(revoked.len(), 2 + usize::from(early));
            assert!(revoked.iter().all(|one| one.how == how && one.held && one.side == Trusted));
            let expected = match how {
                Orphan => Some(0),
                Sigbus => None,
                Keep => Some(0xff),
            };
            for file in before.iter().chain([&locked, &running]) {
                assert_eq!(seen(file, 0), expected, "{how:?}");
                set(file, 0, 9);
            }
            bar.unlock().unwrap();
            bar.lock().unwrap();
            bar.start().unwrap();
            for page in 1..4 {
                assert_eq!(
                    get(&mut bar, Run, Trusted, page),
                    0,
                    "the next TVM sees the last one's mapping, {how:?}"
                );
            }
        }
    }
}

/// What a hypervisor's mapping of pages that become TEE memory comes to.
#[test]
fn a_shared_export_meets_lock() {
    for (how, dead, back) in [(Orphan, Some(4), Some(4)), (Sigbus, None, None), (Keep, Some(0xff), Some(0))] {
        let mut bar = with(how);
        let file = export(&mut bar, Unlocked, NonTee, &[pages(3, 4)]).unwrap();
        set(&file, 0, 4);
        set(&file, 3, 4);
        bar.lock().unwrap();
        let revoked = bar.take_revoked();
        assert!(!revoked.is_empty() && revoked.iter().all(|one| one.held && one.side == NonTee), "{how:?}");
        assert_eq!(seen(&file, 0), dead, "{how:?}");
        // The shared page of the same export: another copy where the file was cut.
        assert_eq!(get(&mut bar, Locked, NonTee, 6), 4, "{how:?}");
        set(&file, 3, 5);
        assert_eq!(get(&mut bar, Locked, NonTee, 6), if how == Sigbus { 4 } else { 5 }, "{how:?}");
        bar.start().unwrap();
        put(&mut bar, Run, Trusted, 3, 0x77);
        set(&file, 0, 6);
        assert_eq!(get(&mut bar, Run, Trusted, 3), 0x77);
        assert_ne!(seen(&file, 0), Some(0x77));
        stop(&mut bar);
        assert_eq!(get(&mut bar, Unlocked, NonTee, 3), 0, "{how:?}");
        let again = match how {
            Keep => {
                assert_eq!(seen(&file, 0), back);
                set(&file, 0, 1);
                1
            }
            Orphan | Sigbus => {
                set(&file, 0, 1);
                0
            }
        };
        assert_eq!(get(&mut bar, Unlocked, NonTee, 3), again, "{how:?}");
        // Whoever lost it may ask again, in another way.
        if how != Keep {
            assert!(export(&mut bar, Unlocked, NonTee, &[pages(3, 1)]).is_ok(), "{how:?}");
        }
    }
}

#[test]
fn an_early_export_goes_with_its_host() {
    let mut bar = bar(Exporting { early: true, ..Exporting::default() });
    let early = export(&mut bar, Unlocked, Trusted, &[pages(1, 1)]).unwrap();
    bar.change_host().unwrap();
    bar.lock().unwrap();
    bar.start().unwrap();
    put(&mut bar, Run, Trusted, 1, 6);
    assert_eq!(seen(&early, 0), Some(0xff));
    set(&early, 0, 9);
    assert_eq!(get(&mut bar, Run, Trusted, 1), 6);
}

#[test]
fn a_page_that_changes_sides_while_running_leaves_its_export() {
    let mut bar = with(Orphan);
    bar.lock().unwrap();
    bar.start().unwrap();
    let private = export(&mut bar, Run, Trusted, &[pages(4, 2)]).unwrap();
    set(&private, 0, 8);
    bar.set_attribute(4, 1, Shared).unwrap();
    assert_eq!((seen(&private, 0), get(&mut bar, Run, NonTee, 4)), (Some(0), 0));
    set(&private, 1, 8);
    assert_eq!(get(&mut bar, Run, Trusted, 5), 8, "its other page stays");
    let shared = export(&mut bar, Run, NonTee, &[pages(4, 1)]).unwrap();
    set(&shared, 0, 3);
    assert_eq!(get(&mut bar, Run, NonTee, 4), 3);
    bar.set_attribute(4, 1, Private).unwrap();
    set(&shared, 0, 4);
    assert_eq!((get(&mut bar, Run, Trusted, 4), get(&mut bar, Run, NonTee, 4)), (0, 0xff));
    assert_eq!(bar.take_revoked().len(), 2);
}

fn attribute_of(bar: &Bar, page: u64) -> Attribute {
    bar.ranges().find(|range| range.end() > page * PAGE).unwrap().attribute
}

#[derive(Clone, Debug)]
enum Step {
    Lock,
    Start,
    Stop,
    Fail,
    NewHost,
    Attribute(u8, bool),
    Export(bool, u8, u8),
    Drop(prop::sample::Index),
    Write(bool, u8),
    WriteExport(prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Lock),
        1 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Fail),
        1 => Just(Step::NewHost),
        1 => (4..6_u8, any::<bool>()).prop_map(|(page, private)| Step::Attribute(page, private)),
        4 => (any::<bool>(), 1..16_u8, 1..8_u8).prop_map(|(tee, first, count)| Step::Export(tee, first, count)),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        6 => (any::<bool>(), 1..16_u8).prop_map(|(tee, page)| Step::Write(tee, page)),
        6 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(which, page)| Step::WriteExport(which, page)),
    ]
}

fn policy() -> impl Strategy<Value = Revocation> {
    prop_oneof![Just(Orphan), Just(Sigbus), Just(Keep)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Every byte says by whom it was written: each host and each TVM has a value of its own. Whatever is written by trapped
    /// accesses and through whatever exports are still held, nobody ever reads another one's byte, and no export mixes.
    #[test]
    fn no_byte_crosses(
        how in policy(),
        own in [proptest::option::of(policy()), proptest::option::of(policy())],
        early in any::<bool>(),
        dmabufs in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut bar = bar_of(Exporting { early, ..if dmabufs { with_dmabufs(how) } else { with_policy(how) } }, own);
        let (mut phase, mut host, mut tvm) = (Unlocked, 1_u8, 101_u8);
        // Each export with its side and the value of its owner at that time.
        let mut held: Vec<(File, Tee, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Lock if phase == Unlocked => {
                    bar.lock().unwrap();
                    phase = Locked;
                    tvm += 1;
                }
                Step::Start if phase == Locked => {
                    bar.start().unwrap();
                    phase = Run;
                }
                Step::Stop if phase != Unlocked => {
                    stop(&mut bar);
                    phase = Unlocked;
                }
                Step::Fail if matches!(phase, Locked | Run) => {
                    bar.scrub_private().unwrap();
                    phase = Error;
                }
                Step::NewHost => {
                    stop(&mut bar);
                    bar.change_host().unwrap();
                    phase = Unlocked;
                    host += 1;
                }
                Step::Attribute(page, private) if phase == Run => {
                    bar.set_attribute(page.into(), 1, if private { Private } else { Shared }).unwrap();
                }
                Step::Export(tee, first, count) => {
                    let side = if tee { Trusted } else { NonTee };
                    let count = count.min(16 - first);
                    let attributes: Vec<_> = (0..16).map(|page| attribute_of(&bar, page)).collect();
                    if let Ok(file) = export(&mut bar, phase, side, &[pages(first.into(), count.into())]) {
                        let span = &attributes[first.into()..usize::from(first + count)];
                        let wanted = if tee { Private } else { Shared };
                        let fits = span.iter().all(|attribute| *attribute == wanted);
                        prop_assert!(fits || phase == Unlocked && !tee, "an export mixes");
                        prop_assert!(!tee || phase != Error && (phase != Unlocked || early));
                        // An early export is for the TVM to come.
                        let owner = if !tee { host } else if phase == Unlocked { tvm + 1 } else { tvm };
                        held.push((file, side, owner));
                    }
                }
                Step::Drop(index) if !held.is_empty() => {
                    let at = index.index(held.len());
                    held.remove(at);
                }
                Step::Write(tee, page) => {
                    let side = if tee { Trusted } else { NonTee };
                    // What a TVM writes to a shared page is meant for the host.
                    let shared = attribute_of(&bar, page.into()) == Shared;
                    let byte = if tee && !shared { tvm } else { host };
                    put(&mut bar, phase, side, page.into(), byte);
                }
                Step::WriteExport(index, page) if !held.is_empty() => {
                    let (file, _, owner) = &held[index.index(held.len())];
                    set(file, page.into(), *owner);
                }
                Step::Lock
                | Step::Start
                | Step::Stop
                | Step::Fail
                | Step::Attribute(..)
                | Step::Drop(_)
                | Step::WriteExport(..) => {}
            }
            for page in 1..16 {
                let shared = attribute_of(&bar, page) == Shared;
                let by_host = get(&mut bar, phase, NonTee, page);
                prop_assert!([0, 0xff, host].contains(&by_host), "T = 0 reads {} of page {} in {:?}", by_host, page, phase);
                let by_tvm = get(&mut bar, phase, Trusted, page);
                prop_assert!([0, 0xff, if shared { host } else { tvm }].contains(&by_tvm),
                    "T = 1 reads {} of page {} in {:?}", by_tvm, page, phase);
            }
            for (file, side, owner) in &held {
                for byte in (0..7).filter_map(|page| seen(file, page)) {
                    prop_assert!([0, 0xff, *owner].contains(&byte), "{:?} export of {} shows {}", side, owner, byte);
                }
            }
        }
    }
}
