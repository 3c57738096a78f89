//! The engine against a guest memory that is a plain array, and against answers nobody should give.
use proptest::prelude::*;

use super::*;

const MEMORY: usize = 512 * 1024;

/// Guest memory from address 0 on; everything beyond it faults.
struct Guest(Vec<u8>);

impl Guest {
    fn new() -> Self {
        // A period that no power of two divides, so that a chunk in the wrong place shows.
        Self((0..MEMORY).map(|at| (at % 251) as u8).collect())
    }

    fn range(&mut self, address: u64, length: usize) -> Result<&mut [u8], DmaError> {
        let start = usize::try_from(address).map_err(|_| DmaError::Fault)?;
        self.0.get_mut(start..start.saturating_add(length)).ok_or(DmaError::Fault)
    }

    /// Carries out one request; says whether the command ended.
    fn serve(&mut self, engine: &mut DmaEngine, work: Work) -> Option<Result<(), Failure>> {
        match work {
            Work::DmaRead { id, address, length, .. } => {
                assert!(length <= CHUNK && length > 0);
                let result = self.range(address, length).map(|data| data.to_vec());
                engine.done(id, result.as_deref().map_err(|&error| error))
            }
            Work::DmaWrite { id, address, data, .. } => {
                assert!(data.len() <= CHUNK && !data.is_empty());
                let result = self.range(address, data.len()).map(|memory| memory.copy_from_slice(&data));
                engine.done(id, result.map(|()| [].as_slice()))
            }
            work @ (Work::Interrupt { .. } | Work::IntxLevel(_)) => panic!("{work:?} from a DMA engine"),
        }
    }

    fn run(&mut self, command: Command) -> Result<(), Failure> {
        let mut engine = DmaEngine::new();
        engine.start(command)?;
        loop {
            assert!(engine.busy());
            let work = engine.poll().unwrap();
            assert_eq!(engine.poll(), None, "one request at a time");
            if let Some(outcome) = self.serve(&mut engine, work) {
                assert!(!engine.busy());
                assert_eq!(engine.poll(), None);
                if outcome.is_ok() {
                    assert_eq!(engine.progress(), command.length);
                }
                return outcome;
            }
        }
    }
}

const COPY: Command = Command {
    operation: Operation::Copy,
    source: 0,
    destination: MEMORY as u64 / 2,
    length: 100,
    pattern: [1, 2, 3, 4, 5, 6, 7, 8],
    translated: false,
    asked: Tee::NonTee,
};
const FILL: Command = Command { operation: Operation::Fill, ..COPY };
const CHECK: Command = Command { operation: Operation::Check, source: COPY.destination, ..COPY };

#[test]
fn odd_lengths_and_places_arrive_whole() {
    for length in [1, 7, 8, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3] {
        for (source, destination) in [(0, 300_001), (3, 262_144)] {
            let command = Command { source, destination, length: length as u64, ..COPY };
            let mut guest = Guest::new();
            let mut expected = guest.0.clone();
            expected.copy_within(source as usize..source as usize + length, destination as usize);
            assert_eq!(guest.run(command), Ok(()));
            assert!(guest.0 == expected, "copy of {length} from {source:#x} to {destination:#x}");

            for (at, byte) in expected[destination as usize..][..length].iter_mut().enumerate() {
                *byte = FILL.pattern[at % 8];
            }
            assert_eq!(guest.run(Command { operation: Operation::Fill, ..command }), Ok(()));
            assert!(guest.0 == expected, "fill of {length} at {destination:#x}");
            let check = Command { operation: Operation::Check, source: destination, ..command };
            assert_eq!(guest.run(check), Ok(()));
        }
    }
}

#[test]
fn check_finds_the_first_wrong_byte_in_any_chunk() {
    let length = 2 * CHUNK as u64 + 5;
    for wrong in [0, 1, CHUNK as u64 - 1, CHUNK as u64, length - 1] {
        let mut guest = Guest::new();
        assert_eq!(guest.run(Command { length, ..FILL }), Ok(()));
        // The last byte is wrong too: the first one counts.
        for at in [wrong, length - 1] {
            guest.0[(CHECK.source + at) as usize] = 0;
        }
        assert_eq!(guest.run(Command { length, ..CHECK }), Err(Failure::Mismatch(wrong)));
    }
}

