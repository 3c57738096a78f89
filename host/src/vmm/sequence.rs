//! The steps of a VMM, in the order in which they have to come.
//!
//! Until LOCK nobody knows which pages will be private: the report says so, and it is only to be had of a locked interface. So all of
//! the device is shared at first, as that of any guest. What has to be unmapped before LOCK, and what need not, is the architecture's
//! word; what is mapped after it is the report's.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tdisp::wire::TdiState;

use super::arguments::VmmArgs;
use super::desk::{Desk, Mapped};
use super::layout::{Piece, Window, cut, place, table};
use super::vcpu::{Seen, Vcpu};
use crate::error::{Error, Result};
use crate::output::record::{Layer, Record};
use crate::output::{Item, Output};
use crate::transport::sysfs::{DEVICES, Sysfs};
use crate::transport::{PAGE, Transport};
use crate::tsm::{Binder, MAX_REPORT};
use crate::walk::{misfit, resolve};

/// What an access gets that the device refuses, and one that finds nothing.
const ONES: u32 = u32::MAX;
/// What the guest keeps in private memory.
const SECRET: u32 = 0x5ec2_e700;
/// What the host leaves in each page before the bind, with the page's number.
const HOST: u32 = 0x4057_0000;

/// Longest line that ends `--hold`.
const MAX_LINE: u64 = 4096;

/// Carries it all out. A step that fails ends it; a check that does not hold does not.
pub(super) fn run(args: &VmmArgs, input: &mut dyn BufRead, output: &mut Output) -> Result<()> {
    let mut vmm = Vmm::open(args, output)?;
    vmm.share_everything()?;
    vmm.before_lock()?;
    vmm.lock()?;
    let layout = vmm.layout()?;
    if args.violate {
        vmm.violate(&layout)?;
        return vmm.unbind();
    }
    vmm.map_anew(&layout)?;
    vmm.start()?;
    vmm.use_both_sides(&layout)?;
    vmm.look_at_what_is_left(&layout)?;
    if args.hold {
        vmm.hold(input)?;
    }
    vmm.take_private_away()?;
    vmm.unbind()?;
    vmm.share_everything_again(&layout)
}

/// The VMM, and what it holds at the moment.
struct Vmm<'a> {
    args: &'a VmmArgs,
    output: &'a mut Output,
    // Dropped in this order: the processor, then what it reaches, the binding, and the device, whose end is a reset.
    vcpu: Vcpu,
    /// Where it faulted last.
    fault: u64,
    /// Everything, shared: the mappings from before the bind.
    old: Vec<Mapped>,
    shared: Vec<Mapped>,
    private: Vec<Mapped>,
    binder: Binder,
    bars: Sysfs,
    windows: Vec<Window>,
    desk: Desk,
}

