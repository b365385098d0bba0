//! Nodes with certificates: whoever says hello has to be a node that his certificate names.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::io::AsyncWriteExt;
use vnode_cluster::hello::{self, DialError, Me};
use vnode_cluster::peers::Peers;
use vnode_cluster::tls::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, Tls};
use vnode_cluster::wire::{self, Answer, Purpose};

use super::nodes::{CLUSTER, Desk, call, name, serve_at};

/// Makes the certificates of a cluster.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Ca { pem, issuer }
    }

    /// The certificate of a node.
    fn tls(&self, node: &str) -> Option<Arc<Tls>> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = format!("vnode:{node}").try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |file, text| std::fs::write(folder.path().join(file), text).unwrap();
        write(CA_FILE, self.pem.clone());
        write(CERTIFICATE_FILE, certificate.pem());
        write(KEY_FILE, key.serialize_pem());
        Some(Arc::new(Tls::load(folder.path(), &name(node)).unwrap()))
    }
}

/// A node that has these certificates, whether they are its own or not.
fn peers(node: &str, tls: Option<Arc<Tls>>) -> Arc<Peers> {
    let me = Arc::new(Me::new(name(node), Some(CLUSTER), tls));
    Peers::new(me, SmallRng::seed_from_u64(1)).0
}

#[tokio::test]
async fn calls_go_over_tls() {
    let ca = Ca::new();
    let (a, b) = (peers("a", ca.tls("a")), peers("b", ca.tls("b")));
    let served = serve_at("127.0.0.1:0", &b, &Desk::new()).await;
    a.set_address(&name("b"), &served.address);
    let long = vec![7; 3_000_000];
    assert_eq!(call(&a, &long).await, Ok(long.clone()));
    assert_eq!(call(&a, b"short").await, Ok(b"short".to_vec()));
}

#[tokio::test]
async fn a_node_that_says_it_is_another_one_is_refused_by_both_names() {
    let ca = Ca::new();
    let b = peers("b", ca.tls("b"));
    let served = serve_at("127.0.0.1:0", &b, &Desk::new()).await;
    let thief = peers("a", ca.tls("c"));
    let hello = thief.me().hello(Purpose::Control, Some(name("b")));
    let error = hello::dial(&served.address, &hello, thief.me().tls()).await;
    let reason = "you say that you are a, and your certificate is for c; use one for a".to_owned();
    let address = served.address.clone();
    assert_eq!(error.unwrap_err(), DialError::Refused { address, reason });
    // And the other way: who answers is another than his certificate says.
    let honest = peers("b", ca.tls("b"));
    let stolen = serve_at("127.0.0.1:0", &thief, &Desk::new()).await;
    let hello = honest.me().hello(Purpose::Requests, None);
    let error = hello::dial(&stolen.address, &hello, honest.me().tls()).await;
    let expected = DialError::OtherCertificate {
        address: stolen.address.clone(),
        node: name("a"),
        names: "c".into(),
    };
    assert_eq!(error.unwrap_err(), expected);
}

#[tokio::test]
async fn the_ports_of_other_programs_are_told_apart_over_tls_too() {
    let ca = Ca::new();
    let a = peers("a", ca.tls("a"));
    let mut refused = Vec::new();
    let reason = "no".to_owned();
    wire::put_answer(&Answer::Refused { reason }, &mut refused).unwrap();
    for (said, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            "speaks HTTP, and did not say where",
        ),
        (b"-ERR unknown command\r\n", "is for Redis clients"),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "is that of another program than a node",
        ),
        (&refused, "does not speak TLS, and this node does"),
        (b"", "gave no answer to a hello"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let said = said.to_vec();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&said).await.unwrap();
            // It hangs up once it was heard.
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await);
        });
        let hello = a.me().hello(Purpose::Control, None);
        let error = hello::dial(&address, &hello, a.me().tls())
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(&format!("{address} {words}")), "{error}");
        serving.await.unwrap();
    }
}
