//! Child processes that never outlive this one, however it ends.
//!
//! Destructors do not run on `SIGKILL`, and the usual answers (`prctl` in the child, a signal handler in the parent) need
//! unsafe code or miss cases. Here every program runs under a small shell script that holds one end of a pipe; the kernel
//! closes the other end when we die, whatever the reason, and the script then kills the program.
//!
//! Nothing here is tied to an async runtime, so a process started in one test may be used and stopped in another.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::sync::watch;

const SUPERVISOR: &str = include_str!("supervised.sh");
/// Lines of a log that an error message quotes: enough for a Go stack's first frames, little enough for a terminal.
const QUOTED_LINES: usize = 20;
/// A log is read from its end no further than this.
const QUOTED_BYTES: u64 = 16 * 1024;
const LINE_POLL: Duration = Duration::from_millis(20);

/// What to run, and where its output goes. Reusable: each [`Supervised::spawn`] starts it anew.
///
/// Not `Debug`: arguments and environment may hold keys.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    log: PathBuf,
    stdout: Option<PathBuf>,
    abandoned: Option<PathBuf>,
}

impl Program {
    /// The program at `path`; its standard output and standard error are appended to `log`.
    pub fn new(path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            envs: Vec::new(),
            log: log.into(),
            stdout: None,
            abandoned: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sends standard output to a file of its own instead of the log.
    #[must_use]
    pub fn stdout(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdout = Some(file.into());
        self
    }

    /// Has the supervisor remove `directory` if this process dies without its destructors. It takes a [`TempDir`] rather
    /// than a path so that nothing but a temporary directory can be lost this way.
    #[must_use]
    pub fn remove_if_abandoned(mut self, directory: &TempDir) -> Self {
        self.abandoned = Some(directory.path().to_owned());
        self
    }

    /// The file name of the program, for messages.
    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or(self.path.as_os_str())
            .to_string_lossy()
            .into_owned()
    }
}

/// A signal for a running program. `SIGINT` is missing on purpose: a shell starts background programs with it ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`: the program may finish its work and exit.
    Terminate,
    /// `SIGHUP`.
    Hangup,
    /// `SIGSTOP`: the program freezes, as if the machine had stalled.
    Stop,
    /// `SIGCONT`: a frozen program goes on.
    Continue,
    /// `SIGKILL`: the program ends at once, without a chance to clean up.
    Kill,
}

impl Signal {
    /// The name as `kill -s` takes it.
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Hangup => "HUP",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code; 126 and 127 also mean that it could not be started.
    Code(i32),
    /// A signal of this number killed it.
    Signal(i32),
    /// Its supervisor was killed, so nobody knows.
    Unknown,
}

impl Exit {
    /// Reads the code a shell reports, which folds signals in as 128 + number.
    fn from_shell(code: i32) -> Self {
        match code {
            129..=192 => Self::Signal(code - 128),
            _ => Self::Code(code),
        }
    }

    /// Whether the program ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

/// A program running under a supervisor. Dropping it kills the program and whatever that has started.
pub struct Supervised {
    name: String,
    pid: u32,
    log: PathBuf,
    stdout: PathBuf,
    orders: Option<ChildStdin>,
    ended: watch::Receiver<Option<Exit>>,
    /// Ends when the program has ended; hands back the supervisor itself.
    watcher: Option<JoinHandle<Child>>,
}

impl Supervised {
    /// Starts `program`. Fails if it does not exist, or if its log cannot be written.
    pub fn spawn(program: &Program) -> Result<Self> {
        let name = program.name();
        // Absolute, because a shell looks a bare name up in the search path.
        let path = std::path::absolute(&program.path).with_context(|| format!("cannot find {name}"))?;
        if !path.is_file() {
            bail!("cannot start {name}: there is no file {}", path.display());
        }
        let stdout = program.stdout.clone().unwrap_or_else(|| program.log.clone());
        for file in [&program.log, &stdout] {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .with_context(|| format!("cannot write the log {} of {name}", file.display()))?;
        }
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "supervised.sh"])
            .args([&stdout, &program.log])
            .arg(
                program
                    .abandoned
                    .as_deref()
                    .map_or(OsStr::new(""), Path::as_os_str),
            )
            .arg(&path)
            .args(&program.args)
            .envs(program.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal reaches us alone; we decide in which order things stop.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start /bin/sh to supervise {name}"))?;
        let (Some(orders), Some(reports)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            bail!("the supervisor of {name} has no pipes");
        };

        let mut reports = BufReader::new(reports);
        let mut line = String::new();
        reports
            .read_line(&mut line)
            .with_context(|| format!("the supervisor of {name} does not answer"))?;
        let pid = line
            .trim()
            .strip_prefix("started ")
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("the supervisor of {name} did not start it"))?;

