//! An HTTPS front with a self-signed certificate that passes everything on to a plain port.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const PEM: &[u8] = include_bytes!("self-signed.pem");

/// The front; all its connections end with it.
#[derive(Debug)]
pub struct TlsFront {
    /// `https://` and the front's address.
    pub url: String,
    _accepting: JoinSet<()>,
}

impl TlsFront {
    /// Starts listening in front of this port of loopback.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let key = PrivateKeyDer::from_pem_slice(PEM).expect("a key");
        let certificate = CertificateDer::from_pem_slice(PEM).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            SocketAddr::from(([127, 0, 0, 1], port)),
        ));
        Self { url, _accepting: accepting }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A client that does not trust the certificate closes the connection, as some tests expect.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let Ok(mut server) = TcpStream::connect(behind).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
