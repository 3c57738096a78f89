//! The socket file of one function: bound, and removed at the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, fchmod, lstat, unlink};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use thiserror::Error;

use super::device::Errno;

/// Why nobody can listen there.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{0}: another process is serving this socket")]
    InUse(PathBuf),
    /// The path exists and is no socket.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// Anything else, such as a missing directory or a path too long for a socket (107 bytes).
    #[error("{path}: {source}")]
    Io {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Where clients of one function connect.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// Device and inode of the socket file, to remove no other.
    file: Option<(u64, u64)>,
    socket: OwnedFd,
}

impl Listener {
    /// Listens at `path`, mode 0600. A socket file nobody listens at is replaced.
    ///
    /// # Errors
    /// [`BindError`]; a socket that is being served is left alone.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source: Errno| BindError::Io { path: path.to_owned(), source: source.into() };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let socket = new_socket().map_err(fail)?;
        // Before binding, so that the file never has another mode; the process's umask stays out of it.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&socket, &address).map_err(fail)?;
            }
            bound => bound.map_err(fail)?,
        }
        let file = lstat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let listener = Self { path: path.to_owned(), file, socket };
        listen(&listener.socket, 8).map_err(fail)?;
        Ok(listener)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client.
    ///
    /// # Errors
    /// EAGAIN if there is none, else what the kernel says.
    pub(crate) fn accept(&self) -> Result<OwnedFd, Errno> {
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                done => return done,
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.file.is_some() && lstat(&self.path).ok().map(|stat| (stat.st_dev, stat.st_ino)) == self.file {
            let _ = unlink(&self.path);
        }
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes a socket file whose server is gone.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let fail = |source: Errno| BindError::Io { path: path.to_owned(), source: source.into() };
    let stat = lstat(path).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match connect(new_socket().map_err(fail)?, address) {
        Err(Errno::CONNREFUSED) => unlink(path).map_err(fail),
        // EAGAIN is a full queue: somebody listens.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(other) => Err(fail(other)),
    }
}
