//! A real Kubernetes control plane as processes on loopback: etcd, kube-apiserver and kube-controller-manager.
//!
//! It starts in a few seconds, needs no root and no container, and is gone without a trace when its owner is, however that
//! ends. Any number of them run side by side. There are no nodes: Pods can be created, but stay `Pending`.

pub mod binaries;
mod certificates;
mod clients;
mod go_build;
mod kubeconfig;
mod parts;
mod progress;
pub mod tools;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};

pub use self::clients::Output;
pub use self::parts::Part;

use self::binaries::{Binaries, Sources};
use self::certificates::{Authority, write_private};
use self::clients::Client;
use self::kubeconfig::{Credential, kubeconfig};
use self::parts::Layout;
use self::tools::Tool;
use crate::supervised::{Program, Supervised};

/// What [`ControlPlane`] runs or offers to run.
const TOOLS: [Tool; 5] = [
    Tool::Etcd,
    Tool::KubeApiserver,
    Tool::KubeControllerManager,
    Tool::Kubectl,
    Tool::Helm,
];
/// Ports tried before giving up: one may be taken between our finding it free and the API server binding it.
const PORT_ATTEMPTS: usize = 5;
/// How the API server's log tells that its port is taken.
const PORT_TAKEN: &str = "address already in use";
/// Asking etcd is cheap.
const ETCD_INTERVAL: Duration = Duration::from_millis(20);
/// Asking through kubectl costs a process, and the time of the server that is to become ready.
const KUBECTL_INTERVAL: Duration = Duration::from_millis(200);
/// Longer than anybody uses a development cluster in one go.
const TOKEN_LIFETIME: &str = "24h";

/// How a control plane is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs; absent: found or built as [`Binaries::ensure`] does.
    pub binaries: Option<Binaries>,
    /// More flags for kube-apiserver; they win over ours.
    pub api_server_flags: Vec<String>,
    /// How long each process may take to become ready.
    pub limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            binaries: None,
            api_server_flags: Vec::new(),
            limit: Duration::from_mins(2),
        }
    }
}

/// One process, and how to start it again.
struct Slot {
    program: Program,
    process: Option<Supervised>,
}

impl Slot {
    fn new(program: Program, process: Supervised) -> Mutex<Self> {
        Mutex::new(Self {
            program,
            process: Some(process),
        })
    }
}

/// A running control plane. Dropping it ends the processes and removes their files.
///
/// It is not tied to the async runtime that started it.
pub struct ControlPlane {
    // The order is that of dropping: clients before servers, and the files at last.
    controller_manager: Mutex<Slot>,
    api_server: Mutex<Slot>,
    etcd: Mutex<Slot>,
    kubeconfigs: AtomicUsize,
    access: Access,
    authority: Authority,
    limit: Duration,
    directory: TempDir,
}

/// How clients reach the API server.
struct Access {
    layout: Layout,
    binaries: Binaries,
    port: u16,
}

impl Access {
    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn client<'a>(&'a self, tool: Tool, kubeconfig: &'a Path) -> Result<Client<'a>> {
        Ok(Client {
            program: self.binaries.path(tool)?,
            kubeconfig,
            caches: self.layout.caches(),
        })
    }

    async fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        self.client(Tool::Kubectl, &self.layout.admin())?
            .run(args, None)
            .await
    }

    async fn probe_api_server(&self) -> Result<()> {
        // Most of the wait is for the port to open, which costs no process to find out.
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        self.kubectl(["get", "--raw=/readyz", "--request-timeout=5s"])
            .await?
            .ok()
            .map(drop)
    }

    async fn probe_controller_manager(&self) -> Result<()> {
        // The first thing anybody misses while the controllers are not at work.
        self.kubectl(["get", "serviceaccount", "default", "--namespace=default"])
            .await?
            .ok()
            .map(drop)
    }
}

