//! The session: opening and ending it, and handing it from command to command through a file.

use spdm::requester::ConnectionInfo;
use spdm::wire::{ResponderFlags, SummaryType};

use super::link::failed;
use super::{Seen, Walk};
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::session_file::{Binding, Saved, SessionFile};

/// What belongs to the session beyond SPDM.
pub(super) type Bound = Binding;

impl Walk {
    /// Runs a command inside the session: of the session file, or of this process in a shell. `may_open` commands open one
    /// if there is none. Afterwards the session goes back to the file, or the file goes with the session.
    pub(super) fn in_session(
        &mut self,
        may_open: bool,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let Some(path) = self.options.session.clone() else {
            if !self.interactive {
                return Err(Error::Usage(
                    "this needs --session FILE: the end of a session is the end of the interface's binding, so commands \
                     share one through a file"
                        .into(),
                ));
            }
            if !may_open && self.bound.is_none() {
                return Err(Error::Usage("there is no session; begin with lock".into()));
            }
            return act(self);
        };
        let file = SessionFile::acquire(&path)?;
        match file.take()? {
            Some(saved) => {
                if let Err(e) = self.take_up(&saved) {
                    // Nothing has been sent: the session is as good as it was.
                    file.put(&saved)?;
                    return Err(e);
                }
            }
            None if may_open => {}
            None => {
                return Err(Error::Usage(format!(
                    "there is no session in {}; begin with lock",
                    path.display()
                )));
            }
        }
        let result = act(self);
        let stored = self.put_away(&file);
        result.and(stored)
    }

    fn take_up(&mut self, saved: &Saved) -> Result<()> {
        let target = self.transport.describe();
        if saved.target != target {
            return Err(Error::Session(format!("it belongs to {}, not to {target}", saved.target)));
        }
        self.ensure_found()?;
        self.requester.restore(&saved.session).map_err(|e| Error::Session(e.to_string()))?;
        self.bound = Some(saved.binding.clone());
        Ok(())
    }

    fn put_away(&mut self, file: &SessionFile) -> Result<()> {
        match (self.requester.save(), self.bound.take()) {
            (Some(session), Some(binding)) => {
                file.put(&Saved { target: self.transport.describe(), session, binding })
            }
            _ => file.clear(),
        }
    }

    /// KEY_EXCHANGE and FINISH, or PSK_EXCHANGE and PSK_FINISH with a pre-shared key.
    pub(super) fn open_session(&mut self, info: &ConnectionInfo) -> Result<()> {
        let slot = self.options.slot;
        let hint = self.options.credentials.psk_hint.clone().unwrap_or_default().0;
        let shares = self.options.credentials.psk_file.is_some();
        let (step, expected) = if shares {
            ("PSK_EXCHANGE, PSK_FINISH", "HMACs that verify")
        } else {
            ("KEY_EXCHANGE, FINISH", "signature and HMACs that verify")
        };
        let measured = info.capabilities.any(ResponderFlags::MEAS_SIG | ResponderFlags::MEAS_NO_SIG);
        let summary = if measured { SummaryType::All } else { SummaryType::None };
        self.step(Layer::Spdm, step, expected, |walk| {
            let mut spdm = walk.spdm()?;
            let started = if shares {
                spdm.start_psk_session(&hint, summary, false)
            } else {
                spdm.start_session(slot, summary, false)
            };
            let session = started.map_err(failed)?;
            let mut text =
                format!("session {:#010x}, secured messages {}", session.id, session.secured_version);
            if session.heartbeat_period != 0 {
                text.push_str(&format!(", heartbeat {} s", session.heartbeat_period));
            }
            if session.authenticated_as.is_some() {
                text.push_str(", the host has said who it is");
            }
            Ok(Seen::good((), text))
        })
    }

    /// END_SESSION, and the stream that lived by it is disabled.
    pub(super) fn end(&mut self) -> Result<()> {
        let result = self.step(Layer::Spdm, "END_SESSION", "acknowledged", |walk| {
            walk.spdm()?.end_session(false).map_err(failed)?;
            Ok(Seen::good((), "session ended"))
        });
        let bound = self.bound.take();
        result?;
        match bound {
            Some(bound) => self.disable_stream(&bound),
            None => Ok(()),
        }
    }

    /// The binding of the session there is.
    pub(super) fn bound(&self) -> Result<&Bound> {
        self.bound.as_ref().ok_or_else(|| Error::Usage("there is no session; begin with lock".into()))
    }
}
