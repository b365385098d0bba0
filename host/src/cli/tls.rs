//! `host tls dev`: a throw-away CA with certificates, to try TLS between nodes.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use vnode_cluster::tls::{ANY_NODE, CA_FILE, CERTIFICATE_FILE, KEY_FILE, Tls, URI_SCHEME};
use vnode_ring::NodeName;

use super::args::TlsDev;
use super::output::Session;
use super::report::{Exit, Failure};

/// The key of the CA. No node needs it.
const CA_KEY_FILE: &str = "ca-key.pem";

/// What every CA of this kind is called, so that its key is enough to go on with it.
const CA_NAME: &str = "vnode host: CA to try TLS";

/// How long the certificates are good for.
const VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Clocks may differ by so much.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Makes a CA unless there is one, and certificates: one for every node, or one for each that is named.
pub(super) fn dev(session: &mut Session<'_>, args: &TlsDev) -> anyhow::Result<Exit> {
    let names = args.nodes.iter().map(|name| directory_name(name));
    let names = names.collect::<Result<Vec<NodeName>, _>>()?;
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make the directory {}", args.dir.display()))?;
    let (ca, made) = Ca::open(&args.dir)?;
    let mut directories = Vec::new();
    if names.is_empty() {
        ca.certify(&args.dir, ANY_NODE)?;
        directories.push((ANY_NODE, args.dir.clone()));
    }
    for name in &names {
        let directory = args.dir.join(name.as_str());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        fs::write(directory.join(CA_FILE), &ca.pem)
            .with_context(|| format!("cannot write {}", directory.join(CA_FILE).display()))?;
        ca.certify(&directory, name.as_str())?;
        directories.push((name.as_str(), directory));
    }
    report(session, &args.dir, made, &directories)
}

