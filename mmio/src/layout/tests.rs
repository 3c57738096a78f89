//! What is accepted as a BAR, where its ranges lie then, and why all else is refused.
use proptest::prelude::*;

use super::*;
use AddressWidth::{Bits32, Bits64};
use Attribute::{Private, Shared};

fn range(kind: Kind, pages: u32, attribute: Attribute) -> RangeLayout {
    RangeLayout { kind, pages, attribute, updatable: false, revocation: None }
}

fn memory(pages: u32) -> RangeLayout {
    range(Kind::Memory, pages, Shared)
}

fn bar(index: u8, width: AddressWidth, ranges: &[RangeLayout]) -> Result<BarLayout, LayoutError> {
    BarLayout::new(index, width, false, ranges)
}

#[test]
fn ranges_are_placed_one_behind_the_other() {
    let bar = BarLayout::new(
        2,
        Bits64,
        true,
        &[range(Kind::Registers, 1, Private), memory(2), range(Kind::Memory, 5, Private)],
    )
    .unwrap();
    assert_eq!((bar.index(), bar.width(), bar.prefetchable(), bar.size()), (2, Bits64, true, 0x8000));
    let places: Vec<_> = bar.ranges().iter().map(|r| (r.first_page, r.pages, r.is_private())).collect();
    assert_eq!(places, [(0, 1, true), (1, 2, false), (3, 5, true)]);
    for (offset, page) in [(0, 0), (0xfff, 0), (0x1000, 1), (0x2fff, 1), (0x3000, 3), (0x7fff, 3)] {
        assert_eq!(bar.locate(offset).unwrap().first_page, page, "{offset:#x}");
    }
    assert_eq!(bar.locate(0x8000), None);
    assert_eq!(bar.locate(u64::MAX), None);
}

#[test]
fn a_bar_is_refused_with_a_reason_that_names_it() {
    let table = [
        (
            bar(6, Bits32, &[memory(1)]),
            "BAR 6: a 32-bit BAR cannot be there: BAR 0 to 5 exist, and a 64-bit one takes the next, too",
        ),
        (
            bar(5, Bits64, &[memory(1)]),
            "BAR 5: a 64-bit BAR cannot be there: BAR 0 to 5 exist, and a 64-bit one takes the next, too",
        ),
        (bar(0, Bits32, &[]), "BAR 0: has no ranges"),
        (bar(1, Bits32, &[memory(1), range(Kind::Registers, 0, Private)]), "BAR 1 range 1: has no pages"),
        (
            bar(1, Bits32, &[memory(1), memory(2)]),
            "BAR 1: the ranges add up to 12K, which is no power of two; a reserved range of 4K would make it 16K",
        ),
        (
            bar(0, Bits32, &[memory(1 << 19), memory(1 << 19)]),
            "BAR 0 range 1: with it the BAR has 4G; a 32-bit BAR has 2G at most",
        ),
        (
            bar(0, Bits64, &[memory(u32::MAX), memory(u32::MAX)]),
            "BAR 0 range 0: with it the BAR has 17179869180K; a 64-bit BAR has 8T at most",
        ),
    ];
    for (result, text) in table {
        assert_eq!(result.unwrap_err().to_string(), text);
    }
}

#[test]
fn the_largest_bars_are_accepted() {
    assert_eq!(bar(5, Bits32, &[memory(1 << 19)]).unwrap().size(), 1 << 31);
    assert_eq!(bar(4, Bits64, &[memory(1 << 31)]).unwrap().size(), 1 << 43);
}

#[test]
fn bars_may_not_share_a_register() {
    let set = |bars: &[(u8, AddressWidth)]| {
        BarSet::new(bars.iter().map(|&(index, width)| bar(index, width, &[memory(1)]).unwrap()).collect())
    };
    assert!(set(&[(4, Bits64), (2, Bits64), (0, Bits64)]).is_ok());
    assert!(set(&[(0, Bits32), (1, Bits32), (2, Bits32), (3, Bits32), (4, Bits32), (5, Bits32)]).is_ok());
    let occupied =
        |bar, other| Err(LayoutError { bar, range: None, problem: LayoutProblem::Occupied { other } });
    assert_eq!(set(&[(1, Bits32), (0, Bits64)]), occupied(1, 0));
    assert_eq!(set(&[(3, Bits32), (3, Bits32)]), occupied(3, 3));
    assert_eq!(set(&[]).unwrap().msix(), None);
}

