//! Generates the codec: reads `schema/*.msg`, writes `messages.rs` and `api_key.rs` into `OUT_DIR`.
//!
//! Not here: the notation (`build/schema.rs`, explained in `docs/formats/schema-notation.md`) and what Rust comes out
//! of it (`build/emit.rs`). To serve another API, add its `.msg` file; nothing else lists them.

#[path = "build/emit.rs"]
mod emit;
#[path = "build/schema.rs"]
mod schema;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=schema");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let apis = schema::load("schema")?;
    fs::write(out.join("messages.rs"), emit::messages(&apis)?)?;
    fs::write(out.join("api_key.rs"), emit::api_keys(&apis))?;
    Ok(())
}