fn report(
    session: &mut Session<'_>,
    dir: &Path,
    made: bool,
    directories: &[(&str, PathBuf)],
) -> anyhow::Result<Exit> {
    if session.wants_json() {
        let nodes = directories
            .iter()
            .map(|(node, directory)| json!({ "node": node, "tls_dir": directory }));
        session.print_json(&json!({
            "ca": dir.join(CA_FILE), "ca_made": made, "certificates": nodes.collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Ok);
    }
    let ca = dir.join(CA_FILE);
    let mut text = match made {
        true => format!(
            "made {}, a CA to try TLS with, and its key in {CA_KEY_FILE}\n",
            ca.display()
        ),
        false => format!("kept {}, the CA that was there\n", ca.display()),
    };
    for (node, directory) in directories {
        let whose = match *node {
            ANY_NODE => "any node".to_owned(),
            node => format!("node {node}"),
        };
        let certificate = directory.join(CERTIFICATE_FILE);
        text += &format!(
            "made {} for {whose}, with its key in {KEY_FILE}; good for a year\n",
            certificate.display()
        );
    }
    if let Some((node, directory)) = directories.first() {
        let name = match *node {
            ANY_NODE => String::new(),
            node => format!(" --name {node}"),
        };
        text += &format!(
            "next: host --vnode kv{name} --tls-dir {}\n",
            directory.display()
        );
    }
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// A node whose certificate gets a directory of its name.
fn directory_name(name: &str) -> Result<NodeName, Failure> {
    if matches!(name, "." | "..") {
        return Err(Failure::usage(format!("{name:?} cannot name a directory"))
            .next("give the name that the node is started with, as --name"));
    }
    NodeName::new(name).map_err(|error| Failure::usage(error.to_string()))
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    /// The CA of a directory, which is made if there is none. Says whether it was.
    fn open(dir: &Path) -> anyhow::Result<(Ca, bool)> {
        let (path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let found = found(&path)?.zip(found(&key_path)?);
        if found.is_none() && (path.exists() || key_path.exists()) {
            let what = format!(
                "{} has one of {CA_FILE} and {CA_KEY_FILE} without the other",
                dir.display()
            );
            let next = "give another directory, or move the file away; nothing was written";
            return Err(Failure::new(what).next(next).into());
        }
        let made = found.is_none();
        let (pem, key) = match found {
            Some((pem, key)) => {
                let key = KeyPair::from_pem(&key)
                    .with_context(|| format!("{} is no key that can sign", key_path.display()))?;
                (pem, key)
            }
            None => {
                let key = KeyPair::generate()?;
                let pem = ca_params()?.self_signed(&key)?.pem();
                write_key(&key_path, &key)?;
                fs::write(&path, &pem)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                (pem, key)
            }
        };
        let issuer = Issuer::new(ca_params()?, key);
        Ok((Ca { issuer, pem }, made))
    }

    /// Writes a certificate for a node, or for any, with a new key, and sees whether a node could use them.
    fn certify(&self, directory: &Path, node: &str) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("vnode {node}"))?;
        params.subject_alt_names = vec![SanType::URI(format!("{URI_SCHEME}{node}").try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        write_key(&directory.join(KEY_FILE), &key)?;
        let path = directory.join(CERTIFICATE_FILE);
        fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
        Tls::load(directory, &NodeName::new(node)?).context(
            "the certificate was made, and is no good with the CA that was there; give another directory",
        )?;
        Ok(())
    }
}

fn ca_params() -> anyhow::Result<CertificateParams> {
    let mut params = params(CA_NAME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + VALID).into();
    Ok(params)
}

/// A file's text, if it is there.
fn found(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a key that nobody else may read, from its first byte on.
fn write_key(path: &Path, key: &KeyPair) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.serialize_pem().as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::report::render;
    use super::super::testing::execute;
    use super::*;

    fn make(dir: &Path, more: &str) -> String {
        let (exit, text) = execute(&format!("host tls dev {} {more}", dir.display()));
        assert_eq!(exit.unwrap(), Exit::Ok);
        text
    }

    fn refusal(dir: &Path, more: &str) -> String {
        let (exit, _) = execute(&format!("host tls dev {} {more}", dir.display()));
        render(&exit.unwrap_err())
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn one_certificate_is_good_for_any_node() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let text = make(&dir, "");
        let shown = dir.display();
        assert!(
            text.starts_with(&format!("made {shown}/ca.pem, a CA")),
            "{text}"
        );
        let next = format!("\nnext: host --vnode kv --tls-dir {shown}\n");
        assert!(text.ends_with(&next), "{text}");
        for name in ["a", "node@127.0.0.1:7381"] {
            assert!(Tls::load(&dir, &node(name)).is_ok());
        }
        for key in [KEY_FILE, CA_KEY_FILE] {
            let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn a_named_node_gets_a_certificate_of_its_own_from_the_ca_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        make(dir, "--node a");
        let ca = fs::read(dir.join(CA_FILE)).unwrap();
        let text = make(dir, "--node b --node node@127.0.0.1:7381");
        assert!(
            text.starts_with(&format!("kept {}/ca.pem", dir.display())),
            "{text}"
        );
        for name in ["a", "b", "node@127.0.0.1:7381"] {
            let own = dir.join(name);
            assert_eq!(fs::read(own.join(CA_FILE)).unwrap(), ca);
            assert!(Tls::load(&own, &node(name)).is_ok());
            let error = Tls::load(&own, &node("c")).unwrap_err().to_string();
            let words = format!("it is for {name}, and this node is c");
            assert!(error.contains(&words), "{error}");
        }
    }

    #[test]
    fn a_ca_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        fs::write(dir.join(CA_FILE), "somebody's").unwrap();
        let error = refusal(dir, "");
        assert!(
            error.contains("has one of ca.pem and ca-key.pem without the other"),
            "{error}"
        );
        assert_eq!(fs::read(dir.join(CA_FILE)).unwrap(), b"somebody's");
        fs::write(dir.join(CA_KEY_FILE), "no key").unwrap();
        assert!(refusal(dir, "").contains("ca-key.pem is no key that can sign"));
        // Its key is good, and belongs to another certificate.
        let other = dir.join("other");
        make(&other, "");
        fs::copy(other.join(CA_KEY_FILE), dir.join(CA_KEY_FILE)).unwrap();
        make(&dir.join("third"), "");
        fs::copy(dir.join("third").join(CA_FILE), dir.join(CA_FILE)).unwrap();
        let error = refusal(dir, "");
        assert!(
            error.contains("no good with the CA that was there"),
            "{error}"
        );
    }

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        for name in ["..", ".", "a/b", "../x"] {
            refusal(&dir, &format!("--node {name}"));
            assert!(!dir.exists(), "{name}");
        }
    }
}
