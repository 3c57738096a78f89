//! A responder's certificates and keys, managed in a session: GET_CSR, SET_CERTIFICATE, SET_KEY_PAIR_INFO.

use std::path::Path;

use spdm::identity::read_chain;
use spdm::requester::{CsrQuery, DriverError, RequesterError, SlotContent};
use spdm::wire::{ErrorCode, KeyPairAlgorithms, KeyPairOperation, KeyPairParameters, KeyUsage};

use super::link::failed;
use super::trust::read_file;
use super::{Seen, Walk};
use crate::cli::{CertificateCommand, CsrArgs, KeyPairArgs, KeyPairCommand};
use crate::error::{Error, Result};
use crate::output::record::Layer;

impl Walk {
    /// Acts in the shell's session, or in one of its own.
    pub(super) fn managed(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.requester.session().is_some() {
            return act(self);
        }
        if self.options.session.is_some() {
            return Err(Error::Usage(
                "this opens and ends a session of its own; it takes no --session".into(),
            ));
        }
        self.discover()?;
        let info = self.connect()?;
        self.authenticate(&info)?;
        self.open_session(&info)?;
        let result = act(self);
        let ended = self.end();
        result.and(ended)
    }

    pub(super) fn csr(&mut self, args: &CsrArgs) -> Result<()> {
        let requester_info = match &args.info {
            Some(path) => read_file(path)?,
            None => Vec::new(),
        };
        let query = CsrQuery {
            key_pair: args.key_pair,
            model: Some(args.model.into()),
            tracking_tag: args.tag,
            overwrite: args.overwrite,
            requester_info,
        };
        self.managed(|walk| {
            walk.step(Layer::Spdm, "CSR", "a certificate signing request", |walk| {
                let csr = walk.spdm()?.csr(query).map_err(failed)?;
                let what = format!("writing {}", args.file.display());
                std::fs::write(&args.file, &csr).map_err(Error::io(what))?;
                Ok(Seen::good((), format!("{} bytes in {}", csr.len(), args.file.display())))
            })
        })
    }

    pub(super) fn certificate_command(&mut self, command: &CertificateCommand) -> Result<()> {
        let (slot, key_pair, content, done) = match command {
            CertificateCommand::Set { target, chain, key_pair, model } => {
                let certificates = read_certificates(chain)?;
                let done = format!("slot {target} has {} certificates", certificates.len());
                (*target, *key_pair, SlotContent::Chain { certificates, model: (*model).into() }, done)
            }
            CertificateCommand::Erase { target, key_pair } => {
                (*target, *key_pair, SlotContent::Nothing, format!("slot {target} is erased"))
            }
        };
        self.managed(|walk| {
            walk.step(Layer::Spdm, "SET_CERTIFICATE", "accepted", |walk| {
                match walk.spdm()?.set_certificate(slot, key_pair, content) {
                    Ok(()) => Ok(Seen::good((), done)),
                    // DSP0274 1.3 "SET_CERTIFICATE": that is how a device accepts that has to be reset.
                    Err(DriverError::Requester(RequesterError::Refused {
                        code: ErrorCode::RESET_REQUIRED,
                        ..
                    })) => Ok(Seen::good((), format!("{done} after the next reset"))),
                    Err(error) => Err(failed(error)),
                }
            })
        })
    }

    pub(super) fn key_pair_command(&mut self, command: &KeyPairCommand) -> Result<()> {
        let (id, operation, done) = match command {
            KeyPairCommand::Change { id, wanted } => {
                (*id, KeyPairOperation::Change(parameters(wanted)), "changed")
            }
            KeyPairCommand::Generate { id, algorithm, wanted } => {
                let algorithm = algorithm.map(KeyPairAlgorithms::of).unwrap_or_default();
                let wanted = KeyPairParameters { algorithm, ..parameters(wanted) };
                (*id, KeyPairOperation::Generate(wanted), "generated")
            }
            KeyPairCommand::Erase { id } => (*id, KeyPairOperation::Erase, "erased"),
        };
        self.managed(|walk| {
            walk.step(Layer::Spdm, "SET_KEY_PAIR_INFO", "acknowledged", |walk| {
                walk.spdm()?.set_key_pair(id, operation).map_err(failed)?;
                Ok(Seen::good((), format!("key pair {id} {done}")))
            })
        })
    }
}

fn parameters(wanted: &KeyPairArgs) -> KeyPairParameters {
    let slots = wanted.slots.iter().fold(0, |mask, slot| mask | 1 << slot);
    KeyPairParameters { usage: KeyUsage(wanted.usage), algorithm: KeyPairAlgorithms::default(), slots }
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    read_chain(&read_file(path)?).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
