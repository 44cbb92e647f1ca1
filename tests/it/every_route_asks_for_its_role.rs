//! Who may ask for what: every operation of the OpenAPI document, with no token, with one that nobody
//! has, and with one of each role, from each place that tokens come from.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::gateway::beside;
use crate::support::{Gateway, Options, SOON, peers, wait_until};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "patch", "trace"];

const READ_FILE: &str = "a-token-in-a-file-to-read-with";
const READ: &str = "a-token-of-the-configuration-to-read-with";
const OPERATE_FILE: &str = "a-token-in-a-file-to-operate-with";
const OPERATE: &str = "a-token-of-the-configuration-to-operate-with";

struct Tokens {
    folder: tempfile::TempDir,
}

impl Tokens {
    fn new() -> Self {
        let tokens = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        tokens.write("read", READ_FILE);
        tokens.write("operate", OPERATE_FILE);
        tokens
    }

    fn write(&self, role: &str, token: &str) {
        std::fs::write(self.folder.path().join(role), format!("{token}\n")).unwrap();
    }

    fn options(&self) -> Options {
        let file = |role: &str| [self.folder.path().join(role)];
        Options::new()
            .set("http.read_token_files", file("read"))
            .set("http.operate_token_files", file("operate"))
            .set("http.read_tokens", [READ])
            .set("http.operate_tokens", [OPERATE])
    }
}

/// Status and headers of an answer; `authorization` as it is, or none.
fn ask(port: u16, method: &str, path: &str, authorization: Option<&str>) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(SOON))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = ureq::http::Request::builder()
        .method(method.to_uppercase().as_str())
        .uri(format!("http://127.0.0.1:{port}{path}"));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let answer = agent.run(request.body(()).unwrap()).unwrap();
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), challenge.unwrap_or_default())
}

/// Every operation: method, path with values that name nothing, role.
fn operations(document: &Value) -> Vec<(String, String, String)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let words = path.split('/').map(|word| match word {
            "{uid}" => "1.2.3",
            word if word.starts_with('{') => "nothing",
            word => word,
        });
        let path = words.collect::<Vec<_>>().join("/");
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                let role = operation["x-role"].as_str();
                let role = role.unwrap_or_else(|| panic!("{method} {path} has no x-role"));
                operations.push((method.to_owned(), path.clone(), role.to_owned()));
            }
        }
    }
    operations
}