impl ControlPlane {
    /// Starts a control plane and returns when it is ready: the API server serves and the controllers are at work.
    ///
    /// Fails with the end of the log of the process that did not come up. The programs may have to be built first, which
    /// takes minutes and reports on standard error.
    pub async fn start(options: Options) -> Result<Self> {
        let Options {
            binaries,
            api_server_flags,
            limit,
        } = options;
        let binaries = match binaries {
            Some(binaries) => binaries,
            None => ensure_binaries().await?,
        };
        let authority = Authority::new()?;
        let directory = tempfile::Builder::new()
            .prefix("composio-operator-")
            // Keys lie here, and the socket of a store that asks nobody who they are.
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot create a temporary directory; TMPDIR may name another place")?;
        let layout = Layout::create(&directory).context("cannot write to the temporary directory")?;
        parts::write_credentials(&layout, &authority)?;

        let etcd_program = parts::etcd(&layout, &binaries, &directory)?;
        let etcd = Supervised::spawn(&etcd_program)?;
        parts::await_ready(&etcd, limit, ETCD_INTERVAL, async || {
            parts::probe_etcd(&layout).await
        })
        .await?;

        let mut access = Access {
            layout,
            binaries,
            port: 0,
        };
        let mut attempt = 1;
        let (api_server_program, api_server) = loop {
            access.port = free_port()?;
            parts::write_kubeconfigs(&access.layout, &authority, &access.url())?;
            let program = parts::api_server(
                &access.layout,
                &access.binaries,
                &directory,
                access.port,
                &api_server_flags,
            )?;
            match start_api_server(&program, &access, limit).await? {
                Some(process) => break (program, process),
                None if attempt < PORT_ATTEMPTS => attempt += 1,
                None => bail!(
                    "{PORT_ATTEMPTS} free ports in a row were taken before kube-apiserver could use them"
                ),
            }
        };

        let controller_manager_program =
            parts::controller_manager(&access.layout, &access.binaries, &directory)?;
        let controller_manager = Supervised::spawn(&controller_manager_program)?;
        let probe = async || access.probe_controller_manager().await;
        parts::await_ready(&controller_manager, limit, KUBECTL_INTERVAL, probe).await?;

        Ok(Self {
            controller_manager: Slot::new(controller_manager_program, controller_manager),
            api_server: Slot::new(api_server_program, api_server),
            etcd: Slot::new(etcd_program, etcd),
            kubeconfigs: AtomicUsize::new(0),
            access,
            authority,
            limit,
            directory,
        })
    }

