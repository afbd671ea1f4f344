//! Why a throw-away cluster could not do what was asked.
//!
//! Returned by everything public in `demo::cluster`. A variant is a thing that the person at the terminal does something
//! different about; the text carries the end of the server's log where that is what explains it.

use std::path::PathBuf;

use crate::demo::binaries::MissingBinaries;

/// A failure of the throw-away cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// PostgreSQL is not installed.
    #[error(transparent)]
    Missing(#[from] MissingBinaries),
    /// PostgreSQL refuses to run as root, and there is no other account to run it as.
    #[error("PostgreSQL does not run as root, and there is neither a `postgres` nor a `nobody` account")]
    NoAccount,
    /// No temporary directory can be reached by the account that runs PostgreSQL.
    #[error("no temporary directory can be reached by the account that runs PostgreSQL; tried {tried:?}")]
    NoDirectory {
        /// The directories, in the order of the search.
        tried: Vec<PathBuf>,
    },
    /// A file or directory operation failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A program such as `initdb` could not be run, or failed.
    #[error("{program} failed: {output}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// The end of its output.
        output: String,
    },
    /// A server ended while it started, or did not accept connections in time.
    #[error("{node} did not start; the end of its log:\n{log}")]
    NotStarted {
        /// The node's name.
        node: String,
        /// The end of its log.
        log: String,
    },
    /// Another process listens on the port.
    #[error("port {port} is taken")]
    PortTaken {
        /// The port on 127.0.0.1.
        port: u16,
    },
    /// A query of the harness failed.
    #[error("{node}: {source}")]
    Query {
        /// The node's name.
        node: String,
        /// The error of the server or of the connection.
        source: tokio_postgres::Error,
    },
    /// A node did not do in time what it was told to.
    #[error("{node} was not {awaited} in time")]
    TimedOut {
        /// The node's name.
        node: String,
        /// The state that was waited for.
        awaited: &'static str,
    },
    /// The cluster was ended, but its directory could not be removed.
    #[error("{} could not be removed", path.display())]
    LeftBehind {
        /// The directory.
        path: PathBuf,
    },
}

impl ClusterError {
    /// Names the file that an operation failed on.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
