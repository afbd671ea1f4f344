//! Finds the programs that are measured, and the one that measures.
//!
//! Called once at the start. pgladder is the release build that lies beside this benchmark's own, unless another is named;
//! PgBouncer and Pgpool-II are left out where they are not installed, and said so in the report. It installs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use pgladder::demo::binaries::Binaries;

use super::options::Plan;
use super::reading;

/// Where distributions put daemons, besides the path.
const DAEMON_DIRECTORIES: [&str; 4] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/opt/homebrew/bin",
];

/// Something that the benchmark cannot do without is missing.
#[derive(Debug, thiserror::Error)]
#[error("NOT RUN: {0}")]
pub struct NotRun(String);

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its place.
    pub path: PathBuf,
    /// As it says it.
    pub version: String,
    /// The first two numbers of the version.
    pub numbers: (u32, u32),
}

/// All programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The load generator.
    pub pgbench: Program,
    /// The release build.
    pub pgladder: Program,
    /// PgBouncer, where installed.
    pub pgbouncer: Option<Program>,
    /// Pgpool-II, where installed.
    pub pgpool: Option<Program>,
}

impl Programs {
    /// Finds them.
    pub fn find(plan: &Plan) -> anyhow::Result<Self> {
        let servers = Binaries::find().map_err(|error| NotRun(error.to_string()))?;
        let pgbench = servers.program("pgbench");
        if !pgbench.is_file() {
            let missing = pgbench.display();
            let text = format!("{missing} is missing; it comes with PostgreSQL's contributed programs");
            return Err(NotRun(text).into());
        }
        let pgladder = plan.pgladder.clone().unwrap_or_else(release_build);
        if !pgladder.is_file() {
            let missing = pgladder.display();
            let text = format!("{missing} is missing; `make bench` builds it by `cargo build --release`");
            return Err(NotRun(text).into());
        }
        Ok(Self {
            pgbench: program(&pgbench)?,
            pgladder: program(&pgladder)?,
            pgbouncer: installed(plan.pgbouncer.as_deref(), "pgbouncer")?,
            pgpool: installed(plan.pgpool.as_deref(), "pgpool")?,
        })
    }
}

/// Beside the directory of this very build, whose profile need not be `release`: cargo builds a benchmark together with what tests
/// need of the dependencies, and the proxy that users run is built without.
fn release_build() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_pgladder"));
    let target = beside.parent().and_then(Path::parent).unwrap_or(beside);
    target.join("release/pgladder")
}

fn installed(named: Option<&Path>, name: &str) -> anyhow::Result<Option<Program>> {
    if let Some(path) = named {
        return program(path).map(Some);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DAEMON_DIRECTORIES.map(PathBuf::from));
    let mut places = directories.map(|directory| directory.join(name));
    places
        .find(|place| place.is_file())
        .map(|place| program(&place))
        .transpose()
}

fn program(path: &Path) -> anyhow::Result<Program> {
    let output = Command::new(path).arg("--version").output();
    let output = output.with_context(|| path.display().to_string())?;
    // Pgpool-II says its version on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let (version, numbers) =
        reading::version(&text).with_context(|| format!("{}: no version in {text:?}", path.display()))?;
    Ok(Program {
        path: path.to_owned(),
        version: version.to_owned(),
        numbers,
    })
}
