//! The function as software in a guest sees it, by the offsets of the table.
use mmio::{AddressWidth, Attribute, BarLayout, RangeLayout};
use proptest::prelude::*;

use super::*;

/// The function with the BARs that it has if nobody says otherwise.
fn function() -> TestFunction {
    with_default_bars(true)
}

fn with_default_bars(msix: bool) -> TestFunction {
    let config = crate::config::Function { msix, ..crate::config::Function::default() };
    TestFunction::new(config.layout(0).unwrap())
}

/// A place that no test function has its registers at by default, because only kind and offset in the range count.
fn place(kind: Kind, offset_in_range: u64) -> Place {
    Place { bar: 5, kind, offset: offset_in_range.wrapping_add(0x7000), offset_in_range, tee: Tee::NonTee }
}

fn register(offset: u64) -> Place {
    place(Kind::Registers, offset)
}

impl TestFunction {
    fn get32(&mut self, offset: u64) -> u32 {
        let mut data = [0xa5; 4];
        Function::read(self, register(offset), &mut data);
        u32::from_le_bytes(data)
    }
    fn get64(&mut self, offset: u64) -> u64 {
        let mut data = [0xa5; 8];
        Function::read(self, register(offset), &mut data);
        u64::from_le_bytes(data)
    }
    fn set32(&mut self, offset: u64, value: u32) {
        Function::write(self, register(offset), &value.to_le_bytes());
    }
    fn set64(&mut self, offset: u64, value: u64) {
        Function::write(self, register(offset), &value.to_le_bytes());
    }
    /// A FILL of 16 bytes at 0x1000, with an interrupt on vector 2.
    fn start_fill(&mut self) {
        self.set64(0x108, 0x1000);
        self.set64(0x110, 16);
        self.set64(0x118, 0x0807_0605_0403_0201);
        self.set32(0x120, 2 | 1 << 8 | 2 << 16);
        self.set32(0x124, 1);
    }
    fn image(&mut self) -> Vec<u8> {
        let mut image = vec![0xa5; 0x4000];
        Function::read(self, register(0), &mut image);
        image
    }
    fn works(&mut self) -> Vec<Work> {
        core::iter::from_fn(|| self.poll_work()).collect()
    }
}

/// The rows of the table in REGISTERS.md: offset, bytes, access, reset value.
fn documented() -> Vec<(u64, usize, &'static str, u64)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => text.parse().unwrap(),
    };
    include_str!("../REGISTERS.md")
        .lines()
        .filter(|line| line.starts_with("| 0x"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (number(cells[1]), number(cells[2]) as usize, cells[4], number(cells[5]))
        })
        .collect()
}

#[test]
fn the_table_in_the_documentation_is_the_map() {
    let documented = documented();
    assert_eq!(documented.len(), MAP.registers().len());
    for (known, (offset, bytes, access, reset)) in MAP.registers().iter().zip(documented) {
        let name = known.id;
        assert_eq!(known.offset, offset, "{name:?}");
        assert_eq!(if known.width == RegisterWidth::Bits64 { 8 } else { 4 }, bytes, "{name:?}");
        let mut function = function();
        let mut data = vec![0xa5; bytes];
        Function::read(&mut function, register(offset), &mut data);
        assert_eq!(data, reset.to_le_bytes()[..bytes], "reset value of {name:?}");

        Function::write(&mut function, register(offset), &vec![0x5a; bytes]);
        Function::read(&mut function, register(offset), &mut data);
        let kept = data != reset.to_le_bytes()[..bytes];
        assert_eq!(kept, access == "RW", "{name:?} keeps what is written");
    }
}

#[test]
fn bars_hold_something_of_every_kind() {
    let with_msix = function();
    let sizes: Vec<_> = with_msix.bars().bars().iter().map(|bar| (bar.index(), bar.size())).collect();
    assert_eq!(sizes, [(0, 16 << 10), (2, 1 << 20), (4, 8 << 10)]);
    assert!(with_msix.bars().msix().unwrap().capacity >= with_msix.vectors());
    let without = with_default_bars(false);
    assert_eq!((without.bars().bars().len(), without.vectors()), (2, 0));
    assert_eq!(without.bars().msix(), None);
}

#[test]
fn partial_writes_keep_the_rest() {
    let mut function = function();
    function.set64(0x10, 0x1122_3344_5566_7788);
    Function::write(&mut function, register(0x13), &[0xaa, 0xbb]);
    assert_eq!(function.get64(0x10), 0x1122_33bb_aa66_7788);
    assert_eq!(function.get32(0x14), 0x1122_33bb);
    // Three registers at once, the last one in part.
    Function::write(&mut function, register(0x14), &[0xcc; 13]);
    assert_eq!(function.get64(0x10), 0xcccc_cccc_aa66_7788);
    assert_eq!(function.get64(0x18), 0xcccc_cccc_cccc_cccc);
    assert_eq!(function.get64(0x20), 0xcc);
}