impl<'a> Vmm<'a> {
    fn open(args: &'a VmmArgs, output: &'a mut Output) -> Result<Self> {
        let bars = Sysfs::open(Path::new(DEVICES), args.function)?;
        let windows = place(bars.memory_bars(), args.alias)?;
        let desk = step(output, Layer::Vfio, "open the device", "one that can export DMABUFs", || {
            let desk = Desk::open(args.function, args.import)?;
            desk.enable()?;
            let bars: Vec<_> = windows.iter().map(|window| format!("BAR{}", window.bar)).collect();
            Ok((desk, format!("{}, and a reset", bars.join(", ")), true))
        })?;
        let binder = Binder::open(&args.file)?;
        let vcpu = step(output, Layer::Kvm, "a VM", "one processor, idle", || {
            Ok((Vcpu::start(&desk.machine)?, "one processor, idle".into(), true))
        })?;
        let (old, shared, private) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { args, output, vcpu, fault: 0, old, shared, private, binder, bars, windows, desk })
    }

    /// The BAR that is used: one without side effects.
    fn window(&self) -> Result<Window> {
        let window = self.windows.iter().find(|window| window.memory).copied();
        window.ok_or_else(|| Error::NoDevice("no BAR is prefetchable, so none is taken for memory".into()))
    }

    /// The BAR's first page on one side.
    fn page(&self, layout: &[Piece], private: bool) -> Result<u64> {
        let bar = self.window()?.bar;
        let piece = layout.iter().find(|piece| piece.bar == bar && piece.private == private);
        let side = if private { "private" } else { "shared" };
        piece.map(|p| p.gpa).ok_or_else(|| Error::Check(format!("nothing of BAR{bar} is {side}")))
    }

    /// As for any guest: each BAR whole, with T = 0, for the guest and its peers.
    fn share_everything(&mut self) -> Result<()> {
        let whole: Vec<_> = self.windows.iter().map(|window| (*window, window.whole())).collect();
        self.old = self.map("everything, shared", &whole, false)?;
        let window = self.window()?;
        let gpa = window.gpa;
        let mark = mark(gpa);
        let old = of(&self.old, gpa)?;
        for page in (gpa..gpa + window.size).step_by(PAGE) {
            old.write(page, self::mark(page))?;
        }
        self.guest_loads("the guest loads from it", gpa, mark)?;
        self.peer_reads("a peer reads it", false, gpa, mark)
    }

    /// The architecture's turn.
    fn before_lock(&mut self) -> Result<()> {
        let gpa = self.window()?.gpa;
        if !self.args.arch.unmaps_first() {
            // The last time for now: from here on the processor is idle.
            return self.guest_loads("before LOCK, all is still mapped", gpa, mark(gpa));
        }
        self.step(Layer::Vfio, "before LOCK, all is unmapped", "nothing is mapped", |vmm| {
            vmm.old.clear();
            Ok(((), "memory slots, mappings and DMABUFs are gone".into(), true))
        })?;
        self.guest_faults(gpa)
    }

    fn lock(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "bind", "CONFIG_LOCKED", |vmm| {
            let function = vmm.args.function;
            vmm.binder.bind(vmm.desk.machine.vm(), function, function.requester_id().into())?;
            vmm.is(TdiState::CONFIG_LOCKED)
        })
    }

    /// The report in the guest's address space: what KVM has to know of it.
    fn layout(&mut self) -> Result<Vec<Piece>> {
        let pieces =
            self.step(Layer::Tdisp, "interface report", "every range in a BAR, none twice", |vmm| {
                let (report, _) = vmm.binder.report(MAX_REPORT)?;
                let offset = vmm.args.mmio_offset;
                let row = |range| resolve(range, offset, vmm.bars.memory_bars());
                let rows: Vec<_> = report.ranges.iter().map(row).collect();
                if let Some(problem) = misfit(&rows) {
                    return Err(Error::Check(problem));
                }
                let pieces = cut(&vmm.windows, &rows)?;
                let private = pieces.iter().filter(|piece| piece.private).count();
                let text = format!("{private} private ranges, {} shared ones", pieces.len() - private);
                Ok((pieces, text, true))
            })?;
        self.output.tell(&Item::Told("layout", &json!({ "layout": pieces }), &table(&pieces)));
        Ok(pieces)
    }

    /// What must not be: a mapping with T = 0 of a page that is private now, and an access through it.
    fn violate(&mut self, layout: &[Piece]) -> Result<()> {
        let gpa = self.page(layout, true)?;
        if self.old.is_empty() {
            let whole = [self.window()?].map(|window| (window, window.whole()));
            self.old = self.map("against the rules: shared again", &whole, false)?;
        }
        self.host_reads("touch private memory, T = 0", gpa, ONES)?;
        self.step(Layer::Tdisp, "what became of it", "ERROR, or CONFIG_LOCKED", |vmm| {
            let state = vmm.binder.state()?;
            let known = [TdiState::ERROR, TdiState::CONFIG_LOCKED].contains(&state);
            Ok(((), state.to_string(), known))
        })
    }

    /// Slots and DMABUFs by the layout: shared pages with T = 0, private ones with T = 1.
    fn map_anew(&mut self, layout: &[Piece]) -> Result<()> {
        if !self.args.arch.unmaps_first() {
            self.step(Layer::Kvm, "after LOCK", "the guest reaches nothing", |vmm| {
                vmm.old.iter_mut().try_for_each(Mapped::hide)?;
                Ok(((), "memory slots are gone, old mappings stay".into(), true))
            })?;
            let gpa = self.page(layout, true)?;
            self.guest_faults(gpa)?;
        }
        let sides = |private| {
            let pieces = layout.iter().filter(move |piece| piece.private == private);
            pieces.filter_map(|piece| {
                let window = self.windows.iter().find(|window| window.bar == piece.bar)?;
                Some((*window, *piece))
            })
        };
        let (shared, private): (Vec<_>, Vec<_>) = (sides(false).collect(), sides(true).collect());
        self.shared = self.map("shared ranges", &shared, false)?;
        self.private = self.map("private ranges", &private, true)?;
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "START", "RUN", |vmm| {
            vmm.binder.start()?;
            vmm.is(TdiState::RUN)
        })
    }

    /// The fault is resolved, and the guest works with its device.
    fn use_both_sides(&mut self, layout: &[Piece]) -> Result<()> {
        let (private, shared) = (self.page(layout, true)?, self.page(layout, false)?);
        let mark = mark(shared);
        self.step(Layer::Kvm, "the fault is resolved", "a load; of private memory, not the host's", |vmm| {
            let seen = vmm.vcpu.resume()?;
            let of_host = matches!(seen, Seen::Value(value) if value == self::mark(vmm.fault));
            let good = matches!(seen, Seen::Value(value) if value != ONES);
            // Whichever side the page turned out to be on.
            Ok(((), describe(seen), good && of_host == vmm.shared.iter().any(|mapped| mapped.has(vmm.fault))))
        })?;
        self.step(Layer::Mmio, "the guest stores, private", &describe(Seen::Value(SECRET)), |vmm| {
            let seen = vmm.vcpu.store(private, SECRET)?;
            Ok(((), describe(seen), seen == Seen::Value(SECRET)))
        })?;
        self.peer_reads("a trusted peer reads it", true, private, SECRET)?;
        self.guest_loads("the guest loads, shared", shared, mark)?;
        self.step(Layer::Mmio, "the host reads what it shares", &describe(Seen::Value(mark)), |vmm| {
            let value = of(&vmm.shared, shared)?.read(shared)?;
            Ok(((), describe(Seen::Value(value)), value == mark))
        })
    }

    /// Mappings from before the bind, where the architecture has left any.
    fn look_at_what_is_left(&mut self, layout: &[Piece]) -> Result<()> {
        if self.old.is_empty() {
            return Ok(());
        }
        if self.args.alias.is_some() {
            let gpa = self.page(layout, true)?;
            self.host_reads("the host reads by its old mapping", gpa, ONES)?;
            self.peer_reads("a peer reads by the old DMABUF", false, gpa, ONES)?;
        } else {
            self.skip("the host reads by its old mapping", "T is not in the address");
        }
        if !self.args.arch.mapping_comes_back() {
            self.step(Layer::Vfio, "old mappings", "given up", |vmm| {
                vmm.old.clear();
                Ok(((), "given up: they are dead".into(), true))
            })?;
        }
        Ok(())
    }

    fn hold(&mut self, input: &mut dyn BufRead) -> Result<()> {
        self.output.tell(&Item::Told("holding", &json!({}), "in RUN until a line of standard input"));
        let mut line = Vec::new();
        std::io::Read::take(input, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(Error::io("standard input"))?;
        Ok(())
    }

    /// The guest gives its device back: what is private goes from it before the interface is unlocked.
    fn take_private_away(&mut self) -> Result<()> {
        self.step(Layer::Kvm, "before unbind", "the guest reaches nothing private", |vmm| {
            vmm.private.iter_mut().try_for_each(Mapped::hide)?;
            Ok(((), "memory slots of private ranges are gone".into(), true))
        })
    }

    fn unbind(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "unbind", "done", |vmm| {
            vmm.binder.unbind()?;
            Ok(((), "done".into(), true))
        })
    }

    /// As at first, and nothing is left of what was private.
    fn share_everything_again(&mut self, layout: &[Piece]) -> Result<()> {
        let gpa = self.page(layout, true)?;
        if self.args.alias.is_some() {
            self.step(
                Layer::Mmio,
                "what is left of private mappings",
                &describe(Seen::Value(ONES)),
                |vmm| {
                    let value = of(&vmm.private, gpa)?.read(gpa)?;
                    Ok(((), describe(Seen::Value(value)), value == ONES))
                },
            )?;
        }
        self.private.clear();
        self.shared.clear();
        if self.old.is_empty() {
            let whole: Vec<_> = self.windows.iter().map(|window| (*window, window.whole())).collect();
            self.old = self.map("everything, shared", &whole, false)?;
        } else {
            self.step(Layer::Kvm, "everything, shared", "by the mappings from before the bind", |vmm| {
                let machine = &vmm.desk.machine;
                vmm.old.iter_mut().try_for_each(|mapped| mapped.show(machine))?;
                Ok(((), format!("{} memory slots", vmm.old.len()), true))
            })?;
        }
        self.step(Layer::Mmio, "the guest loads what was private", "neither the secret nor ones", |vmm| {
            let seen = vmm.vcpu.load(gpa)?;
            let good = matches!(seen, Seen::Value(value) if value != SECRET && value != ONES);
            Ok(((), describe(seen), good))
        })
    }

    fn map(&mut self, what: &str, pieces: &[(Window, Piece)], tee: bool) -> Result<Vec<Mapped>> {
        self.step(Layer::Vfio, what, "a DMABUF, a mapping and a memory slot for each", |vmm| {
            let map = |(window, piece): &(Window, Piece)| {
                let mut mapped = vmm.desk.map(window, piece, tee)?;
                mapped.show(&vmm.desk.machine)?;
                Ok(mapped)
            };
            let mapped = pieces.iter().map(map).collect::<Result<Vec<_>>>()?;
            let bytes: u64 = pieces.iter().map(|(_, piece)| piece.size).sum();
            let t = if tee { 1 } else { 0 };
            let text = format!("{}, {bytes:#x} bytes in all, T = {t}", mapped.len());
            Ok((mapped, text, true))
        })
    }

    fn guest_loads(&mut self, what: &str, gpa: u64, expected: u32) -> Result<()> {
        self.step(Layer::Mmio, what, &describe(Seen::Value(expected)), |vmm| {
            let seen = vmm.vcpu.load(gpa)?;
            Ok(((), describe(seen), seen == Seen::Value(expected)))
        })
    }

    /// From here on the processor waits in its fault.
    fn guest_faults(&mut self, gpa: u64) -> Result<()> {
        self.step(Layer::Kvm, "the guest loads meanwhile", &describe(Seen::Fault(gpa)), |vmm| {
            let seen = vmm.vcpu.load(gpa)?;
            vmm.fault = gpa;
            Ok(((), describe(seen), seen == Seen::Fault(gpa)))
        })
    }

    /// By a mapping from before the bind.
    fn host_reads(&mut self, what: &str, gpa: u64, expected: u32) -> Result<()> {
        self.step(Layer::Mmio, what, &describe(Seen::Value(expected)), |vmm| {
            let value = of(&vmm.old, gpa)?.read(gpa)?;
            Ok(((), describe(Seen::Value(value)), value == expected))
        })
    }

    /// By DMA of a peer that has imported the DMABUF.
    fn peer_reads(&mut self, what: &str, private: bool, gpa: u64, expected: u32) -> Result<()> {
        if !self.args.import {
            self.skip(what, "no --import");
            return Ok(());
        }
        self.step(Layer::Mmio, what, &describe(Seen::Value(expected)), |vmm| {
            let value = of(if private { &vmm.private } else { &vmm.old }, gpa)?.peer_read(gpa)?;
            Ok(((), describe(Seen::Value(value)), value == expected))
        })
    }

    /// The interface's state, which has to be this one.
    fn is(&self, expected: TdiState) -> Result<((), String, bool)> {
        let state = self.binder.state()?;
        Ok(((), state.to_string(), state == expected))
    }

    fn step<T>(
        &mut self,
        layer: Layer,
        what: &str,
        expected: &str,
        act: impl FnOnce(&mut Self) -> Result<(T, String, bool)>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = act(self);
        record(self.output, start, layer, what, expected, result)
    }

    fn skip(&mut self, what: &str, why: &str) {
        let (step, seen) = (what.to_owned(), why.to_owned());
        let took = std::time::Duration::ZERO;
        let record = Record { layer: Layer::Mmio, step, expected: String::new(), seen, ok: None, took };
        self.output.tell(&Item::Step(&record));
    }
}

