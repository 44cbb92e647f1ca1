//! Who may change something over HTTP: who has the bearer token of `http.admin_token_file`.
//!
//! The file is read for each request, so that a rotated secret counts at once.

use std::path::Path;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{Api, answer};

/// Largest token file.
const MAX_TOKEN: u64 = 4096;
/// A shorter token can be guessed.
const MIN_TOKEN: usize = 16;

/// Whether the request carries the token.
pub(super) async fn allowed(api: &Api, headers: &HeaderMap) -> Result<(), Response> {
    let file = &api.admin_token_file;
    if file.as_os_str().is_empty() {
        let reason = "http.admin_token_file is not set: nothing can be changed over HTTP";
        return Err(answer(StatusCode::FORBIDDEN, reason));
    }
    let token = token(file).await.map_err(|err| {
        tracing::warn!(error = %err, "http.admin_token_file");
        super::failure("http.admin_token_file cannot be used; see the log")
    })?;
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    if same(given, &token) {
        return Ok(());
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let mut refusal = answer(StatusCode::UNAUTHORIZED, "a valid bearer token is needed");
    refusal
        .headers_mut()
        .extend(challenge.map(|(name, value)| (name, header::HeaderValue::from_static(value))));
    Err(refusal)
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
pub(super) async fn token(file: &Path) -> Result<String, std::io::Error> {
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
