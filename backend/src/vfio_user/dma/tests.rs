//! The table against a naive model, and memory of every kind.

use std::fs::File;
use std::io::Write;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::*;

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn map(address: u64, size: u64, offset: u64) -> DmaMap {
    DmaMap { readable: true, writable: true, offset, address, size }
}

fn range(address: u64, size: u64) -> DmaUnmap {
    DmaUnmap::Range { address, size }
}

/// Sealed memory is mapped, other memory goes through the kernel: no difference may show.
fn kinds() -> [OwnedFd; 2] {
    [memfd(0x4000, SealFlags::SHRINK), memfd(0x4000, SealFlags::empty())]
}

#[test]
fn accesses_span_adjoining_mappings_in_any_order_of_the_file() {
    for fd in kinds() {
        let mut table = DmaTable::default();
        table.map(&map(0x10000, 0x1000, 0x2000), Some(fd.try_clone().unwrap())).unwrap();
        table.map(&map(0x11000, 0x1000, 0x0000), Some(fd.try_clone().unwrap())).unwrap();
        assert_eq!(table.files.len(), 1, "one file, one mapping");
        table.write(0x10FFE, b"abcd").unwrap();
        let mut back = [0; 4];
        table.read(0x10FFE, &mut back).unwrap();
        assert_eq!(&back, b"abcd");
        let mut in_file = [0; 2];
        rustix::io::pread(&fd, &mut in_file, 0x2FFE).unwrap();
        assert_eq!(&in_file, b"ab");
        rustix::io::pread(&fd, &mut in_file, 0).unwrap();
        assert_eq!(&in_file, b"cd");
        assert_eq!(table.read(0x11FFE, &mut back), Err(DmaError::Unmapped(0x12000)));
        assert_eq!(table.read(0xFFFE, &mut back), Err(DmaError::Unmapped(0xFFFE)));
        assert_eq!(table.read(u64::MAX, &mut back), Err(DmaError::Unmapped(u64::MAX)));
        assert_eq!(table.write(0x0, &[]), Ok(()));
    }
}

#[test]
fn permissions_are_per_mapping_and_checked_before_the_first_byte() {
    for fd in kinds() {
        let mut table = DmaTable::default();
        table.map(&map(0x1000, 0x1000, 0), Some(fd.try_clone().unwrap())).unwrap();
        let rom = DmaMap { writable: false, ..map(0x2000, 0x1000, 0x1000) };
        table.map(&rom, Some(fd.try_clone().unwrap())).unwrap();
        let sink = DmaMap { readable: false, ..map(0x3000, 0x1000, 0x2000) };
        table.map(&sink, Some(fd.try_clone().unwrap())).unwrap();
        assert_eq!(table.write(0x1FFF, &[1, 1]), Err(DmaError::Permission(0x2000)));
        let mut byte = [9];
        table.read(0x1FFF, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert_eq!(table.read(0x3000, &mut byte), Err(DmaError::Permission(0x3000)));
        table.write(0x3000, &[1]).unwrap();
    }
}

#[test]
fn a_truncated_file_fails_the_access_and_nobody_dies() {
    let fd = memfd(0x2000, SealFlags::empty());
    let mut table = DmaTable::default();
    table.map(&map(0, 0x2000, 0), Some(fd.try_clone().unwrap())).unwrap();
    ftruncate(&fd, 0x1000).unwrap();
    let mut byte = [0];
    assert_eq!(table.read(0xFFF, &mut byte), Ok(()));
    assert_eq!(table.read(0x1000, &mut byte), Err(DmaError::Memory(Errno::FAULT)));
    assert_eq!(table.write(0x1000, &byte), Err(DmaError::Memory(Errno::FAULT)));
    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, 0x1000, "a write must not grow it");
}

#[test]
fn a_sealed_file_shorter_than_its_mapping_fails_only_there() {
    let fd = memfd(0x1000, SealFlags::SHRINK);
    let mut table = DmaTable::default();
    table.map(&map(0, 0x2000, 0), Some(fd.try_clone().unwrap())).unwrap();
    assert_eq!(table.write(0xFFF, &[1]), Ok(()));
    assert_eq!(table.write(0x1000, &[1]), Err(DmaError::Memory(Errno::FAULT)));
    ftruncate(&fd, 0x2000).unwrap();
    assert_eq!(table.write(0x1000, &[1]), Ok(()), "it may still grow");
}

