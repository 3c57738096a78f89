//! One thread, one epoll loop: sockets, time, and the work that follows an access.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use rustix::process::Signal;
use tdispd_proto::control::{Happening, Peer, Process};

use crate::clock::{Clock, time_of_day};
use crate::config::MachineCheck;
use crate::control::Control;
use crate::device::{BarRegion, CONFIG_REGION, Device, DmaOrder, FirmwareUpdate};
use crate::function::{DmaError, DmaId, Work};
use crate::spdm_socket::{Behind, SpdmSocket, Wish};
use crate::vfio_user::{self, Errno, FileAccess, IrqKind, Listener, Mmap, Region, Server, Token, Watcher};

/// Pieces of work that one function gets done before the others and the sockets have their turn again.
const WORK_PER_TURN: usize = 16;
/// How long a client may take to answer DMA_READ or DMA_WRITE. QEMU itself waits as long for us.
const DMA_PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer waits for DMA to drain: a DOE instance has a second for its answer (PCIe 6.1 §6.30.2).
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);
/// How old the time of day may be that the device has; it counts seconds.
const TIME_OF_DAY: Duration = Duration::from_millis(100);
/// Epoll data of the descriptor that says stop; no [`Token`] looks like this.
const STOP: u64 = u64::MAX;
/// Epoll data of the SPDM socket; no [`Token`] looks like this either.
const SPDM: u64 = u64::MAX - 4;
/// And of the control socket.
const CONTROL: u64 = u64::MAX - 8;
/// And of the descriptor that says that firmware was updated.
const FIRMWARE: u64 = u64::MAX - 12;

/// Why a daemon has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Asked,
    /// The client of a function has met a machine check, and `machine_check = "exit"`.
    MachineCheck,
}

/// Everything that lives as long as the process.
pub struct Daemon {
    device: Device,
    servers: Vec<Server>,
    spdm: Option<SpdmSocket>,
    control: Option<Control>,
    outstanding: Vec<Vec<(DmaId, Duration)>>,
    /// Functions whose DMA was ended by requests whose answers are held back.
    drained: Vec<usize>,
    /// When those go out at the latest.
    drained_by: Option<Duration>,
    /// When the device is to be told the time of day again.
    time_due: Option<Duration>,
    /// When the device has to be told that time passes, as it said after the last turn.
    tick_due: Option<Duration>,
    epoll: Arc<OwnedFd>,
    /// Watched by `epoll` for as long as it is open.
    _stop: OwnedFd,
    firmware: Option<OwnedFd>,
    clock: Clock,
}

impl Daemon {
    /// Serves `device`, function n on `listeners[n]` and data objects on `spdm`, until `stop` is readable.
    ///
    /// # Errors
    /// The host has no epoll instance to give.
    pub fn new(
        device: Device,
        listeners: Vec<Listener>,
        spdm: Option<SpdmSocket>,
        stop: OwnedFd,
    ) -> io::Result<Self> {
        let epoll = Arc::new(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?);
        for (fd, data) in
            [(stop.as_fd(), STOP)].into_iter().chain(spdm.iter().map(|spdm| (spdm.as_fd(), SPDM)))
        {
            let event = Event::new(Events::EPOLLIN, data);
            epoll::ctl(epoll.as_raw_fd(), ControlOptions::EPOLL_CTL_ADD, fd.as_raw_fd(), event)?;
        }
        let servers = (0..)
            .zip(listeners)
            .map(|(number, listener)| Server::new(listener, Watcher::new(Arc::clone(&epoll), number)))
            .collect::<Result<Vec<_>, _>>()?;
        let outstanding = servers.iter().map(|_| Vec::new()).collect();
        Ok(Self {
            device,
            servers,
            spdm,
            control: None,
            outstanding,
            drained: Vec::new(),
            drained_by: None,
            time_due: None,
            tick_due: None,
            epoll,
            _stop: stop,
            firmware: None,
            clock: Clock::start(),
        })
    }

    /// Serves a control socket, too: `listener`'s clients.
    ///
    /// # Errors
    /// The host has no epoll instance to give.
    pub fn control(&mut self, listener: Listener) -> io::Result<()> {
        let control = Control::new(listener, &mut self.device)?;
        let event = Event::new(Events::EPOLLIN, CONTROL);
        epoll::ctl(
            self.epoll.as_raw_fd(),
            ControlOptions::EPOLL_CTL_ADD,
            control.as_fd().as_raw_fd(),
            event,
        )?;
        self.control = Some(control);
        Ok(())
    }

