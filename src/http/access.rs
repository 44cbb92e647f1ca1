//! Who may ask for what over HTTP: bearer tokens (RFC 6750) and their roles.
//!
//! Files are read for each request, so that a rotated secret counts at once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{Api, Config, answer, operator};
use crate::telemetry::Budget;

/// Largest token file.
const MAX_TOKEN: u64 = 4096;
/// A shorter token can be guessed.
const MIN_TOKEN: usize = 16;
/// How long somebody waits who has guessed a token. Connections are bounded, so guesses are too.
const GUESSED: Duration = Duration::from_millis(250);

/// Text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// Reads a list of secrets. An error of serde's own would show what is no list.
pub(super) fn secrets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Secrets(Vec<Secret>),
        Other(IgnoredAny),
    }
    match Given::deserialize(from)? {
        Given::Secrets(secrets) => Ok(secrets),
        Given::Other(_) => Err(D::Error::custom("must be a list of tokens")),
    }
}

/// What somebody may do; the second includes the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Read,
    Operate,
}

/// A token of which the digest is enough.
type Fingerprint = [u8; 32];

/// The tokens of each role.
#[derive(Debug)]
pub struct Access {
    files: Vec<(Role, PathBuf)>,
    fixed: Vec<(Role, Fingerprint)>,
    refused: Budget,
}

/// Why somebody was turned away.
enum Refusal {
    NoToken,
    UnknownToken,
    WrongRole,
    /// A file that may hold the token cannot be used.
    Unreadable,
}

impl Refusal {
    /// A label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::UnknownToken => "unknown-token",
            Self::WrongRole => "wrong-role",
            Self::Unreadable => "unreadable-token-file",
        }
    }

    /// RFC 6750, section 3: who sent no token is told no error.
    fn response(&self) -> Response {
        let (status, challenge, reason) = match self {
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "Bearer",
                "a bearer token is needed",
            ),
            Self::UnknownToken => (
                StatusCode::UNAUTHORIZED,
                "Bearer error=\"invalid_token\"",
                "nobody has this token",
            ),
            Self::WrongRole => (
                StatusCode::FORBIDDEN,
                "Bearer error=\"insufficient_scope\", scope=\"operate\"",
                "this needs a token of the role operate",
            ),
            Self::Unreadable => {
                let reason = "a file of tokens cannot be used; see the log";
                return answer(StatusCode::SERVICE_UNAVAILABLE, reason);
            }
        };
        let mut response = answer(status, reason);
        let challenge = HeaderValue::from_static(challenge);
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        response
    }
}

impl Access {
    /// The tokens of the configuration, which [`Config::check_files`] has looked at, and that of the local
    /// operator, who is appointed in `dir`.
    ///
    /// # Errors
    /// When the process is about to end.
    pub async fn new(config: &Config, dir: &Path) -> anyhow::Result<Self> {
        let (mut files, mut fixed) = (Vec::new(), Vec::new());
        for Given {
            role,
            paths,
            tokens,
            ..
        } in given(config)
        {
            files.extend(paths.iter().map(|path| (role, path.clone())));
            fixed.extend(
                tokens
                    .iter()
                    .map(|Secret(token)| (role, fingerprint(token.trim()))),
            );
        }
        let dir = dir.to_owned();
        match spawn_blocking(move || operator::appoint(&dir)).await? {
            Ok(token) => fixed.push((Role::Operate, fingerprint(&token))),
            // Instances are received all the same.
            Err(err) => tracing::warn!(
                error = %err,
                "no token for the local operator: its file cannot be written"
            ),
        }
        Ok(Self {
            files,
            fixed,
            refused: Budget::default(),
        })
    }

    async fn admit(&self, headers: &HeaderMap, wanted: Role) -> Result<(), Refusal> {
        let given = fingerprint(bearer(headers)?);
        // Every token is compared, whatever an earlier one gave.
        let mut role = None;
        for (its, known) in &self.fixed {
            if same(&given, known) {
                role = role.max(Some(*its));
            }
        }
        let mut unreadable = false;
        for (its, file) in &self.files {
            let path = file.clone();
            let read = spawn_blocking(move || token(&path)).await;
            match read.unwrap_or_else(|err| Err(err.to_string())) {
                Ok(known) if same(&given, &fingerprint(&known)) => role = role.max(Some(*its)),
                Ok(_) => {}
                Err(err) => {
                    unreadable = true;
                    if let Some(unsaid) = self.refused.may_speak() {
                        tracing::warn!(error = %err, unsaid, "a file of tokens cannot be used");
                    }
                }
            }
        }
        match role {
            Some(role) if role >= wanted => Ok(()),
            _ if unreadable => Err(Refusal::Unreadable),
            Some(_) => Err(Refusal::WrongRole),
            None => Err(Refusal::UnknownToken),
        }
    }
}