#[test]
fn what_is_neither_register_nor_doorbell_reads_zero() {
    let mut function = function();
    for kind in [Kind::Memory, Kind::MsixTable, Kind::MsixPba, Kind::Reserved] {
        let mut data = [0xa5; 8];
        Function::write(&mut function, place(kind, 0x10), &[0xff; 8]);
        Function::read(&mut function, place(kind, 0x10), &mut data);
        assert_eq!((data, function.get64(0x10)), ([0; 8], 0));
    }
    assert_eq!(function.get64(0x1000), 0);
}

/// A function with doorbells on this side, and how often each was rung.
fn with_doorbells(attribute: Attribute, msix: bool) -> TestFunction {
    let range =
        |kind, attribute| RangeLayout { kind, pages: 1, attribute, updatable: false, revocation: None };
    let shared = |kind| range(kind, Attribute::Shared);
    let bar =
        |index, ranges: &[RangeLayout]| BarLayout::new(index, AddressWidth::Bits32, false, ranges).unwrap();
    let mut bars = vec![bar(1, &[shared(Kind::Registers), range(Kind::Doorbells, attribute)])];
    if msix {
        bars.push(bar(3, &[shared(Kind::MsixTable), shared(Kind::MsixPba)]));
    }
    TestFunction::new(BarSet::new(bars).unwrap())
}

fn rung(function: &mut TestFunction) -> [u32; 4] {
    let mut data = [0xa5; 16];
    Function::read(function, place(Kind::Doorbells, 0), &mut data);
    [0, 4, 8, 12].map(|at| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()))
}

#[test]
fn a_doorbell_raises_its_vector() {
    let mut function = with_doorbells(Attribute::Private, true);
    for vector in [2, 0, 2] {
        Function::write(&mut function, place(Kind::Doorbells, 4 * vector), &[0; 4]);
    }
    assert_eq!(rung(&mut function), [1, 0, 2, 0]);
    assert_eq!(function.get32(0x204), 0b101, "IRQ_STATUS has them, too");
    assert_eq!(function.works(), [Work::Interrupt { vector: 0 }, Work::Interrupt { vector: 2 }]);
    function.set64(0x10, 1);
    assert_eq!(rung(&mut function), [1, 0, 2, 0], "registers are elsewhere");

    let mut function = with_doorbells(Attribute::Private, false);
    Function::write(&mut function, place(Kind::Doorbells, 4), &[0; 4]);
    assert_eq!(function.works(), [Work::IntxLevel(true)]);
}

#[test]
fn doorbells_are_scrubbed_where_they_are_private() {
    for (attribute, after_scrub) in [(Attribute::Private, [0; 4]), (Attribute::Shared, [0, 1, 0, 0])] {
        let mut function = with_doorbells(attribute, true);
        let ring = |function: &mut TestFunction| {
            Function::write(function, place(Kind::Doorbells, 4), &[0; 4]);
        };
        ring(&mut function);
        function.stop();
        assert_eq!(rung(&mut function), [0, 1, 0, 0]);
        function.scrub();
        assert_eq!((rung(&mut function), function.works()), (after_scrub, vec![]), "{attribute:?}");
        ring(&mut function);
        function.reset();
        assert_eq!((rung(&mut function), function.works()), ([0; 4], vec![]), "{attribute:?}");
    }
}

#[test]
fn a_fill_goes_out_after_the_access_and_ends_with_an_interrupt() {
    let mut function = function();
    function.start_fill();
    assert_eq!(function.get32(0x128), STATUS_BUSY);
    // What is changed now is for the next command.
    function.set64(0x108, 0x9000);
    let data = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8].to_vec();
    assert_eq!(
        function.works(),
        [Work::DmaWrite { id: DmaId(0), address: 0x1000, data, translated: false, asked: Tee::NonTee }]
    );
    assert_eq!(function.get32(0x128), STATUS_BUSY);
    function.dma_done(DmaId(0), Ok(&[]));
    assert_eq!((function.get32(0x128), function.get64(0x130)), (STATUS_DONE, 16));
    assert_eq!(function.works(), [Work::Interrupt { vector: 2 }]);
    assert_eq!(function.get32(0x204), 1 << 2);
}

