//! Directories of certificates, and hands that are shaken with them.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::stream::PeerStream;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// A CA, and what it signs.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Ca { pem, issuer }
    }

    /// A directory with a certificate for these URIs, after a last touch.
    fn directory(&self, uris: &[&str], touch: impl FnOnce(&mut CertificateParams)) -> TempDir {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        touch(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write(CA_FILE, &self.pem).unwrap();
        write(CERTIFICATE_FILE, &certificate.pem()).unwrap();
        write(KEY_FILE, &key.serialize_pem()).unwrap();
        folder
    }

    fn tls(&self, name: &str) -> Tls {
        let folder = self.directory(&[&format!("vnode:{name}")], |_| {});
        Tls::load(folder.path(), &node(name)).unwrap()
    }
}

fn refusal(folder: &TempDir, name: &str) -> String {
    Tls::load(folder.path(), &node(name))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_certificate_is_for_the_nodes_that_it_names() {
    let ca = Ca::new("ca");
    let folder = ca.directory(
        &["vnode:a", "vnode:node@127.0.0.1:7381", "http:b"],
        |params| {
            let dns = SanType::DnsName("c.example".try_into().unwrap());
            params.subject_alt_names.push(dns);
        },
    );
    for name in ["a", "node@127.0.0.1:7381", "c.example"] {
        assert!(Tls::load(folder.path(), &node(name)).is_ok(), "{name}");
    }
    for name in ["b", "A", "aa", "example", "*"] {
        let error = refusal(&folder, name);
        let words = format!(
            "node.pem for TLS: it is for a, node@127.0.0.1:7381, c.example, and this node is {name}\n  next: make a certificate with the URI vnode:{name}"
        );
        assert!(error.contains(&words), "{error}");
    }
    let any = ca.directory(&["vnode:*"], |_| {});
    assert!(Tls::load(any.path(), &node("b")).is_ok());
    let nobody = ca.directory(&[], |_| {});
    assert!(refusal(&nobody, "a").contains("it is for no node, and this node is a"));
}

#[test]
fn a_directory_that_is_no_good_says_which_file_and_why() {
    let ca = Ca::new("ca");
    let good = || ca.directory(&["vnode:a"], |_| {});
    type Spoil = fn(&Path);
    let write: [(Spoil, &str); 10] = [
        (
            |d| std::fs::remove_file(d.join(CA_FILE)).unwrap(),
            "ca.pem for TLS: No such file",
        ),
        (
            |d| std::fs::remove_file(d.join(CERTIFICATE_FILE)).unwrap(),
            "node.pem for TLS: No such file",
        ),
        (
            |d| std::fs::remove_file(d.join(KEY_FILE)).unwrap(),
            "node-key.pem for TLS: No such file",
        ),
        (
            |d| std::fs::write(d.join(CA_FILE), "").unwrap(),
            "ca.pem for TLS: there is no certificate in it",
        ),
        (
            |d| std::fs::write(d.join(KEY_FILE), "").unwrap(),
            "node-key.pem for TLS: there is no key in it",
        ),
        (
            |d| std::fs::write(d.join(CERTIFICATE_FILE), "-----BEGIN CERTIFICATE-----\n?").unwrap(),
            "node.pem for TLS: it is no PEM: ",
        ),
        (
            |d| {
                std::fs::write(
                    d.join(CA_FILE),
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                )
                .unwrap()
            },
            "ca.pem for TLS: it is no certificate of a CA: ",
        ),
        (
            |d| {
                std::fs::write(
                    d.join(KEY_FILE),
                    KeyPair::generate().unwrap().serialize_pem(),
                )
                .unwrap()
            },
            "node-key.pem for TLS: it is not the key of node.pem beside it",
        ),
        (
            |d| std::fs::write(d.join(CA_FILE), Ca::new("other").pem).unwrap(),
            "node.pem for TLS: it is signed by no CA of ca.pem beside it",
        ),
        (
            |d| std::fs::write(d.join(CA_FILE), Ca::new("ca").pem).unwrap(),
            "node.pem for TLS: it is signed by no CA of ca.pem beside it",
        ),
    ];
    for (spoil, words) in write {
        let folder = good();
        spoil(folder.path());
        let error = refusal(&folder, "a");
        assert!(error.starts_with("cannot use "), "{error}");
        assert!(
            error.contains(words) && error.contains("\n  next: "),
            "{words}: {error}"
        );
    }
}

#[test]
fn a_certificate_that_others_would_refuse_is_refused_at_once() {
    let ca = Ca::new("ca");
    let past = SystemTime::now() - Duration::from_secs(60);
    let expired = ca.directory(&["vnode:a"], |params| params.not_after = past.into());
    assert!(refusal(&expired, "a").contains("certificate expired"));
    let early = ca.directory(&["vnode:a"], |params| {
        params.not_before = (SystemTime::now() + Duration::from_secs(3600)).into();
    });
    assert!(refusal(&early, "a").contains("certificate not valid yet"));
    let one_way = ca.directory(&["vnode:a"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let error = refusal(&one_way, "a");
    assert!(
        error.contains("does not allow extended key usage for client"),
        "{error}"
    );
}

#[test]
fn two_cas_are_trusted_while_one_takes_the_place_of_the_other() {
    let (old, new) = (Ca::new("ca"), Ca::new("ca"));
    let folder = new.directory(&["vnode:a"], |_| {});
    let both = format!("{}{}", old.pem, new.pem);
    std::fs::write(folder.path().join(CA_FILE), both).unwrap();
    assert!(Tls::load(folder.path(), &node("a")).is_ok());
}

/// Two ends of a connection.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// The same, with TLS.
async fn secured() -> (PeerStream, PeerStream) {
    let ca = Ca::new("ca");
    let (a, b) = (ca.tls("a"), ca.tls("b"));
    let (mut dialled, mut accepted) = sockets().await;
    let (here, there) = tokio::join!(a.connect(&mut dialled), b.accept(&mut accepted));
    (
        PeerStream::new(dialled, Some(here.unwrap())),
        PeerStream::new(accepted, Some(there.unwrap())),
    )
}

#[tokio::test]
async fn each_side_learns_whose_certificate_the_other_has() {
    let (dialled, accepted) = secured().await;
    let name = |stream: &PeerStream| names(&stream.certificate().unwrap());
    assert_eq!(
        (name(&dialled), name(&accepted)),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
}

#[tokio::test]
async fn what_is_written_comes_out_at_the_other_end_however_slowly_it_is_read() {
    let (dialled, accepted) = secured().await;
    let (from, to) = dialled.split(TcpStream::into_split);
    let (mut back, mut forth) = accepted.split(TcpStream::into_split);
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    let sent = bytes.clone();
    // As executors write: what is refused comes again.
    let writing = tokio::spawn(async move {
        let mut rest = &*sent;
        while !rest.is_empty() {
            match to.try_write(rest, |half, sealed| half.try_write(sealed)) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    to.socket().writable().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let (mut heard, mut chunk) = (Vec::new(), [0; 1000]);
    let mut size = 1;
    while heard.len() < bytes.len() {
        let count = back.read(&mut chunk[..size]).await.unwrap();
        assert!(count > 0);
        heard.extend_from_slice(&chunk[..count]);
        size = size % chunk.len() + 1;
    }
    assert!(heard == bytes);
    writing.await.unwrap();
    // The other way, as the control plane writes; and the end without a goodbye is an ordinary end.
    let mut from = from;
    let reading = tokio::spawn(async move {
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).await.unwrap();
        heard
    });
    forth.write_all(&bytes).await.unwrap();
    drop((forth, back));
    assert!(reading.await.unwrap() == bytes);
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_explained_on_both_sides() {
    for name in ["ca", "other"] {
        let (a, b) = (Ca::new("ca").tls("a"), Ca::new(name).tls("b"));
        let (mut dialled, mut accepted) = sockets().await;
        let (here, there) = tokio::join!(a.connect(&mut dialled), b.accept(&mut accepted));
        let (Err(ShakeError::Tls(here)), Err(ShakeError::Tls(there))) = (here, there) else {
            panic!("they trust each other");
        };
        let (here, there) = (a.explain(&here), b.explain(&there));
        assert!(
            here.starts_with("its certificate is signed by no CA of "),
            "{here}"
        );
        assert!(there.starts_with("it does not trust "), "{there}");
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_not_let_in() {
    let ca = Ca::new("ca");
    let b = ca.tls("b");
    let mut stranger = (*ca.tls("a").client).clone();
    stranger.client_auth_cert_resolver = Arc::new(Nobody);
    let tls = ClientConnection::new(Arc::new(stranger), "node".try_into().unwrap()).unwrap();
    let (mut dialled, mut accepted) = sockets().await;
    let shaking = stream::shake(&mut dialled, Connection::Client(tls));
    let (_, there) = tokio::join!(shaking, b.accept(&mut accepted));
    let Err(ShakeError::Tls(there)) = there else {
        panic!("it was let in");
    };
    assert_eq!(
        b.explain(&there),
        "it shows no certificate; start it with --tls-dir"
    );
}

#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