#[test]
fn and_lets_nobody_else_in() {
    let tokens = Tokens::new();
    let gateway = Gateway::start(&tokens.options());
    let port = gateway.http_port;
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    // Who asks, and the highest role they have.
    let askers = [
        (None, 0),
        (Some("Bearer".to_owned()), 0),
        (Some(format!("Basic {OPERATE}")), 0),
        (bearer("a-token-that-nobody-has"), 0),
        (bearer(&format!("{READ}x")), 0),
        (bearer(READ), 1),
        (bearer(READ_FILE), 1),
        (bearer(OPERATE), 2),
        (bearer(OPERATE_FILE), 2),
        (Some(gateway.authorization()), 2),
    ];
    let operations = operations(&gateway.get("/api/v1/openapi.json"));
    assert!(operations.len() >= 25, "{operations:?}");
    for (method, path, role) in &operations {
        let needed = match role.as_str() {
            "none" => 0,
            "read" => 1,
            "operate" => 2,
            other => panic!("{other}"),
        };
        for (authorization, has) in &askers {
            let (status, challenge) = ask(port, method, path, authorization.as_deref());
            let case = format!("{method} {path} with {authorization:?}: {status} {challenge}");
            match (*has >= needed, has) {
                (true, _) => {
                    assert!(![401, 403, 405].contains(&status) && status < 500, "{case}");
                }
                (false, 0) => {
                    assert_eq!(status, 401, "{case}");
                    assert!(challenge.starts_with("Bearer"), "{case}");
                }
                (false, _) => {
                    assert_eq!(status, 403, "{case}");
                    assert!(challenge.contains("insufficient_scope"), "{case}");
                }
            }
        }
    }
    // HEAD asks for what GET gives.
    for (_, path, role) in operations.iter().filter(|(method, ..)| method == "get") {
        let expected = if role == "none" { 200 } else { 401 };
        assert_eq!(ask(port, "head", path, None).0, expected, "{path}");
    }
    // What the document does not list is not there.
    let documented = |method: &str, path: &str| {
        let same = |(m, p, _): &(String, String, String)| m == method && p == path;
        operations.iter().any(same)
    };
    for (_, path, _) in &operations {
        for method in METHODS {
            if !documented(method, path) {
                let (status, _) = ask(port, method, path, Some(&gateway.authorization()));
                assert_eq!(status, 405, "{method} {path}");
            }
        }
    }
    for reason in ["no-token", "unknown-token", "wrong-role"] {
        let refused = gateway.metric("http_refusals_total", &[("reason", reason)]);
        assert!(
            refused >= operations.len() as f64 / 2.0,
            "{reason}: {refused}"
        );
    }
    let log = gateway.log();
    for secret in [READ, READ_FILE, OPERATE, OPERATE_FILE, "that-nobody-has"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    assert!(log.matches("HTTP request refused").count() <= 30);
}

#[test]
fn and_a_new_token_counts_at_once() {
    let tokens = Tokens::new();
    let mut gateway = Gateway::start(&tokens.options());
    let port = gateway.http_port;
    let status = |token: &str| {
        let authorization = format!("Bearer {token}");
        ask(port, "get", "/api/v1/models", Some(&authorization)).0
    };
    assert_eq!(status(READ_FILE), 200);
    tokens.write("read", "another-token-to-read-with");
    let asked = Instant::now();
    assert_eq!(status(READ_FILE), 401);
    assert!(
        asked.elapsed() >= Duration::from_millis(250),
        "a guess costs time"
    );
    assert_eq!(status("another-token-to-read-with"), 200);
    // One file that is gone concerns its own token only, and whoever has that one may try again.
    std::fs::remove_file(tokens.folder.path().join("read")).unwrap();
    assert_eq!(status("another-token-to-read-with"), 503);
    assert_eq!(status(READ), 200);
    tokens.write("read", READ_FILE);
    assert_eq!(status(READ_FILE), 200);

    // That of the local operator ends with the process, and its file is the operator's alone.
    let before = gateway.authorization();
    gateway.kill();
    gateway.restart();
    assert_ne!(gateway.authorization(), before);
    let old = ask(gateway.http_port, "get", "/api/v1/models", Some(&before));
    assert_eq!(old.0, 401);
    let told = peers::run(beside(&gateway).args(["status", "--json"]));
    peers::succeeded(&told);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["ports"]["http"], gateway.http_port);
    let file = gateway.dir().join("spool/operator.token");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(file).unwrap();
    let told = peers::run(beside(&gateway).args(["models", "ls"]));
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        !told.status.success() && words.contains("--token-file"),
        "{words}"
    );
    let told = peers::run(
        beside(&gateway)
            .args(["models", "ls"])
            .env("PACS_GATEWAY_TOKEN", READ),
    );
    peers::succeeded(&told);
}