    /// The control plane that all callers in this process share, started by the first of them. It ends with the process:
    /// a static is never dropped, but its pipes close, and that is what the processes wait for.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(Options::default())).await
    }

    /// The address of the API server, such as `https://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        self.access.url()
    }

    /// The certificate of the authority that signed the API server's, as PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.certificate()
    }

    /// The kubeconfig of a cluster administrator.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.access.layout.admin()
    }

    /// The same as text, which refers to no other file.
    pub fn kubeconfig_yaml(&self) -> Result<String> {
        std::fs::read_to_string(self.kubeconfig_path()).context("cannot read the kubeconfig")
    }

    /// The programs in use.
    pub fn binaries(&self) -> &Binaries {
        &self.access.binaries
    }

    /// The directory with everything the control plane writes; it goes when the control plane does.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory with one log per process.
    pub fn logs_directory(&self) -> PathBuf {
        self.access.layout.logs()
    }

    /// Writes a kubeconfig for `user` with a client certificate, and returns its path. The user may do nothing but what
    /// RBAC grants to it or to `group`; more groups than one do not fit into the certificates made here.
    pub fn user_kubeconfig(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.authority.client(user, group)?;
        self.write_kubeconfig(user, &Credential::Certificate(&identity))
    }

    /// Writes a kubeconfig with a token of an existing service account, and returns its path.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let duration = format!("--duration={TOKEN_LIFETIME}");
        let token = self
            .kubectl(["create", "token", name, "--namespace", namespace, &duration])
            .await?
            .ok()
            .with_context(|| format!("no token for service account {namespace}/{name}"))?;
        self.write_kubeconfig(name, &Credential::Token(token.trim()))
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        self.access.kubectl(args).await
    }

    /// Runs kubectl as the user of another kubeconfig.
    pub async fn kubectl_as<A: AsRef<OsStr>>(
        &self,
        kubeconfig: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        self.access
            .client(Tool::Kubectl, kubeconfig)?
            .run(args, None)
            .await
    }

    /// Applies manifests as the administrator. An [`Output`] without success tells what the API server refused.
    pub async fn kubectl_apply(&self, yaml: &str) -> Result<Output> {
        let admin = self.kubeconfig_path();
        self.access
            .client(Tool::Kubectl, &admin)?
            .run(["apply", "--filename=-"], Some(yaml))
            .await
    }

    /// Runs Helm as the administrator.
    pub async fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        self.access
            .client(Tool::Helm, &self.kubeconfig_path())?
            .run(args, None)
            .await
    }

    /// Kills a process, as a crash would. Nothing happens if it is stopped already.
    pub async fn stop_part(&self, part: Part) {
        // Dropping it kills it and waits for its end.
        self.slot(part).lock().await.process = None;
    }

    /// Starts a process again, after killing it if it runs, and returns when it is ready; with etcd, when the API server
    /// works with it again, unless that is stopped. Address, credentials and data are as before.
    pub async fn restart_part(&self, part: Part) -> Result<()> {
        let mut slot = self.slot(part).lock().await;
        slot.process = None;
        let process = match part {
            Part::Etcd => {
                let process = Supervised::spawn(&slot.program)?;
                let probe = async || parts::probe_etcd(&self.access.layout).await;
                parts::await_ready(&process, self.limit, ETCD_INTERVAL, probe).await?;
                if let Some(api_server) = &self.api_server.lock().await.process {
                    let probe = async || self.access.probe_api_server().await;
                    parts::await_ready(api_server, self.limit, KUBECTL_INTERVAL, probe).await?;
                }
                process
            }
            Part::ApiServer => {
                let started = start_api_server(&slot.program, &self.access, self.limit).await?;
                started.with_context(|| format!("{} was taken while kube-apiserver was down", self.url()))?
            }
            Part::ControllerManager => {
                let process = Supervised::spawn(&slot.program)?;
                let probe = async || self.access.probe_controller_manager().await;
                parts::await_ready(&process, self.limit, KUBECTL_INTERVAL, probe).await?;
                process
            }
        };
        slot.process = Some(process);
        Ok(())
    }

    /// Ends all processes and removes their files, as dropping does, but says why it has not removed them all.
    pub fn stop(self) -> Result<()> {
        let Self {
            controller_manager,
            api_server,
            etcd,
            directory,
            ..
        } = self;
        drop((controller_manager, api_server, etcd));
        directory
            .close()
            .context("cannot remove the control plane's files")
    }

    /// Waits until one of the processes that run now ends unasked, and tells how, with the end of its log.
    pub async fn failure(&self) -> String {
        let watch = async |part| {
            let exit = self
                .slot(part)
                .lock()
                .await
                .process
                .as_ref()
                .map(Supervised::wait);
            match exit {
                Some(exit) => (part, exit.await),
                None => std::future::pending().await,
            }
        };
        let (part, exit) = tokio::select! {
            ended = watch(Part::Etcd) => ended,
            ended = watch(Part::ApiServer) => ended,
            ended = watch(Part::ControllerManager) => ended,
        };
        match &self.slot(part).lock().await.process {
            Some(process) => process.obituary(exit),
            None => format!("{part:?} {exit}"),
        }
    }

    /// The number of the process, or `None` if it is stopped.
    pub async fn pid(&self, part: Part) -> Option<u32> {
        self.slot(part).lock().await.process.as_ref().map(Supervised::pid)
    }

    fn slot(&self, part: Part) -> &Mutex<Slot> {
        match part {
            Part::Etcd => &self.etcd,
            Part::ApiServer => &self.api_server,
            Part::ControllerManager => &self.controller_manager,
        }
    }

    fn write_kubeconfig(&self, user: &str, credential: &Credential<'_>) -> Result<PathBuf> {
        // User names may hold anything, so the file is known by a number.
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let text = kubeconfig(&self.url(), &self.ca_pem(), user, credential);
        write_private(
            &self.access.layout.credentials(),
            &format!("user-{number}.kubeconfig"),
            &text,
        )
    }
}

/// Starts the API server and waits for it; `None` if its port was taken meanwhile.
async fn start_api_server(program: &Program, access: &Access, limit: Duration) -> Result<Option<Supervised>> {
    let process = Supervised::spawn(program)?;
    let probe = async || access.probe_api_server().await;
    match parts::await_ready(&process, limit, KUBECTL_INTERVAL, probe).await {
        Ok(()) => Ok(Some(process)),
        Err(_) if process.try_wait().is_some() && process.log_tail(5).contains(PORT_TAKEN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds or builds the programs without holding up the async runtime.
async fn ensure_binaries() -> Result<Binaries> {
    let find = || Binaries::ensure(&Sources::from_env()?, &TOOLS);
    tokio::task::spawn_blocking(find)
        .await
        .context("looking for the programs was interrupted")?
}

/// A port of loopback that nobody uses at this moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