#[test]
fn a_mismatch_says_where_and_the_next_start_forgets_it() {
    let mut function = function();
    function.set64(0x110, 4);
    function.set32(0x120, 3);
    function.set32(0x124, 1);
    assert_eq!(
        function.works(),
        [Work::DmaRead { id: DmaId(0), address: 0, length: 4, translated: false, asked: Tee::NonTee }]
    );
    function.dma_done(DmaId(0), Ok(&[0, 0, 1, 0]));
    assert_eq!((function.get32(0x128), function.get64(0x138)), (0x0706, 2));
    assert_eq!(function.works(), []);
    function.set32(0x124, 1);
    assert_eq!((function.get32(0x128), function.get64(0x138)), (STATUS_BUSY, NO_MISMATCH));
}

#[test]
fn every_error_has_the_code_of_the_table() {
    let started = |length: u64, command: u32, source: u64| {
        let mut function = function();
        function.set64(0x100, source);
        function.set64(0x108, 0x10_0000);
        function.set64(0x110, length);
        function.set32(0x120, command);
        function.set32(0x124, 1);
        function
    };
    let status = |code: u32| code << 8 | STATUS_ERROR | STATUS_DONE;
    for (length, command, source, code) in [
        (4, 0, 0, 1),
        (4, 4, 0, 1),
        (4, 1 | 1 << 8 | 4 << 16, 0, 1),
        (0, 1, 0, 2),
        (LIMIT + 1, 1, 0, 2),
        (4, 1, u64::MAX, 3),
        (4, 1, 0x10_0003, 4),
    ] {
        let mut function = started(length, command, source);
        assert_eq!(function.get32(0x128), status(code), "length {length} command {command:#x}");
        assert_eq!(function.works(), []);
    }
    for (error, code) in [(DmaError::NotAllowed, 5), (DmaError::Fault, 6)] {
        let mut function = started(4, 1, 0);
        function.works();
        function.dma_done(DmaId(0), Err(error));
        assert_eq!(function.get32(0x128), status(code));
    }
    // A vector that does not matter is not looked at; a failed start interrupts as any end does.
    assert_eq!(started(4, 1 | 9 << 16, 0).get32(0x128), STATUS_BUSY);
    assert_eq!(started(0, 1 | 1 << 8 | 3 << 16, 0).works(), [Work::Interrupt { vector: 3 }]);
}

#[test]
fn start_while_busy_and_abort_while_idle_do_nothing() {
    let mut function = function();
    function.set32(0x124, 2);
    assert_eq!((function.get32(0x128), function.works()), (0, vec![]));
    function.start_fill();
    assert_eq!(function.works().len(), 1);
    function.set32(0x124, 1);
    assert_eq!(function.works(), []);
    function.set32(0x124, 2);
    assert_eq!(function.get32(0x128), 0x0806);
    assert_eq!(function.works(), [Work::Interrupt { vector: 2 }]);
    function.dma_done(DmaId(0), Ok(&[]));
    assert_eq!(function.get32(0x128), 0x0806);
    // Both bits at once: abort, then start anew.
    function.start_fill();
    function.set32(0x124, 3);
    assert_eq!(function.get32(0x128), STATUS_BUSY);
}

#[test]
fn stop_abandons_work_silently_and_keeps_registers() {
    let mut function = function();
    function.set64(0x10, 7);
    function.start_fill();
    function.works();
    function.set32(0x200, 1);
    function.stop();
    assert_eq!(function.works(), []);
    assert_eq!((function.get32(0x128), function.get64(0x10), function.get64(0x108)), (0x0806, 7, 0x1000));
    let before = function.image();
    function.stop();
    assert_eq!(function.image(), before);
    function.dma_done(DmaId(0), Ok(&[]));
    assert_eq!((function.works(), function.image()), (vec![], before));
}

#[test]
fn scrub_and_reset_leave_no_trace() {
    for forget in [Function::scrub, Function::reset] as [fn(&mut TestFunction); 2] {
        let mut function = function();
        let fresh = function.image();
        for offset in (0x10..0x30).step_by(8) {
            function.set64(offset, u64::MAX);
        }
        function.set64(0x100, 0x1234);
        function.set32(0x200, 3);
        function.start_fill();
        function.works();
        forget(&mut function);
        assert_eq!(function.image(), fresh);
        assert_eq!(function.works(), []);
        function.dma_done(DmaId(0), Ok(&[]));
        assert_eq!((function.works(), function.image()), (vec![], fresh));
        // A late answer is not taken for the next command's either.
        function.start_fill();
        assert!(matches!(function.works()[..], [Work::DmaWrite { id: DmaId(1), .. }]));
    }
}

