//! Which gateway a command asks, and with which token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsConfigBuilder, parse_pem};

use super::ConfigArgs;
use crate::config::Config;
use crate::http::operator;

/// Instead of a file: the token itself. No argument, because those are seen by everybody.
const TOKEN: &str = "PACS_GATEWAY_TOKEN";

/// Where the gateway is, and who asks.
#[derive(Args)]
pub(super) struct Gateway {
    /// URL of the gateway's HTTP server; without, `http.bind` on this machine.
    #[arg(long, global = true, env = "PACS_GATEWAY_URL")]
    url: Option<String>,
    /// PEM file of the authority of the server's certificate; without, those of the system.
    #[arg(long, global = true, value_name = "FILE", env = "PACS_GATEWAY_CA")]
    ca: Option<PathBuf>,
    /// File with a bearer token; without, the variable PACS_GATEWAY_TOKEN, or the token of the local
    /// operator in `spool.dir`.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PACS_GATEWAY_TOKEN_FILE"
    )]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A gateway that can be asked.
pub(super) struct Server {
    /// How to connect.
    pub agent: ureq::Agent,
    /// The header of that name.
    pub authorization: String,
    base: String,
}

impl Server {
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base.trim_end_matches('/'))
    }
}

impl Gateway {
    /// Decides where to ask and as whom. `deadline`: of the whole request.
    pub(super) fn find(&self, deadline: Duration) -> anyhow::Result<Server> {
        let (base, tls) = match &self.url {
            Some(url) => (url.clone(), self.tls()?),
            None => self.here()?,
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(deadline))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        let token = self.token(&base)?;
        Ok(Server {
            agent,
            authorization: format!("Bearer {token}"),
            base,
        })
    }

    /// TLS that trusts `--ca`, or the authorities of the system.
    fn tls(&self) -> anyhow::Result<TlsConfig> {
        let mut trusted = Vec::<Certificate<'static>>::new();
        if let Some(file) = &self.ca {
            let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) =
                    item.with_context(|| format!("reading {}", file.display()))?
                {
                    trusted.push(certificate);
                }
            }
            if trusted.is_empty() {
                bail!("{} holds no certificate", file.display());
            }
        } else {
            let system = rustls_native_certs::load_native_certs().certs;
            trusted.extend(
                system
                    .iter()
                    .map(|der| Certificate::from_der(der).to_owned()),
            );
        }
        let builder = client().root_certs(RootCerts::from(trusted));
        Ok(builder.build())
    }

    /// The gateway of our own configuration on this machine. Its certificate carries other names than
    /// its address, so without `--ca` it is not checked: the way to ourselves is as safe as it is
    /// without TLS.
    fn here(&self) -> anyhow::Result<(String, TlsConfig)> {
        let config = self.config()?;
        let address = local(&config.http.bind);
        if config.http.tls.certificate.as_os_str().is_empty() {
            return Ok((format!("http://{address}"), client().build()));
        }
        let tls = match &self.ca {
            Some(_) => self.tls()?,
            None => client().disable_verification(true).build(),
        };
        Ok((format!("https://{address}"), tls))
    }

    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.config.config)?)
    }

    fn token(&self, base: &str) -> anyhow::Result<String> {
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("reading {}", file.display()))?;
            return Ok(text.trim().to_owned());
        }
        match std::env::var(TOKEN) {
            Ok(token) => return Ok(token.trim().to_owned()),
            Err(std::env::VarError::NotUnicode(_)) => bail!("{TOKEN} is no text"),
            Err(std::env::VarError::NotPresent) => {}
        }
        if self.url.is_some() && !private(base) {
            bail!(
                "a token is needed: give --token-file, or set PACS_GATEWAY_TOKEN_FILE or {TOKEN}. \
                 That of the local operator is not sent to {base}"
            );
        }
        let file = self.config()?.spool.dir.join(operator::FILE);
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "a token is needed: give --token-file, set PACS_GATEWAY_TOKEN_FILE or {TOKEN}, or run \
                 this as the gateway's user with its --config. Cannot read {}",
                file.display()
            )
        })?;
        Ok(text.trim().to_owned())
    }
}

/// With the same cryptography as everything else of ours.
fn client() -> TlsConfigBuilder {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    TlsConfig::builder().unversioned_rustls_crypto_provider(provider)
}

/// Where to connect to what listens on `bind`.
fn local(bind: &str) -> String {
    match bind.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(v4)) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        Ok(SocketAddr::V6(v6)) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        _ => bind.to_owned(),
    }
}

/// Whether nobody else reads on the way: this machine, or TLS.
fn private(base: &str) -> bool {
    let Ok(uri) = base.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    uri.scheme_str() == Some("https")
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (bind, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("localhost:80", "localhost:80"),
        ] {
            assert_eq!(local(bind), asked);
        }
    }

    #[test]
    fn the_local_token_stays_on_this_machine_or_is_encrypted() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost:8080/", true),
            ("http://[::1]:8080", true),
            ("https://gateway-0.example:8080", true),
            ("http://gateway.example:8080", false),
            ("http://10.0.0.1:8080", false),
            ("nonsense", false),
        ] {
            assert_eq!(private(url), expected, "{url}");
        }
    }
}