/// Lets through who may read.
pub(super) async fn read(State(api): State<Api>, request: Request, next: Next) -> Response {
    admitted(&api, Role::Read, request, next).await
}

/// Lets through who may change something.
pub(super) async fn operate(State(api): State<Api>, request: Request, next: Next) -> Response {
    admitted(&api, Role::Operate, request, next).await
}

async fn admitted(api: &Api, wanted: Role, request: Request, next: Next) -> Response {
    let Err(refusal) = api.access.admit(request.headers(), wanted).await else {
        return next.run(request).await;
    };
    let reason = refusal.reason();
    let counter = &api.metrics.http_refusals_total;
    counter.with_label_values(&[reason]).inc();
    if let Some(unsaid) = api.access.refused.may_speak() {
        tracing::info!(reason, unsaid, "HTTP request refused");
    }
    if matches!(refusal, Refusal::UnknownToken) {
        tokio::time::sleep(GUESSED).await;
    }
    refusal.response()
}

/// The token of a request. What is no bearer token is none.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let value = given.next().ok_or(Refusal::NoToken)?;
    if given.next().is_some() {
        return Err(Refusal::UnknownToken);
    }
    let value = value.to_str().map_err(|_| Refusal::UnknownToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::UnknownToken)?;
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(token.trim()),
        false => Err(Refusal::NoToken),
    }
}

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token).into()
}

/// Compares all of the digests: how long it takes tells nothing of the token.
fn same(given: &Fingerprint, known: &Fingerprint) -> bool {
    let different = given.iter().zip(known).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(different) == 0
}

/// What the configuration gives one role.
struct Given<'a> {
    role: Role,
    paths: &'a [PathBuf],
    tokens: &'a [Secret],
    /// The keys of both.
    keys: [&'static str; 2],
}

fn given(config: &Config) -> [Given<'_>; 2] {
    [
        Given {
            role: Role::Read,
            paths: &config.read_token_files,
            tokens: &config.read_tokens,
            keys: ["read_token_files", "read_tokens"],
        },
        Given {
            role: Role::Operate,
            paths: &config.operate_token_files,
            tokens: &config.operate_tokens,
            keys: ["operate_token_files", "operate_tokens"],
        },
    ]
}

/// Looks at every token. Blocking.
///
/// # Errors
/// The key and the reason.
pub(super) fn check(config: &Config) -> Result<(), String> {
    for Given {
        paths,
        tokens,
        keys,
        ..
    } in given(config)
    {
        for path in paths {
            token(path).map_err(|err| format!("http.{}: {err}", keys[0]))?;
        }
        for Secret(token) in tokens {
            checked(token).map_err(|err| format!("http.{}: {err}", keys[1]))?;
        }
    }
    Ok(())
}

/// The token in a file, without white space around it.
fn token(file: &Path) -> Result<String, String> {
    let refuse = |reason: &str| format!("{}: {reason}", file.display());
    let read = || {
        let mut text = String::new();
        File::open(file)?
            .take(MAX_TOKEN)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|err: io::Error| refuse(&err.to_string()))?;
    checked(&text).map(str::to_owned).map_err(refuse)
}

/// What a header can carry and nobody can guess.
fn checked(text: &str) -> Result<&str, &'static str> {
    let token = text.trim();
    if token.len() < MIN_TOKEN {
        return Err("a token must have at least 16 characters");
    }
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token),
        false => Err("a token is one word of ASCII characters"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_or_it_is_not() {
        let known = fingerprint("correct horse battery");
        assert!(same(&fingerprint("correct horse battery"), &known));
        for wrong in ["", "correct horse batter", "Correct horse battery"] {
            assert!(!same(&fingerprint(wrong), &known), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let hidden = "a-secret-of-the-tests";
        let config = Config {
            read_tokens: vec![Secret(hidden.to_owned())],
            ..Config::default()
        };
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains(hidden), "{shown}");
        for wrong in [
            format!("\"{hidden}\""),
            "[[1]]".to_owned(),
            "12345678".to_owned(),
        ] {
            let text = format!("{{\"operate_tokens\": {wrong}}}");
            let err = serde_json::from_str::<Config>(&text)
                .unwrap_err()
                .to_string();
            assert!(err.contains("must be a list of tokens"), "{err}");
            assert!(!err.contains(hidden) && !err.contains("12345678"), "{err}");
        }
    }
}
