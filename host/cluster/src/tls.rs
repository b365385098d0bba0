//! The certificates of a node, and whom it trusts for theirs.
//!
//! A directory holds three PEM files: the CAs of the cluster, and the node's certificate with its key. Both sides of every
//! connection show a certificate that one of the CAs has signed. It is no host that it names but nodes, as `vnode:NAME` among its
//! URIs or, for a name that is one, as a DNS name; whoever says hello has to be one of them ([`hello`](crate::hello)). An
//! address is believed by nobody, with TLS or without. `vnode:*` is every node of the cluster.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection,
    DigitallySignedStruct, Error, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};
use vnode_ring::NodeName;

use crate::net::TcpStream;
use crate::stream::{self, Session, ShakeError};

/// The CAs of the cluster. During a change of the CA there are two.
pub const CA_FILE: &str = "ca.pem";

/// The certificate of the node, and after it those between it and the CA.
pub const CERTIFICATE_FILE: &str = "node.pem";

/// The key of the node's certificate.
pub const KEY_FILE: &str = "node-key.pem";

/// What stands before a node's name in a URI of a certificate.
pub const URI_SCHEME: &str = "vnode:";

/// In place of a name: every node.
pub const ANY_NODE: &str = "*";

/// Why a node cannot use its certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for TLS: {why}\n  next: {next}", file.display())]
pub struct TlsError {
    file: PathBuf,
    why: String,
    next: String,
}

/// What a node needs to speak TLS with others.
pub struct Tls {
    directory: PathBuf,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the directory, and finds out whether others can trust what it holds: nothing is left for the first connection to find.
    ///
    /// # Errors
    /// Names the file, what is wrong with it and what to do.
    pub fn load(directory: &Path, node: &NodeName) -> Result<Tls, TlsError> {
        let files = Files { directory };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let roots = Arc::new(files.roots()?);
        let chain = files.certificates(CERTIFICATE_FILE)?;
        let key = files.key()?;
        let members =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| files.unusable(CA_FILE, error.to_string(), CA_NEXT))?;
        let trust = Trust { roots, algorithms };
        files.judge(&chain, node, &trust, &*members)?;
        let unusable = |error: Error| files.unusable(KEY_FILE, of_key(&error), KEY_NEXT);
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        // There is no host to name, and each connection shows its certificates anew.
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(members)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Tls {
            directory: directory.to_owned(),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Shakes hands as the side that dialled.
    pub(crate) async fn connect(&self, socket: &mut TcpStream) -> Result<Session, ShakeError> {
        // Nobody looks at it: see `Trust`.
        let nobody = ServerName::try_from("node").map_err(|_| Error::UnsupportedNameType)?;
        let tls = ClientConnection::new(Arc::clone(&self.client), nobody)?;
        stream::shake(socket, Connection::Client(tls)).await
    }

    /// Shakes hands as the side that was dialled.
    pub(crate) async fn accept(&self, socket: &mut TcpStream) -> Result<Session, ShakeError> {
        let tls = ServerConnection::new(Arc::clone(&self.server))?;
        stream::shake(socket, Connection::Server(tls)).await
    }

    /// What people are told of a connection that TLS has ended.
    pub(crate) fn explain(&self, error: &Error) -> String {
        let file = |name| self.directory.join(name).display().to_string();
        match error {
            Error::InvalidCertificate(error) if is_foreign(error) => format!(
                "its certificate is signed by no CA of {}; give all nodes of the cluster certificates of one CA",
                file(CA_FILE)
            ),
            Error::InvalidCertificate(error) => format!("its certificate is refused: {error}"),
            Error::NoCertificatesPresented => {
                "it shows no certificate; start it with --tls-dir".to_owned()
            }
            Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
                "it says that {} has expired; make a new one",
                file(CERTIFICATE_FILE)
            ),
            // What is said of a certificate of another CA depends on the names of the two CAs.
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::DecryptError
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown,
            ) => format!(
                "it does not trust {}; give all nodes of the cluster certificates of one CA",
                file(CERTIFICATE_FILE)
            ),
            other => other.to_string(),
        }
    }
}

/// Whether a certificate is none of this cluster. If both CAs have one name it is the signature that gives it away.
fn is_foreign(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    )
}

