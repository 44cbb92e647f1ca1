//! A real RabbitMQ: the one at `PACS_GATEWAY_TEST_AMQP_URL`, or private nodes of the installed one.
//!
//! Scenarios share a node and keep apart by the names of their exchanges and queues. Those that stop
//! or kill the broker take turns at a second node, which is always a private one. A third one speaks
//! TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::certificates::{Certificates, Pair};
use super::peers::{find, run, skip, succeeded};
use super::ports::{free_port, own_port};
use super::{reaper, wait_until};

/// A node boots in a few seconds when it has a core for itself.
const BOOT: Duration = Duration::from_secs(120);

/// Where a scenario's messages go: names of its own on some broker.
#[derive(Debug, Clone)]
pub struct Route {
    /// AMQP URL.
    pub url: String,
    /// Topic exchange.
    pub exchange: String,
    /// Queue.
    pub queue: String,
}

impl Route {
    fn new(url: &str) -> Self {
        let name = format!("it.{}", uuid::Uuid::new_v4().simple());
        Self {
            url: url.to_owned(),
            exchange: name.clone(),
            queue: name,
        }
    }
}

/// A route on the broker that all scenarios share; `None` when there is no broker to be had.
pub fn shared() -> Option<Route> {
    static SHARED: LazyLock<Option<String>> = LazyLock::new(|| {
        let given = std::env::var("PACS_GATEWAY_TEST_AMQP_URL");
        given.ok().or_else(|| {
            let node = Node::install()?;
            let url = node.url();
            // It serves until the test process ends; the reaper ends it then.
            std::mem::forget(node);
            Some(url)
        })
    });
    let route = SHARED.as_deref().map(Route::new);
    if route.is_none() {
        skip("rabbitmq-server is not installed and PACS_GATEWAY_TEST_AMQP_URL is not set");
    }
    route
}

/// The broker that may be stopped, running, and this scenario's alone until the guard is dropped.
pub fn private() -> Option<Private> {
    static PRIVATE: Mutex<Option<Node>> = Mutex::new(None);
    let mut guard = PRIVATE.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        *guard = Node::install();
    }
    match guard.as_mut() {
        Some(node) => node.start(),
        None => {
            skip("rabbitmq-server is not installed");
            return None;
        }
    }
    Some(Private { guard })
}

/// The broker that speaks TLS, this scenario's alone until the guard is dropped. Its authority and its
/// certificate (for 127.0.0.1) are new. With `clients`, it takes nobody without a certificate.
pub fn secure(clients: bool) -> Option<Private> {
    static SECURE: Mutex<Option<Node>> = Mutex::new(None);
    let mut guard = SECURE.lock().unwrap_or_else(PoisonError::into_inner);
    match guard.as_mut() {
        Some(node) => node.stop(),
        None => *guard = Node::make().and_then(Node::with_tls),
    }
    let Some(node) = guard.as_mut() else {
        skip("rabbitmq-server is not installed");
        return None;
    };
    node.configure_tls(clients);
    node.start();
    Some(Private { guard })
}

/// A turn at the private broker.
pub struct Private {
    guard: MutexGuard<'static, Option<Node>>,
}

impl Private {
    /// A route on it.
    pub fn route(&mut self) -> Route {
        self.node().route()
    }

    /// The node itself.
    pub fn node(&mut self) -> &mut Node {
        self.guard.as_mut().unwrap()
    }
}

/// A private RabbitMQ node with everything it writes inside one folder.
pub struct Node {
    program: PathBuf,
    home: PathBuf,
    name: String,
    port: u16,
    tls_port: Option<u16>,
    certificates: Option<Certificates>,
    dist_port: u16,
    child: Option<Child>,
}

impl Node {
    /// Makes and starts a node, if RabbitMQ is installed.
    pub fn install() -> Option<Self> {
        let mut node = Self::make()?;
        node.start();
        Some(node)
    }

    fn make() -> Option<Self> {
        // Debian's wrapper in PATH changes the user; the script behind it takes any.
        let script = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        let program = if script.is_file() {
            script.to_owned()
        } else {
            find("rabbitmq-server")?
        };
        let home = tempfile::tempdir().unwrap().keep();
        reaper::remove_at_exit(&home);
        std::fs::write(home.join("plugins"), "[].\n").unwrap();
        let port = own_port();
        Some(Self {
            program,
            home,
            name: format!("gw{}-{port}@localhost", std::process::id()),
            port,
            tls_port: None,
            certificates: None,
            dist_port: own_port(),
            child: None,
        })
    }