    /// Looks for a firmware update whenever there are bytes to read from `firmware`.
    ///
    /// # Errors
    /// Epoll cannot watch it.
    pub fn follow_firmware(&mut self, firmware: OwnedFd) -> io::Result<()> {
        let event = Event::new(Events::EPOLLIN, FIRMWARE);
        epoll::ctl(self.epoll.as_raw_fd(), ControlOptions::EPOLL_CTL_ADD, firmware.as_raw_fd(), event)?;
        self.firmware = Some(firmware);
        Ok(())
    }

    /// Serves until it is told to stop, or has another reason to.
    ///
    /// # Errors
    /// Epoll itself failed.
    pub fn run(&mut self) -> io::Result<End> {
        let mut more = false;
        loop {
            let mut events = [Event::new(Events::empty(), 0); 16];
            let timeout = self.timeout();
            let timeout = if more { 0 } else { timeout };
            let ready = match epoll::wait(self.epoll.as_raw_fd(), timeout, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // Asked for once: this is on the way of every trapped access.
            let now = self.clock.now();
            self.set_time(now);
            for event in events.iter().take(ready) {
                match Token::from_event(event.events, event.data) {
                    Some(token) => self.serve(token),
                    None if event.data == CONTROL => {
                        if let Some(control) = &mut self.control {
                            control.on_ready(self.clock.now(), &mut self.device);
                        }
                    }
                    None if event.data == FIRMWARE => self.update_firmware(),
                    None if event.data == SPDM => {
                        if self.serve_spdm() == Wish::Shutdown && self.servers.is_empty() {
                            return Ok(End::Asked);
                        }
                    }
                    None => return Ok(End::Asked),
                }
            }
            more = self.turn(now);
            if self.machine_check() == Some(MachineCheck::Exit) {
                return Ok(End::MachineCheck);
            }
        }
    }

    /// Does what is to be done about a machine check, but for ending; returns what that is.
    fn machine_check(&mut self) -> Option<MachineCheck> {
        let (function, what) = self.device.take_machine_check()?;
        if what == MachineCheck::Sigbus
            && let Some(server) = self.servers.get(function)
            && let Err(errno) = server.signal_client(Signal::BUS)
        {
            log::error!("function {function}: its client gets no SIGBUS: {errno}");
        }
        Some(what)
    }

    /// Measured files may have changed; several signals are one look.
    #[cold]
    fn update_firmware(&mut self) {
        if let Some(firmware) = &self.firmware {
            let _ = rustix::io::read(firmware, &mut [0; 64]);
        }
        match self.device.update_firmware() {
            Ok(FirmwareUpdate::Unchanged) => log::info!("no measured file has changed"),
            Ok(FirmwareUpdate::Done(_) | FirmwareUpdate::Forbidden(_)) => {}
            Err(error) => log::error!("firmware not updated: {error}"),
        }
        self.abandon();
    }

    /// Messages of the client of `function`, or its coming and going.
    fn serve(&mut self, token: Token) {
        let function = token.server as usize;
        if let Some(server) = self.servers.get_mut(function) {
            server.on_ready(token, &mut Port { device: &mut self.device, function });
        }
        self.abandon();
    }

    /// One frame of the SPDM socket.
    #[cold]
    fn serve_spdm(&mut self) -> Wish {
        let now = self.clock.now();
        let wish = self.with_spdm(|spdm, device| spdm.on_ready(&mut Objects { device, now }));
        let ended = self.abandon();
        self.drained.extend(ended);
        wish.unwrap_or(Wish::GoOn)
    }

    /// Has the SPDM socket do something, and tells who came and left by it.
    fn with_spdm<R>(&mut self, act: impl FnOnce(&mut SpdmSocket, &mut Device) -> R) -> Option<R> {
        let spdm = self.spdm.as_mut()?;
        let before = spdm.peer();
        let result = act(spdm, &mut self.device);
        let after = spdm.peer();
        if before != after {
            if let Some(address) = before {
                self.device.tell(Happening::ClientDisconnected { peer: Peer::Spdm { address } });
            }
            if let Some(address) = after {
                self.device.tell(Happening::ClientConnected { peer: Peer::Spdm { address } });
            }
        }
        Some(result)
    }

    /// Takes DMA back from the clients of functions that were stopped, before anyone hears that they were. Returns those
    /// functions.
    fn abandon(&mut self) -> Vec<usize> {
        let mut ended = Vec::new();
        while let Some((function, order)) = self.device.take_dma_order() {
            let (Some(server), Some(outstanding)) =
                (self.servers.get_mut(function), self.outstanding.get_mut(function))
            else {
                continue;
            };
            match order {
                DmaOrder::Abandon => {
                    server.abandon_dma();
                    outstanding.clear();
                }
                DmaOrder::Drain => server.drain_dma(),
            }
            ended.push(function);
        }
        ended
    }

    /// Lets an answer be read once no DMA is left that its request was to end, or after [`DRAIN_PATIENCE`].
    fn deliver(&mut self) {
        let held = self.device.holds_answer() || self.spdm.as_ref().is_some_and(SpdmSocket::holds_answer);
        // Who broke off meanwhile waits for nothing, and has no request outstanding.
        if held && self.draining() {
            return;
        }
        self.drained.clear();
        if self.drained_by.take().is_some() || held {
            self.device.deliver();
            self.with_spdm(|spdm, _| spdm.release());
        }
    }

    /// Whether DMA is left that an answer waits for.
    #[cold]
    fn draining(&mut self) -> bool {
        let now = self.clock.now();
        let late = *self.drained_by.get_or_insert(now + DRAIN_PATIENCE) <= now;
        let mut draining = false;
        for (function, server) in self.servers.iter_mut().enumerate() {
            if !self.drained.contains(&function) || !server.draining_dma() {
                continue;
            }
            if late {
                log::warn!("function {function}: the client did not answer DMA that had to be drained");
                server.stop_draining_dma();
            } else {
                draining = true;
                self.device.hold(function);
            }
        }
        draining
    }

    /// Tells the device the time of day, if that may have changed since it was told last.
    fn set_time(&mut self, now: Duration) {
        if self.time_due.is_none_or(|due| due <= now) {
            self.device.set_time(time_of_day());
            self.time_due = Some(now + TIME_OF_DAY);
        }
    }

    /// What has to happen between messages. True: there is more to do at once.
    fn turn(&mut self, now: Duration) -> bool {
        self.device.run(now);
        let ended = self.abandon();
        self.drained.extend(ended);
        self.deliver();
        if self.tick_due.is_some_and(|due| due <= now) {
            self.device.tick(now);
            self.abandon();
        }
        let mut more = false;
        for function in 0..self.servers.len() {
            more |= self.work(function, now);
            let Some(server) = self.servers.get_mut(function) else { continue };
            if server.next_deadline().is_some() {
                server.resume(Instant::now());
            }
            if server.is_waiting() {
                server.go_on(&mut Port { device: &mut self.device, function });
                self.abandon();
                more = true;
            }
        }
        if let Some(control) = &mut self.control {
            control.follow(now, &mut self.device);
        }
        more
    }

    fn work(&mut self, function: usize, now: Duration) -> bool {
        let (Some(server), Some(outstanding)) =
            (self.servers.get_mut(function), self.outstanding.get_mut(function))
        else {
            return false;
        };
        let mut more = self.device.do_memory_work(function, || server.memory());
        for turn in 0..WORK_PER_TURN {
            let Some(work) = self.device.poll_work(function) else { break };
            more |= turn + 1 == WORK_PER_TURN;
            match work {
                Work::DmaRead { id, address, length, .. } => {
                    outstanding.push((id, now + DMA_PATIENCE));
                    server.dma_read(id.0, address, length);
                }
                Work::DmaWrite { id, address, data, .. } => {
                    outstanding.push((id, now + DMA_PATIENCE));
                    server.dma_write(id.0, address, data);
                }
                Work::Interrupt { vector } => server.irqs().trigger(IrqKind::Msix, vector),
                Work::IntxLevel(_) => {}
            }
            Self::finish(&mut self.device, server, outstanding, function);
        }
        Self::finish(&mut self.device, server, outstanding, function);
        while let Some(place) = outstanding.iter().position(|(_, deadline)| *deadline <= now) {
            let (id, _) = outstanding.swap_remove(place);
            log::warn!("function {function}: the client did not answer a DMA request");
            server.cancel_dma(id.0);
            self.device.dma_done(function, id, Err(DmaError::Fault));
            more = true;
        }
        server.irqs().set_intx_level(self.device.intx_asserted(function));
        more
    }

    /// Hands finished DMA to the function.
    fn finish(
        device: &mut Device,
        server: &mut Server,
        outstanding: &mut Vec<(DmaId, Duration)>,
        function: usize,
    ) {
        while let Some(done) = server.poll_dma() {
            let id = DmaId(done.id);
            outstanding.retain(|(waiting, _)| *waiting != id);
            match &done.result {
                Ok(data) => device.dma_done(function, id, Ok(data)),
                Err(error) => {
                    log::debug!("function {function}: DMA failed: {error}");
                    device.dma_done(function, id, Err(DmaError::Fault));
                }
            }
        }
    }

    /// Milliseconds until something is due, −1 for nothing; asks everybody once more when that is.
    fn timeout(&mut self) -> i32 {
        self.tick_due = self.device.next_deadline();
        let control = self.control.as_ref().and_then(Control::next_deadline);
        let dma = self.outstanding.iter().flatten().map(|(_, deadline)| *deadline);
        let due = self.tick_due.into_iter().chain(control).chain(dma).chain(self.drained_by).min();
        let due = due.map(|due| due.saturating_sub(self.clock.now()));
        let listeners = self.servers.iter().filter_map(Server::next_deadline).min();
        let listeners = listeners.map(|due| due.saturating_duration_since(Instant::now()));
        match due.into_iter().chain(listeners).min() {
            Some(left) => i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX),
            None => -1,
        }
    }
}