#[test]
fn bad_commands_are_refused_before_any_request() {
    let top = u64::MAX;
    let table = [
        (Command { length: 0, ..COPY }, Err(Failure::BadLength)),
        (Command { length: LIMIT + 1, ..FILL }, Err(Failure::BadLength)),
        (Command { length: top, ..CHECK }, Err(Failure::BadLength)),
        (Command { length: LIMIT, ..FILL }, Ok(())),
        (Command { source: top, length: 1, ..COPY }, Ok(())),
        (Command { source: top, length: 2, ..COPY }, Err(Failure::BadAddress)),
        (Command { destination: top - 98, ..COPY }, Err(Failure::BadAddress)),
        (Command { destination: top - 99, ..COPY }, Ok(())),
        (Command { source: top, ..FILL }, Ok(())),
        (Command { destination: top, ..FILL }, Err(Failure::BadAddress)),
        (Command { destination: top, ..CHECK }, Ok(())),
        (Command { source: top, ..CHECK }, Err(Failure::BadAddress)),
        (Command { source: 1000, destination: 1000, ..COPY }, Err(Failure::Overlap)),
        (Command { source: 1000, destination: 1099, ..COPY }, Err(Failure::Overlap)),
        (Command { source: 1099, destination: 1000, ..COPY }, Err(Failure::Overlap)),
        (Command { source: 1000, destination: 1100, ..COPY }, Ok(())),
        (Command { source: 1100, destination: 1000, ..COPY }, Ok(())),
        (Command { source: 1000, destination: 1000, ..FILL }, Ok(())),
    ];
    for (command, expected) in table {
        let mut engine = DmaEngine::new();
        assert_eq!(engine.start(command), expected, "{command:?}");
        assert_eq!(engine.busy(), expected.is_ok());
        assert_eq!(engine.poll().is_some(), expected.is_ok());
    }
}

#[test]
fn errors_of_either_direction_end_the_command() {
    let mut guest = Guest::new();
    let outside = MEMORY as u64 - 10;
    assert_eq!(guest.run(Command { source: outside, destination: 0, ..COPY }), Err(Failure::Fault));
    assert_eq!(guest.run(Command { destination: outside, ..COPY }), Err(Failure::Fault));
    assert_eq!(guest.run(Command { destination: outside, ..FILL }), Err(Failure::Fault));
    assert_eq!(guest.run(Command { source: outside, ..CHECK }), Err(Failure::Fault));
    for command in [COPY, FILL, CHECK] {
        let mut engine = DmaEngine::new();
        engine.start(command).unwrap();
        engine.poll().unwrap();
        assert_eq!(engine.done(DmaId(0), Err(DmaError::NotAllowed)), Some(Err(Failure::NotAllowed)));
        assert!(!engine.busy());
    }
}

#[test]
fn an_answer_of_another_length_is_a_fault() {
    for length in [0, 99, 101] {
        let mut engine = DmaEngine::new();
        engine.start(COPY).unwrap();
        engine.poll().unwrap();
        assert_eq!(engine.done(DmaId(0), Ok(&vec![0; length])), Some(Err(Failure::Fault)));
        assert!(!engine.busy());
    }
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let mut engine = DmaEngine::new();
    assert_eq!(engine.done(DmaId(0), Ok(&[])), None);
    engine.start(COPY).unwrap();
    assert_eq!(engine.done(DmaId(0), Ok(&[0; 100])), None, "not requested yet");
    engine.poll().unwrap();
    assert_eq!(engine.done(DmaId(1), Err(DmaError::Fault)), None);
    assert_eq!(engine.done(DmaId(0), Ok(&[0; 100])), None, "goes on with the write");
    assert_eq!(engine.done(DmaId(0), Err(DmaError::Fault)), None, "answered before");
    assert!(matches!(engine.poll(), Some(Work::DmaWrite { id: DmaId(1), .. })));
    assert_eq!(engine.done(DmaId(1), Ok(&[])), Some(Ok(())));
    assert_eq!(engine.done(DmaId(1), Ok(&[])), None);
}

#[test]
fn an_answer_from_before_an_abort_is_not_taken_for_a_new_one() {
    for forget in [DmaEngine::abort, DmaEngine::reset] {
        let mut engine = DmaEngine::new();
        engine.start(COPY).unwrap();
        engine.poll().unwrap();
        forget(&mut engine);
        assert!(!engine.busy());
        assert_eq!(engine.poll(), None);
        engine.start(COPY).unwrap();
        engine.poll().unwrap();
        assert_eq!(engine.done(DmaId(0), Ok(&[0xee; 100])), None);
        assert_eq!(engine.poll(), None, "still waits for its own answer");
    }
}

proptest! {
    #[test]
    fn every_command_ends_and_copies_are_exact(
        source in 0..MEMORY as u64 + 10,
        destination in 0..MEMORY as u64 + 10,
        length in 0..3 * CHUNK as u64,
    ) {
        let mut guest = Guest::new();
        let mut expected = guest.0.clone();
        let outcome = guest.run(Command { source, destination, length, ..COPY });
        let fits = source.max(destination) + length <= MEMORY as u64;
        if length == 0 {
            prop_assert_eq!(outcome, Err(Failure::BadLength));
        } else if source.abs_diff(destination) < length {
            prop_assert_eq!(outcome, Err(Failure::Overlap));
        } else if fits {
            prop_assert_eq!(outcome, Ok(()));
            expected.copy_within(source as usize..(source + length) as usize, destination as usize);
            prop_assert!(guest.0 == expected);
        } else {
            prop_assert_eq!(outcome, Err(Failure::Fault));
        }
    }
}
