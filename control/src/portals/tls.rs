//! Outlets whose targets speak TLS. The engine has no TLS: it connects to a Unix socket of this process, which carries the
//! connection over TLS to the target. Such connections end with control, and new ones need it alive.

use super::listening::bind_unix;
use super::lock;
use crate::error::Error;
use crate::resolve::lookup;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Most connections of one outlet; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;

/// How long connecting to one address, and agreeing on keys, may take each.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A Unix socket behind which is a target that speaks TLS. It is gone when this is dropped.
pub(super) struct Bridge {
    path: PathBuf,
    task: AbortHandle,
    failed: Failed,
}

/// What was wrong with the last connection that failed, and when.
type Failed = Arc<Mutex<Option<(Instant, String)>>>;

impl Bridge {
    /// Where the engine connects to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was wrong with the last connection, if one failed less than `within` ago.
    pub(super) fn failure(&self, within: Duration) -> Option<String> {
        let failed = lock(&self.failed).clone();
        failed.filter(|(when, _)| when.elapsed() < within).map(|(_, why)| why)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a socket is gone already");
        }
    }
}

/// The certificates that this machine trusts.
///
/// # Errors
/// [`Error::NoCertificates`].
pub(super) fn trusted() -> Result<Arc<ClientConfig>, Error> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::NoCertificates);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be used: {error}")))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The name that the certificate of a host must have.
///
/// # Errors
/// [`Error::BadArgument`].
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned()).map_err(|_| Error::BadArgument {
        argument: "to".into(),
        value: crate::text::escape(host.as_bytes(), 300),
        why: "is no name that a certificate could have".into(),
        fix: "Give the host as it stands in the certificate of the target.".into(),
    })
}

/// Listens at `path` for the engine, and carries what comes to the target.
///
/// # Errors
/// Those of the socket, of [`server_name`].
pub(super) fn open(path: &Path, host: &str, port: u16, config: Arc<ClientConfig>) -> Result<Bridge, Error> {
    let name = server_name(host)?;
    let cannot = |error: std::io::Error| Error::storage("listen on", path, &error);
    let socket = std::os::unix::net::UnixListener::from(bind_unix(path)?);
    socket.set_nonblocking(true).map_err(cannot)?;
    let listener = UnixListener::from_std(socket).map_err(cannot)?;
    let failed = Failed::default();
    let target = Target { host: host.to_owned(), port, name, connector: TlsConnector::from(config) };
    let task = tokio::spawn(serve(listener, Arc::new(target), failed.clone()));
    Ok(Bridge { path: path.to_owned(), task: task.abort_handle(), failed })
}

/// What is behind a bridge.
struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
}

async fn serve(listener: UnixListener, target: Arc<Target>, failed: Failed) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // They end with the bridge.
    let mut carried = tokio::task::JoinSet::new();
    loop {
        let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        while carried.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an outlet's connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (target, failed) = (target.clone(), failed.clone());
        carried.spawn(async move {
            let _permit = permit;
            if let Err(why) = carry(stream, &target).await {
                tracing::debug!(host = target.host, port = target.port, why, "a TLS connection of an outlet failed");
                *lock(&failed) = Some((Instant::now(), why));
            }
        });
    }
}

/// Carries one connection. What fails closes it, which is all that the engine is told.
async fn carry(mut stream: UnixStream, target: &Target) -> Result<(), String> {
    let addresses = lookup(&target.host, target.port).await.map_err(|error| error.to_string())?;
    let mut why = String::new();
    for address in addresses {
        let tcp = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                why = format!("{address}: {error}");
                continue;
            }
            Err(_) => {
                why = format!("{address} did not answer");
                continue;
            }
        };
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let agreed = timeout(HANDSHAKE_LIMIT, target.connector.connect(target.name.clone(), tcp)).await;
        let mut tls = match agreed {
            Ok(agreed) => agreed.map_err(|error| format!("no TLS with {address}: {error}"))?,
            Err(_) => return Err(format!("no TLS with {address}: it does not answer")),
        };
        // What ends in its midst is the business of both ends, as without TLS.
        let _ = copy_bidirectional(&mut stream, &mut tls).await;
        return Ok(());
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// An authority, what a client trusts who trusts it, and a target with a certificate of it for `localhost`.
    async fn target() -> (u16, Arc<ClientConfig>) {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    // All of it, and only then the answer: the end of what comes must come, too.
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.unwrap();
                    stream.write_all(&all).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        (port, Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
    }

    async fn through(bridge: &Bridge, data: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(bridge.path()).await.unwrap();
        let mut answer = Vec::new();
        // A bridge that closes at once may do so before everything is written.
        if stream.write_all(data).await.is_ok() && stream.shutdown().await.is_ok() {
            let _ = stream.read_to_end(&mut answer).await;
        }
        answer
    }

    #[test]
    fn every_byte_goes_to_a_target_that_proves_its_name_and_none_to_another() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tls-1.sock");
            let (port, config) = target().await;
            let data: Vec<u8> = (0..3_000_000).map(|at: u32| (at % 251) as u8).collect();
            let bridge = open(&path, "localhost", port, config.clone()).unwrap();
            assert!(through(&bridge, &data).await == data, "bytes were changed or lost");
            assert_eq!(bridge.failure(Duration::MAX), None);
            drop(bridge);
            assert!(!path.exists());

            let (_, other) = target().await;
            for (host, config, why) in
                [("127.0.0.1", config.clone(), "not valid for name"), ("localhost", other, "invalid peer certificate")]
            {
                let bridge = open(&path, host, port, config).unwrap();
                assert_eq!(through(&bridge, b"secret").await, b"");
                let failure = bridge.failure(Duration::MAX).unwrap();
                assert!(failure.contains(why), "{failure}");
            }
            // Nobody is there.
            let closed = crate::resolve::bind_listener("127.0.0.1:0".parse().unwrap()).unwrap().1.port();
            let bridge = open(&path, "127.0.0.1", closed, config.clone()).unwrap();
            assert_eq!(through(&bridge, b"secret").await, b"");
            assert!(bridge.failure(Duration::MAX).unwrap().contains("refused"));
            assert!(matches!(open(&path, "a b", 1, config), Err(Error::BadArgument { .. })));
        });
    }
}
