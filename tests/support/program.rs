//! Runs a program to its end, and fails with what it had said so far when it falls silent.
//!
//! Called by the suites for psql and for the Python scripts. Invariant: both streams are read while it runs, so that none of
//! them fills up. The program is ended when the test is.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

/// No script says nothing for longer, unless something hangs; how long all of it takes is the machine's affair.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that are shown of what it had said.
const SHOWN: usize = 5;

/// Runs a program that is to end well; returns the lines of its standard output.
pub async fn run_program(name: &str, mut command: Command) -> Vec<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the program starts");
    let mut output = child.stdout.take().expect("piped");
    let mut errors = child.stderr.take().expect("piped");
    let (mut out, mut said) = (Vec::new(), Vec::new());
    let (mut tells, mut errs) = (true, true);
    let mut is_silent = false;
    while (tells || errs) && !is_silent {
        let read = async {
            tokio::select! {
                read = output.read_buf(&mut out), if tells => tells = read.expect("its output") > 0,
                read = errors.read_buf(&mut said), if errs => errs = read.expect("its errors") > 0,
            }
        };
        is_silent = timeout(PATIENCE, read).await.is_err();
    }
    let ended = if is_silent {
        None
    } else {
        timeout(PATIENCE, child.wait()).await.ok()
    };
    let (out, said) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&said));
    let lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
    let status = ended.unwrap_or_else(|| panic!("{name} hangs after\n{last}\n{said}"));
    let status = status.expect("it ends");
    assert!(status.success(), "{name}: {status}: {said}\nafter\n{last}");
    lines
}
