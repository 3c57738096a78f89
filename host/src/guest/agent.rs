//! The agent's way: have the function locked, judge what the TSM and the device say of it, start it. What does not hold ends it there,
//! and gives the function back.

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use spdm::crypto::{DefaultProvider, Provider};
use spdm::identity::{Policy as ChainPolicy, VerifiedCertificates, verify_certificates};
use spdm::requester::{Evidence, Measurement, RootPin};
use spdm::wire::Nonce;
use tdisp::wire::{InterfaceReport, TdiState};

use super::judge::judge;
use super::policy::Policy;
use super::port::{Op, Port};
use super::sealed::{self, Ask, Judged, Key};
use super::view::View;
use crate::error::{Error, Result};
use crate::output::record::{Layer, Record};
use crate::output::{Item, Output, hex, printable};
use crate::walk::clock_time;

/// A guest's end of everything.
pub(super) struct Agent<'a, F> {
    port: Port<F>,
    key: Key,
    provider: DefaultProvider,
    output: &'a mut Output,
}

impl<'a, F: AsFd + Read + Write> Agent<'a, F> {
    pub(super) fn new(port: Port<F>, key: Key, output: &'a mut Output) -> Self {
        Self { port, key, provider: DefaultProvider::new(), output }
    }

    /// From LOCK to RUN.
    ///
    /// # Errors
    /// The first thing that does not hold; the function is not started then, and has been given back, as far as the host does that.
    pub(super) fn accept(&mut self, view: &View, policy: &Policy, roots: &[RootPin]) -> Result<()> {
        let seen = format!("{}, {} memory BARs", view.name, view.bars.len());
        self.step(Layer::Pci, "the function", "as configuration space has it", |_| Ok(((), seen)))?;
        self.step(Layer::Tdisp, "LOCK_INTERFACE", "by the host", |agent| {
            agent.port.exchange(Op::Lock, &[]).map(|_| ((), "it says so".into()))
        })?;
        let result = self.judge_and_start(view, policy, roots);
        if result.is_err() {
            self.release_quietly();
        }
        result
    }

    fn judge_and_start(&mut self, view: &View, policy: &Policy, roots: &[RootPin]) -> Result<()> {
        self.expect_state(TdiState::CONFIG_LOCKED)?;
        let (certificates, chain) = self.certificates(view, roots)?;
        let (evidence, measurements) = self.measurements(&chain)?;
        self.compare(&measurements, policy)?;
        let report = self.report(view, policy)?;
        let judged = Judged::new(&certificates, &evidence, &report);
        self.step(Layer::Tdisp, "START_INTERFACE", "of what was judged", |agent| {
            agent.ask(&Ask::Start(judged)).map(|_| ((), "started".into()))
        })?;
        self.expect_state(TdiState::RUN)
    }

    /// The TDI's state has to be this one.
    pub(super) fn expect_state(&mut self, expected: TdiState) -> Result<()> {
        self.step(Layer::Tdisp, "GET_DEVICE_INTERFACE_STATE", &expected.to_string(), |agent| {
            let state = match agent.ask(&Ask::State)?.0.as_slice() {
                [code] => TdiState(*code),
                other => return Err(Error::Protocol(format!("a state of {} bytes", other.len()))),
            };
            if state == expected { Ok(((), state.to_string())) } else { Err(Error::Check(state.to_string())) }
        })
    }