/// What the host leaves in a page.
fn mark(gpa: u64) -> u32 {
    HOST | u32::try_from(gpa >> 12 & 0xffff).unwrap_or_default()
}

/// The mapping that an address is in.
fn of(mapped: &[Mapped], gpa: u64) -> Result<&Mapped> {
    let found = mapped.iter().find(|mapped| mapped.has(gpa));
    found.ok_or_else(|| Error::Check(format!("nothing is mapped at {gpa:#x}")))
}

fn describe(seen: Seen) -> String {
    match seen {
        Seen::Value(ONES) => "all ones".into(),
        Seen::Value(value) => format!("{value:#010x}"),
        Seen::Fault(gpa) => format!("a fault at {gpa:#x}"),
    }
}

/// A step before there is a VMM to take it.
fn step<T>(
    output: &mut Output,
    layer: Layer,
    what: &str,
    expected: &str,
    act: impl FnOnce() -> Result<(T, String, bool)>,
) -> Result<T> {
    let start = Instant::now();
    let result = act();
    record(output, start, layer, what, expected, result)
}

/// Tells what came of a step: an error is a failed one.
fn record<T>(
    output: &mut Output,
    start: Instant,
    layer: Layer,
    what: &str,
    expected: &str,
    result: Result<(T, String, bool)>,
) -> Result<T> {
    let took = start.elapsed();
    let (seen, ok) = match &result {
        Ok((_, seen, ok)) => (seen.clone(), *ok),
        Err(error) => (error.to_string(), false),
    };
    let (step, expected) = (what.to_owned(), expected.to_owned());
    output.tell(&Item::Step(&Record { layer, step, expected, seen, ok: Some(ok), took }));
    result.map(|(value, _, _)| value)
}