#[test]
fn a_read_only_descriptor_reads() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hello").unwrap();
    let mut table = DmaTable::default();
    let fd = File::open(file.path()).unwrap().into();
    table.map(&map(0, 5, 0), Some(fd)).unwrap();
    let mut back = [0; 5];
    table.read(0, &mut back).unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(table.write(0, b"x"), Err(DmaError::Memory(Errno::BADF)));
    // The same file, writable this time, must not inherit the read-only descriptor.
    table.map(&map(0x1000, 5, 0), Some(file.reopen().unwrap().into())).unwrap();
    table.write(0x1000, b"j").unwrap();
}

#[test]
fn only_regular_files_are_memory_and_there_are_not_too_many() {
    let mut table = DmaTable::default();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    assert_eq!(table.map(&map(0, 1, 0), Some(pipe)), Err(Errno::INVAL));
    for index in 0..MAX_FILES as u64 {
        table.map(&map(index * 2, 1, 0), Some(memfd(1, SealFlags::SHRINK))).unwrap();
    }
    assert_eq!(table.map(&map(u64::MAX, 1, 0), Some(memfd(1, SealFlags::SHRINK))), Err(Errno::NOSPC));
    table.unmap(range(0, 1)).unwrap();
    table.map(&map(u64::MAX, 1, 0), Some(memfd(1, SealFlags::SHRINK))).unwrap();
    let wraps = DmaMap { offset: u64::MAX, ..map(1, 1, 0) };
    assert_eq!(table.map(&wraps, Some(memfd(1, SealFlags::SHRINK))), Err(Errno::INVAL));
}

#[test]
fn as_many_single_pages_as_the_protocol_allows_from_one_file() {
    let fd = memfd(0x1000, SealFlags::SHRINK);
    let mut table = DmaTable::default();
    for page in 0..MAX_DMA_MAPS as u64 {
        table.map(&map(page << 12, 0x1000, 0), Some(fd.try_clone().unwrap())).unwrap();
    }
    assert_eq!(table.map(&map(1 << 40, 0x1000, 0), None), Err(Errno::NOSPC));
    assert_eq!(table.files.len(), 1);
    table.unmap(range(0, 0x8000_0000)).unwrap();
    assert!(table.is_empty());
}

#[test]
fn unmap_takes_exactly_its_range() {
    let fd = memfd(0x4000, SealFlags::SHRINK);
    rustix::io::pwrite(&fd, b"z", 0x3000).unwrap();
    let mut table = DmaTable::default();
    table.unmap(range(0xFEF0_0000, 0xFFFF_FFFF_0110_0000)).unwrap();
    table.map(&map(0x1000, 0x4000, 0), Some(fd)).unwrap();
    table.map(&map(u64::MAX - 0xFFF, 0x1000, 0), None).unwrap();
    assert_eq!(table.map(&map(0x4FFF, 1, 0), None), Err(Errno::EXIST));
    table.unmap(range(0x2000, 0x1000)).unwrap();
    assert_eq!(
        table.ranges().collect::<Vec<_>>(),
        [(0x1000, 0x1000), (0x3000, 0x2000), (u64::MAX - 0xFFF, 0x1000)]
    );
    let mut byte = [0];
    table.read(0x4000, &mut byte).unwrap();
    assert_eq!(&byte, b"z", "the rest keeps its place in the file");
    table.unmap(range(0xFEF0_0000, 0xFFFF_FFFF_0110_0000)).unwrap();
    assert_eq!(table.len(), 2);
    table.unmap(DmaUnmap::All).unwrap();
    assert!(table.is_empty() && table.files.is_empty());
    table.map(&map(0, u64::MAX, 0), None).unwrap();
    table.unmap(range(5, 1)).unwrap();
    assert_eq!(table.ranges().collect::<Vec<_>>(), [(0, 5), (6, u64::MAX - 6)]);
}

