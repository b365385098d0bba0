//! Finds the guests that are built into the program: `make build` puts them into target/guests.

use std::path::PathBuf;

fn main() {
    let root =
        std::env::var("CARGO_MANIFEST_DIR").map_or_else(|_| PathBuf::from("."), PathBuf::from);
    let guests = root.join("../target/guests");
    for name in ["kv", "ping", "counter"] {
        let path = guests.join(name).with_extension("wasm");
        println!("cargo::rerun-if-changed={}", path.display());
        if !path.exists() {
            println!(
                "cargo::error={} is missing; run `make guests` first (`make build` does both)",
                path.display()
            );
        }
    }
    println!("cargo::rustc-env=GUESTS={}", guests.display());
}
