//! A BAR against a model that thinks byte by byte, and its memory seen through a mapping.
use std::fs::File;

use proptest::prelude::*;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

use super::*;
use crate::{AddressWidth, FileAccess, PAGE_SIZE, RangeLayout};

const PAGE: usize = PAGE_SIZE as usize;

/// Registers that behave as memory, and note where they were touched.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    touched: Vec<(Place, usize)>,
}

impl Block {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], touched: Vec::new() }
    }
}

impl RegisterBlock for Block {
    fn read(&mut self, place: Place, data: &mut [u8]) {
        self.touched.push((place, data.len()));
        data.copy_from_slice(&self.bytes[place.offset as usize..][..data.len()]);
    }
    fn write(&mut self, place: Place, data: &[u8]) {
        self.touched.push((place, data.len()));
        self.bytes[place.offset as usize..][..data.len()].copy_from_slice(data);
    }
}

const fn range(kind: Kind, pages: u32, attribute: Attribute) -> RangeLayout {
    RangeLayout { kind, pages, attribute, updatable: false, revocation: None }
}

const RANGES: [RangeLayout; 8] = [
    range(Kind::Registers, 1, Attribute::Private),
    range(Kind::Memory, 2, Attribute::Private),
    range(Kind::Memory, 1, Attribute::Shared),
    range(Kind::Memory, 1, Attribute::Shared),
    range(Kind::Memory, 1, Attribute::Private),
    range(Kind::MsixTable, 1, Attribute::Shared),
    range(Kind::MsixPba, 2, Attribute::Shared),
    range(Kind::Memory, 7, Attribute::Shared),
];
const SIZE: usize = 16 * PAGE;
/// The attribute of every page, written out by hand.
const PRIVATE_PAGES: [bool; 16] = [
    true, true, true, false, false, true, false, false, false, false, false, false, false, false, false,
    false,
];

const UNLOCKED: Access = Access { phase: TdiPhase::Unlocked, tee: TeeSource::Implicit };
const LOCKED: Access = Access { phase: TdiPhase::Locked, tee: TeeSource::Implicit };
const RUN: Access = Access { phase: TdiPhase::Run, tee: TeeSource::Implicit };

fn bar() -> Bar {
    let layout = BarLayout::new(2, AddressWidth::Bits64, true, &RANGES).unwrap();
    Bar::new(layout, Gate::default(), Exporting::default()).unwrap()
}

fn read(bar: &mut Bar, access: Access, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0xa5; length];
    let _ = bar.read(access, offset, &mut data, &mut Block::new(SIZE)).unwrap();
    data
}

fn write(bar: &mut Bar, access: Access, offset: u64, data: &[u8]) {
    let _ = bar.write(access, offset, data, &mut Block::new(SIZE)).unwrap();
}

#[test]
fn an_access_across_everything_is_cut_at_the_ranges() {
    let mut bar = bar();
    let mut block = Block::new(SIZE);
    assert_eq!(bar.read(UNLOCKED, 0, &mut vec![0; SIZE], &mut block).unwrap(), Completion::default());
    let place = |kind, offset| Place { bar: 2, kind, offset, offset_in_range: 0, tee: Tee::NonTee };
    assert_eq!(
        block.touched,
        [
            (place(Kind::Registers, 0), PAGE),
            (place(Kind::MsixTable, 0x6000), PAGE),
            (place(Kind::MsixPba, 0x7000), 2 * PAGE)
        ]
    );
    block.touched.clear();
    let _ = bar.write(UNLOCKED, 0x8ffc, &[0; 8], &mut block).unwrap();
    let expected =
        Place { bar: 2, kind: Kind::MsixPba, offset: 0x8ffc, offset_in_range: 0x1ffc, tee: Tee::NonTee };
    assert_eq!(block.touched, [(expected, 4)]);
}