#[test]
fn and_says_so_at_start_when_a_token_can_be_guessed() {
    let secret = "guess-me";
    for (key, text) in [
        ("http.read_tokens", format!("[\"{secret}\"]")),
        ("http.operate_tokens", format!("\"{secret}\"")),
        // No TOML at all.
        ("gateway.toml", format!("[\"{secret}")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        let key_of_file = if key.starts_with("http") {
            key
        } else {
            "http.read_tokens"
        };
        let line = key_of_file.trim_start_matches("http.");
        std::fs::write(
            &file,
            format!("[http]\nbind = \"127.0.0.1:0\"\n{line} = {text}\n"),
        )
        .unwrap();
        let mut command = crate::support::gateway::binary();
        command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .current_dir(dir.path());
        command.env(
            "PACS_GATEWAY__MODELS__DIR",
            crate::support::options::repository().join("models"),
        );
        command.env("PACS_GATEWAY__DICOM__BIND", "127.0.0.1:0");
        let output = peers::run(&mut command);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert!(told.contains(key), "{told}");
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn and_refuses_what_is_too_much() {
    let options = Options::new().set("http.probe_bind", "127.0.0.1:0");
    let gateway = Gateway::start(&options);
    let ports = gateway.get("/readyz")["ports"].clone();
    let probe = u16::try_from(ports["http_probe"].as_u64().unwrap()).unwrap();
    assert_eq!(ports["http"], gateway.http_port);
    for (port, path, expected) in [
        (probe, "/livez", 200),
        (probe, "/readyz", 200),
        (probe, "/metrics", 200),
        (probe, "/api/v1/models", 404),
        (gateway.http_port, "/livez", 200),
        (gateway.http_port, "/readyz", 200),
        (gateway.http_port, "/metrics", 404),
        (gateway.http_port, "/api/v1/nothing", 404),
    ] {
        assert_eq!(ask(port, "get", path, None).0, expected, "{port} {path}");
    }
    // Connections that say nothing take all places of the API, and none of the probes.
    let idle: Vec<_> = (0..300)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap())
        .collect();
    let agent = |port: u16| ureq::get(format!("http://127.0.0.1:{port}/livez")).call();
    wait_until("a full listener", SOON, || {
        agent(gateway.http_port).is_err()
    });
    assert!(agent(probe).is_ok());
    drop(idle);
    wait_until("room", SOON, || agent(gateway.http_port).is_ok());
    let mut metrics = agent_text(probe, "/metrics");
    metrics.retain(|c| c != '\r');
    let line = metrics
        .lines()
        .find(|line| line.contains("too-many-connections"))
        .unwrap();
    let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count >= 44.0, "{line}");
    assert!(!metrics.contains("127.0.0.1"));
    // Bodies.
    let url = format!(
        "http://127.0.0.1:{}/api/v1/quarantine/retry",
        gateway.http_port
    );
    let client: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    for (body, expected) in [
        (" ".repeat(65_537), 413),
        ("{".to_owned(), 400),
        ("{\"other\":1}".to_owned(), 422),
        ("{}".to_owned(), 400),
    ] {
        let post = client
            .post(&url)
            .header("Authorization", gateway.authorization());
        let mut answer = post.content_type("application/json").send(&body).unwrap();
        assert_eq!(answer.status(), expected, "{}", body.len());
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let said: Value = answer.body_mut().read_json().unwrap();
        assert!(
            said["error"].is_string() && said.as_object().unwrap().len() == 1,
            "{said}"
        );
    }
}

fn agent_text(port: u16, path: &str) -> String {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}"))
        .call()
        .unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn and_waits_for_nobody_for_ever() {
    let gateway = Gateway::start(&Options::new());
    let connect = |said: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream.set_read_timeout(Some(2 * SOON)).unwrap();
        stream
    };
    let post = format!(
        "POST /api/v1/outbox/retry HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: 9\r\n\r\nhalf",
        gateway.authorization()
    );
    for (said, answer) in [
        ("", ""),
        ("GET /livez HT", ""),
        // One request, and nothing after it.
        ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"),
        (&post, "HTTP/1.1 408"),
    ]
    .map(|(said, answer)| (connect(said), answer))
    {
        let mut heard = Vec::new();
        let mut stream = said;
        stream.read_to_end(&mut heard).unwrap();
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.starts_with(answer), "{heard}");
    }
    let head = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let fields = "X: y\r\n".repeat(70);
    for head in [
        head,
        format!("GET /livez HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
    ] {
        let mut heard = [0; 12];
        connect(&head).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"HTTP/1.1 431");
    }
}
