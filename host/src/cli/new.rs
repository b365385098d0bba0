//! `host new`: writes a guest project that builds, tests and loads as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::args::New;
use super::output::Session;
use super::report::{Exit, Failure};

/// Names that Cargo or Rust would trip over, or that are the SDK's own.
const RESERVED: &[&str] = &[
    "as",
    "async",
    "await",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "fn",
    "for",
    "guest-sdk",
    "guest_sdk",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "match",
    "mod",
    "move",
    "mut",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
    "alloc",
    "proc-macro",
    "proc_macro",
    "abstract",
    "become",
    "box",
    "do",
    "final",
    "gen",
    "macro",
    "override",
    "priv",
    "try",
    "typeof",
    "unsized",
    "virtual",
    "yield",
    "build",
    "deps",
    "examples",
    "incremental",
];

/// Makes the directory NAME with all files of the template.
pub(super) fn new(session: &mut Session<'_>, args: &New) -> anyhow::Result<Exit> {
    check_name(&args.name)?;
    let root = PathBuf::from(&args.name);
    refuse_used(&root)?;
    let sdk = sdk(args.sdk.as_deref())?;
    let mut written = Vec::new();
    for file in args.template.files() {
        let path = root.join(file.path);
        let text = fill(file.text, &args.name, &sdk);
        let folder = path.parent().unwrap_or(&root);
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the directory {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(file.path);
    }
    if session.wants_json() {
        session.print_json(&json!({ "directory": args.name, "files": written, "sdk": sdk }))?;
        return Ok(Exit::Ok);
    }
    let list = written.join("  ");
    session.print(&format!(
        "made {0}/: {list}\nguest-sdk: {sdk}\n\nnext:\n  cd {0}\n  cargo test        natively, in memory\n  \
         host build        for wasm32-wasip2\n  \
         host dev          serve it, and swap it whenever it is saved\n  host --vnode target/wasm32-wasip2/release/{1}.wasm\n",
        args.name,
        crate_name(&args.name)
    ))?;
    Ok(Exit::Ok)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !(1..=32).contains(&name.len())
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(legal)
    {
        return Err(Failure::usage(format!("{name:?} cannot name a guest"))
            .next("take 1 to 32 of a-z, 0-9, - and _, starting with a letter"));
    }
    if RESERVED.contains(&name) {
        return Err(
            Failure::usage(format!("{name:?} means something else to Rust or Cargo"))
                .next(format!("take another name, such as my-{name}")),
        );
    }
    Ok(())
}

fn refuse_used(root: &Path) -> Result<(), Failure> {
    let used = match fs::read_dir(root) {
        Ok(mut entries) => entries.next().is_some(),
        // Not there is what is wanted; a file, or a directory without permission, is in use.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if used {
        return Err(Failure::new(format!(
            "{} exists and is not an empty directory",
            root.display()
        ))
        .next("take another name, or move it away; nothing was written"));
    }
    Ok(())
}

/// The TOML value behind `guest-sdk =`.
fn sdk(wish: Option<&str>) -> Result<String, Failure> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
    match wish {
        None if beside.join("Cargo.toml").is_file() => sdk_path(&beside),
        None => Ok(toml_string(env!("CARGO_PKG_VERSION"))),
        Some(wish) if is_version(wish) => Ok(toml_string(wish)),
        Some(wish) => sdk_path(Path::new(wish)),
    }
}

fn sdk_path(path: &Path) -> Result<String, Failure> {
    let found = path
        .canonicalize()
        .ok()
        .filter(|path| path.join("Cargo.toml").is_file());
    let text = found.as_deref().and_then(Path::to_str).map(toml_string);
    text.map(|text| format!("{{ path = {text} }}"))
        .ok_or_else(|| {
            Failure::usage("--sdk is neither a version nor a directory with a Cargo.toml")
                .place(path.display())
                .next("give the directory of guest-sdk, or a version such as 0.1.0")
        })
}

/// `0.1`, `0.1.0`, `=0.1.0-rc.1`: what Cargo takes as one requirement.
fn is_version(text: &str) -> bool {
    let digits = text.trim_start_matches(['=', '^', '~']);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))
        && !Path::new(text).is_dir()
}

fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The name as Rust spells it.
fn crate_name(name: &str) -> String {
    name.replace('-', "_")
}

fn fill(text: &str, name: &str, sdk: &str) -> String {
    text.replace("{{name}}", name)
        .replace("{{crate}}", &crate_name(name))
        .replace("{{sdk}}", sdk)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::super::templates::Template;
    use super::*;

    #[test]
    fn names_are_those_of_crates_and_services() {
        for name in ["a", "kv", "my-counter", "x_2", &"a".repeat(32)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "1a",
            "-a",
            "A",
            "a b",
            "a/b",
            "..",
            "ä",
            "fn",
            "test",
            "guest-sdk",
            &"a".repeat(33),
        ] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{name:?}")) && error.contains("next: take"),
                "{error}"
            );
        }
    }

    #[test]
    fn used_directories_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(refuse_used(folder.path()).is_ok());
        assert!(refuse_used(&folder.path().join("new")).is_ok());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refuse_used(&file).is_err());
        assert!(refuse_used(folder.path()).is_err());
    }

    #[test]
    fn the_sdk_is_a_path_or_a_version() {
        assert_eq!(sdk(Some("0.1.0")).unwrap(), "\"0.1.0\"");
        assert_eq!(sdk(Some("=1.2")).unwrap(), "\"=1.2\"");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert!(
            sdk(Some(path))
                .unwrap_err()
                .to_string()
                .contains("next: give the directory")
        );
        fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(
            sdk(Some(path)).unwrap(),
            format!("{{ path = {:?} }}", real.to_str().unwrap())
        );
    }

    #[test]
    fn every_template_gives_a_manifest_without_placeholders() {
        for template in Template::value_variants() {
            for file in template.files() {
                let text = fill(file.text, "my-guest", "\"0.1.0\"");
                assert!(!text.contains("{{"), "{}", file.path);
                if file.path == "Cargo.toml" {
                    let manifest: toml::Table = text.parse().unwrap();
                    assert_eq!(manifest["package"]["name"].as_str(), Some("my-guest"));
                    assert_eq!(
                        manifest["dependencies"]["guest-sdk"].as_str(),
                        Some("0.1.0")
                    );
                }
            }
        }
    }
    #[test]
    fn the_readme_shows_what_the_template_makes() {
        let source = Template::Counter
            .files()
            .iter()
            .find(|file| file.path == "src/lib.rs");
        let made = fill(source.unwrap().text, "hits", "\"0.1.0\"");
        let (_, code) = made.split_once("use guest_sdk").unwrap();
        assert!(include_str!("../../../README.md").contains(code));
    }
}