    /// Gives the function back.
    pub(super) fn release(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "STOP_INTERFACE", "by the host", |agent| {
            agent.port.exchange(Op::Unlock, &[]).map(|_| ((), "it says so".into()))
        })
    }

    /// The host may refuse that, too: nothing is lost by it, for nothing was started.
    fn release_quietly(&mut self) {
        if let Err(e) = self.port.exchange(Op::Unlock, &[]) {
            log::warn!("giving the function back: {e}");
        }
    }

    fn certificates(&mut self, view: &View, roots: &[RootPin]) -> Result<(Vec<u8>, VerifiedCertificates)> {
        let expected = "a chain up to a root of the policy";
        let (der, chain) = self.step(Layer::Spdm, "certificates", expected, |agent| {
            let der = agent.ask(&Ask::Certificates)?.0;
            let chain = agent.trusted(&der, roots)?;
            let seen = format!("{} certificates", chain.certificates.len());
            Ok(((der, chain), seen))
        })?;
        let (expected, name) = (view.name.to_string(), chain.pci_name.clone());
        self.step(Layer::Spdm, "subject alternative name", &expected.clone(), |_| match name {
            Some(name) if of_function(&name, &expected, view.name.serial.is_some()) => {
                Ok(((), "names this function".into()))
            }
            Some(name) => Err(Error::Check(format!("the certificate is {}'s", printable(&name)))),
            None => Ok(((), "the leaf names no PCIe function".into())),
        })?;
        Ok((der, chain))
    }

    fn trusted(&self, der: &[u8], roots: &[RootPin]) -> Result<VerifiedCertificates> {
        let mut reason = None;
        // A root that the policy has as a certificate may be missing from the chain.
        let given = roots.iter().filter_map(|root| match root {
            RootPin::Certificate(der) => Some(der.as_slice()),
            RootPin::Digest(_) => None,
        });
        for root in given.map(Some).chain([None]) {
            let policy = ChainPolicy { time: clock_time(), root, ..ChainPolicy::default() };
            match verify_certificates(der, &policy) {
                Ok(chain) if self.is_trusted(&chain.root, roots)? => return Ok(chain),
                Ok(_) => reason = Some("its root is none of the policy's".to_owned()),
                Err(error) => reason = reason.or(Some(error.to_string())),
            }
        }
        Err(Error::Verification(reason.unwrap_or_default()))
    }

    fn is_trusted(&self, root: &[u8], roots: &[RootPin]) -> Result<bool> {
        for pin in roots {
            let same = pin.matches(&self.provider, root);
            if same.map_err(|e| Error::Verification(format!("the root's digest: {e}")))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn measurements(&mut self, chain: &VerifiedCertificates) -> Result<(Vec<u8>, Vec<Measurement>)> {
        self.step(Layer::Spdm, "MEASUREMENTS", "signed by the leaf's key, for this nonce", |agent| {
            let (bytes, nonce) = agent.ask(&Ask::Measurements)?;
            let evidence = Evidence::decode(&bytes)
                .map_err(|e| Error::Protocol(format!("evidence from the TSM: {e}")))?;
            if !chain.algorithm.serves(evidence.signature) {
                return Err(Error::Verification(
                    "the leaf's key is not of the algorithm it signed with".into(),
                ));
            }
            let measurements = evidence
                .verify(&agent.provider, &chain.public_key, &nonce)
                .map_err(|e| Error::Verification(e.to_string()))?;
            let seen = format!("{}, signature verified", measurements.len());
            Ok(((bytes, measurements), seen))
        })
    }

    fn compare(&mut self, measurements: &[Measurement], policy: &Policy) -> Result<()> {
        for wanted in &policy.measurements {
            let what = format!("measurement {}", wanted.index);
            self.step(Layer::Spdm, &what, "one of the policy's", |_| {
                let found = measurements.iter().find(|found| found.index == wanted.index);
                match found {
                    Some(found) if wanted.values.iter().any(|value| value.0 == found.value) => {
                        Ok(((), "it is".into()))
                    }
                    Some(found) => {
                        Err(Error::Check(format!("{what} is {}, not the policy's", hex(&found.value))))
                    }
                    None => Err(Error::Check(format!("the device has no {what}"))),
                }
            })?;
        }
        Ok(())
    }

    fn report(&mut self, view: &View, policy: &Policy) -> Result<Vec<u8>> {
        let (bytes, report) = self.step(Layer::Tdisp, "interface report", "a report", |agent| {
            let bytes = agent.ask(&Ask::Report)?.0;
            let report = InterfaceReport::decode(&bytes)
                .map_err(|e| Error::Protocol(format!("interface report: {e}")))?;
            let seen = format!("{} ranges, {} bytes", report.ranges.len(), bytes.len());
            Ok(((bytes, report), seen))
        })?;
        for finding in judge(&report, view, policy) {
            self.step(Layer::Tdisp, finding.what, &finding.expected, |_| match finding.seen {
                Ok(seen) => Ok(((), seen)),
                Err(why) => Err(Error::Check(format!("{}: {why}", finding.what))),
            })?;
        }
        Ok(bytes)
    }

    /// Asks the TSM. The nonce is new for each question.
    fn ask(&mut self, ask: &Ask) -> Result<(Vec<u8>, Nonce)> {
        let mut nonce: Nonce = [0; 32];
        self.provider.random(&mut nonce).map_err(|e| Error::Verification(format!("a nonce: {e}")))?;
        let (request, tag) = sealed::request(&self.key, ask, &nonce);
        let op = if matches!(ask, Ask::Start(_)) { Op::Change } else { Op::Ask };
        let answer = self.port.exchange(op, &request)?;
        match sealed::open_answer(&self.key, &tag, &answer) {
            Ok(Ok(payload)) => Ok((payload, nonce)),
            Ok(Err(reason)) => Err(Error::Refused {
                request: name(ask).into(),
                reason: format!("the TSM: {}", printable(&reason)),
            }),
            Err(why) => Err(Error::Verification(format!(
                "{}: not the TSM's answer to this question ({why})",
                name(ask)
            ))),
        }
    }

    /// Does one thing and tells it.
    fn step<T>(
        &mut self,
        layer: Layer,
        step: &str,
        expected: &str,
        act: impl FnOnce(&mut Self) -> Result<(T, String)>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = act(self);
        let (seen, ok) = match &result {
            Ok((_, seen)) => (seen.clone(), true),
            Err(error) => (error.to_string(), false),
        };
        let (step, expected) = (step.into(), expected.into());
        let record = Record { layer, step, expected, seen, ok: Some(ok), took: start.elapsed() };
        self.output.tell(&Item::Step(&record));
        result.map(|(value, _)| value)
    }
}

/// A certificate's name has the serial number, which a host may hide from the guest.
fn of_function(name: &str, expected: &str, with_serial: bool) -> bool {
    let rest = name.strip_prefix(expected);
    rest.is_some_and(|rest| rest.is_empty() || !with_serial && rest.starts_with(':'))
}

const fn name(ask: &Ask) -> &'static str {
    match ask {
        Ask::State => "GET_DEVICE_INTERFACE_STATE",
        Ask::Report => "GET_DEVICE_INTERFACE_REPORT",
        Ask::Start(_) => "START_INTERFACE",
        Ask::Certificates => "certificates",
        Ask::Measurements => "MEASUREMENTS",
    }
}