/// The device, as the SPDM socket sees it.
struct Objects<'a> {
    device: &'a mut Device,
    now: Duration,
}

impl Behind for Objects<'_> {
    fn object(&mut self, object: &[u8], response: &mut Vec<u8>) -> bool {
        self.device.exchange(self.now, object, response)
    }

    fn tdisp(&mut self, message: &[u8], response: &mut Vec<u8>) -> bool {
        self.device.observe(message, response)
    }

    fn renew_key(&mut self, session: Option<u32>) {
        self.device.renew_key(session);
    }

    fn ask_endpoint_info(&mut self) {
        self.device.ask_endpoint_info();
    }
}

/// One function of the device, as its socket sees it.
struct Port<'a> {
    device: &'a mut Device,
    function: usize,
}

impl Port<'_> {
    fn peer(&self) -> Peer {
        Peer::VfioUser { function: self.function, process: self.device.client(self.function).cloned() }
    }
}

impl vfio_user::Device for Port<'_> {
    fn regions(&self) -> &[Region] {
        self.device.regions(self.function)
    }

    fn irq_count(&self, kind: IrqKind) -> u32 {
        let vectors = self.device.vectors(self.function);
        match kind {
            IrqKind::Intx => u32::from(vectors == 0),
            IrqKind::Msix => vectors.into(),
            // One each, so that a client that asks for them is content; neither is ever raised.
            IrqKind::Err | IrqKind::Req => 1,
            IrqKind::Msi => 0,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        match (region as usize, u16::try_from(offset)) {
            (CONFIG_REGION, Ok(offset)) => self.device.config_read(self.function, offset, data),
            _ => self.device.bar_read(self.function, region, offset, data),
        }
        log::trace!("function {}: read region {region} + {offset:#x}, {} bytes", self.function, data.len());
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        log::trace!("function {}: write region {region} + {offset:#x}, {} bytes", self.function, data.len());
        match (region as usize, u16::try_from(offset)) {
            (CONFIG_REGION, Ok(offset)) => self.device.config_write(self.function, offset, data),
            _ => self.device.bar_write(self.function, region, offset, data),
        }
        Ok(())
    }

    fn mapping(&mut self, region: u32) -> Option<Mmap> {
        self.device.mapping(self.function, region)
    }

    fn exports(&self) -> bool {
        true
    }

    fn export(&mut self, region: u32, ranges: &[(u64, u64)], access: FileAccess) -> Result<OwnedFd, Errno> {
        let region = BarRegion::from_index(region).ok_or(Errno::INVAL)?;
        let exported = self.device.export(self.function, region, ranges, access);
        exported.map(|exported| exported.fd).map_err(|error| error.errno())
    }

    fn reset(&mut self) {
        self.device.reset(self.function);
    }

    fn client_is(&mut self, process: Option<Process>) {
        self.device.client_is(self.function, process);
    }

    fn client_connected(&mut self) {
        let peer = self.peer();
        self.device.tell(Happening::ClientConnected { peer });
    }

    fn client_disconnected(&mut self) {
        let peer = self.peer();
        self.device.tell(Happening::ClientDisconnected { peer });
        self.device.reset(self.function);
        self.device.change_host(self.function);
    }
}
