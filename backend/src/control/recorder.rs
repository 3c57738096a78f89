//! What happened, numbered and dated: the one stream of events that every watcher sees.

use core::time::Duration;

use tdispd_proto::control::{Event, GateCounts, Happening, LastTransition};

use crate::device::Device;

/// Refused accesses are summed up over this time: a guest can cause millions.
const GATE_PERIOD: Duration = Duration::from_secs(1);

/// Numbers and dates what happens.
#[derive(Debug)]
pub struct Recorder {
    sequence: u64,
    /// By function.
    transitions: Vec<Option<LastTransition>>,
    gate: Vec<Gate>,
    /// [`Device::refusals`] as counted last.
    refusals: u64,
}

/// What was told of a function's refused accesses.
#[derive(Clone, Debug, Default)]
struct Gate {
    told: GateCounts,
    /// When the next sum may be told.
    due: Duration,
    /// Whether one waits for that.
    waits: bool,
}

impl Recorder {
    /// Begins to record what happens to `device`.
    pub fn new(device: &mut Device) -> Self {
        device.keep_happenings();
        let functions = device.functions();
        Self {
            sequence: 0,
            transitions: vec![None; functions],
            gate: vec![Gate::default(); functions],
            refusals: 0,
        }
    }

    /// Of the last event; 0 if there was none.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn last_transition(&self, function: usize) -> Option<&LastTransition> {
        self.transitions.get(function)?.as_ref()
    }

    /// Everything that has happened since the last call.
    pub(super) fn follow(&mut self, now: Duration, device: &mut Device) -> Vec<Event> {
        self.sum_up(now, device);
        core::iter::from_fn(|| device.take_happening()).map(|what| self.record(now, what)).collect()
    }

    /// When [`Self::follow`] is due, whatever happens until then.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.gate.iter().filter(|gate| gate.waits).map(|gate| gate.due).min()
    }

    fn sum_up(&mut self, now: Duration, device: &mut Device) {
        // Most calls come after an access that was served.
        let refusals = device.refusals();
        if refusals == self.refusals && self.gate.iter().all(|gate| !gate.waits) {
            return;
        }
        self.refusals = refusals;
        for (function, gate) in self.gate.iter_mut().enumerate() {
            let counts = device.gate_counts(function);
            gate.waits = counts != gate.told;
            if !gate.waits || now < gate.due {
                continue;
            }
            let reads = counts.rejected_reads.wrapping_sub(gate.told.rejected_reads);
            let writes = counts.rejected_writes.wrapping_sub(gate.told.rejected_writes);
            *gate = Gate { told: counts, due: now.saturating_add(GATE_PERIOD), waits: false };
            device.tell(Happening::GateRejected { function, reads, writes });
        }
    }

    fn record(&mut self, now: Duration, what: Happening) -> Event {
        self.sequence += 1;
        let milliseconds = milliseconds(now);
        if let Happening::Transition { function, from, cause, text, .. } = &what
            && let Some(last) = self.transitions.get_mut(*function)
        {
            *last = Some(LastTransition {
                sequence: self.sequence,
                milliseconds,
                from: *from,
                cause: cause.clone(),
                text: text.clone(),
            });
        }
        Event { sequence: self.sequence, milliseconds, what }
    }
}

pub(super) fn milliseconds(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
