//! A responder's certificates and keys, managed in a session: GET_CSR, SET_CERTIFICATE, SLOT_MANAGEMENT, SET_KEY_PAIR_INFO.

use std::path::Path;

use spdm::identity::read_chain;
use spdm::requester::{CsrQuery, DriverError, RequesterError, SlotContent};
use spdm::wire::{ErrorCode, KeyPairAlgorithms, KeyPairOperation, KeyPairParameters, KeyUsage, SlotAddress};

use super::link::failed;
use super::trust::read_file;
use super::{Seen, Walk};
use crate::cli::{BankCommand, CertificateCommand, CsrArgs, KeyPairArgs, KeyPairCommand, Place};
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
                let csr = match args.place.bank {
                    None => walk.spdm()?.csr(query),
                    Some(bank) => walk.spdm()?.bank_csr(bank, query),
                };
                let csr = csr.map_err(failed)?;
                write(&args.file, &csr)?;
                Ok(Seen::good((), format!("{} bytes in {}", csr.len(), args.file.display())))
            })
        })
    }

    pub(super) fn certificate_command(&mut self, command: &CertificateCommand) -> Result<()> {
        match command {
            CertificateCommand::Get { target, file, place } => self.get_certificate(*target, *place, file),
            CertificateCommand::Set { target, chain, key_pair, model, place } => {
                let certificates = read_certificates(chain)?;
                let done = format!("slot {target} has {} certificates", certificates.len());
                let content = SlotContent::Chain { certificates, model: (*model).into() };
                self.set_certificate(*target, *place, *key_pair, content, &done)
            }
            CertificateCommand::Erase { target, key_pair, place } => {
                let done = format!("slot {target} is erased");
                self.set_certificate(*target, *place, *key_pair, SlotContent::Nothing, &done)
            }
        }
    }

    fn get_certificate(&mut self, slot: u8, place: Place, file: &Path) -> Result<()> {
        self.managed(|walk| {
            walk.step(Layer::Spdm, "CERTIFICATE", "a chain that holds", |walk| {
                let found = match place.bank {
                    None => walk.spdm()?.certificate(slot),
                    Some(bank) => walk.spdm()?.bank_certificate(SlotAddress { bank, slot }),
                };
                let found = found.map_err(failed)?;
                let certificates = &found.chain.certificates;
                write(file, &certificates.concat())?;
                Ok(Seen::good((), format!("{} certificates in {}", certificates.len(), file.display())))
            })
        })
    }

    fn set_certificate(
        &mut self,
        slot: u8,
        place: Place,
        key_pair: u8,
        content: SlotContent,
        done: &str,
    ) -> Result<()> {
        let name = if place.bank.is_some() { "SLOT_MANAGEMENT" } else { "SET_CERTIFICATE" };
        self.managed(|walk| {
            walk.step(Layer::Spdm, name, "accepted", |walk| {
                let mut spdm = walk.spdm()?;
                let result = match place.bank {
                    None => spdm.set_certificate(slot, key_pair, content),
                    Some(bank) => spdm.write_slot(SlotAddress { bank, slot }, key_pair, content),
                };
                accepted(result, done)
            })
        })
    }

    pub(super) fn bank_command(&mut self, command: &BankCommand) -> Result<()> {
        let BankCommand::Configure { id, algorithm } = command;
        let done = format!("Bank {id} is for {algorithm}");
        let algorithm = KeyPairAlgorithms::of(*algorithm);
        self.managed(|walk| {
            walk.step(Layer::Spdm, "SLOT_MANAGEMENT", "accepted", |walk| {
                accepted(walk.spdm()?.configure_bank(*id, algorithm), &done)
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

/// What became of a change of a slot or Bank.
fn accepted(result: std::result::Result<(), DriverError<Error>>, done: &str) -> Result<Seen<()>> {
    match result {
        Ok(()) => Ok(Seen::good((), done)),
        // DSP0274 1.3 "SET_CERTIFICATE": that is how a device accepts that has to be reset.
        Err(DriverError::Requester(RequesterError::Refused { code: ErrorCode::RESET_REQUIRED, .. })) => {
            Ok(Seen::good((), format!("{done} after the next reset")))
        }
        Err(error) => Err(failed(error)),
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(file, bytes).map_err(Error::io(format!("writing {}", file.display())))
}

fn parameters(wanted: &KeyPairArgs) -> KeyPairParameters {
    let slots = wanted.slots.iter().fold(0, |mask, slot| mask | 1 << slot);
    KeyPairParameters { usage: KeyUsage(wanted.usage), algorithm: KeyPairAlgorithms::default(), slots }
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    read_chain(&read_file(path)?).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
