//! The operator: who has the token, and the commands that need it.

use std::process::Output;

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

    /// `pacs-gateway <words>`, with the address and the token.
    pub fn command(&self, gateway: &Gateway, words: &[&str]) -> Output {
        let mut command = binary();
        command.args(words);
        command.args(["--url", &format!("http://127.0.0.1:{}", gateway.http_port)]);
        command.env("PACS_GATEWAY_TOKEN_FILE", self.token.path());
        peers::run(&mut command)
    }
}
