//! One request to a collector: OTLP over gRPC, or over HTTP/1.1 with a protobuf body.
//!
//! A gRPC call without streams is an HTTP/2 request with five bytes before the message and a status in
//! the trailers (grpc.io, "gRPC over HTTP2"). hyper does both, over the gateway's own TLS; a library
//! for each would bring three stacks for one request.

use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Config, Protocol};
use crate::tls;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";
/// Bytes of an answer at most.
const MAX_ANSWER: usize = 64 << 10;

/// Why spans did not arrive.
#[derive(Debug)]
pub(super) enum Failure {
    /// The collector is away or busy: the same again, later.
    Away(String),
    /// It does not want them.
    Refused(String),
}

/// Where the collector is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    protocol: Protocol,
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// Reads `traces.endpoint`.
    pub fn parse(config: &Config) -> Result<Self, String> {
        let uri: Uri = config.endpoint.parse().map_err(|err| format!("{err}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("must begin with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or("names no host")?;
        let (host, protocol) = (authority.host(), config.protocol);
        if host.is_empty() || authority.as_str().contains('@') {
            return Err("names no host".to_owned());
        }
        let port = authority.port_u16().unwrap_or(match protocol {
            Protocol::Grpc => 4317,
            Protocol::Http => 4318,
        });
        let base = uri.path().trim_end_matches('/');
        let path = match protocol {
            Protocol::Grpc => GRPC_PATH.to_owned(),
            Protocol::Http if base.ends_with(HTTP_PATH) => base.to_owned(),
            Protocol::Http => format!("{base}{HTTP_PATH}"),
        };
        Ok(Self {
            protocol,
            secure,
            authority: format!("{host}:{port}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path,
        })
    }
}

/// A collector, and the connection to it while there is one.
pub(super) struct Transport {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    link: Option<Link>,
}

enum Link {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Transport {
    /// Nothing is connected yet.
    pub fn new(config: &Config) -> Result<Self, String> {
        let target = Target::parse(config).map_err(|err| format!("traces.endpoint: {err}"))?;
        let ca: Vec<PathBuf> = Some(config.ca.clone())
            .filter(|ca| !ca.as_os_str().is_empty())
            .into_iter()
            .collect();
        let tls = if target.secure {
            let base = tls::client_config(&ca, None);
            let mut base = (*base.map_err(|err| format!("traces.ca: {err}"))?).clone();
            base.alpn_protocols = match target.protocol {
                Protocol::Grpc => vec![b"h2".to_vec()],
                Protocol::Http => vec![b"http/1.1".to_vec()],
            };
            Some(Arc::new(base))
        } else {
            None
        };
        Ok(Self {
            target,
            tls,
            link: None,
        })
    }

    /// Sends one encoded request; gives how many of its spans the collector rejects. The caller sets
    /// the deadline; a call that is cut off costs the connection.
    pub async fn send(&mut self, message: &Bytes) -> Result<u64, Failure> {
        let mut link = match self.link.take() {
            Some(link) if !link.is_closed() => link,
            _ => self.connect().await.map_err(Failure::Away)?,
        };
        let request = self.request(message).map_err(Failure::Refused)?;
        let answer = link.ask(request).await.map_err(away)?;
        let status = answer.status();
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|err| Failure::Away(err.to_string()))?;
        let trailers = body.trailers().cloned();
        let rejected = match self.target.protocol {
            Protocol::Grpc => {
                grpc_verdict(status, &head.headers, trailers.as_ref())?;
                rejected(body.to_bytes().get(5..).unwrap_or_default())
            }
            Protocol::Http => {
                http_verdict(status)?;
                rejected(&body.to_bytes())
            }
        };
        self.link = Some(link);
        Ok(rejected)
    }

    fn request(&self, message: &Bytes) -> Result<Request<Full<Bytes>>, String> {
        let Target {
            authority, path, ..
        } = &self.target;
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let request = Request::post(match self.target.protocol {
            Protocol::Http => path.clone(),
            Protocol::Grpc if self.tls.is_some() => format!("https://{authority}{path}"),
            Protocol::Grpc => format!("http://{authority}{path}"),
        })
        .header(USER_AGENT, agent);
        let built = match self.target.protocol {
            Protocol::Http => request
                .header(HOST, authority)
                .header(CONTENT_TYPE, "application/x-protobuf")
                .body(Full::new(message.clone())),
            Protocol::Grpc => {
                let length = u32::try_from(message.len()).map_err(|err| err.to_string())?;
                let mut framed = Vec::with_capacity(message.len() + 5);
                // Not compressed.
                framed.push(0);
                framed.extend_from_slice(&length.to_be_bytes());
                framed.extend_from_slice(message);
                request
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(HeaderName::from_static("te"), "trailers")
                    .body(Full::new(Bytes::from(framed)))
            }
        };
        built.map_err(|err| err.to_string())
    }

    async fn connect(&self) -> Result<Link, String> {
        let Target { host, port, .. } = &self.target;
        let socket = TcpStream::connect((host.as_str(), *port)).await;
        let socket = socket.map_err(|err| err.to_string())?;
        let _ = socket.set_nodelay(true);
        match &self.tls {
            None => self.handshake(socket).await,
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|err| err.to_string())?;
                let connector = TlsConnector::from(Arc::clone(tls));
                let stream = connector.connect(name, socket).await;
                self.handshake(stream.map_err(|err| err.to_string())?).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        // The tasks end with their connections, which end with the link.
        match self.target.protocol {
            Protocol::Http => {
                let made = http1::handshake(io).await.map_err(|err| err.to_string())?;
                let (link, connection) = made;
                tokio::spawn(connection);
                Ok(Link::Http1(link))
            }
            Protocol::Grpc => {
                let made = http2::handshake(TokioExecutor::new(), io).await;
                let (link, connection) = made.map_err(|err| err.to_string())?;
                tokio::spawn(connection);
                Ok(Link::Http2(link))
            }
        }
    }
}

impl Link {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(link) => link.is_closed(),
            Self::Http2(link) => link.is_closed(),
        }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(link) => {
                link.ready().await?;
                link.send_request(request).await
            }
            Self::Http2(link) => {
                link.ready().await?;
                link.send_request(request).await
            }
        }
    }
}