#[test]
fn a_refused_piece_does_not_spoil_its_neighbour() {
    let mut bar = bar();
    write(&mut bar, UNLOCKED, 0x2ffe, &[1, 2, 3, 4]);
    let mut data = [0xa5; 4];
    let completion = bar.read(LOCKED, 0x2ffe, &mut data, &mut Block::new(SIZE)).unwrap();
    assert_eq!(data, [0xff, 0xff, 3, 4]);
    let expected = Rejection {
        bar: 2,
        cell: Cell {
            kind: Kind::Memory,
            phase: TdiPhase::Locked,
            tee: Tee::NonTee,
            attribute: Attribute::Private,
        },
        offset: 0x2ffe,
        length: 2,
    };
    assert_eq!(completion, Completion { rejected: Some(expected), outside: 0 });
    write(&mut bar, LOCKED, 0x2ffe, &[5, 6, 7, 8]);
    assert_eq!(read(&mut bar, UNLOCKED, 0x2ffe, 4), [1, 2, 7, 8]);
}

#[test]
fn a_refused_access_never_reaches_registers() {
    let mut bar = bar();
    let mut block = Block::new(SIZE);
    for phase in [TdiPhase::Locked, TdiPhase::Error] {
        let access = Access { phase, tee: TeeSource::Implicit };
        assert!(bar.read(access, 8, &mut [0; 4], &mut block).unwrap().rejected.is_some());
        assert!(bar.write(access, 8, &[0; 4], &mut block).unwrap().rejected.is_some());
    }
    assert_eq!(block.touched, []);
}

#[test]
fn beyond_the_bar_reads_ones_and_loses_writes() {
    let mut bar = bar();
    for (offset, outside) in [(SIZE as u64 - 3, 5), (SIZE as u64, 8), (u64::MAX - 3, 8), (u64::MAX, 8)] {
        let mut data = [0xa5; 8];
        let completion = bar.read(UNLOCKED, offset, &mut data, &mut Block::default()).unwrap();
        assert_eq!(completion, Completion { rejected: None, outside });
        assert!(data[8 - outside..].iter().all(|&byte| byte == 0xff));
        assert!(data[..8 - outside].iter().all(|&byte| byte == 0));
        assert_eq!(bar.write(UNLOCKED, offset, &[0; 8], &mut Block::default()).unwrap(), completion);
    }
    assert_eq!(bar.read(LOCKED, 0, &mut [], &mut Block::default()).unwrap(), Completion::default());
}

#[test]
fn pieces_are_counted_by_cell() {
    let mut bar = bar();
    read(&mut bar, LOCKED, 0, SIZE);
    read(&mut bar, RUN, 0, 4);
    write(&mut bar, LOCKED, 0x5ffe, &[0; 4]);
    let counters = |reads, writes, rejected_reads, rejected_writes| Counters {
        reads,
        writes,
        rejected_reads,
        rejected_writes,
    };
    let of = |wanted| {
        bar.cells().filter(|(cell, _)| cell.kind == wanted).fold(counters(0, 0, 0, 0), |sum, (_, one)| {
            counters(
                sum.reads + one.reads,
                sum.writes + one.writes,
                sum.rejected_reads + one.rejected_reads,
                sum.rejected_writes + one.rejected_writes,
            )
        })
    };
    assert_eq!(of(Kind::Registers), counters(1, 0, 1, 0));
    assert_eq!(of(Kind::Memory), counters(3, 0, 2, 1));
    assert_eq!(of(Kind::MsixTable), counters(1, 1, 0, 0));
    assert_eq!(of(Kind::MsixPba), counters(1, 0, 0, 0));
    assert_eq!(bar.counters(), counters(6, 1, 3, 1));
}

#[test]
fn scrubbing_zeroes_private_memory_and_only_that() {
    let mut bar = bar();
    write(&mut bar, UNLOCKED, 0, &[0xee; SIZE]);
    bar.scrub_private().unwrap();
    for (page, private) in PRIVATE_PAGES.into_iter().enumerate() {
        if matches!(bar.layout().locate((page * PAGE) as u64).unwrap().kind, Kind::Memory) {
            let expected = if private { 0 } else { 0xee };
            assert_eq!(read(&mut bar, UNLOCKED, (page * PAGE) as u64, PAGE), [expected; PAGE], "page {page}");
        }
    }
    bar.scrub_all().unwrap();
    assert_eq!(read(&mut bar, UNLOCKED, 0, SIZE), [0; SIZE]);
}