#[test]
fn messages_of_one_vector_merge_and_unknown_vectors_are_ignored() {
    let mut function = function();
    for vector in [3, 0, 3, 4, u32::MAX] {
        function.set32(0x200, vector);
    }
    assert_eq!(function.works(), [Work::Interrupt { vector: 0 }, Work::Interrupt { vector: 3 }]);
    function.set32(0x200, 3);
    assert_eq!(function.works(), [Work::Interrupt { vector: 3 }]);
    assert_eq!(function.get32(0x204), 0b1001);
}

#[test]
fn intx_follows_the_status_register() {
    let mut function = with_default_bars(false);
    function.set32(0x200, 1);
    function.set32(0x200, 3);
    assert_eq!(function.works(), [Work::IntxLevel(true)]);
    function.set32(0x204, 1 << 1);
    assert_eq!(function.works(), []);
    // Raised anew before anyone looked: the line never moved.
    function.set32(0x204, 1 << 3);
    function.set32(0x200, 0);
    assert_eq!(function.works(), []);
    Function::write(&mut function, register(0x204), &[0xff]);
    assert_eq!((function.get32(0x204), function.works()), (0, vec![Work::IntxLevel(false)]));
    function.set32(0x200, 2);
    assert_eq!(function.works(), [Work::IntxLevel(true)]);
    function.stop();
    assert_eq!(function.works(), []);
    function.reset();
    assert_eq!(function.works(), [Work::IntxLevel(false)]);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Poll,
    Done(u64, Result<usize, DmaError>),
    Stop,
    Scrub,
}

fn any_step() -> impl Strategy<Value = Step> {
    let offset =
        || prop_oneof![0_u64..0x240, Just(0x124), Just(0x200), Just(0x120), Just(0x110), any::<u64>()];
    let byte = prop_oneof![Just(0), 0_u8..5, any::<u8>()];
    let error = prop_oneof![Just(DmaError::Fault), Just(DmaError::NotAllowed)];
    prop_oneof![
        1 => (offset(), 0_usize..0x240).prop_map(|(offset, length)| Step::Read(offset, length)),
        4 => (offset(), proptest::collection::vec(byte, 0..40))
            .prop_map(|(offset, data)| Step::Write(offset, data)),
        4 => Just(Step::Poll),
        2 => (0_u64..8, prop_oneof![(0_usize..70_000).prop_map(Ok), error.prop_map(Err)])
            .prop_map(|(id, result)| Step::Done(id, result)),
        1 => Just(Step::Stop),
        1 => Just(Step::Scrub),
    ]
}

proptest! {
    /// Nothing panics, every buffer is filled, and work stays within its bounds.
    #[test]
    fn no_traffic_is_too_strange(
        msix in any::<bool>(),
        kind in prop_oneof![4 => Just(Kind::Registers), 1 => proptest::sample::select(Kind::ALL.to_vec())],
        steps in proptest::collection::vec(any_step(), 0..64),
    ) {
        let mut function = with_default_bars(msix);
        for step in steps {
            match step {
                Step::Read(offset, length) => {
                    let (mut first, mut second) = (vec![0; length], vec![0xff; length]);
                    Function::read(&mut function, place(kind, offset), &mut first);
                    Function::read(&mut function, place(kind, offset), &mut second);
                    prop_assert_eq!(first, second);
                }
                Step::Write(offset, data) => Function::write(&mut function, place(kind, offset), &data),
                Step::Poll => {
                    let works = function.works();
                    prop_assert!(works.len() <= usize::from(VECTORS) + 1);
                    for work in works {
                        match work {
                            Work::DmaRead { address, length, .. } => {
                                prop_assert!(length <= super::super::CHUNK);
                                prop_assert!(address.checked_add(length as u64 - 1).is_some());
                            }
                            Work::DmaWrite { address, data, .. } => {
                                prop_assert!(data.len() <= super::super::CHUNK);
                                prop_assert!(address.checked_add(data.len() as u64 - 1).is_some());
                            }
                            Work::Interrupt { vector } => prop_assert!(msix && vector < VECTORS),
                            Work::IntxLevel(_) => prop_assert!(!msix),
                        }
                    }
                }
                Step::Done(id, result) => {
                    let data = result.map(|length| vec![0; length]);
                    function.dma_done(DmaId(id), data.as_deref().map_err(|&error| error));
                }
                Step::Stop => function.stop(),
                Step::Scrub => function.scrub(),
            }
        }
        function.scrub();
        prop_assert_eq!(function.image(), with_default_bars(msix).image());
    }
}