        let (sender, ended) = watch::channel(None);
        let watcher = std::thread::spawn(move || {
            let mut line = String::new();
            let code = match reports.read_line(&mut line) {
                Ok(_) => line
                    .trim()
                    .strip_prefix("ended ")
                    .and_then(|code| code.parse().ok()),
                Err(_) => None,
            };
            sender.send_replace(Some(code.map_or(Exit::Unknown, Exit::from_shell)));
            supervisor
        });
        Ok(Self {
            name,
            pid,
            log: program.log.clone(),
            stdout,
            orders: Some(orders),
            ended,
            watcher: Some(watcher),
        })
    }

    /// The process number of the program, not of its supervisor.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file name of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file its standard error goes to, and its standard output too unless that has a file of its own.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal. A program that has already ended is left alone.
    pub fn signal(&self, signal: Signal) {
        if self.try_wait().is_none() {
            self.order(signal.name());
        }
    }

    /// Kills the program with `SIGKILL` and returns when it is gone.
    pub async fn kill(&self) -> Exit {
        self.signal(Signal::Kill);
        self.wait().await
    }

    /// Returns when the program has ended, by itself or not. Any number of callers may wait.
    /// The future does not borrow the process.
    pub fn wait(&self) -> impl Future<Output = Exit> + use<> {
        let mut ended = self.ended.clone();
        async move {
            let exit = ended.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
            exit.unwrap_or(Exit::Unknown)
        }
    }

    /// How the program ended, or `None` while it runs.
    pub fn try_wait(&self) -> Option<Exit> {
        *self.ended.borrow()
    }

    /// The last `lines` lines of the log; empty if there are none.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines).unwrap_or_default()
    }

    /// How the program ended together with the end of its log, for an error message.
    pub fn obituary(&self, exit: Exit) -> String {
        let tail = self.log_tail(QUOTED_LINES);
        let tail = if tail.is_empty() {
            "(it logged nothing)"
        } else {
            &tail
        };
        format!("{} {exit}; the end of its log:\n{tail}", self.name)
    }

    /// Waits for a line of standard output that satisfies `wanted`, and returns it. Lines written before the call count
    /// too. Fails, quoting the log, if the program ends without such a line or after `limit`.
    pub async fn wait_for_line(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let found = async {
            loop {
                // Read the exit first: what was written before the end is then surely in the file.
                let exit = self.try_wait();
                let written = fs::read_to_string(&self.stdout)
                    .with_context(|| format!("cannot read {}", self.stdout.display()))?;
                let complete = written.rsplit_once('\n').map_or("", |(complete, _)| complete);
                if let Some(line) = complete.lines().find(|line| wanted(line)) {
                    return Ok(line.to_owned());
                }
                if let Some(exit) = exit {
                    bail!("{}", self.obituary(exit));
                }
                tokio::time::sleep(LINE_POLL).await;
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(result) => result,
            Err(_) => bail!(
                "{} did not print the expected line within {limit:?}; the end of its log:\n{}",
                self.name,
                self.log_tail(QUOTED_LINES)
            ),
        }
    }

    /// Writes one order. A supervisor that is gone has nothing left to be ordered.
    fn order(&self, order: &str) {
        if let Some(mut orders) = self.orders.as_ref() {
            let _ = orders.write_all(format!("{order}\n").as_bytes());
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
        if let Some(watcher) = self.watcher.take()
            && let Ok(mut supervisor) = watcher.join()
        {
            self.order("end");
            self.orders = None;
            let _ = supervisor.wait();
        }
    }
}

/// The last `lines` lines of a file, as far as they lie within its last [`QUOTED_BYTES`].
fn tail(file: &Path, lines: usize) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let kept: Vec<&str> = text.lines().collect();
    Ok(kept[kept.len().saturating_sub(lines)..].join("\n"))
}

#[cfg(test)]
mod tests;