fn map(fd: OwnedFd, offset: u64, size: usize) -> MmapRegion {
    MmapRegion::from_file(FileOffset::new(File::from(fd), offset), size).unwrap()
}

#[test]
fn shared_memory_is_one_file_with_joined_areas() {
    let mut bar = bar();
    let mapping = bar.shared_mapping().unwrap();
    let areas: Vec<_> = mapping.areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!((mapping.offset, areas), (0, vec![(0x3000, 0x2000), (0x9000, 0x7000)]));
    let last = map(bar.hand_out_shared().unwrap(), 0x9000, 0x7000);
    let view = last.get_slice(0, 0x7000).unwrap();

    write(&mut bar, UNLOCKED, 0x9004, &[1, 2, 3, 4]);
    assert_eq!(view.read_obj::<u32>(4).unwrap(), 0x0403_0201);
    view.write_obj(0x0807_0605_u32, 0x6ffc).unwrap();
    assert_eq!(read(&mut bar, LOCKED, 0xfffc, 4), [5, 6, 7, 8]);
    bar.scrub_private().unwrap();
    assert_eq!(view.read_obj::<u32>(4).unwrap(), 0x0403_0201);
    bar.scrub_all().unwrap();
    assert_eq!((view.read_obj::<u32>(4).unwrap(), view.read_obj::<u32>(0x6ffc).unwrap()), (0, 0));
    view.write_obj(9_u8, 0).unwrap();
    assert_eq!(read(&mut bar, UNLOCKED, 0x9000, 1), [9]);
}

#[test]
fn private_memory_is_not_in_the_shared_file() {
    let mut bar = bar();
    write(&mut bar, RUN, 0, &[0xee; SIZE]);
    let whole = map(bar.hand_out_shared().unwrap(), 0, SIZE);
    let mut bytes = vec![0; SIZE];
    whole.get_slice(0, SIZE).unwrap().read_slice(&mut bytes, 0).unwrap();
    for (page, _) in PRIVATE_PAGES.into_iter().enumerate().filter(|(_, private)| *private) {
        assert_eq!(bytes[page * PAGE..][..PAGE], [0; PAGE], "page {page}");
    }
}

#[test]
fn what_was_in_an_export_that_was_let_go_is_in_the_shared_file() {
    let mut bar = bar();
    let exported =
        bar.export(TdiPhase::Unlocked, Tee::NonTee, &[(0x9000, 0x1000)], FileAccess::ReadWrite).unwrap();
    write(&mut bar, UNLOCKED, 0x9000, &[7]);
    drop(exported);
    let mapped = map(bar.hand_out_shared().unwrap(), 0x9000, PAGE);
    let view = mapped.get_slice(0, PAGE).unwrap();
    assert_eq!(view.read_obj::<u8>(0).unwrap(), 7);
    view.write_obj(9_u8, 0).unwrap();
    assert_eq!(read(&mut bar, UNLOCKED, 0x9000, 1), [9]);
}

#[test]
fn another_host_gets_what_the_former_cannot_reach() {
    let mut bar = bar();
    let mapped = map(bar.hand_out_shared().unwrap(), 0x9000, PAGE);
    let exported = map(
        bar.export(TdiPhase::Unlocked, Tee::NonTee, &[(0x1000, 0x2000)], FileAccess::ReadWrite).unwrap().fd,
        0,
        PAGE,
    );
    write(&mut bar, UNLOCKED, 0, &[0xee; SIZE]);
    bar.scrub_private().unwrap();
    bar.change_host().unwrap();
    for mapping in [mapped, exported] {
        mapping.get_slice(0, PAGE).unwrap().write_obj(9_u8, 0).unwrap();
    }
    assert_eq!(read(&mut bar, UNLOCKED, 0, SIZE), [0; SIZE]);
    let mapped = map(bar.hand_out_shared().unwrap(), 0x9000, PAGE);
    mapped.get_slice(0, PAGE).unwrap().write_obj(9_u8, 0).unwrap();
    assert_eq!(read(&mut bar, UNLOCKED, 0x9000, 1), [9]);
}