#[test]
fn msix_comes_once_and_whole() {
    let table = range(Kind::MsixTable, 1, Shared);
    let pba = range(Kind::MsixPba, 1, Shared);
    let whole = BarSet::new(vec![bar(4, Bits32, &[table, pba]).unwrap()]).unwrap();
    assert_eq!(
        whole.msix(),
        Some(MsixLocation { table_bar: 4, table_offset: 0, pba_bar: 4, pba_offset: 0x1000, capacity: 256 })
    );
    let large = BarSet::new(vec![
        bar(0, Bits32, &[range(Kind::MsixTable, 64, Shared)]).unwrap(),
        bar(1, Bits32, &[pba]).unwrap(),
    ])
    .unwrap();
    assert_eq!(large.msix().unwrap().capacity, 2048);

    let lone = BarSet::new(vec![bar(4, Bits32, &[memory(1), pba]).unwrap()]).unwrap_err();
    assert_eq!(
        lone.to_string(),
        "BAR 4 range 1: MSI-X PBA: MSI-X needs a table and a PBA, and the other is missing"
    );
    let far =
        BarSet::new(vec![bar(0, Bits64, &[memory(1 << 20), table, pba, memory((1 << 20) - 2)]).unwrap()]);
    assert_eq!(
        far.unwrap_err().to_string(),
        "BAR 0 range 1: begins 4G or more into the BAR, and the MSI-X capability has 32 bits for its offset"
    );
}

#[test]
fn what_a_function_looks_for_by_kind_is_there_once() {
    let table = range(Kind::MsixTable, 1, Shared);
    let pba = range(Kind::MsixPba, 1, Shared);
    for kind in [Kind::MsixTable, Kind::MsixPba, Kind::Registers, Kind::Doorbells] {
        let all = [range(Kind::Registers, 1, Private), range(Kind::Doorbells, 1, Shared), table, pba];
        let once = bar(0, Bits32, &all).unwrap();
        let again = bar(2, Bits32, &[memory(1), range(kind, 1, Private)]).unwrap();
        assert_eq!(BarSet::new(vec![once.clone()]).unwrap().find(kind).unwrap().kind, kind);
        let twice = BarSet::new(vec![again, once]).unwrap_err();
        let text = format!(
            "BAR 2 range 1: {kind}: the function has that already, in BAR 0, and once is all it can have"
        );
        assert_eq!(twice.to_string(), text);
    }
    let several = [memory(1), range(Kind::Reserved, 1, Shared), memory(1), range(Kind::Reserved, 1, Private)];
    let set = BarSet::new(vec![bar(0, Bits32, &several).unwrap()]).unwrap();
    assert_eq!(set.find(Kind::Reserved).unwrap().first_page, 1);
    assert_eq!(set.find(Kind::Registers), None);
}

fn any_range() -> impl Strategy<Value = RangeLayout> {
    let kind = proptest::sample::select(Kind::ALL.to_vec());
    let pages = prop_oneof![8 => 1_u32..9, 2 => (0_u32..32).prop_map(|shift| 1 << shift), 1 => any::<u32>()];
    let side = prop_oneof![Just(Private), Just(Shared)];
    (kind, pages, side, any::<bool>()).prop_map(|(kind, pages, attribute, updatable)| RangeLayout {
        kind,
        pages,
        attribute,
        updatable,
        revocation: None,
    })
}

proptest! {
    /// Whatever is accepted is covered from its first byte to its last, in the order that was asked for; whatever is
    /// refused for its size says how much is missing, and is accepted with it.
    #[test]
    fn accepted_layouts_have_no_gap_and_add_up(
        index in 0_u8..7,
        wide in any::<bool>(),
        mut asked in proptest::collection::vec(any_range(), 0..8),
    ) {
        let width = if wide { Bits64 } else { Bits32 };
        let mut result = bar(index, width, &asked);
        if let Err(LayoutError { problem: LayoutProblem::NotPowerOfTwo { size }, .. }) = result {
            let missing = size.next_power_of_two() - size;
            asked.push(range(Kind::Reserved, (missing / PAGE_SIZE) as u32, Shared));
            result = bar(index, width, &asked);
            prop_assert!(result.is_ok());
        }
        if let Ok(bar) = result {
            prop_assert!(bar.size().is_power_of_two());
            prop_assert_eq!(bar.ranges().len(), asked.len());
            let mut next = 0;
            for (placed, asked) in bar.ranges().iter().zip(&asked) {
                prop_assert_eq!(placed.offset(), next);
                prop_assert_eq!(
                    (placed.kind, placed.pages, placed.attribute, placed.updatable),
                    (asked.kind, asked.pages, asked.attribute, asked.updatable)
                );
                prop_assert_eq!(bar.locate(next), Some(placed));
                next = placed.end();
                prop_assert_eq!(bar.locate(next - 1), Some(placed));
            }
            prop_assert_eq!(next, bar.size());
        }
    }
}