#[test]
fn holes_do_not_make_more_mappings_than_the_protocol_allows() {
    let mut table = DmaTable::default();
    table.map(&map(0, 1 << 40, 0), None).unwrap();
    let mut page = 1;
    while table.unmap(range(page << 12, 0x1000)).is_ok() {
        assert!(table.len() <= MAX_DMA_MAPS);
        page += 2;
    }
    assert_eq!(table.len(), MAX_DMA_MAPS);
    assert_eq!(table.unmap(range(page << 12, 0x1000)), Err(Errno::NOSPC));
    table.unmap(range(page << 12, 1 << 40)).unwrap();
    table.unmap(range(0, page << 12)).unwrap();
    assert!(table.is_empty());
}

#[test]
fn memory_on_huge_pages_is_left_to_the_client() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    // A kernel without huge pages has no such files.
    let Ok(fd) = memfd_create("huge", flags) else { return };
    ftruncate(&fd, 2 << 20).unwrap();
    fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    let mut table = DmaTable::default();
    table.map(&map(0, 2 << 20, 0), Some(fd)).unwrap();
    // With no huge page left on the host, touching a mapping of it is the end of the process.
    assert_eq!(table.write(0, b"x"), Err(DmaError::Remote(0)));
    assert!(matches!(table.piece(0, 1), Ok(Piece::Remote(1))));
}

#[derive(Clone, Debug)]
enum Step {
    Map { address: u64, size: u64, offset: u64, writable: bool },
    Unmap { address: u64, size: u64 },
    Write { address: u64, data: Vec<u8> },
    Read { address: u64, length: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let address = || 0u64..96;
    prop_oneof![
        (address(), 1u64..24, 0u64..40, any::<bool>())
            .prop_map(|(address, size, offset, writable)| Step::Map { address, size, offset, writable }),
        (address(), 1u64..48).prop_map(|(address, size)| Step::Unmap { address, size }),
        (address(), proptest::collection::vec(any::<u8>(), 1..32))
            .prop_map(|(address, data)| Step::Write { address, data }),
        (address(), 1usize..48).prop_map(|(address, length)| Step::Read { address, length }),
    ]
}

proptest! {
    /// The model: for each address, which byte of the file it is and whether it may be written.
    #[test]
    fn the_table_is_an_array_of_bytes(steps in proptest::collection::vec(steps(), 1..80), sealed in any::<bool>()) {
        let fd = memfd(64, if sealed { SealFlags::SHRINK } else { SealFlags::empty() });
        let mut table = DmaTable::default();
        let mut file = [0u8; 64];
        let mut model: [Option<(usize, bool)>; 200] = [None; 200];
        for step in steps {
            match step {
                Step::Map { address, size, offset, writable } => {
                    let result = table.map(&DmaMap { writable, ..map(address, size, offset) }, Some(fd.try_clone().unwrap()));
                    let cells = &mut model[address as usize..(address + size) as usize];
                    let free = cells.iter().all(Option::is_none);
                    prop_assert_eq!(result, if free { Ok(()) } else { Err(Errno::EXIST) });
                    if free {
                        for (index, cell) in cells.iter_mut().enumerate() {
                            *cell = Some((offset as usize + index, writable));
                        }
                    }
                }
                Step::Unmap { address, size } => {
                    table.unmap(range(address, size)).unwrap();
                    model[address as usize..(address + size) as usize].fill(None);
                }
                Step::Write { address, data } => {
                    let cells = &model[address as usize..address as usize + data.len()];
                    let legal = cells.iter().all(|cell| cell.is_some_and(|(_, writable)| writable));
                    prop_assert_eq!(table.write(address, &data).is_ok(), legal);
                    if legal {
                        for (cell, byte) in cells.iter().zip(&data) {
                            file[cell.unwrap().0] = *byte;
                        }
                    }
                }
                Step::Read { address, length } => {
                    let cells = &model[address as usize..address as usize + length];
                    let mut data = vec![0xA5; length];
                    let legal = cells.iter().all(Option::is_some);
                    prop_assert_eq!(table.read(address, &mut data).is_ok(), legal);
                    if legal {
                        let expected: Vec<u8> = cells.iter().map(|cell| file[cell.unwrap().0]).collect();
                        prop_assert_eq!(data, expected);
                    }
                }
            }
            let mapped: u64 = table.ranges().map(|(_, size)| size).sum();
            prop_assert_eq!(mapped, model.iter().flatten().count() as u64);
        }
    }
}