#[test]
fn a_bar_without_shared_memory_has_nothing_to_map() {
    let layout = BarLayout::new(0, AddressWidth::Bits32, false, &[RANGES[0]]).unwrap();
    assert!(Bar::new(layout, Gate::default(), Exporting::default()).unwrap().shared_mapping().is_none());
}

/// Two pages of the MSI-X table, which LOCK may move, then three pages each that begin as private and as shared, and a
/// tail that cannot change.
fn movable() -> Bar {
    let updatable = |attribute| RangeLayout { updatable: true, ..range(Kind::Memory, 3, attribute) };
    let ranges = [
        range(Kind::MsixTable, 2, Attribute::Shared),
        updatable(Attribute::Private),
        updatable(Attribute::Shared),
        range(Kind::Memory, 8, Attribute::Shared),
    ];
    let layout = BarLayout::new(2, AddressWidth::Bits64, true, &ranges).unwrap();
    Bar::new(layout, Gate::default(), Exporting::default()).unwrap()
}

const MOVABLE_PAGES: usize = 8;
/// Whether a page is private before anything was moved.
const MOVABLE_PRIVATE: [bool; MOVABLE_PAGES] = [false, false, true, true, true, false, false, false];

#[test]
fn pages_that_may_become_private_are_in_no_mapping() {
    let bar = movable();
    let areas: Vec<_> =
        bar.shared_mapping().unwrap().areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(0x8000, 0x8000)]);
}

#[test]
fn a_moved_register_range_keeps_its_offsets() {
    let mut bar = movable();
    bar.set_attribute(1, 1, Attribute::Private).unwrap();
    let mut block = Block::new(SIZE);
    let known = |tee| Access { phase: TdiPhase::Run, tee: TeeSource::Known(tee) };
    let mut data = [0; 4];
    let rejected = bar.read(known(Tee::NonTee), 0x1008, &mut data, &mut block).unwrap().rejected;
    assert_eq!((rejected.map(|piece| piece.cell.attribute), data), (Some(Attribute::Private), [0xff; 4]));
    assert!(bar.read(known(Tee::Tee), 0x1008, &mut data, &mut block).unwrap().rejected.is_none());
    let place =
        Place { bar: 2, kind: Kind::MsixTable, offset: 0x1008, offset_in_range: 0x1008, tee: Tee::Tee };
    assert_eq!(block.touched, [(place, 4)]);
}

#[test]
fn wiping_all_memory_leaves_pages_on_their_side() {
    let mut bar = movable();
    let laid_out: Vec<_> = bar.ranges().collect();
    bar.set_attribute(0, 2, Attribute::Private).unwrap();
    bar.set_attribute(2, 1, Attribute::Shared).unwrap();
    write(&mut bar, UNLOCKED, 0x3000, &[0xee; PAGE]);
    let moved: Vec<_> = bar.ranges().collect();
    bar.scrub_all().unwrap();
    assert_eq!(bar.ranges().collect::<Vec<_>>(), moved);
    assert_eq!(read(&mut bar, UNLOCKED, 0x3000, PAGE), [0; PAGE]);
    bar.scrub_private().unwrap();
    assert_eq!(bar.ranges().collect::<Vec<_>>(), laid_out);
}

fn any_access() -> impl Strategy<Value = Access> {
    let phase = prop_oneof![
        Just(TdiPhase::Unlocked),
        Just(TdiPhase::Locked),
        Just(TdiPhase::Run),
        Just(TdiPhase::Error)
    ];
    let tee = prop_oneof![
        Just(TeeSource::Implicit),
        Just(TeeSource::Known(Tee::NonTee)),
        Just(TeeSource::Known(Tee::Tee))
    ];
    (phase, tee).prop_map(|(phase, tee)| Access { phase, tee })
}

/// Offsets near page boundaries, where cutting can go wrong, and anywhere.
fn any_offset() -> impl Strategy<Value = usize> {
    prop_oneof![0..SIZE + 16, (1_usize..17, 0_usize..17).prop_map(|(page, near)| page * PAGE + near - 8)]
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(2), Just(4), Just(8), 0_usize..64, 0_usize..3 * PAGE]
}