    fn with_tls(mut self) -> Option<Self> {
        let certificates = Certificates::new()?;
        reaper::remove_at_exit(certificates.dir());
        self.certificates = Some(certificates);
        let plugins = "[rabbitmq_auth_mechanism_ssl].\n";
        std::fs::write(self.home.join("plugins"), plugins).unwrap();
        self.tls_port = Some(own_port());
        Some(self)
    }

    /// The listener for TLS, SASL EXTERNAL by the common name of a certificate, and a new authority.
    fn configure_tls(&mut self, clients: bool) {
        let authority = self.certificates().authority("authority");
        let presented = self.certificates().server("authority", "broker");
        self.present(&presented);
        let home = self.home.display();
        let port = self.tls_port.unwrap();
        let text = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {}\n\
             ssl_options.certfile = {home}/presented.pem\n\
             ssl_options.keyfile = {home}/presented.key\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = {clients}\n\
             auth_mechanisms.1 = PLAIN\n\
             auth_mechanisms.2 = EXTERNAL\n\
             ssl_cert_login_from = common_name\n",
            authority.display()
        );
        std::fs::write(self.home.join("rabbitmq.conf"), text).unwrap();
    }

    /// The authority of its certificate and of those that it takes.
    pub fn authority(&self) -> PathBuf {
        self.certificates().path("authority", "pem")
    }

    /// Where it gets its certificates from.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().unwrap()
    }

    /// Presents another certificate to whom connects from now on.
    pub fn present(&self, Pair { certificate, key }: &Pair) {
        std::fs::copy(certificate, self.home.join("presented.pem")).unwrap();
        std::fs::copy(key, self.home.join("presented.key")).unwrap();
        if self.child.is_some() {
            self.control(&["eval", "ssl:clear_pem_cache()."]);
        }
    }

    /// The AMQPS URL by this name, without a user.
    pub fn secure_url(&self, host: &str) -> String {
        format!("amqps://{host}:{}/%2f", self.tls_port.unwrap())
    }

    /// Its AMQP URL.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// A route on it.
    pub fn route(&self) -> Route {
        Route::new(&self.url())
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, unless it runs, and waits until it takes connections.
    pub fn start(&mut self) {
        if self.child.is_some() {
            return;
        }
        wait_until("RabbitMQ", BOOT, || {
            // A boot that failed, for example as somebody else had the port for a moment, is repeated.
            let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
            if !matches!(ended, Some(None)) {
                let child = self.command().spawn().unwrap();
                reaper::adopt(child.id());
                self.child = Some(child);
            }
            // The one for TLS is the last that is opened.
            let port = self.tls_port.unwrap_or(self.port);
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Stops it in an orderly way.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Power cut.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Runs `rabbitmqctl` on it.
    pub fn control(&self, arguments: &[&str]) {
        self.ask(arguments);
    }

    /// The same; gives what it says.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let script = Path::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        let program = if script.is_file() {
            script.to_owned()
        } else {
            find("rabbitmqctl").unwrap()
        };
        let mut command = Command::new(program);
        self.environment(&mut command);
        let output = run(command.args(arguments));
        succeeded(&output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), signal).unwrap();
            wait_until("end of RabbitMQ", BOOT, || {
                child.try_wait().unwrap().is_some()
            });
            reaper::spare(child.id());
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.environment(&mut command);
        command
            // Makes the script exec the node, so that the child we signal is the node.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What makes a program of RabbitMQ's speak of this node.
    fn environment(&self, command: &mut Command) {
        let path = |name: &str| self.home.join(name);
        command
            .env("HOME", &self.home)
            .env("ERL_EPMD_PORT", epmd_port().to_string())
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced"))
            // An idle scheduler that spins takes a core from the gateway.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none");
    }
}

/// A port mapper of our own: the one that Erlang starts by itself would outlive the tests.
///
/// Nobody waits for it: the reaper ends it after the test process, which is then gone itself.
#[allow(clippy::zombie_processes)]
fn epmd_port() -> u16 {
    static EPMD: LazyLock<u16> = LazyLock::new(|| {
        let port = free_port();
        let mut command = Command::new("epmd");
        command.args(["-port", &port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        reaper::adopt(child.id());
        wait_until("epmd", Duration::from_secs(30), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        port
    });
    *EPMD
}