fn away(err: hyper::Error) -> Failure {
    Failure::Away(err.to_string())
}

/// What OTLP says may be tried again (OTLP 1.x, "Failures").
fn http_verdict(status: StatusCode) -> Result<(), Failure> {
    let answer = format!("HTTP {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        429 | 502 | 503 | 504 => Err(Failure::Away(answer)),
        _ => Err(Failure::Refused(answer)),
    }
}

fn grpc_verdict(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
) -> Result<(), Failure> {
    if status != StatusCode::OK {
        return http_verdict(status).and(Err(Failure::Refused(format!("HTTP {status}"))));
    }
    let find = |name: &str| {
        trailers
            .and_then(|t| t.get(name))
            .or_else(|| headers.get(name))
    };
    let code = find("grpc-status")
        .map(HeaderValue::to_str)
        .and_then(Result::ok);
    match code {
        Some("0") => Ok(()),
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        Some(code @ ("1" | "4" | "8" | "10" | "11" | "14" | "15")) => {
            Err(Failure::Away(format!("gRPC status {code}")))
        }
        Some(code) => Err(Failure::Refused(format!("gRPC status {code}"))),
        None => Err(Failure::Away("no gRPC status".to_owned())),
    }
}

/// How many spans a collector that took the request has rejected; an answer that cannot be read
/// rejects none.
fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    u64::try_from(partial.rejected_spans).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_names_host_port_and_path() {
        let parse = |endpoint: &str, protocol| {
            let config = Config {
                endpoint: endpoint.to_owned(),
                protocol,
                ..Config::default()
            };
            let target = Target::parse(&config).unwrap();
            (target.authority, target.path)
        };
        for (endpoint, authority, path) in [
            ("http://otel:4318", "otel:4318", "/v1/traces"),
            ("https://otel/", "otel:4318", "/v1/traces"),
            ("http://[::1]:9/v1/traces", "[::1]:9", "/v1/traces"),
            ("http://otel:1/base/", "otel:1", "/base/v1/traces"),
        ] {
            let got = parse(endpoint, Protocol::Http);
            assert_eq!(got, (authority.to_owned(), path.to_owned()));
        }
        let (authority, path) = parse("http://otel", Protocol::Grpc);
        assert_eq!(
            (authority.as_str(), path.as_str()),
            ("otel:4317", GRPC_PATH)
        );
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let status = |code: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(code),
            )])
        };
        let grpc = |code| grpc_verdict(StatusCode::OK, &HeaderMap::new(), Some(&status(code)));
        assert!(grpc("0").is_ok());
        assert!(matches!(grpc("14"), Err(Failure::Away(_))));
        assert!(matches!(grpc("16"), Err(Failure::Refused(_))));
        let headers_only = grpc_verdict(StatusCode::OK, &status("3"), None);
        assert!(matches!(headers_only, Err(Failure::Refused(_))));
        let http = |code| http_verdict(StatusCode::from_u16(code).unwrap());
        assert!(http(200).is_ok());
        assert!(matches!(http(503), Err(Failure::Away(_))));
        assert!(matches!(http(400), Err(Failure::Refused(_))));
    }
}