/// Whether one byte may be accessed, from the access rules and not from the gate.
fn allowed(access: Access, offset: usize) -> bool {
    let private = PRIVATE_PAGES[offset / PAGE];
    match (access.tee, access.phase) {
        (_, TdiPhase::Locked | TdiPhase::Error) if private => false,
        (TeeSource::Known(Tee::NonTee), TdiPhase::Run) if private => false,
        (TeeSource::Known(Tee::Tee), phase) => phase == TdiPhase::Run,
        (TeeSource::Implicit | TeeSource::Known(Tee::NonTee), _) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What one side wrote before a page moved is never read by the other side after it.
    #[test]
    fn moved_pages_change_hands_empty(
        steps in proptest::collection::vec((0..4_u8, 0..10_u32, 0..10_u32, any::<bool>(), any::<u8>()), 1..40)
    ) {
        let mut bar = movable();
        let mut private = MOVABLE_PRIVATE;
        let mut bytes = [0_u8; MOVABLE_PAGES];
        let by = |tee| Access { phase: TdiPhase::Run, tee: TeeSource::Known(tee) };
        for (step, page, pages, to_private, byte) in steps {
            match step {
                0 => {
                    let attribute = if to_private { Attribute::Private } else { Attribute::Shared };
                    let pages = pages.min(8_u32.saturating_sub(page));
                    bar.set_attribute(page, pages, attribute).unwrap();
                    for page in page as usize..(page + pages) as usize {
                        if page >= 2 && private[page] != to_private {
                            bytes[page] = 0;
                        }
                        private[page] = to_private;
                    }
                }
                1 => {
                    bar.scrub_private().unwrap();
                    private = MOVABLE_PRIVATE;
                    bytes = [0; MOVABLE_PAGES];
                }
                _ => {
                    let page = 2 + page as usize % 6;
                    let tee = if private[page] { Tee::Tee } else { Tee::NonTee };
                    write(&mut bar, by(tee), (page * PAGE + 8) as u64, &[byte]);
                    bytes[page] = byte;
                }
            }
            for page in 2..MOVABLE_PAGES {
                let offset = (page * PAGE + 8) as u64;
                let as_shared = if private[page] { 0xff } else { bytes[page] };
                prop_assert_eq!(read(&mut bar, by(Tee::Tee), offset, 1), [bytes[page]], "T = 1, page {}", page);
                prop_assert_eq!(read(&mut bar, by(Tee::NonTee), offset, 1), [as_shared], "T = 0, page {}", page);
            }
        }
    }

    #[test]
    fn any_traffic_is_as_with_an_array_of_bytes(
        accesses in proptest::collection::vec(
            (any_access(), any::<bool>(), any_offset(), any_length(), any::<u8>()), 1..48)
    ) {
        let mut bar = bar();
        let mut block = Block::new(SIZE);
        // What the host sees of the BAR, and what a TVM does: of private memory each has its own.
        let mut model = [vec![0_u8; SIZE], vec![0_u8; SIZE]];
        for (access, is_write, offset, length, seed) in accesses {
            let side = |at: usize| {
                let own = PRIVATE_PAGES[at / PAGE] && (1..3).contains(&(at / PAGE)) || at / PAGE == 5;
                usize::from(own && access.phase != TdiPhase::Unlocked)
            };
            let data: Vec<u8> = (0..length).map(|at| seed.wrapping_add(at as u8)).collect();
            let inside = length.min(SIZE.saturating_sub(offset));
            let refused = (offset..offset + inside).find(|&at| !allowed(access, at));
            let completion = if is_write {
                for at in 0..inside {
                    if allowed(access, offset + at) {
                        model[side(offset + at)][offset + at] = data[at];
                    }
                }
                bar.write(access, offset as u64, &data, &mut block).unwrap()
            } else {
                let expected: Vec<u8> = (offset..offset + length)
                    .map(|at| if at < SIZE && allowed(access, at) { model[side(at)][at] } else { 0xff })
                    .collect();
                let mut read = vec![0xa5; length];
                let completion = bar.read(access, offset as u64, &mut read, &mut block).unwrap();
                prop_assert_eq!(read, expected);
                completion
            };
            prop_assert_eq!(completion.rejected.map(|piece| piece.offset as usize), refused);
            prop_assert_eq!(completion.outside, length - inside);
        }
    }
}
