//! Who may ask for what over HTTP: bearer tokens (RFC 6750) and their roles.
//!
//! Files are read for each request, so that a rotated secret counts at once.

use std::fmt;
use std::path::{Path, PathBuf};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{Api, Config, answer};

/// Largest token file.
const MAX_TOKEN: u64 = 4096;
/// A shorter token can be guessed.
const MIN_TOKEN: usize = 16;

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

/// The tokens of each role.
#[derive(Debug, Clone)]
pub struct Access {
    files: Vec<PathBuf>,
    tokens: Vec<Secret>,
}

impl Access {
    /// Reads every file once, so that one that cannot be used is an error at start.
    ///
    /// # Errors
    /// The key and the reason.
    pub async fn new(config: &Config) -> std::io::Result<Self> {
        for file in &config.operate_token_files {
            token(file).await?;
        }
        Ok(Self {
            files: config.operate_token_files.clone(),
            tokens: config.operate_tokens.clone(),
        })
    }

    async fn check(&self, headers: &HeaderMap) -> Result<(), Response> {
        if self.files.is_empty() && self.tokens.is_empty() {
            let reason = "there is no token of this role: see http.operate_token_files";
            return Err(answer(StatusCode::FORBIDDEN, reason));
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        let mut known = self.tokens.iter().any(|token| same(given, &token.0));
        for file in &self.files {
            let token = token(file).await.map_err(|err| {
                tracing::warn!(error = %err, "http.operate_token_files");
                super::failure("a file of http.operate_token_files cannot be used; see the log")
            })?;
            known |= same(given, &token);
        }
        if known {
            return Ok(());
        }
        let mut refusal = answer(StatusCode::UNAUTHORIZED, "a valid bearer token is needed");
        let challenge = HeaderValue::from_static("Bearer");
        refusal
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        Err(refusal)
    }
}

/// Lets through who may change something.
pub(super) async fn operate(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.access.check(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// Compares digests, all of them: how long it takes tells nothing of the token.
fn same(given: &str, token: &str) -> bool {
    let (given, token) = (Sha256::digest(given), Sha256::digest(token));
    let different = given
        .iter()
        .zip(&token)
        .fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(different) == 0
}

/// The token in a file, without white space around it.
async fn token(file: &Path) -> Result<String, std::io::Error> {
    let refuse = |reason: &str| {
        let reason = format!("{}: {reason}", file.display());
        std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
    };
    let opened = tokio::fs::File::open(file).await;
    let mut text = String::new();
    opened
        .map_err(|err| refuse(&err.to_string()))?
        .take(MAX_TOKEN)
        .read_to_string(&mut text)
        .await
        .map_err(|err| refuse(&err.to_string()))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN {
        return Err(refuse("the token must have at least 16 characters"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_or_it_is_not() {
        assert!(same("correct horse battery", "correct horse battery"));
        for wrong in ["", "correct horse batter", "Correct horse battery"] {
            assert!(!same(wrong, "correct horse battery"), "{wrong}");
        }
    }
}
