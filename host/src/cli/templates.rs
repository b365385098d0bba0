//! The projects that `host new` starts from, built into the binary.
//!
//! The files are in `host/templates`, one directory each, with `{{name}}`, `{{crate}}` and `{{sdk}}` where the project's
//! own go.

use clap::ValueEnum;

/// What a project starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A key-value store: SET, GET, DEL and KEYS.
    Kv,
    /// Counters, the shortest guest that keeps something.
    Counter,
    /// Answers where it runs; keeps nothing.
    Ping,
    /// One command and nothing else.
    Empty,
}

/// One file of a template.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// Where it goes in the project.
    pub(super) path: &'static str,
    /// With placeholders.
    pub(super) text: &'static str,
}

macro_rules! files {
    ($template:literal) => {
        &[
            files!($template, "Cargo.toml", "Cargo.toml"),
            // Without its dot in the repository, where it would hide what is beside it.
            files!($template, ".gitignore", "gitignore"),
            files!($template, "README.md", "README.md"),
            files!($template, "rustfmt.toml", "rustfmt.toml"),
            files!($template, "src/lib.rs", "src/lib.rs"),
            files!($template, "tests/vnode.rs", "tests/vnode.rs"),
        ]
    };
    ($template:literal, $path:literal, $source:literal) => {
        File {
            path: $path,
            text: include_str!(concat!("../../templates/", $template, "/", $source)),
        }
    };
}

impl Template {
    /// Its files.
    pub(super) fn files(self) -> &'static [File] {
        match self {
            Self::Kv => files!("kv"),
            Self::Counter => files!("counter"),
            Self::Ping => files!("ping"),
            Self::Empty => files!("empty"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_file_of_a_template_is_left_out() {
        for template in Template::value_variants() {
            let name = template.to_possible_value().unwrap().get_name().to_owned();
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("templates")
                .join(name);
            let mut on_disk = 0;
            let mut folders = vec![root.clone()];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        on_disk += 1;
                    }
                }
            }
            assert_eq!(template.files().len(), on_disk, "{}", root.display());
        }
    }

    #[test]
    fn placeholders_are_known() {
        for file in Template::value_variants()
            .iter()
            .flat_map(|template| template.files())
        {
            for rest in file.text.split("{{").skip(1) {
                let word = rest.split("}}").next().unwrap();
                assert!(
                    ["name", "crate", "sdk"].contains(&word),
                    "{}: {word}",
                    file.path
                );
            }
        }
    }
}
