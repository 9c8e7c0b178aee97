//! Compiles the prepared sources of libvfio-user and makes the bindings.
//!
//! The sources are where `scripts/setup` puts them, or in the directory that `LIBVFIO_USER_SRC` names.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The library without its pipe transport, which is for its own tests.
const C_FILES: [&str; 10] = [
    "btree.c",
    "dma.c",
    "fd_cache.c",
    "irq.c",
    "libvfio-user.c",
    "migration.c",
    "pci.c",
    "pci_caps.c",
    "tran.c",
    "tran_sock.c",
];

/// Sums of the files that `scripts/setup` takes from the QEMU tarball.
const MANIFEST: &str = "libvfio-user.sha256";

fn main() -> Result<()> {
    let source = source_dir()?;
    let json_c = pkg_config::Config::new()
        .cargo_metadata(false)
        .probe("json-c")
        .context("json-c is missing: run scripts/setup, or install libjson-c-dev")?;

    compile(&source, &json_c.include_paths);
    // After the archive that needs it: the order of static linking.
    for dir in &json_c.link_paths {
        println!("cargo::rustc-link-search=native={}", dir.display());
    }
    for library in &json_c.libs {
        println!("cargo::rustc-link-lib={library}");
    }
    bind(&source)
}

/// The directory with the patched sources.
fn source_dir() -> Result<PathBuf> {
    println!("cargo::rerun-if-env-changed=LIBVFIO_USER_SRC");
    println!("cargo::rerun-if-changed={MANIFEST}");
    println!("cargo::rerun-if-changed=patches");

    let source = match env::var_os("LIBVFIO_USER_SRC") {
        Some(dir) => PathBuf::from(dir),
        None => cache_dir()?.join(format!("libvfio-user-{}", cache_key()?)),
    };
    println!("cargo::rerun-if-changed={}", source.display());
    if !source.join("include/libvfio-user.h").is_file() {
        bail!(
            "no libvfio-user sources in {}: run scripts/setup first",
            source.display()
        );
    }
    Ok(source)
}

/// `scripts/lib/common.sh` has the same rule.
fn cache_dir() -> Result<PathBuf> {
    for name in ["PAGETRAIL_CACHE", "XDG_CACHE_HOME", "HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let var = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    var("PAGETRAIL_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("pagetrail")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/pagetrail")))
        .context("none of PAGETRAIL_CACHE, XDG_CACHE_HOME and HOME is set")
}

/// The start of the SHA-256 of the manifest and all patches in their order; `scripts/lib/libvfio-user.sh` has the same rule.
fn cache_key() -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(fs::read(MANIFEST).with_context(|| format!("cannot read {MANIFEST}"))?);
    for patch in patches()? {
        hash.update(fs::read(&patch).with_context(|| format!("cannot read {}", patch.display()))?);
    }
    let mut key = String::new();
    for byte in &hash.finalize()[..8] {
        write!(key, "{byte:02x}")?;
    }
    Ok(key)
}

fn patches() -> Result<Vec<PathBuf>> {
    let mut patches = Vec::new();
    for entry in fs::read_dir("patches").context("cannot list patches")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    Ok(patches)
}

fn compile(source: &Path, json_c_includes: &[PathBuf]) {
    let mut build = cc::Build::new();
    build
        .std("gnu99")
        .define("_GNU_SOURCE", None)
        .include(source.join("include"))
        .include(source.join("lib"))
        .includes(json_c_includes)
        .files(C_FILES.map(|file| source.join("lib").join(file)))
        // Other people's code: its warnings are theirs. It is exposed to clients, so it gets every cheap check, and its asserts
        // stay in: NDEBUG is not defined.
        .warnings(false)
        .opt_level(2)
        .define("_FORTIFY_SOURCE", "2")
        .flag_if_supported("-fstack-protector-strong");
    if Path::new("/usr/include/linux/kcmp.h").exists() {
        build.define("HAVE_LINUX_KCMP_H", None);
    }
    build.compile("vfio-user");
}

fn bind(source: &Path) -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    bindgen::Builder::default()
        .header(source.join("include/libvfio-user.h").display().to_string())
        .clang_arg("-D_GNU_SOURCE")
        .allowlist_function("vfu_.*")
        .allowlist_type("vfu_.*|vfio_.*")
        .allowlist_var("(VFU|VFIO|LIBVFIO_USER|LIB_VFIO_USER)_.*")
        .wrap_unsafe_ops(true)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false)
        .generate()
        .context("bindgen failed; it needs libclang: run scripts/setup")?
        .write_to_file(out.join("bindings.rs"))
        .context("cannot write the bindings")
}
