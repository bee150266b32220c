//! TLS in front of a plain server, with certificates made by `openssl` during the test.

use super::http_proxy::{TLS_NAME, pass};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A CA for the test, and its certificate for [`TLS_NAME`].
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes the certificates in this directory.
    pub fn make(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let made = Self { directory: directory.to_owned() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        made.openssl(
            &[
                &["req", "-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem"],
                key.as_slice(),
            ]
            .concat(),
        );
        made.openssl(
            &[&["req", "-subj", "/CN=ecs", "-keyout", "key.pem", "-out", "request.pem"], key.as_slice()].concat(),
        );
        std::fs::write(directory.join("names"), format!("subjectAltName=DNS:{TLS_NAME}\n")).expect("a file");
        made.openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            "cert.pem",
        ]);
        made
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.directory).output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The path of the CA's certificate, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> String {
        self.directory.join("ca.pem").to_string_lossy().into_owned()
    }
}

/// The listener; all its connections end with it.
#[derive(Debug)]
pub struct TlsFront {
    /// The front's URL, e.g. `https://ecs.prox:40000`.
    pub url: String,
    /// A URL without TLS, at a plain address; answers still contain `url`.
    pub plain_url: String,
    _accepting: JoinSet<()>,
}

impl TlsFront {
    /// Passes requests on to `http://127.0.0.1:<port>`, and replaces that address in answers by its own.
    pub async fn start(port: &str, certificates: &Certificates) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates.directory.join("cert.pem")).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(certificates.directory.join("key.pem")).expect("a key");
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{TLS_NAME}:{}", listener.local_addr().expect("an address").port());
        let plain_listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let plain_url = format!("http://{}", plain_listener.local_addr().expect("an address"));
        let plain = format!("http://127.0.0.1:{port}");
        assert_eq!(url.len(), plain.len(), "one replaces the other in bodies of fixed length");
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(plain_listener, None, plain.clone(), url.clone()));
        accepting.spawn(accept(listener, Some(TlsAcceptor::from(Arc::new(config))), plain, url.clone()));
        Self { url, plain_url, _accepting: accepting }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, plain: String, url: String) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (tls, plain, url) = (tls.clone(), plain.clone(), url.clone());
        connections.spawn(async move {
            match tls {
                None => serve(client, &plain, &url).await,
                Some(tls) => {
                    // A client that does not trust the certificate closes the connection here.
                    if let Ok(client) = tls.accept(client).await {
                        serve(client, &plain, &url).await;
                    }
                }
            }
        });
    }
}

async fn serve(client: impl AsyncRead + AsyncWrite, plain: &str, url: &str) {
    let server = TcpStream::connect(plain.trim_start_matches("http://")).await.expect("the server");
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ended = pass(from_client, to_server, TLS_NAME, TLS_NAME) => {}
        _ended = pass(from_server, to_client, plain, url) => {}
    }
}
