//! Commands that manage a responder's certificates and keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use spdm::crypto::AsymAlgorithm;
use spdm::wire::CertificateModel;

use super::number;

/// What to ask to be certified.
#[derive(Debug, Clone, Args)]
pub struct CsrArgs {
    /// Where to write the certificate signing request (PKCS#10 in DER)
    pub file: PathBuf,
    /// Key pair to certify, where there are several keys (--multiple-keys)
    #[arg(long, value_name = "ID", default_value = "0", value_parser = number::<u8>)]
    pub key_pair: u8,
    /// Model of the certificate to come, where there are several keys
    #[arg(long, value_enum, default_value_t = Model::Device)]
    pub model: Model,
    /// CertificationRequestInfo in DER whose subject and attributes are wanted
    #[arg(long, value_name = "FILE")]
    pub info: Option<PathBuf>,
    /// Tag that an earlier request was refused with, because the device had to be reset first
    #[arg(long, value_name = "TAG", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..8))]
    pub tag: u8,
    /// Have an earlier request forgotten that still waits for a reset
    #[arg(long, conflicts_with = "tag")]
    pub overwrite: bool,
    /// Where the key is.
    #[command(flatten)]
    pub place: Place,
}

/// Where a slot or a key is, for those that may be of another algorithm than the connection's.
#[derive(Debug, Clone, Copy, Args)]
pub struct Place {
    /// Bank of the slot or key, by SLOT_MANAGEMENT (SPDM 1.4); `identify` shows them (default: the connection's slots)
    #[arg(long, value_name = "ID", value_parser = number::<u8>)]
    pub bank: Option<u8>,
}

/// Certificate slots.
#[derive(Debug, Clone, Subcommand)]
pub enum CertificateCommand {
    /// Fetch and verify the chain of a slot
    Get {
        /// Slot
        #[arg(value_parser = clap::value_parser!(u8).range(0..8))]
        target: u8,
        /// Where to write the certificates, root first (DER, one behind the other)
        file: PathBuf,
        /// Where the slot is.
        #[command(flatten)]
        place: Place,
    },
    /// Write a chain into a slot (SET_CERTIFICATE)
    Set {
        /// Slot
        #[arg(value_parser = clap::value_parser!(u8).range(0..8))]
        target: u8,
        /// Certificates, root or leaf first, as PEM or DER
        chain: PathBuf,
        /// Key pair of the slot, where there are several keys (--multiple-keys)
        #[arg(long, value_name = "ID", default_value = "0", value_parser = number::<u8>)]
        key_pair: u8,
        /// What the certificates say of the device, where there are several keys
        #[arg(long, value_enum, default_value_t = Model::Device)]
        model: Model,
        /// Where the slot is.
        #[command(flatten)]
        place: Place,
    },
    /// Erase a slot (SPDM 1.3 and later)
    Erase {
        /// Slot
        #[arg(value_parser = clap::value_parser!(u8).range(0..8))]
        target: u8,
        /// Key pair of the slot, where there are several keys (--multiple-keys)
        #[arg(long, value_name = "ID", default_value = "0", value_parser = number::<u8>)]
        key_pair: u8,
        /// Where the slot is.
        #[command(flatten)]
        place: Place,
    },
}

/// Banks of certificate slots.
#[derive(Debug, Clone, Subcommand)]
pub enum BankCommand {
    /// Give a Bank that holds no certificates another algorithm, where the device can do that (SPDM 1.4)
    Configure {
        /// Bank
        #[arg(value_parser = number::<u8>)]
        id: u8,
        /// Algorithm, such as ecdsa-p384
        algorithm: AsymAlgorithm,
    },
}

/// Key pairs, by their ids from 1 on.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyPairCommand {
    /// Change which slots have the key, and what it is used for
    Change {
        /// Key pair
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        id: u8,
        /// What it is to be.
        #[command(flatten)]
        wanted: KeyPairArgs,
    },
    /// Generate a new key; no slot may have the old one
    Generate {
        /// Key pair
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        id: u8,
        /// Algorithm of the key, such as ecdsa-p384 (default: the responder's choice)
        #[arg(long, value_name = "NAME")]
        algorithm: Option<AsymAlgorithm>,
        /// What it is to be.
        #[command(flatten)]
        wanted: KeyPairArgs,
    },
    /// Erase the key; no slot may have it
    Erase {
        /// Key pair
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        id: u8,
    },
}

/// What a key pair is to be.
#[derive(Debug, Clone, Args)]
pub struct KeyPairArgs {
    /// Slots that are to have the key, and no others; e.g. 0,3 (default: none)
    #[arg(long, value_name = "SLOTS", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..8))]
    pub slots: Vec<u8>,
    /// Uses: bit 0 sessions, 1 challenge, 2 measurements, 3 endpoint information (default: as they are)
    #[arg(long, value_name = "BITS", default_value = "0", value_parser = number::<u16>)]
    pub usage: u16,
}

/// Certificate models that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// The device's own.
    Device,
    /// Says nothing of the device.
    Generic,
}

impl From<Model> for CertificateModel {
    fn from(model: Model) -> Self {
        match model {
            Model::Device => Self::Device,
            Model::Generic => Self::Generic,
        }
    }
}