/// The names of the nodes that a certificate is for.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris = parsed.valid_uri_names();
    let uris = uris.filter_map(|uri| uri.strip_prefix(URI_SCHEME));
    let names = uris.chain(parsed.valid_dns_names());
    names.map(str::to_owned).collect()
}

/// Whether a certificate is for a node.
///
/// # Errors
/// Says whom it is for.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, node: &NodeName) -> Result<(), String> {
    let names = names(certificate);
    let named = |name: &String| name == ANY_NODE || name == node.as_str();
    match names.iter().any(named) {
        true => Ok(()),
        false if names.is_empty() => Err("no node".to_owned()),
        false => Err(names.join(", ")),
    }
}

const CA_NEXT: &str =
    "put the certificate of the cluster's CA there as PEM; `host tls dev DIR` makes one to try it";
const CERTIFICATE_NEXT: &str = "put a certificate for this node there that the CA has signed, as PEM; `host tls dev DIR` makes one to try it";
const KEY_NEXT: &str = "put the key of node.pem there, as unencrypted PEM (PKCS #8)";

/// The directory as it is read.
struct Files<'a> {
    directory: &'a Path,
}

impl Files<'_> {
    fn unusable(&self, name: &str, why: impl Into<String>, next: impl Into<String>) -> TlsError {
        TlsError {
            file: self.directory.join(name),
            why: why.into(),
            next: next.into(),
        }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(CA_FILE)? {
            roots.add(certificate).map_err(|error| {
                self.unusable(
                    CA_FILE,
                    format!("it is no certificate of a CA: {error}"),
                    CA_NEXT,
                )
            })?;
        }
        Ok(roots)
    }

    /// All certificates of a file, at least one.
    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let next = if name == CA_FILE {
            CA_NEXT
        } else {
            CERTIFICATE_NEXT
        };
        let read = CertificateDer::pem_file_iter(self.directory.join(name))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| self.unusable(name, of_pem(&error), next))?;
        match read.is_empty() {
            true => Err(self.unusable(name, "there is no certificate in it", next)),
            false => Ok(read),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let path = self.directory.join(KEY_FILE);
        PrivateKeyDer::from_pem_file(path).map_err(|error| {
            let why = match error {
                pem::Error::NoItemsFound => "there is no key in it".to_owned(),
                error => of_pem(&error),
            };
            self.unusable(KEY_FILE, why, KEY_NEXT)
        })
    }

    /// What other nodes will make of this node's certificate, dialled by it or dialling it.
    fn judge(
        &self,
        chain: &[CertificateDer<'static>],
        node: &NodeName,
        trust: &Trust,
        members: &dyn ClientCertVerifier,
    ) -> Result<(), TlsError> {
        let Some((own, between)) = chain.split_first() else {
            return Ok(());
        };
        let now = UnixTime::now();
        let dialled = trust.judge(own, between, now);
        let dials = || members.verify_client_cert(own, between, now);
        if let Err(error) = dialled.and_then(|()| dials().map(drop)) {
            let why = match error {
                Error::InvalidCertificate(error) if is_foreign(&error) => {
                    format!("it is signed by no CA of {CA_FILE} beside it")
                }
                Error::InvalidCertificate(error) => error.to_string(),
                error => error.to_string(),
            };
            return Err(self.unusable(CERTIFICATE_FILE, why, CERTIFICATE_NEXT));
        }
        is_for(own, node).map_err(|names| {
            let why = format!("it is for {names}, and this node is {node}");
            let next = format!(
                "make a certificate with the URI {URI_SCHEME}{node} as a subject alternative name, or name the node otherwise with --name"
            );
            self.unusable(CERTIFICATE_FILE, why, next)
        })
    }
}

fn of_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        error => format!("it is no PEM: {error}"),
    }
}

fn of_key(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => format!("it is not the key of {CERTIFICATE_FILE} beside it"),
        error => error.to_string(),
    }
}

/// Trusts who shows a certificate that the cluster's CA has signed for a node, at whatever address.
#[derive(Debug)]
struct Trust {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(certificate, between, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// They have the machine's sockets.
#[cfg(test)]
#[cfg(not(feature = "sim"))]
mod tests;
