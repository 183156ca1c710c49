//! The connection to a server: its address, TLS, and the bearer token.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::failure::{Failure, Tried};

/// A channel whose calls carry the bearer token. It reconnects by itself.
pub type Service = InterceptedService<Channel, BearerToken>;

/// How often the file of the token is read again.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// What a connection is made of.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Security {
    /// File with the certificates that the server's must be signed by (PEM). Default: those of the system.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// File with the certificate that the worker shows to the server (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// File with the private key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// File with a bearer token, which is sent with each call. It is read again once a minute.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Returns a connection, which is made when it is first used.
pub fn connect(address: &str, security: &Security) -> Result<Service, Failure> {
    let address = address.replacen("grpc://", "http://", 1).replacen("grpcs://", "https://", 1);
    let wrong = |error| Failure::invalid(format!("{address:?} is no address of a server: {error}"));
    let endpoint = Endpoint::from_shared(address.clone()).map_err(wrong)?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
        return Err(Failure::invalid(format!(
            "{address:?} is no address of a server: begin it with http://, https://, grpc:// or grpcs://"
        )));
    }
    let is_encrypted = endpoint.uri().scheme_str() == Some("https");
    if security.token_file.is_some() && !is_encrypted && !is_loopback(&endpoint) {
        return Err(Failure::invalid(format!(
            "a token must not be sent to {address} without encryption: use an https:// address"
        )));
    }
    let mut endpoint = endpoint
        .connect_timeout(Duration::from_secs(10))
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .http2_keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    if is_encrypted {
        endpoint = endpoint.tls_config(tls(security)?).tried("set up TLS")?;
    } else if security.tls_ca.is_some() || security.tls_certificate.is_some() {
        return Err(Failure::invalid(format!(
            "{address} is not encrypted: use an https:// address, or no certificates"
        )));
    }
    let token = BearerToken::open(security.token_file.as_deref())?;
    Ok(InterceptedService::new(endpoint.connect_lazy(), token))
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn tls(security: &Security) -> Result<ClientTlsConfig, Failure> {
    let read = |path: &Path| fs::read(path).tried(format_args!("read {}", path.display()));
    let mut tls = ClientTlsConfig::new();
    tls = match &security.tls_ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&security.tls_certificate, &security.tls_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

/// Adds the bearer token to each call.
#[derive(Clone, Debug)]
pub struct BearerToken(Option<Arc<(PathBuf, Mutex<Current>)>>);

#[derive(Debug)]
struct Current {
    header: MetadataValue<Ascii>,
    read: Instant,
}

impl BearerToken {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let current = |path: &Path| Ok::<_, Failure>((path.to_owned(), Mutex::new(read_token(path)?)));
        Ok(Self(path.map(current).transpose()?.map(Arc::new)))
    }
}

fn read_token(path: &Path) -> Result<Current, Failure> {
    let what = format!("read the token in {}", path.display());
    let text = fs::read_to_string(path).tried(&what)?;
    let mut header: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().tried(&what)?;
    header.set_sensitive(true);
    Ok(Current { header, read: Instant::now() })
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some((path, current)) = self.0.as_deref() else { return Ok(request) };
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.read.elapsed() > TOKEN_LIFE {
            *current = read_token(path).map_err(|failure| Status::unauthenticated(failure.message))?;
        }
        request.metadata_mut().insert("authorization", current.header.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_not_sent_in_the_clear() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        fs::write(&token, "secret\n").unwrap();
        let security = Security { token_file: Some(token), ..Security::default() };
        let refused = connect("grpc://build.example:8980", &security).err().unwrap();
        assert!(refused.message.contains("without encryption"), "{refused}");
        assert!(connect("grpc://build.example:8980", &Security::default()).is_ok());
        assert!(connect("grpc://127.0.0.1:8980", &security).is_ok());
        assert!(connect("grpcs://build.example:8980", &security).is_ok());
    }

    #[test]
    fn a_token_is_in_the_header_of_each_call() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        fs::write(&token, "secret\n").unwrap();
        let mut bearer = BearerToken::open(Some(&token)).unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer secret");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
