//! The operator: who has the token, and the commands that need it.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::gateway::binary;
use super::{Gateway, Options, peers};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// Somebody with a token.
pub struct Operator {
    token: tempfile::NamedTempFile,
}

impl Operator {
    /// A new token.
    pub fn new() -> Self {
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), format!("{TOKEN}\n")).unwrap();
        Self { token }
    }

    /// [`Options::new`] of a gateway that knows the token.
    pub fn options(&self) -> Options {
        self.admit(Options::new())
    }

    /// The same with the token.
    pub fn admit(&self, options: Options) -> Options {
        options.set("http.operate_token_files", [self.token.path().to_owned()])
    }

    /// Status and body of the answer to a POST with the token.
    pub fn post(&self, gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}{path}", gateway.http_port);
        let post = agent.post(&url);
        let post = post.header("Authorization", format!("Bearer {TOKEN}"));
        let mut answer = post.send_json(body).unwrap();
        (
            answer.status().as_u16(),
            answer.body_mut().read_json().unwrap(),
        )
    }

    /// `pacs-gateway <words>`, with the address and the token.
    pub fn command(&self, gateway: &Gateway, words: &[&str]) -> Output {
        let mut command = binary();
        command.args(words);
        command.args(["--url", &format!("http://127.0.0.1:{}", gateway.http_port)]);
        command.env("PACS_GATEWAY_TOKEN_FILE", self.token.path());
        peers::run(&mut command)
    }
}
